// The model that is provisioned: a GGUF file, read tensor by tensor.
#ifndef TALARIA_CLOUD_PROVISION_SOURCE_H_
#define TALARIA_CLOUD_PROVISION_SOURCE_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "talaria/base/digest.h"
#include "talaria/base/file.h"
#include "talaria/base/result.h"
#include "talaria/model/gguf_header.h"

namespace talaria::cloud {

// Calls body(i) for i in [0, count), spread over `threads`; the calling thread works too. `body`
// must not throw.
void ParallelFor(int threads, size_t count, const std::function<void(size_t)>& body);

// Immutable after Open; any thread may read.
class SourceModel {
 public:
  // kNotFound, kCorrupt, kUnsupported (one part of a split model).
  static Result<SourceModel> Open(const std::string& path);

  const model::GgufHeader& header() const { return header_; }
  const std::vector<uint8_t>& head() const {
    return head_;
  }  // the file's bytes up to the tensor data
  const std::string& path() const { return path_; }
  uint64_t bytes() const { return bytes_; }  // of the file
  // Raw bytes of a tensor.
  Status Read(const model::GgufTensor& tensor, uint64_t offset, MutableBytes out) const;
  // SHA-256 of the whole file. `on_bytes` returns false to stop: kCancelled.
  Result<Digest> FileDigest(const std::function<bool(uint64_t)>& on_bytes) const;
  // kCorrupt if the file changed since Open.
  Status CheckUnchanged() const;

 private:
  std::string path_;
  Fd file_;
  model::GgufHeader header_;
  std::vector<uint8_t> head_;
  uint64_t bytes_ = 0;
  int64_t modified_ns_ = 0;
};

// Whether ggml can turn rows of this type into floats.
bool CanDequantise(uint32_t type);
uint64_t RowBytes(const model::GgufTensor& tensor);
// One row of tensor.shape[0] values.
void DequantiseRow(uint32_t type, Bytes raw, std::span<float> out);

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_PROVISION_SOURCE_H_
