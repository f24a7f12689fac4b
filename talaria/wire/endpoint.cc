#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <charconv>

#include "talaria/wire/transport.h"

namespace talaria::wire {
namespace {

Status Bad(std::string_view text, std::string_view why) {
  return Status(Code::kInvalidArgument, "address '" + std::string(text) + "': " + std::string(why));
}

bool ParsePort(std::string_view text) {
  uint32_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return !text.empty() && error == std::errc() && end == text.data() + text.size() && port <= 65535;
}

}  // namespace

Result<Endpoint> Endpoint::Parse(std::string_view text) {
  constexpr std::string_view kUnixPrefix = "unix:";
  if (text.find('\0') != std::string_view::npos) return Bad(text, "contains a zero byte");
  Endpoint out;
  if (text.starts_with(kUnixPrefix)) {
    out.kind = Kind::kUnix;
    out.path = text.substr(kUnixPrefix.size());
    if (out.path.empty()) return Bad(text, "the path is empty");
    if (out.path.size() >= sizeof(sockaddr_un::sun_path)) return Bad(text, "the path is too long");
    return out;
  }
  out.kind = Kind::kTcp;
  std::string_view port;
  if (text.starts_with('[')) {
    const size_t close = text.find(']');
    if (close == std::string_view::npos || !text.substr(close + 1).starts_with(':')) {
      return Bad(text, "want [IPV6]:PORT");
    }
    out.host = text.substr(1, close - 1);
    port = text.substr(close + 2);
  } else {
    const size_t colon = text.find(':');
    if (colon == std::string_view::npos) return Bad(text, "want unix:PATH or HOST:PORT");
    out.host = text.substr(0, colon);
    port = text.substr(colon + 1);
    if (port.find(':') != std::string_view::npos)
      return Bad(text, "IPv6 needs brackets: [IPV6]:PORT");
  }
  // An empty host would mean every interface; whoever wants that writes 0.0.0.0.
  if (out.host.empty()) return Bad(text, "the host is empty");
  if (!ParsePort(port)) return Bad(text, "the port must be 0 to 65535");
  out.port = port;
  return out;
}

bool Endpoint::IsLocal() const {
  if (kind == Kind::kUnix) return true;
  if (host == "localhost") return true;  // never asked of a resolver: socket_address.cc
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  in6_addr v6{};
  if (inet_pton(AF_INET6, host.c_str(), &v6) == 1) {
    if (IN6_IS_ADDR_V4MAPPED(&v6)) return v6.s6_addr[12] == 127;
    return IN6_IS_ADDR_LOOPBACK(&v6);
  }
  return false;
}

std::string Endpoint::ToString() const {
  if (kind == Kind::kUnix) return "unix:" + path;
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + port;
}

}  // namespace talaria::wire
