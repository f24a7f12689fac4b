// One connection of the cloud: reads a request, answers it, one after the other, until either side
// ends it.
#ifndef TALARIA_CLOUD_SESSION_H_
#define TALARIA_CLOUD_SESSION_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "talaria/cloud/product_service.h"
#include "talaria/model/store.h"
#include "talaria/wire/connection.h"

namespace talaria::cloud {

// What all sessions of a server share.
struct SessionContext {
  const model::Store& store;
  ProductService& products;
  const std::atomic<bool>& stopping;
  int idle_timeout_ms;
  int frame_timeout_ms;
  bool simulated_tee;  // answer everything on channels that are not attested
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
  bool ServeOne();
  // kInvalidArgument and kCorrupt: a bad request. kUnavailable: the reply could not be sent.
  Status Answer(const wire::Frame& frame);
  Status AnswerHello(Bytes body);
  Status AnswerFetch(Bytes body);
  Status AnswerMultiply(Bytes body);
  Status AnswerPing(Bytes body);
  void SendDrain(int timeout_ms);

  const SessionContext context_;
  std::mutex life_;                               // guards the pointer, not what it points to
  std::unique_ptr<wire::Connection> connection_;  // reset by Run() alone
  std::mutex replying_;   // held from the end of a request to the end of its reply, and by Drain()
  bool drained_ = false;  // guarded by replying_
  bool greeted_ = false;  // Run() only, like all below
  bool attested_;
  uint32_t peer_max_frame_bytes_ = wire::kMaxFrameBytes;
  std::vector<uint8_t> buffer_;  // of replies; grows to the largest one
};

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_SESSION_H_
