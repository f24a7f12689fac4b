// The HTTP front inside the CVM: passes a fixed list of routes to llama-server over its Unix
// socket, streams answers through, strips what must not pass, and answers /healthz and /readyz
// itself (doc/http.md).
//
// Connections come in one of two ways, never both: handed over by the TLS front (front.h), each
// with a channel that can be attested, and then only the tenant's users get past the evidence; or,
// only with the simulated TEE and `server.plaintext`, accepted on a local socket of its own, in
// plain HTTP and for everybody who reaches it.
//
//   client --> gateway_connection: parse, time-outs --> gateway_admission: users, routes, limits,
//   and gateway_filter: fields --> a new request of its own, to llama-server's socket
//   client <-- status, content type, body piece by piece <-- llama-server's socket
//
// A request is parsed and made anew: no header of a client reaches llama-server (X-Conversation-Id
// would keep the answer for anybody to fetch), and none of llama-server's but Content-Type reaches
// a client. Nothing of a request is ever logged.
#ifndef TALARIA_CVM_GATEWAY_H_
#define TALARIA_CVM_GATEWAY_H_

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "talaria/attest/binding.h"
#include "talaria/attest/claim.h"
#include "talaria/attest/receipt.h"
#include "talaria/base/digest.h"
#include "talaria/base/file.h"
#include "talaria/base/result.h"

namespace talaria::cvm {

class Users;

// What the gateway needs of the secured connection under the bytes of one client.
class ClientChannel {
 public:
  virtual ~ClientChannel() = default;
  // A claim that is bound to this connection and to `nonce`. In a worker thread, one call at a
  // time; may take seconds. kUnavailable: the connection has ended; the errors of
  // attest::Attester::Attest. Any error ends the connection.
  virtual Result<attest::Claim> Attest(const std::array<uint8_t, attest::kNonceBytes>& nonce) = 0;
  // A signed receipt over `exchange` with the evidence of the last Attest() that succeeded. Any
  // thread. kNotFound: there was none on this connection. kResourceExhausted.
  virtual Result<std::vector<uint8_t>> MakeReceipt(const attest::Exchange& exchange) = 0;
  // SHA-256 of the client's SPKI; zero: it has shown none.
  virtual const Digest& client_key() const = 0;
};

struct GatewayOptions {
  // For plain HTTP: unix:PATH or HOST:PORT, local only. Empty: connections come by Adopt() alone.
  std::string listen = {};
  Users* users = nullptr;  // exactly without `listen`; used in Run()'s thread alone; outlives
  std::string upstream_socket = {};  // llama-server's
  uint32_t max_body_bytes = 8u << 20;
  int max_connections = 64;
  // Empty: `cache_prompt` is false in every request, whatever it says. Else only this user is
  // served (over plain HTTP everybody is): what is reused of a prompt shows up as latency.
  std::string prompt_cache_user = {};
  std::function<bool()> ready =
      {};  // thread-safe: whether requests may pass; false -> 503 and /readyz 503
  std::function<std::string()> stage =
      {};  // thread-safe: a fixed word for /readyz while not ready; may be empty

  // All in milliseconds. A client that is slower is disconnected.
  int header_timeout_ms = 10'000;  // from the first byte of a request to the end of its header
  int body_timeout_ms = 60'000;    // for the whole body
  int idle_timeout_ms = 75'000;    // between the requests of a connection
  int write_timeout_ms = 30'000;   // for one piece of an answer to be taken
  // From Adopt() until the first request with a good token; evidence is made within. Absolute: who
  // drips, or asks for what needs no token, is no user.
  int stranger_timeout_ms = 20'000;
  int answer_timeout_ms =
      3'600'000;  // llama-server's silence: a long prompt, or waiting for a slot
};

class Gateway {
 public:
  // Listens, if it is to. kInvalidArgument (not a local address), kIo (address in use; a stale Unix
  // socket is replaced).
  static Result<std::unique_ptr<Gateway>> Create(GatewayOptions options);
  virtual ~Gateway() = default;  // removes the Unix socket
  // In one thread, until Stop(); open connections are cut then. Waits for the evidence that is
  // being made, if any.
  virtual Status Run() = 0;
  virtual void Stop() = 0;  // any thread
  // Returns when no client waits for (the rest of) an answer of llama-server's, or when the time is
  // over. Any thread; for the end, when ready() lets nobody through any more.
  virtual void AwaitAnswers(int timeout_ms) = 0;
  // As clients write it, with the port that was chosen for port 0; empty without `listen`.
  virtual std::string address() const = 0;
  // Serves a client at the other end of `socket`, which is connected; any thread, also before Run()
  // and after Stop(). Only without `listen`.
  virtual void Adopt(Fd socket, std::shared_ptr<ClientChannel> channel) = 0;
};

// Whether llama-server answers on its socket and has loaded its model. kUnavailable.
Status ProbeHealth(const std::string& upstream_socket, int timeout_ms);
// One completion of one token through llama-server's socket, to prove that the whole chain works.
// kUnavailable, kInternal.
Status ProbeCompletion(const std::string& upstream_socket, int timeout_ms);

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_GATEWAY_H_
