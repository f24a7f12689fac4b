// The HTTP front inside the CVM: passes a fixed list of routes to llama-server over its Unix socket, streams answers through,
// strips what must not pass, and answers /healthz and /readyz itself. Plain HTTP until attested channels exist.
#ifndef TALARIA_CVM_GATEWAY_H_
#define TALARIA_CVM_GATEWAY_H_

#include <functional>
#include <memory>
#include <string>

#include "talaria/base/result.h"

namespace talaria::cvm {

struct GatewayOptions {
  std::string listen;            // unix:PATH or HOST:PORT, local only while the TEE is simulated
  std::string upstream_socket;   // llama-server's
  uint32_t max_body_bytes = 8u << 20;
  int max_connections = 64;
  bool prompt_cache = false;     // otherwise `cache_prompt` is forced to false in every request
  std::function<bool()> ready;   // thread-safe: whether requests may pass; false -> 503 and /readyz 503
};

class Gateway {
 public:
  static Result<std::unique_ptr<Gateway>> Create(GatewayOptions options);
  virtual ~Gateway() = default;
  virtual Status Run() = 0;   // until Stop()
  virtual void Stop() = 0;    // any thread
  virtual std::string address() const = 0;
};

// One completion of one token through llama-server's socket, to prove that the whole chain works. kUnavailable, kInternal.
Status ProbeCompletion(const std::string& upstream_socket, int timeout_ms);

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_GATEWAY_H_
