// One local client's connection to the proxy. Internal to the proxy.
#ifndef TALARIA_CLIENT_PROXY_CONNECTION_H_
#define TALARIA_CLIENT_PROXY_CONNECTION_H_

#include <atomic>
#include <string>

#include "talaria/client/proxy.h"

namespace talaria::client {

struct ProxyContext {
  const ProxyOptions& options;
  AttestedPeer& peer;
  bool browsers_reach_us;  // listening on TCP: web pages can send requests, too
  const std::atomic<bool>& stopping;
};

// Serves `client` until it closes, or is shut down by another thread.
void ServeLocalClient(ReadAhead& client, const ProxyContext& context);
// For a client that is one too many.
std::string TooManyConnections();

}  // namespace talaria::client

#endif  // TALARIA_CLIENT_PROXY_CONNECTION_H_
