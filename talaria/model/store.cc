#include "talaria/model/store.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "talaria/model/store_layout.h"
#include "talaria/ring/layout.h"

namespace talaria::model {
namespace {

constexpr size_t kChunkBytes = size_t{4} << 20;

Result<Fd> OpenExact(const std::string& directory, const char* file, uint64_t bytes) {
  const std::string path = directory + "/" + file;
  auto fd = OpenForReading(path);
  if (!fd.ok()) {
    // The manifest is there, so a missing companion is damage, not absence.
    return Status(fd.status().code() == Code::kNotFound ? Code::kCorrupt : fd.status().code(),
                  fd.status().message());
  }
  TALARIA_ASSIGN_OR_RETURN(const uint64_t size, FileSize(*fd));
  if (size != bytes) {
    return Status(Code::kCorrupt, path + " has " + std::to_string(size) +
                                      " bytes, the manifest says " + std::to_string(bytes));
  }
  return fd;
}

// kCorrupt when a byte of [offset, offset + bytes) is not zero. Skips what the file system knows to
// be a hole.
Status CheckZeros(const Fd& fd, uint64_t offset, uint64_t bytes, std::vector<uint8_t>& buffer) {
  const uint64_t end = offset + bytes;
  while (offset < end) {
    const off_t data = lseek(fd.get(), static_cast<off_t>(offset), SEEK_DATA);
    if (data < 0 && errno == ENXIO)
      return OkStatus();  // nothing but holes up to the end of the file
    if (data > static_cast<off_t>(offset)) {
      offset = static_cast<uint64_t>(data);
      continue;
    }
    const MutableBytes part(buffer.data(), std::min<uint64_t>(buffer.size(), end - offset));
    TALARIA_RETURN_IF_ERROR(ReadAt(fd, offset, part));
    if (std::any_of(part.begin(), part.end(), [](uint8_t b) { return b != 0; })) {
      return Status(Code::kCorrupt, "a hole is not empty");
    }
    offset += part.size();
  }
  return OkStatus();
}

}  // namespace

struct Store::Impl {
  std::string directory;
  std::string manifest_text;
  Manifest manifest;
  Digest identity{};
  StoreLayout layout;
  std::vector<MatrixRef> matrices;  // into `manifest`
  Fd skeleton, weights, scales, hints;

  Status ReadSkeleton(uint64_t offset, MutableBytes out) const {
    auto extent = std::upper_bound(layout.skeleton.begin(), layout.skeleton.end(), offset,
                                   [](uint64_t o, const Extent& e) { return o < e.stream_offset; });
    for (; !out.empty(); ++extent) {
      const Extent& e = extent[-1];
      const uint64_t skip = offset - e.stream_offset;
      const MutableBytes part = out.first(std::min<uint64_t>(out.size(), e.bytes - skip));
      TALARIA_RETURN_IF_ERROR(ReadAt(skeleton, e.file_offset + skip, part));
      out = out.subspan(part.size());
      offset += part.size();
    }
    return OkStatus();
  }
};

Store::Store() : impl_(std::make_unique<Impl>()) {}
Store::Store(Store&&) noexcept = default;
Store& Store::operator=(Store&&) noexcept = default;
Store::~Store() = default;

Result<Store> Store::Open(const std::string& directory) {
  Store store;
  Impl& impl = *store.impl_;
  impl.directory = directory;
  auto text = ReadFile(directory + "/" + kManifestFile, kMaxManifestBytes);
  if (!text.ok() && text.status().code() == Code::kNotFound) {
    return Status(Code::kNotFound, directory + " is not a store: it has no " + kManifestFile +
                                       " (make one with `talaria-cloud provision`)");
  }
  if (!text.ok()) return text.status();
  impl.manifest_text.assign(text->begin(), text->end());
  auto manifest = DecodeManifest(impl.manifest_text);
  if (!manifest.ok()) return manifest.status().Annotate(directory);
  impl.manifest = std::move(*manifest);
  impl.identity = ModelIdentity(impl.manifest_text);
  impl.layout = LayoutOf(impl.manifest);
  impl.matrices = AllMatrices(impl.manifest);
  TALARIA_ASSIGN_OR_RETURN(impl.skeleton,
                           OpenExact(directory, kSkeletonFile, impl.manifest.skeleton_bytes));
  TALARIA_ASSIGN_OR_RETURN(impl.weights,
                           OpenExact(directory, kWeightsFile, impl.layout.weights_bytes));
  TALARIA_ASSIGN_OR_RETURN(impl.scales,
                           OpenExact(directory, kScalesFile, impl.layout.scales_bytes));
  TALARIA_ASSIGN_OR_RETURN(impl.hints, OpenExact(directory, kHintsFile, impl.layout.hints_bytes));
  return store;
}

const Manifest& Store::manifest() const { return impl_->manifest; }
const std::string& Store::manifest_text() const { return impl_->manifest_text; }
const Digest& Store::identity() const { return impl_->identity; }
const std::string& Store::directory() const { return impl_->directory; }

Result<uint64_t> Store::StreamBytes(StreamId id) const {
  const bool per_matrix = id.kind != StreamKind::kManifest && id.kind != StreamKind::kSkeleton;
  if (per_matrix ? id.matrix >= impl_->matrices.size() : id.matrix != 0)
    return Status(Code::kInvalidArgument, "no such stream");
  const uint64_t d = per_matrix ? impl_->matrices[id.matrix].group->d : 0;
  const uint64_t o = per_matrix ? impl_->matrices[id.matrix].matrix->o : 0;
  switch (id.kind) {
    case StreamKind::kManifest:
      return uint64_t{impl_->manifest_text.size()};
    case StreamKind::kSkeleton:
      return impl_->layout.skeleton_data_bytes;
    case StreamKind::kScales:
      return o * sizeof(float);
    case StreamKind::kWeights:
      return d * o;
    case StreamKind::kHints:
      return uint64_t{ring::ModuleMatrixBytes(o)};
  }
  return Status(Code::kInvalidArgument, "no such stream");
}

Status Store::ReadStream(StreamId id, uint64_t offset, MutableBytes out) const {
  TALARIA_ASSIGN_OR_RETURN(const uint64_t size, StreamBytes(id));
  if (offset > size || out.size() > size - offset)
    return Status(Code::kInvalidArgument, "outside the stream");
  const StoreLayout& layout = impl_->layout;
  const auto read = [&](const Fd& fd, const char* file, uint64_t start) {
    return ReadAt(fd, start + offset, out).Annotate(impl_->directory + "/" + file);
  };
  switch (id.kind) {
    case StreamKind::kManifest:
      std::memcpy(out.data(), impl_->manifest_text.data() + offset, out.size());
      return OkStatus();
    case StreamKind::kSkeleton:
      return impl_->ReadSkeleton(offset, out).Annotate(impl_->directory + "/" + kSkeletonFile);
    case StreamKind::kScales:
      return read(impl_->scales, kScalesFile, layout.scales[id.matrix]);
    case StreamKind::kWeights:
      return read(impl_->weights, kWeightsFile, layout.weights[id.matrix]);
    case StreamKind::kHints:
      return read(impl_->hints, kHintsFile, layout.hints[id.matrix]);
  }
  return Status(Code::kInvalidArgument, "no such stream");
}

uint64_t Store::TotalBytes() const {
  const StoreLayout& layout = impl_->layout;
  return layout.skeleton_data_bytes + layout.weights_bytes + layout.scales_bytes +
         layout.hints_bytes;
}

Status Store::VerifyDigests(const std::function<void(uint64_t)>& on_progress) const {
  std::vector<uint8_t> buffer(kChunkBytes);
  const auto progress = [&](uint64_t bytes) {
    if (on_progress) on_progress(bytes);
  };
  const auto where = [&](const char* file) { return impl_->directory + "/" + file; };
  // `inspect` sees every chunk; false ends with kCorrupt.
  const auto check = [&](StreamId id, const Digest& expected, const std::string& what,
                         auto&& inspect) -> Status {
    TALARIA_ASSIGN_OR_RETURN(const uint64_t size, StreamBytes(id));
    Sha256 hash;
    for (uint64_t at = 0; at < size;) {
      const MutableBytes part(buffer.data(), std::min<uint64_t>(buffer.size(), size - at));
      TALARIA_RETURN_IF_ERROR(ReadStream(id, at, part));
      if (!inspect(Bytes(part))) return Status(Code::kCorrupt, what + " has values out of range");
      hash.Update(part);
      at += part.size();
      progress(part.size());
    }
    return hash.Finish() == expected
               ? OkStatus()
               : Status(Code::kCorrupt, what + " does not have the digest in the manifest");
  };
  const auto any = [](Bytes) { return true; };
  const auto no_minimum = [](Bytes bytes) {
    return std::find(bytes.begin(), bytes.end(), 0x80) == bytes.end();
  };
  const auto positive = [](Bytes bytes) {  // chunks are multiples of four
    for (size_t i = 0; i < bytes.size(); i += sizeof(float)) {
      const float scale = LoadLe<float>(bytes.data() + i);
      if (!std::isnormal(scale) || scale < 0) return false;
    }
    return true;
  };

  TALARIA_RETURN_IF_ERROR(
      check({StreamKind::kSkeleton, 0}, impl_->manifest.skeleton, where(kSkeletonFile), any));
  for (const Hole& hole : impl_->manifest.holes) {
    if (Status s = CheckZeros(impl_->skeleton, hole.offset, hole.bytes, buffer); !s.ok())
      return s.Annotate(where(kSkeletonFile));
  }
  std::vector<uint8_t> header(impl_->layout.weights_header.size());
  if (Status s = ReadAt(impl_->weights, 0, header); !s.ok()) return s.Annotate(where(kWeightsFile));
  if (header != impl_->layout.weights_header)
    return Status(Code::kCorrupt, where(kWeightsFile) + ": the head does not fit the manifest");
  progress(header.size());
  for (uint32_t i = 0; i < impl_->matrices.size(); ++i) {
    const Matrix& w = *impl_->matrices[i].matrix;
    TALARIA_RETURN_IF_ERROR(check({StreamKind::kWeights, i}, w.weights,
                                  where(kWeightsFile) + ": " + w.name, no_minimum));
    TALARIA_RETURN_IF_ERROR(
        check({StreamKind::kScales, i}, w.scales, where(kScalesFile) + ": " + w.name, positive));
    TALARIA_RETURN_IF_ERROR(
        check({StreamKind::kHints, i}, w.hints, where(kHintsFile) + ": " + w.name, any));
  }
  return OkStatus();
}

}  // namespace talaria::model
