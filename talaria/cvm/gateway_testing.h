// Test only: a scripted llama-server and a client that writes raw bytes, on blocking POSIX sockets,
// so that the gateway is not tested with the library it is made of.
#ifndef TALARIA_CVM_GATEWAY_TESTING_H_
#define TALARIA_CVM_GATEWAY_TESTING_H_

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "talaria/base/file.h"
#include "talaria/base/testing/temp_folder.h"

namespace talaria::cvm::testing {

using Clock = std::chrono::steady_clock;

inline sockaddr_un UnixAddress(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

// A message: what stands before its Content-Length, and its body.
inline std::string WithLength(std::string_view head, std::string_view body) {
  return std::string(head) + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         std::string(body);
}

// A connected stream with deadlines.
class RawStream {
 public:
  explicit RawStream(Fd fd) : fd_(std::move(fd)) {}
  // To "unix:PATH" or "127.0.0.1:PORT".
  static RawStream To(const std::string& address) {
    if (address.starts_with("unix:")) {
      Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
      const sockaddr_un name = UnixAddress(address.substr(5));
      if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0)
        return RawStream(Fd());
      return RawStream(std::move(fd));
    }
    Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0)
      return RawStream(Fd());
    return RawStream(std::move(fd));
  }
  bool connected() const { return fd_.valid(); }
  int fd() const { return fd_.get(); }

  bool Write(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      text.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  // Reads until `done(text so far)`, the other side's end, or the deadline.
  std::string ReadUntil(const std::function<bool(const std::string&)>& done,
                        int timeout_ms = 20000) {
    const auto deadline = Clock::now() + std::chrono::milliseconds(timeout_ms);
    while (!done(received_)) {
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
      pollfd entry{.fd = fd_.get(), .events = POLLIN, .revents = 0};
      if (left <= 0 || poll(&entry, 1, static_cast<int>(left)) <= 0) break;
      char piece[16384];
      const ssize_t n = recv(fd_.get(), piece, sizeof piece, 0);
      if (n <= 0) {
        ended_ = true;
        break;
      }
      received_.append(piece, static_cast<size_t>(n));
    }
    return received_;
  }
  std::string ReadUntilText(std::string_view text, int timeout_ms = 20000) {
    size_t from = 0;  // the text does not begin before it
    const auto found = [&](const std::string& so_far) {
      const size_t at = so_far.find(text, from);
      from = so_far.size() - std::min(so_far.size(), text.size());
      return at != std::string::npos;
    };
    return ReadUntil(found, timeout_ms);
  }
  std::string ReadToEnd(int timeout_ms = 20000) {
    return ReadUntil([](const std::string&) { return false; }, timeout_ms);
  }
  // One whole message with a Content-Length, header and body, taken off the stream.
  std::string ReadMessage(int timeout_ms = 20000) {
    size_t size = 0;
    const auto complete = [&](const std::string& text) {
      const size_t end = text.find("\r\n\r\n");
      if (end == std::string::npos) return false;
      const size_t length = text.find("Content-Length: ");
      size = end + 4 + (length < end ? std::stoul(text.substr(length + 16)) : 0);
      return text.size() >= size;
    };
    if (!complete(ReadUntil(complete, timeout_ms))) return "";
    std::string message = received_.substr(0, size);
    received_.erase(0, size);
    return message;
  }
  bool ended() const { return ended_; }
  void Close() { fd_ = Fd(); }

 private:
  Fd fd_;
  std::string received_;
  bool ended_ = false;
};

// A server on a Unix socket: `handler(stream, request)` runs in a thread per connection, after one
// whole request arrived.
class FakeServer {
 public:
  using Handler = std::function<void(RawStream&, const std::string& request)>;
  FakeServer(std::string path, Handler handler)
      : path_(std::move(path)),
        handler_(std::move(handler)),
        listener_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const sockaddr_un name = UnixAddress(path_);
    if (bind(listener_.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 ||
        listen(listener_.get(), 128) != 0)
      std::abort();
    acceptor_ = std::thread([this] { AcceptAll(); });
  }
  ~FakeServer() {
    stop_ = true;
    shutdown(listener_.get(), SHUT_RDWR);
    acceptor_.join();
    for (std::thread& t : threads_) t.join();
    unlink(path_.c_str());
  }
  std::vector<std::string> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  void AcceptAll() {
    while (!stop_) {
      Fd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!fd.valid()) return;
      threads_.emplace_back([this, stream = RawStream(std::move(fd))]() mutable {
        const std::string request = stream.ReadMessage();
        if (request.empty()) return;
        {
          const std::lock_guard lock(mutex_);
          requests_.push_back(request);
        }
        handler_(stream, request);
      });
    }
  }
  const std::string path_;
  const Handler handler_;
  Fd listener_;
  std::atomic<bool> stop_{false};
  mutable std::mutex mutex_;
  std::vector<std::string> requests_;
  std::vector<std::thread> threads_;  // of the acceptor's thread, then of the destructor's
  std::thread acceptor_;
};

}  // namespace talaria::cvm::testing

#endif  // TALARIA_CVM_GATEWAY_TESTING_H_
