#include "talaria/cvm/gateway.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <exception>
#include <optional>
#include <thread>
#include <utility>

#include "talaria/base/file.h"
#include "talaria/cvm/gateway_connection.h"
#include "talaria/wire/transport.h"

namespace talaria::cvm {
namespace {

namespace net = boost::asio;
using Error = boost::system::error_code;
using GenericEndpoint = net::generic::stream_protocol::endpoint;

constexpr int kBacklog = 128;
constexpr int kAttestThreads = 2;  // a slow evidence does not hold up all others

struct Listening {
  Fd socket;
  std::string address;
  std::string path;  // of a Unix socket: ours to remove
};

Status Failed(const std::string& what, int error) {
  return Status(Code::kIo, what + ": " + std::strerror(error));
}

// Removes a Unix socket that nobody listens on.
Status RemoveStale(const std::string& path, const GenericEndpoint& address) {
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) return errno == ENOENT ? OkStatus() : Failed(path, errno);
  if (!S_ISSOCK(info.st_mode)) return Status(Code::kIo, path + ": exists and is not a socket");
  const Fd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe.valid()) return Failed("socket", errno);
  if (connect(probe.get(), address.data(), static_cast<socklen_t>(address.size())) == 0 ||
      errno == EAGAIN)
    return Status(Code::kIo, path + ": in use");
  if (errno != ECONNREFUSED) return Failed(path, errno);
  return unlink(path.c_str()) == 0 || errno == ENOENT ? OkStatus() : Failed(path, errno);
}

Result<Listening> Listen(const std::string& text) {
  TALARIA_ASSIGN_OR_RETURN(wire::Endpoint endpoint, wire::Endpoint::Parse(text));
  if (!endpoint.IsLocal())
    return Status(Code::kInvalidArgument,
                  text + ": the front listens on Unix sockets and loopback addresses only");
  const bool is_unix = endpoint.kind == wire::Endpoint::Kind::kUnix;
  GenericEndpoint address;
  if (is_unix) {
    address = net::local::stream_protocol::endpoint(endpoint.path);
  } else {
    if (endpoint.host == "localhost") endpoint.host = "127.0.0.1";
    Error error;
    const auto host = net::ip::make_address(endpoint.host, error);
    if (error) return Status(Code::kInvalidArgument, text + ": not an address");
    address = net::ip::tcp::endpoint(host, static_cast<uint16_t>(std::stoul(endpoint.port)));
  }
  const int family = address.protocol().family();
  const auto size = static_cast<socklen_t>(address.size());
  Listening out{.socket = Fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)),
                .address = endpoint.ToString(),
                .path = {}};
  if (!out.socket.valid()) return Failed("socket", errno);
  if (!is_unix) {
    const int one = 1;
    (void)setsockopt(out.socket.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  }
  int bound = bind(out.socket.get(), address.data(), size);
  if (bound != 0 && errno == EADDRINUSE && is_unix) {
    TALARIA_RETURN_IF_ERROR(RemoveStale(endpoint.path, address));
    bound = bind(out.socket.get(), address.data(), size);
  }
  if (bound != 0)
    return errno == EADDRINUSE ? Status(Code::kIo, text + ": in use") : Failed(text, errno);
  if (is_unix) {
    out.path = endpoint.path;
    // Nobody can connect before listen(), so a wider mode set by bind() was of no use to anybody.
    if (chmod(out.path.c_str(), 0600) != 0) return Failed(text, errno);
  } else {
    socklen_t length = static_cast<socklen_t>(address.capacity());
    if (getsockname(out.socket.get(), address.data(), &length) != 0)
      return Failed("getsockname", errno);
    // sin_port and sin6_port have the same place.
    endpoint.port =
        std::to_string(ntohs(reinterpret_cast<const sockaddr_in*>(address.data())->sin_port));
    out.address = endpoint.ToString();
  }
  if (listen(out.socket.get(), kBacklog) != 0) return Failed(text, errno);
  return out;
}

class GatewayImpl final : public Gateway {
 public:
  GatewayImpl(GatewayOptions options, Listening listening)
      : options_(std::move(options)),
        address_(std::move(listening.address)),
        path_(std::move(listening.path)),
        work_(io_.get_executor()),
        pause_(io_) {
    if (listening.socket.valid()) {
      listener_.emplace(io_, listening.socket.release());
    } else {
      workers_.emplace(kAttestThreads);
    }
  }

  ~GatewayImpl() override {
    if (!path_.empty()) (void)unlink(path_.c_str());
  }

  Status Run() override {
    if (listener_) AwaitClient();
    Status status;
    try {
      io_.run();
    } catch (const std::exception& e) {  // no handler throws but for want of memory
      status = Status(Code::kInternal, std::string("gateway: ") + e.what());
    }
    if (workers_) {
      workers_->stop();
      workers_->join();
    }
    return status;
  }

  void Stop() override { io_.stop(); }

  void AwaitAnswers(int timeout_ms) override {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
    while (counts_.answering > 0 && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  std::string address() const override { return address_; }

  void Adopt(Fd socket, std::shared_ptr<ClientChannel> channel) override {
    TALARIA_CHECK(!listener_ && channel != nullptr);
    net::post(io_, [this, socket = std::move(socket), channel = std::move(channel)]() mutable {
      Serve(std::move(socket), {.channel = std::move(channel), .workers = &*workers_});
    });
  }

 private:
  void AwaitClient() {
    listener_->async_wait(net::posix::stream_descriptor::wait_read, [this](Error error) {
      if (!error) Accept();
    });
  }

  void Accept() {
    const int fd =
        accept4(listener_->native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
      if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
        return AwaitClient();  // that client is gone
      pause_.expires_after(
          std::chrono::milliseconds(100));  // out of descriptors: the connection stays in the queue
      pause_.async_wait([this](Error error) {
        if (!error) AwaitClient();
      });
      return;
    }
    Serve(Fd(fd), {});
    AwaitClient();
  }

  void Serve(Fd fd, AttestedPeer peer) {
    if (counts_.open >= options_.max_connections) {
      static const std::string kAnswer = OverloadedAnswer();
      (void)send(fd.get(), kAnswer.data(), kAnswer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      return;
    }
    sockaddr_storage name{};
    socklen_t size = sizeof name;
    if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&name), &size) != 0) return;
    if (name.ss_family != AF_UNIX) {
      const int one = 1;
      (void)setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    StreamSocket socket(io_);
    Error error;
    socket.assign(
        net::generic::stream_protocol(name.ss_family, name.ss_family == AF_UNIX ? 0 : IPPROTO_TCP),
        fd.get(), error);
    if (error) return;
    (void)fd.release();
    ServeConnection(io_, std::move(socket), options_, counts_, std::move(peer));
  }

  const GatewayOptions options_;
  ConnectionCounts counts_;  // before io_: connections that die with io_ count down
  const std::string address_, path_;
  net::io_context io_{1};
  net::executor_work_guard<net::io_context::executor_type> work_;
  std::optional<net::posix::stream_descriptor> listener_;  // either this
  std::optional<net::thread_pool> workers_;  // or this; after io_, as its jobs need it
  net::steady_timer pause_;
};

}  // namespace

Result<std::unique_ptr<Gateway>> Gateway::Create(GatewayOptions options) {
  TALARIA_CHECK(options.ready != nullptr);
  TALARIA_CHECK(options.listen.empty() == (options.users != nullptr));
  Listening listening;
  if (!options.listen.empty()) {
    TALARIA_ASSIGN_OR_RETURN(listening, Listen(options.listen));
  }
  return std::unique_ptr<Gateway>(
      std::make_unique<GatewayImpl>(std::move(options), std::move(listening)));
}

}  // namespace talaria::cvm
