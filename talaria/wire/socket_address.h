// Endpoint -> socket addresses. Internal to wire.
#ifndef TALARIA_WIRE_SOCKET_ADDRESS_H_
#define TALARIA_WIRE_SOCKET_ADDRESS_H_

#include <sys/socket.h>

#include <string>
#include <string_view>
#include <vector>

#include "talaria/base/file.h"
#include "talaria/base/result.h"
#include "talaria/wire/transport.h"

namespace talaria::wire {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
  int family() const { return storage.ss_family; }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// At least one address, in the resolver's order. "localhost" is 127.0.0.1 without asking a
// resolver, so that what IsLocal() calls local is. kUnavailable when the name does not resolve.
// Blocks as long as the system's resolver does.
Result<std::vector<SocketAddress>> Resolve(const Endpoint& endpoint);
// "HOST:PORT" of a bound TCP socket.
Result<std::string> LocalAddress(const Fd& socket);
// No delay, keep-alive (a vanished peer is noticed within a minute). Does nothing to a Unix socket.
void SetSocketOptions(const Fd& socket);
Status FromErrno(Code code, std::string_view what, int error);

}  // namespace talaria::wire

#endif  // TALARIA_WIRE_SOCKET_ADDRESS_H_
