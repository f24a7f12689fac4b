// A local, plain HTTP port for any OpenAI client, whose requests go to a CVM that is believed.
//
//   OpenAI client --HTTP, this machine--> Proxy --TLS to an attested key--> CVM
//                                          GET /talaria/status: the verdict
//
// A request is parsed and made anew: method, target, body, content type and accept pass, and the
// user's token is added. No other header of the local client leaves this machine. Answers pass
// piece by piece, with the verdict in headers Talaria-*. Nothing of a request is ever logged.
//
// On TCP, requests that a browser may send for a web page are refused with 403: the host must be of
// this machine, and an Origin or Sec-Fetch-Site, which only browsers send, must not be another
// site's. There are no CORS headers, so no page reads an answer.
//
// While the CVM is not believed or not there, requests wait, then get 503. A request of which one
// byte was sent is never sent again: what fails then, fails once and visibly, with 502 or with an
// answer that has no end.
#ifndef TALARIA_CLIENT_PROXY_H_
#define TALARIA_CLIENT_PROXY_H_

#include <memory>
#include <string>

#include "talaria/base/result.h"
#include "talaria/client/attested_peer.h"

namespace talaria::client {

struct ProxyOptions {
  std::string listen = {};  // unix:PATH or a loopback address: whoever reaches it uses the token
  std::string server = {};  // as the user wrote it: for /talaria/status
  std::string token = {};   // of the user; empty: none is sent
  // A folder: each answer with status 200 to a POST has its receipt taken, verified and kept there,
  // in a folder named in its header Talaria-Receipt, before it ends. Without that there is no
  // answer: 502, or a stream without its end. Empty: no receipts.
  std::string receipts = {};
  int wait_ms = 60'000;  // for the CVM to be believed
  int max_connections = 64;
  uint64_t max_body_bytes = 16u << 20;
  int idle_timeout_ms = 75'000;       // until the header of a request is there
  int body_timeout_ms = 60'000;       // for the whole body
  int send_timeout_ms = 30'000;       // for one piece of an answer to be taken
  int answer_timeout_ms = 3'600'000;  // the CVM's silence
  int retry_ms = 500;                 // between attempts to verify
};

class Proxy {
 public:
  // Listens. kInvalidArgument: the address is not of this machine, the token cannot stand in a
  // header, or receipts of a peer that does not attest every connection; kIo, kUnavailable: those
  // of wire::Listener. `peer` outlives the proxy.
  static Result<std::unique_ptr<Proxy>> Create(ProxyOptions options, AttestedPeer& peer);
  virtual ~Proxy() = default;
  // Until Stop(); requests under way are cut then. Keeps the attestation young. kIo.
  virtual Status Run() = 0;
  virtual void Stop() = 0;  // any thread, and signal handlers
  virtual std::string address() const = 0;
};

}  // namespace talaria::client

#endif  // TALARIA_CLIENT_PROXY_H_
