#include "talaria/cloud/provision_source.h"

#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "ggml.h"

namespace talaria::cloud {
namespace {

constexpr size_t kChunkBytes = size_t{4} << 20;

int64_t ModifiedNs(const Fd& fd) {
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return -1;
  return static_cast<int64_t>(info.st_mtim.tv_sec) * 1'000'000'000 + info.st_mtim.tv_nsec;
}

}  // namespace

void ParallelFor(int threads, size_t count, const std::function<void(size_t)>& body) {
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < count; i = next++) body(i);
  };
  std::vector<std::thread> helpers;
  const size_t wanted = std::min(count, static_cast<size_t>(std::max(threads, 1)));
  for (size_t i = 1; i < wanted; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
}

Result<SourceModel> SourceModel::Open(const std::string& path) {
  SourceModel source;
  source.path_ = path;
  TALARIA_ASSIGN_OR_RETURN(source.file_, OpenForReading(path));
  TALARIA_ASSIGN_OR_RETURN(source.bytes_, FileSize(source.file_));
  source.modified_ns_ = ModifiedNs(source.file_);
  TALARIA_ASSIGN_OR_RETURN(source.header_, model::ReadGgufHeader(path, &source.head_));
  if (source.header_.split_count > 1) {
    return Status(Code::kUnsupported,
                  path + " is one of " + std::to_string(source.header_.split_count) +
                      " parts; merge them first with `llama-gguf-split --merge`");
  }
  return source;
}

Status SourceModel::Read(const model::GgufTensor& tensor, uint64_t offset, MutableBytes out) const {
  TALARIA_CHECK(offset <= tensor.bytes && out.size() <= tensor.bytes - offset);
  return ReadAt(file_, header_.data_offset + tensor.offset + offset, out)
      .Annotate(path_ + ": " + tensor.name);
}

Result<Digest> SourceModel::FileDigest(const std::function<bool(uint64_t)>& on_bytes) const {
  Sha256 hash;
  std::vector<uint8_t> buffer(kChunkBytes);
  for (uint64_t at = 0; at < bytes_;) {
    const MutableBytes part(buffer.data(), std::min<uint64_t>(buffer.size(), bytes_ - at));
    if (Status s = ReadAt(file_, at, part); !s.ok()) return s.Annotate(path_);
    hash.Update(part);
    at += part.size();
    if (!on_bytes(part.size())) return Status(Code::kCancelled, "stopped");
  }
  return hash.Finish();
}

Status SourceModel::CheckUnchanged() const {
  const auto size = FileSize(file_);
  if (!size.ok() || *size != bytes_ || ModifiedNs(file_) != modified_ns_)
    return Status(Code::kCorrupt, path_ + " changed while it was read");
  return OkStatus();
}

bool CanDequantise(uint32_t type) {
  return type == GGML_TYPE_F32 ||
         (type < GGML_TYPE_COUNT &&
          ggml_get_type_traits(static_cast<ggml_type>(type))->to_float != nullptr);
}

uint64_t RowBytes(const model::GgufTensor& tensor) {
  return tensor.bytes / (tensor.shape[1] * tensor.shape[2] * tensor.shape[3]);
}

void DequantiseRow(uint32_t type, Bytes raw, std::span<float> out) {
  if (type == GGML_TYPE_F32) {
    std::memcpy(out.data(), raw.data(), out.size_bytes());
  } else {
    ggml_get_type_traits(static_cast<ggml_type>(type))
        ->to_float(raw.data(), out.data(), static_cast<int64_t>(out.size()));
  }
}

}  // namespace talaria::cloud
