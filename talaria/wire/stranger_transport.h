// A connection whose peer has not proven yet who it is. Other time-outs count from the last
// progress, so that a peer that drips bytes can stretch them for ever; here there is one absolute
// deadline for all that it sends and takes, until it is admitted.
#ifndef TALARIA_WIRE_STRANGER_TRANSPORT_H_
#define TALARIA_WIRE_STRANGER_TRANSPORT_H_

#include <atomic>
#include <chrono>
#include <memory>

#include "talaria/wire/transport.h"

namespace talaria::wire {

class StrangerTransport final : public Transport {
 public:
  StrangerTransport(std::unique_ptr<Transport> inner, int timeout_ms);

  // As Transport says; also kUnavailable when the deadline is over, for good.
  Status Send(std::initializer_list<Bytes> parts, int timeout_ms) override;
  Result<size_t> ReceiveSome(MutableBytes out, size_t min_bytes, int timeout_ms) override;
  void SetBusyWait(std::chrono::microseconds time) override { inner_->SetBusyWait(time); }
  void Shutdown() override { inner_->Shutdown(); }

  // The next step towards being known has so long from now. In the thread that receives.
  void Extend(int timeout_ms);
  // The peer is known: no deadline any more. In the thread that receives.
  void Admit() { admitted_.store(true, std::memory_order_release); }
  bool admitted() const { return admitted_.load(std::memory_order_acquire); }

 private:
  using Clock = std::chrono::steady_clock;
  // At least 1 while the deadline is not over. `timeout_ms` 0 is none.
  Result<int> Within(int timeout_ms) const;

  const std::unique_ptr<Transport> inner_;
  std::atomic<Clock::time_point> deadline_;
  std::atomic<bool> admitted_{false};
};

}  // namespace talaria::wire

#endif  // TALARIA_WIRE_STRANGER_TRANSPORT_H_
