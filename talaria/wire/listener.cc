#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>

#include "talaria/wire/socket_address.h"
#include "talaria/wire/transport.h"

namespace talaria::wire {
namespace {

constexpr int kBacklog = 128;

class SocketListener final : public Listener {
 public:
  SocketListener(Fd socket, Fd wake, std::string address)
      : socket_(std::move(socket)), wake_(std::move(wake)), address_(std::move(address)) {}

  ~SocketListener() override {
    // Somebody may have put another socket there in the meantime: only our own file is removed.
    struct stat info {};
    if (!path_.empty() && lstat(path_.c_str(), &info) == 0 && info.st_dev == device_ &&
        info.st_ino == inode_) {
      (void)unlink(path_.c_str());
    }
  }

  Result<std::unique_ptr<Transport>> Accept() override {
    for (;;) {
      pollfd entries[2] = {{.fd = socket_.get(), .events = POLLIN, .revents = 0},
                           {.fd = wake_.get(), .events = POLLIN, .revents = 0}};
      const int n = poll(entries, 2, -1);
      if (shutdown_.load(std::memory_order_acquire))
        return Status(Code::kCancelled, "the listener was shut down");
      if (n < 0 && errno != EINTR) return FromErrno(Code::kIo, "poll", errno);
      if (n <= 0) continue;
      Fd fd(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (fd.valid()) return TransportFromSocket(std::move(fd));
      switch (const int error = errno; error) {
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
          return FromErrno(Code::kResourceExhausted, "accept", error);
        case EBADF:
        case EINVAL:
        case ENOTSOCK:
        case EOPNOTSUPP:
          return FromErrno(Code::kIo, "accept", error);
        default:
          continue;  // the one connection failed (EAGAIN, ECONNABORTED, network errors), not the
                     // listener
      }
    }
  }

  void Shutdown() override {
    shutdown_.store(true, std::memory_order_release);
    (void)shutdown(
        socket_.get(),
        SHUT_RDWR);  // from now on connecting is refused, though the file may still be there
    const uint64_t one = 1;
    (void)!write(wake_.get(), &one, sizeof(one));
  }

  std::string address() const override { return address_; }

  int socket() const { return socket_.get(); }
  void OwnFile(std::string path, const struct stat& info) {
    path_ = std::move(path);
    device_ = info.st_dev;
    inode_ = info.st_ino;
  }

 private:
  Fd socket_, wake_;
  std::string address_;
  std::string path_;  // of the Unix socket that we created, else empty
  dev_t device_ = 0;
  ino_t inode_ = 0;
  std::atomic<bool> shutdown_{false};
};

// Removes the file of a socket that nobody listens on; anything else at that path is an error.
Status RemoveStale(const std::string& path, const SocketAddress& address) {
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0)
    return errno == ENOENT ? OkStatus() : FromErrno(Code::kIo, path, errno);
  if (!S_ISSOCK(info.st_mode)) return Status(Code::kIo, path + ": exists and is not a socket");
  const Fd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe.valid()) return FromErrno(Code::kIo, "socket", errno);
  // A full queue (EAGAIN) means a living listener, too.
  if (connect(probe.get(), address.get(), address.size) == 0 || errno == EAGAIN) {
    return Status(Code::kIo, path + ": in use");
  }
  if (errno != ECONNREFUSED) return FromErrno(Code::kIo, path, errno);
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return FromErrno(Code::kIo, path, errno);
  return OkStatus();
}

}  // namespace

Result<std::unique_ptr<Listener>> Listener::Create(const Endpoint& endpoint) {
  TALARIA_ASSIGN_OR_RETURN(const std::vector<SocketAddress> addresses, Resolve(endpoint));
  const SocketAddress& address = addresses.front();
  const bool is_unix = endpoint.kind == Endpoint::Kind::kUnix;
  // Non-blocking, so that a connection that vanishes between poll() and accept() does not block
  // Accept().
  Fd fd(socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  Fd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd.valid() || !wake.valid()) return FromErrno(Code::kIo, "socket", errno);
  if (!is_unix) {
    const int one = 1;
    (void)setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  }
  int bound = bind(fd.get(), address.get(), address.size);
  if (bound != 0 && errno == EADDRINUSE && is_unix) {
    TALARIA_RETURN_IF_ERROR(RemoveStale(endpoint.path, address));
    bound = bind(fd.get(), address.get(), address.size);
  }
  if (bound != 0) {
    const int error = errno;
    return error == EADDRINUSE ? Status(Code::kIo, endpoint.ToString() + ": in use")
                               : FromErrno(Code::kIo, endpoint.ToString(), error);
  }
  std::string text = endpoint.ToString();
  struct stat info {};
  if (is_unix) {
    // Nobody can connect before listen(), so the wider mode that bind() may have set was of no use
    // to anybody.
    if (chmod(endpoint.path.c_str(), 0600) != 0 || lstat(endpoint.path.c_str(), &info) != 0) {
      return FromErrno(Code::kIo, endpoint.path, errno);
    }
  } else {
    TALARIA_ASSIGN_OR_RETURN(text, LocalAddress(fd));
  }
  auto out = std::make_unique<SocketListener>(std::move(fd), std::move(wake), std::move(text));
  if (is_unix) out->OwnFile(endpoint.path, info);
  if (listen(out->socket(), kBacklog) != 0) return FromErrno(Code::kIo, endpoint.ToString(), errno);
  return std::unique_ptr<Listener>(std::move(out));
}

}  // namespace talaria::wire
