#include "talaria/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace talaria {
namespace {

Status FromErrno(std::string_view what) {
  const int e = errno;
  const Code code = e == ENOENT                                ? Code::kNotFound
                    : e == ENOSPC || e == EDQUOT || e == EFBIG ? Code::kResourceExhausted
                                                               : Code::kIo;
  return Status(code, std::string(what) + ": " + std::strerror(e));
}

}  // namespace

void Fd::Close() {
  if (fd_ >= 0) close(std::exchange(fd_, -1));
}

Result<Fd> OpenForReading(const std::string& path) {
  Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return FromErrno(path);
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return FromErrno(path);
  if (!S_ISREG(info.st_mode))
    return Status(Code::kInvalidArgument, path + " is not a regular file");
  return fd;
}

Result<Fd> CreateFile(const std::string& path) {
  Fd fd(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd.valid()) return FromErrno(path);
  return fd;
}

Result<uint64_t> FileSize(const Fd& fd) {
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return FromErrno("fstat");
  return static_cast<uint64_t>(info.st_size);
}

Status ReadAt(const Fd& fd, uint64_t offset, MutableBytes out) {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n =
        pread(fd.get(), out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FromErrno("read");
    if (n == 0) return Status(Code::kCorrupt, "the file ends early");
    done += static_cast<size_t>(n);
  }
  return OkStatus();
}

Status WriteAt(const Fd& fd, uint64_t offset, Bytes data) {
  size_t done = 0;
  while (done < data.size()) {
    const ssize_t n =
        pwrite(fd.get(), data.data() + done, data.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FromErrno("write");
    done += static_cast<size_t>(n);
  }
  return OkStatus();
}

Status Sync(const Fd& fd) { return fsync(fd.get()) == 0 ? OkStatus() : FromErrno("fsync"); }

Status SyncDirectory(const std::string& path) {
  Fd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return FromErrno(path);
  return Sync(fd);
}

Result<std::vector<uint8_t>> ReadFile(const std::string& path, uint64_t max_bytes) {
  TALARIA_ASSIGN_OR_RETURN(Fd fd, OpenForReading(path));
  TALARIA_ASSIGN_OR_RETURN(const uint64_t size, FileSize(fd));
  if (size > max_bytes)
    return Status(Code::kResourceExhausted,
                  path + " is larger than " + std::to_string(max_bytes) + " bytes");
  std::vector<uint8_t> data(size);
  if (Status s = ReadAt(fd, 0, data); !s.ok()) return s.Annotate(path);
  return data;
}

}  // namespace talaria
