// One connection of the cloud: TLS, Hello, the CVM's evidence, then it reads a request, answers it,
// one after the other, until either side ends it.
#ifndef TALARIA_CLOUD_SESSION_H_
#define TALARIA_CLOUD_SESSION_H_

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "talaria/base/limited_log.h"
#include "talaria/cloud/call_observer.h"
#include "talaria/cloud/gate.h"
#include "talaria/cloud/product_service.h"
#include "talaria/model/store.h"
#include "talaria/wire/connection.h"
#include "talaria/wire/stranger_transport.h"
#include "talaria/wire/tls.h"

namespace talaria::cloud {

// What all sessions of a server share.
struct SessionContext {
  const model::Store& store;
  ProductService& products;
  const std::atomic<bool>& stopping;
  int idle_timeout_ms;
  int frame_timeout_ms;
  int hello_timeout_ms, evidence_timeout_ms;
  LimitedLog& refused_connections;
  LimitedLog& refused_claims;
  Gate* gate;  // null: plaintext, and everything is answered to anybody (simulated TEE only)
  CallObserver* observer = nullptr;  // null but in the laboratory
  uint64_t connection = 0;           // its number, for the observer
};

class Session {
 public:
  Session(std::unique_ptr<wire::Transport> transport, const SessionContext& context);

  // Serves until the end of the connection, then closes it and frees its buffers. One thread, once.
  void Run();
  // From another thread, after `stopping` was set. Between requests: sends Drain and ends the
  // connection. In a request: leaves it to Run(), which does the same after the reply. Waits a few
  // milliseconds at most.
  void Drain();
  // From another thread: ends the connection now.
  void Abort();

 private:
  bool Open();
  bool ServeOne();
  // kInvalidArgument and kCorrupt: a bad request. kUnavailable: the reply could not be sent.
  Status Answer(const wire::Frame& frame);
  Status AnswerHello(Bytes body);
  Status AnswerAttest(Bytes body);
  Status AnswerFetch(Bytes body);
  Status AnswerMultiply(Bytes body);
  Status AnswerPing(Bytes body);
  void SendDrain(int timeout_ms);

  bool IsAttested() const;

  const SessionContext context_;
  ProductService::Connection products_;
  std::mutex life_;  // guards the two pointers, not what they point to
  std::shared_ptr<wire::StrangerTransport> socket_;  // below TLS; reset by Run() alone
  std::unique_ptr<wire::Connection> connection_;     // reset by Run() alone
  std::mutex replying_;   // held from the end of a request to the end of its reply, and by Drain()
  bool drained_ = false;  // guarded by replying_
  bool greeted_ = false;  // Run() only, like all below
  const wire::TlsTransport* tls_ = nullptr;  // the connection's; null: plaintext
  std::array<uint8_t, attest::kNonceBytes> nonce_{};
  bool challenged_ = false;  // the nonce is out and was not used yet
  std::optional<Gate::Time> attested_until_;
  uint32_t peer_max_frame_bytes_ = wire::kMaxFrameBytes;
  std::vector<uint8_t> buffer_;  // of replies; grows to the largest one
};

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_SESSION_H_
