// Transport over a connected stream socket, and Connect().
//
// Receiving blocks in recv() with the kernel's own time-out (SO_RCVTIMEO, set only when the value
// changes): a request that is waited for then costs one system call, where poll() and recv() would
// cost two. Sending tries first, because a socket's buffer almost always has room, and polls only
// when it has not.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <thread>

#include "talaria/wire/socket_address.h"
#include "talaria/wire/transport.h"

namespace talaria::wire {
namespace {

using Clock = std::chrono::steady_clock;

// Milliseconds of `timeout_ms` that are left since `start`, at least 0. 0 stays "no time-out" and
// is never passed here.
int Left(Clock::time_point start, int timeout_ms) {
  const auto spent =
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start).count();
  return spent >= timeout_ms ? 0 : timeout_ms - static_cast<int>(spent);
}

// Waits until `fd` is ready for `events` or has failed; false on time-out. timeout_ms 0 = none.
bool WaitFor(int fd, short events, int timeout_ms) {
  const Clock::time_point start = Clock::now();
  for (;;) {
    pollfd entry{.fd = fd, .events = events, .revents = 0};
    const int n = poll(&entry, 1, timeout_ms == 0 ? -1 : Left(start, timeout_ms));
    if (n > 0) return true;
    if (n == 0) return false;
    if (errno != EINTR) return true;  // the next call on the socket reports what is wrong
    if (timeout_ms != 0 && Left(start, timeout_ms) == 0) return false;
  }
}

class SocketTransport final : public Transport {
 public:
  explicit SocketTransport(Fd socket) : socket_(std::move(socket)) {
    SetSocketOptions(socket_);
    const int flags = fcntl(socket_.get(), F_GETFL);
    if (flags >= 0) (void)fcntl(socket_.get(), F_SETFL, flags & ~O_NONBLOCK);
  }

  Status Send(std::initializer_list<Bytes> parts, int timeout_ms) override {
    constexpr size_t kMaxParts = 16;
    std::array<iovec, kMaxParts> vectors;
    const Bytes* next = parts.begin();
    while (next != parts.end()) {
      size_t count = 0;
      for (; next != parts.end() && count < kMaxParts; ++next) {
        if (next->empty()) continue;
        vectors[count++] = {const_cast<uint8_t*>(next->data()), next->size()};
      }
      TALARIA_RETURN_IF_ERROR(SendVectors(vectors.data(), count, timeout_ms));
    }
    return OkStatus();
  }

  Result<size_t> ReceiveSome(MutableBytes out, size_t min_bytes, int timeout_ms) override {
    TALARIA_CHECK(min_bytes >= 1 && min_bytes <= out.size());
    SetReceiveTimeout(timeout_ms);
    size_t done = busy_wait_.count() > 0 ? ReceiveBusily(out, min_bytes, timeout_ms) : 0;
    Clock::time_point interrupted{};  // when the first signal of this wait came
    while (done < min_bytes) {
      const ssize_t n = recv(socket_.get(), out.data() + done, out.size() - done, 0);
      if (n > 0) {
        done += static_cast<size_t>(n);
        interrupted = {};
        continue;
      }
      const int error = errno;
      if (shutdown_.load(std::memory_order_acquire)) return Cancelled();
      if (n == 0) return Status(Code::kUnavailable, "the peer closed the connection");
      if (error == EINTR) {
        // Signals must not stretch the wait for ever; one wait may take up to twice its time-out.
        if (interrupted == Clock::time_point{}) interrupted = Clock::now();
        if (timeout_ms == 0 || Left(interrupted, timeout_ms) > 0) continue;
        return TimedOut("receiving", timeout_ms);
      }
      if (error == EAGAIN || error == EWOULDBLOCK) return TimedOut("receiving", timeout_ms);
      return FromErrno(Code::kUnavailable, "receiving", error);
    }
    return done;
  }

  void SetBusyWait(std::chrono::microseconds time) override { busy_wait_ = time; }

  void Shutdown() override {
    shutdown_.store(true, std::memory_order_release);
    (void)shutdown(socket_.get(), SHUT_RDWR);  // wakes a blocked recv() and poll()
  }

 private:
  static Status Cancelled() { return Status(Code::kCancelled, "the connection was shut down"); }
  static Status TimedOut(std::string_view what, int timeout_ms) {
    return Status(Code::kUnavailable,
                  std::string(what) + ": no progress for " + std::to_string(timeout_ms) + " ms");
  }

  Status SendVectors(iovec* vectors, size_t count, int timeout_ms) {
    while (count != 0) {
      if (shutdown_.load(std::memory_order_acquire)) return Cancelled();
      msghdr message{};
      message.msg_iov = vectors;
      message.msg_iovlen = count;
      const ssize_t n = sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n >= 0) {
        size_t sent = static_cast<size_t>(n);
        while (count != 0 && sent >= vectors->iov_len) {
          sent -= vectors->iov_len;
          ++vectors;
          --count;
        }
        if (count != 0) {
          vectors->iov_base = static_cast<uint8_t*>(vectors->iov_base) + sent;
          vectors->iov_len -= sent;
        }
        continue;
      }
      const int error = errno;
      if (shutdown_.load(std::memory_order_acquire)) return Cancelled();
      if (error == EINTR) continue;
      if (error != EAGAIN && error != EWOULDBLOCK)
        return FromErrno(Code::kUnavailable, "sending", error);
      if (!WaitFor(socket_.get(), POLLOUT, timeout_ms)) return TimedOut("sending", timeout_ms);
    }
    return OkStatus();
  }

  // What came within busy_wait_; whatever is wrong is left to the next, blocking call. Others that
  // want this processor get it at every look, and a program keeps at most half of the processors
  // busy in this way.
  size_t ReceiveBusily(MutableBytes out, size_t min_bytes, int timeout_ms) {
    static const int most = std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / 2);
    static std::atomic<int> busy{0};
    size_t done = 0;
    if (busy.fetch_add(1, std::memory_order_relaxed) < most) {
      std::chrono::microseconds time = busy_wait_;
      if (timeout_ms != 0)
        time = std::min<std::chrono::microseconds>(time, std::chrono::milliseconds(timeout_ms));
      const Clock::time_point end = Clock::now() + time;
      do {
        const ssize_t n = recv(socket_.get(), out.data() + done, out.size() - done, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)) break;
        if (n > 0) done += static_cast<size_t>(n);
        if (n < 0) sched_yield();
      } while (done < min_bytes && Clock::now() < end);
    }
    busy.fetch_sub(1, std::memory_order_relaxed);
    return done;
  }

  // The receiving thread only.
  void SetReceiveTimeout(int timeout_ms) {
    if (timeout_ms == receive_timeout_ms_) return;
    timeval value{};
    value.tv_sec = timeout_ms / 1000;
    value.tv_usec = timeout_ms % 1000 * 1000;
    if (setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &value, sizeof(value)) == 0)
      receive_timeout_ms_ = timeout_ms;
  }

  Fd socket_;
  std::atomic<bool> shutdown_{false};
  int receive_timeout_ms_ = 0;
  std::chrono::microseconds busy_wait_{0};
};

Result<Fd> ConnectOne(const SocketAddress& address, Clock::time_point start, int timeout_ms) {
  for (;;) {
    Fd fd(socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid()) return FromErrno(Code::kUnavailable, "socket", errno);
    if (connect(fd.get(), address.get(), address.size) == 0) return fd;
    int error = errno;
    if (error == EAGAIN) {
      // The listener of a Unix socket has its queue full, and there is no event for "room again".
      if (timeout_ms != 0 && Left(start, timeout_ms) == 0)
        return Status(Code::kUnavailable, "connecting: timed out");
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      continue;
    }
    if (error != EINPROGRESS && error != EINTR)
      return FromErrno(Code::kUnavailable, "connecting", error);
    if (!WaitFor(fd.get(), POLLOUT, timeout_ms == 0 ? 0 : std::max(1, Left(start, timeout_ms)))) {
      return Status(Code::kUnavailable, "connecting: timed out");
    }
    socklen_t size = sizeof(error);
    if (getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    if (error != 0) return FromErrno(Code::kUnavailable, "connecting", error);
    return fd;
  }
}

}  // namespace

std::unique_ptr<Transport> TransportFromSocket(Fd socket) {
  return std::make_unique<SocketTransport>(std::move(socket));
}

Result<std::unique_ptr<Transport>> Connect(const Endpoint& endpoint, int timeout_ms) {
  if (endpoint.kind == Endpoint::Kind::kTcp && endpoint.port == "0") {
    return Status(Code::kInvalidArgument, endpoint.ToString() + ": port 0 is for listening only");
  }
  TALARIA_ASSIGN_OR_RETURN(const std::vector<SocketAddress> addresses, Resolve(endpoint));
  const Clock::time_point start = Clock::now();
  Status last;
  for (const SocketAddress& address : addresses) {
    Result<Fd> fd = ConnectOne(address, start, timeout_ms);
    if (fd.ok()) return TransportFromSocket(std::move(fd).value());
    last = fd.status();
  }
  return last.Annotate(endpoint.ToString());
}

}  // namespace talaria::wire
