// Files: owned descriptors, exact reads and writes, and writing aside so that a crash leaves no
// half file.
#ifndef TALARIA_BASE_FILE_H_
#define TALARIA_BASE_FILE_H_

#include <string>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/result.h"

namespace talaria {

// An owned file descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() { Close(); }
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      Close();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void Close();

 private:
  int fd_ = -1;
};

// kNotFound, kIo.
Result<Fd> OpenForReading(const std::string& path);
// kIo, kResourceExhausted (disk full).
Result<Fd> CreateFile(const std::string& path);  // fails if it exists
Result<uint64_t> FileSize(const Fd& fd);
// Exactly out.size() bytes from `offset`; kCorrupt when the file ends before.
Status ReadAt(const Fd& fd, uint64_t offset, MutableBytes out);
// kResourceExhausted on a full disk, with the path in the caller's annotation.
Status WriteAt(const Fd& fd, uint64_t offset, Bytes data);
Status Sync(const Fd& fd);
Status SyncDirectory(const std::string& path);
// kResourceExhausted when the file is larger than `max_bytes`.
Result<std::vector<uint8_t>> ReadFile(const std::string& path, uint64_t max_bytes);

}  // namespace talaria

#endif  // TALARIA_BASE_FILE_H_
