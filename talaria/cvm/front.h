// The CVM's door for clients: TLS 1.3 with the CVM's own key, and behind it the gateway, which
// reads and writes plain HTTP on a socket pair:
//
//   client <== TLS, padded records ==> thread 1 --> socket pair --> gateway --> llama-server
//                                      thread 2 <--             <--
//
// Two threads per connection carry bytes and know nothing of HTTP, so that the gateway is one and
// the same with TLS and without. Each connection is handed over with its channel, by which the
// gateway has it attested and knows the client's key.
//
// A client may show a key of its own (a self-signed certificate) or none; tokens may be bound to
// it. What is no TLS 1.3 gets an alert at most.
#ifndef TALARIA_CVM_FRONT_H_
#define TALARIA_CVM_FRONT_H_

#include <functional>
#include <memory>
#include <string>

#include "talaria/attest/attester.h"
#include "talaria/attest/context.h"
#include "talaria/base/result.h"
#include "talaria/cvm/gateway.h"
#include "talaria/wire/tls_key.h"

namespace talaria::cvm {

struct FrontOptions {
  std::string listen = {};  // unix:PATH or HOST:PORT, local or not
  // All outlive the gateway's Run(), which may be waiting for evidence while the front is gone.
  Gateway* gateway = nullptr;
  const wire::TlsKey* key = nullptr;              // made at start, of this boot alone
  attest::Attester* attester = nullptr;           // all threads
  std::function<attest::Context()> context = {};  // any thread; called once the gateway is ready
  int max_connections = 64;                       // more are closed at once; each has two threads
  int handshake_timeout_ms = 5'000;               // for all of it
  int write_timeout_ms = 30'000;                  // for a client to take something of an answer
  int attest_timeout_ms = 10'000;
};

class Front {
 public:
  // Listens, and serves until Stop(). The errors of wire::Endpoint::Parse and
  // wire::Listener::Create; kResourceExhausted: no thread.
  static Result<std::unique_ptr<Front>> Create(FrontOptions options);
  virtual ~Front() = default;  // as Stop()
  // Any thread. Closes everything at once, handshakes and answers too; no client of this front is
  // served when it returns.
  virtual void Stop() = 0;
  // Returns when all that the gateway has written is handed to the clients' sockets, or when the
  // time is over. Any thread; after Gateway::AwaitAnswers(), before Stop().
  virtual void AwaitAnswers(int timeout_ms) = 0;
  virtual std::string address() const = 0;  // as clients write it, with the port for port 0
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_FRONT_H_
