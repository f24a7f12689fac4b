// A connection whose incoming bytes a thread of its own receives. So reads can have deadlines, and
// the end of the connection is noticed while nobody reads: a user who leaves stops the answer that
// is being made for them, and an idle connection that has closed is not used again.
#ifndef TALARIA_CLIENT_READ_AHEAD_H_
#define TALARIA_CLIENT_READ_AHEAD_H_

#include <chrono>
#include <condition_variable>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/result.h"
#include "talaria/wire/transport.h"

namespace talaria::client {

using TimePoint = std::chrono::steady_clock::time_point;
inline TimePoint After(int64_t ms) {
  return std::chrono::steady_clock::now() + std::chrono::milliseconds(ms);
}

// One thread sends and one reads at a time.
class ReadAhead {
 public:
  explicit ReadAhead(std::unique_ptr<wire::Transport> transport);
  ~ReadAhead();  // closes the connection
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // kUnavailable, kCancelled: as Transport says.
  Status Send(std::initializer_list<Bytes> parts, int timeout_ms);
  // At least one byte. kUnavailable: nothing came before the deadline (not final), or the
  // connection has ended and all that came before was read; kCancelled after Shutdown().
  Result<size_t> ReadSome(MutableBytes out, TimePoint deadline);

  // Any thread:
  bool ended() const;  // nothing more will come, or can be sent
  bool quiet() const;  // not ended, and nothing unread
  void Shutdown();     // reading and sending fail from now on
  // Called once when the connection ends, at once when it has; in whichever thread notices, with a
  // lock held, so that it does not run any more when OnEnd({}) has returned. It must not call this.
  void OnEnd(std::function<void()> callback);

 private:
  void Receive();

  const std::unique_ptr<wire::Transport> transport_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<uint8_t> buffer_;  // received and not read, from `begin_`; bounded
  size_t begin_ = 0;
  Status end_;  // why nothing more comes
  bool stop_ = false;
  std::function<void()> on_end_;
  std::thread receiver_;  // last: it uses all of the above
};

}  // namespace talaria::client

#endif  // TALARIA_CLIENT_READ_AHEAD_H_
