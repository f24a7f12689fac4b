#include "talaria/model/store_writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

namespace talaria::model {
namespace {

constexpr const char* kFiles[] = {kManifestFile, kSkeletonFile, kWeightsFile, kScalesFile,
                                  kHintsFile};
constexpr std::string_view kPartial = ".partial-";

std::string WithoutTrailingSlash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

Status Failure(const std::string& path) {
  const int e = errno;
  const Code code = e == ENOSPC || e == EDQUOT ? Code::kResourceExhausted
                    : e == ENOENT              ? Code::kNotFound
                                               : Code::kIo;
  return Status(code, path + ": " + std::strerror(e));
}

// Only files that a writer makes, then the folder, which stays if anything else lies in it.
void RemovePartial(const std::string& path) {
  for (const char* file : kFiles) unlink((path + "/" + file).c_str());
  rmdir(path.c_str());
}

Result<Fd> LockFolder(const std::string& path) {
  Fd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return Failure(path);
  return fd;
}

std::vector<std::string> RemoveLeftOvers(const std::string& target) {
  std::vector<std::string> removed;
  const std::string prefix =
      std::filesystem::path(target).filename().string() + std::string(kPartial);
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(StoreParent(target), error)) {
    const std::string name = entry.path().filename().string();
    const bool ours = name.starts_with(prefix) && name.size() > prefix.size() &&
                      name.find_first_not_of("0123456789", prefix.size()) == std::string::npos;
    // A living writer holds the lock.
    if (!ours || !entry.is_directory(error) || entry.is_symlink(error) ||
        !LockFolder(entry.path().string()).ok())
      continue;
    RemovePartial(entry.path().string());
    removed.push_back(entry.path().string());
  }
  return removed;
}

// `reserve`: take the disk space now, where the file system can; otherwise the file is sparse.
Result<Fd> MakeFile(const std::string& path, uint64_t bytes, bool reserve) {
  TALARIA_ASSIGN_OR_RETURN(Fd fd, CreateFile(path));
  const off_t size = static_cast<off_t>(bytes);
  if (reserve && size > 0 && fallocate(fd.get(), 0, 0, size) != 0 && errno != EOPNOTSUPP &&
      errno != ENOSYS) {
    const Code code =
        errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? Code::kResourceExhausted : Code::kIo;
    return Status(code, path + ": " + std::to_string(bytes) + " bytes: " + std::strerror(errno));
  }
  if (ftruncate(fd.get(), size) != 0) {
    return Status(errno == EFBIG ? Code::kResourceExhausted : Code::kIo,
                  path + ": " + std::strerror(errno));
  }
  return fd;
}

}  // namespace

std::string StoreParent(const std::string& target) {
  const std::string parent =
      std::filesystem::path(WithoutTrailingSlash(target)).parent_path().string();
  return parent.empty() ? "." : parent;
}

Status CheckStoreTarget(const std::string& target) {
  if (WithoutTrailingSlash(target).empty())
    return Status(Code::kInvalidArgument, "the store has no name");
  struct stat info {};
  if (lstat(WithoutTrailingSlash(target).c_str(), &info) == 0) {
    return Status(Code::kInvalidArgument, target + " exists; remove it or choose another name");
  }
  const std::string parent = StoreParent(target);
  if (stat(parent.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return Status(Code::kNotFound, parent + " is not a folder; create it first");
  }
  if (access(parent.c_str(), W_OK | X_OK) != 0)
    return Status(Code::kIo, parent + " is not writable");
  return OkStatus();
}

Result<StoreWriter> StoreWriter::Create(const std::string& target, const Manifest& plan) {
  TALARIA_RETURN_IF_ERROR(CheckStoreTarget(target));
  TALARIA_RETURN_IF_ERROR(ValidateManifest(plan));
  StoreWriter writer;
  writer.target_ = WithoutTrailingSlash(target);
  writer.removed_ = RemoveLeftOvers(writer.target_);
  writer.layout_ = LayoutOf(plan);
  const std::string partial = writer.target_ + std::string(kPartial) + std::to_string(getpid());
  if (mkdir(partial.c_str(), 0755) != 0) return Failure(partial);
  writer.partial_ = partial;  // from here on the destructor removes it
  TALARIA_RETURN_IF_ERROR(writer.Open(plan));
  return writer;
}

Status StoreWriter::Open(const Manifest& plan) {
  const auto path = [&](const char* file) { return partial_ + "/" + file; };
  TALARIA_ASSIGN_OR_RETURN(lock_, LockFolder(partial_));
  TALARIA_ASSIGN_OR_RETURN(hints_, MakeFile(path(kHintsFile), layout_.hints_bytes, true));
  TALARIA_ASSIGN_OR_RETURN(weights_, MakeFile(path(kWeightsFile), layout_.weights_bytes, true));
  TALARIA_ASSIGN_OR_RETURN(scales_, MakeFile(path(kScalesFile), layout_.scales_bytes, true));
  TALARIA_ASSIGN_OR_RETURN(skeleton_, MakeFile(path(kSkeletonFile), plan.skeleton_bytes, false));
  return Put(weights_, kWeightsFile, 0, layout_.weights_header);
}

StoreWriter::StoreWriter(StoreWriter&& other) noexcept
    : target_(std::move(other.target_)),
      partial_(std::exchange(other.partial_, {})),
      lock_(std::move(other.lock_)),
      skeleton_(std::move(other.skeleton_)),
      weights_(std::move(other.weights_)),
      scales_(std::move(other.scales_)),
      hints_(std::move(other.hints_)),
      layout_(std::move(other.layout_)),
      removed_(std::move(other.removed_)) {}

StoreWriter::~StoreWriter() { Abandon(); }

void StoreWriter::Abandon() {
  if (!partial_.empty()) RemovePartial(std::exchange(partial_, {}));
}

Status StoreWriter::Put(const Fd& fd, const char* file, uint64_t offset, Bytes data) {
  return WriteAt(fd, offset, data).Annotate(partial_ + "/" + file);
}

Status StoreWriter::WriteWeights(size_t i, uint64_t offset, Bytes data) {
  return Put(weights_, kWeightsFile, layout_.weights[i] + offset, data);
}
Status StoreWriter::WriteScales(size_t i, uint64_t offset, Bytes data) {
  return Put(scales_, kScalesFile, layout_.scales[i] + offset, data);
}
Status StoreWriter::WriteHints(size_t i, uint64_t offset, Bytes data) {
  return Put(hints_, kHintsFile, layout_.hints[i] + offset, data);
}
Status StoreWriter::WriteSkeleton(uint64_t file_offset, Bytes data) {
  return Put(skeleton_, kSkeletonFile, file_offset, data);
}

Status StoreWriter::ReadWeights(size_t i, uint64_t offset, MutableBytes out) const {
  return ReadAt(weights_, layout_.weights[i] + offset, out).Annotate(partial_ + "/" + kWeightsFile);
}

Result<Digest> StoreWriter::Finish(const Manifest& manifest) {
  TALARIA_CHECK(!partial_.empty());
  TALARIA_RETURN_IF_ERROR(ValidateManifest(manifest));
  TALARIA_CHECK(LayoutOf(manifest).weights_header == layout_.weights_header);
  const std::string text = EncodeManifest(manifest);
  if (text.size() > kMaxManifestBytes)
    return Status(Code::kUnsupported, "the manifest would be larger than its bound");
  for (const Fd* fd : {&skeleton_, &weights_, &scales_, &hints_}) {
    if (Status s = Sync(*fd); !s.ok()) return s.Annotate(partial_);
  }
  TALARIA_ASSIGN_OR_RETURN(const Fd out, CreateFile(partial_ + "/" + kManifestFile));
  TALARIA_RETURN_IF_ERROR(Put(out, kManifestFile, 0, AsBytes(text)));
  if (Status s = Sync(out); !s.ok()) return s.Annotate(partial_);
  TALARIA_RETURN_IF_ERROR(SyncDirectory(partial_));
  if (renameat2(AT_FDCWD, partial_.c_str(), AT_FDCWD, target_.c_str(), RENAME_NOREPLACE) != 0) {
    if (errno != EINVAL && errno != ENOSYS) return Failure(target_);
    // A file system without RENAME_NOREPLACE: rename replaces at most an empty folder.
    if (rename(partial_.c_str(), target_.c_str()) != 0) return Failure(target_);
  }
  partial_.clear();
  TALARIA_RETURN_IF_ERROR(SyncDirectory(StoreParent(target_)));
  return ModelIdentity(text);
}

}  // namespace talaria::model
