// A provisioned model on disk (doc/store.md): manifest.json, skeleton.gguf (sparse), weights.gguf,
// scales.bin, hints.bin. The manifest is written last, so a folder without one is not a store.
#ifndef TALARIA_MODEL_STORE_H_
#define TALARIA_MODEL_STORE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/file.h"
#include "talaria/base/result.h"
#include "talaria/model/manifest.h"
#include "talaria/model/stream.h"

namespace talaria::model {

// Read-only view of a store. Immutable after Open; any thread may read.
class Store {
 public:
  // kNotFound (no manifest), kCorrupt (sizes or manifest do not fit), kUnsupported. Does not read
  // the big files.
  static Result<Store> Open(const std::string& directory);
  Store(Store&&) noexcept;
  Store& operator=(Store&&) noexcept;
  ~Store();

  const Manifest& manifest() const;
  const std::string& manifest_text() const;
  const Digest& identity() const;
  const std::string& directory() const;

  // kInvalidArgument when there is no such stream.
  Result<uint64_t> StreamBytes(StreamId id) const;
  // Exactly out.size() bytes from `offset`. kInvalidArgument out of range, kCorrupt, kIo.
  Status ReadStream(StreamId id, uint64_t offset, MutableBytes out) const;

  // Reads everything and compares every digest. `on_progress(bytes)` may be null. kCorrupt names
  // the file and matrix.
  Status VerifyDigests(const std::function<void(uint64_t)>& on_progress) const;
  uint64_t TotalBytes() const;  // what VerifyDigests reads

 private:
  Store();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace talaria::model

#endif  // TALARIA_MODEL_STORE_H_
