// Writes a store aside, as TARGET.partial-PID, and renames it at the end, so that a crash, a full
// disk or a signal leaves no half store. The folder is locked while its writer lives; a folder that
// nobody locks is left over and is removed by the next writer of the same target.
#ifndef TALARIA_MODEL_STORE_WRITER_H_
#define TALARIA_MODEL_STORE_WRITER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/file.h"
#include "talaria/base/result.h"
#include "talaria/model/manifest.h"
#include "talaria/model/store_layout.h"

namespace talaria::model {

// Move-only; one thread at a time.
class StoreWriter {
 public:
  // `plan` is the manifest but for its digests. Reserves the disk space. kInvalidArgument: the
  // target exists, or the plan does not validate. kNotFound: no parent folder. kResourceExhausted:
  // disk full.
  static Result<StoreWriter> Create(const std::string& target, const Manifest& plan);
  ~StoreWriter();  // removes everything unless Finish succeeded
  StoreWriter(StoreWriter&& other) noexcept;
  StoreWriter& operator=(StoreWriter&&) = delete;

  const StoreLayout& layout() const { return layout_; }
  const std::vector<std::string>& removed() const {
    return removed_;
  }  // left-over folders of dead writers

  // Bytes of matrix `i` (in the manifest's order), or of the file, at `offset`. kResourceExhausted,
  // kIo.
  Status WriteWeights(size_t i, uint64_t offset, Bytes data);
  Status WriteScales(size_t i, uint64_t offset, Bytes data);
  Status WriteHints(size_t i, uint64_t offset, Bytes data);
  Status WriteSkeleton(uint64_t file_offset, Bytes data);
  // Weights that were written before.
  Status ReadWeights(size_t i, uint64_t offset, MutableBytes out) const;

  // Syncs everything, writes the manifest last, renames. `manifest` must have the plan's layout.
  // Returns the identity. Once.
  Result<Digest> Finish(const Manifest& manifest);

 private:
  StoreWriter() = default;
  Status Open(const Manifest& plan);
  Status Put(const Fd& fd, const char* file, uint64_t offset, Bytes data);
  void Abandon();

  std::string target_, partial_;  // partial_ is empty when there is nothing to remove
  Fd lock_;                       // the folder
  Fd skeleton_, weights_, scales_, hints_;
  StoreLayout layout_;
  std::vector<std::string> removed_;
};

// What Create checks first, for callers that want to fail before long work: kInvalidArgument,
// kNotFound.
Status CheckStoreTarget(const std::string& target);
// The folder that the target's bytes will lie in, for a look at the free space.
std::string StoreParent(const std::string& target);

}  // namespace talaria::model

#endif  // TALARIA_MODEL_STORE_WRITER_H_
