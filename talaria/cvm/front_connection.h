// One client of the front: its handshake, and its bytes to and from the gateway. Internal to the
// front.
#ifndef TALARIA_CVM_FRONT_CONNECTION_H_
#define TALARIA_CVM_FRONT_CONNECTION_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>

#include "talaria/base/file.h"
#include "talaria/cvm/front.h"
#include "talaria/wire/tls.h"
#include "talaria/wire/transport.h"

namespace talaria::cvm {

class FrontConnection {
 public:
  FrontConnection(std::shared_ptr<const FrontOptions> options,
                  std::unique_ptr<wire::Transport> client);
  ~FrontConnection();  // Stop(), and waits
  // Once. kResourceExhausted: no thread.
  Status Start();
  void Stop();                         // any thread: everything pending fails at once
  bool done() const { return done_; }  // all is closed; the destructor does not wait any more
  bool HasUnsent();                    // the gateway wrote what no Send has taken yet

 private:
  void Run();
  void Serve(const std::shared_ptr<wire::TlsTransport>& tls);
  bool OpenPair(Fd* gateway_end);
  void ToGateway(wire::TlsTransport& tls);
  void ToClient(wire::TlsTransport& tls);

  const std::shared_ptr<const FrontOptions> options_;
  std::mutex mutex_;                         // for the two below: Stop() may come at any time
  std::shared_ptr<wire::Transport> client_;  // null when closed
  Fd pair_;                                  // our end; changes only while no thread relays
  bool stopped_ = false;
  std::atomic<bool> ending_{false};  // the gateway has closed its end, or the client takes nothing
  std::atomic<bool> done_{false};
  std::thread thread_;
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_FRONT_CONNECTION_H_
