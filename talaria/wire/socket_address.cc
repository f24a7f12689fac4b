#include "talaria/wire/socket_address.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>

#include <cstring>
#include <memory>

namespace talaria::wire {

Status FromErrno(Code code, std::string_view what, int error) {
  return Status(code, std::string(what) + ": " + std::strerror(error));
}

Result<std::vector<SocketAddress>> Resolve(const Endpoint& endpoint) {
  std::vector<SocketAddress> out;
  if (endpoint.kind == Endpoint::Kind::kUnix) {
    SocketAddress address;
    auto* name = reinterpret_cast<sockaddr_un*>(&address.storage);
    if (endpoint.path.empty() || endpoint.path.size() >= sizeof(name->sun_path)) {
      return Status(Code::kInvalidArgument, "the path of a Unix socket is empty or too long");
    }
    name->sun_family = AF_UNIX;
    std::memcpy(name->sun_path, endpoint.path.data(), endpoint.path.size());
    address.size =
        static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + endpoint.path.size() + 1);
    out.push_back(address);
    return out;
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  const std::string host = endpoint.host == "localhost" ? "127.0.0.1" : endpoint.host;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), endpoint.port.c_str(), &hints, &found);
      error != 0) {
    return Status(Code::kUnavailable, endpoint.ToString() + ": " + gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, freeaddrinfo);
  for (const addrinfo* a = found; a != nullptr; a = a->ai_next) {
    if (a->ai_addrlen > sizeof(sockaddr_storage)) continue;
    SocketAddress address;
    std::memcpy(&address.storage, a->ai_addr, a->ai_addrlen);
    address.size = a->ai_addrlen;
    out.push_back(address);
  }
  if (out.empty()) return Status(Code::kUnavailable, endpoint.ToString() + ": no address");
  return out;
}

Result<std::string> LocalAddress(const Fd& socket) {
  SocketAddress address;
  address.size = sizeof(address.storage);
  if (getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address.storage), &address.size) !=
      0) {
    return FromErrno(Code::kIo, "getsockname", errno);
  }
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (const int error = getnameinfo(address.get(), address.size, host, sizeof(host), port,
                                    sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
      error != 0) {
    return Status(Code::kIo, std::string("getnameinfo: ") + gai_strerror(error));
  }
  return Endpoint{.kind = Endpoint::Kind::kTcp, .path = {}, .host = host, .port = port}.ToString();
}

void SetSocketOptions(const Fd& socket) {
  const auto set = [&](int level, int name, int value) {
    (void)setsockopt(socket.get(), level, name, &value,
                     sizeof(value));  // a Unix socket refuses: no matter
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 30);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 10);
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
}

}  // namespace talaria::wire
