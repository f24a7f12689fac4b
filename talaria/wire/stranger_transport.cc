#include "talaria/wire/stranger_transport.h"

#include <algorithm>
#include <utility>

namespace talaria::wire {

using std::chrono::milliseconds;

StrangerTransport::StrangerTransport(std::unique_ptr<Transport> inner, int timeout_ms)
    : inner_(std::move(inner)), deadline_(Clock::now() + milliseconds(timeout_ms)) {}

void StrangerTransport::Extend(int timeout_ms) {
  deadline_.store(Clock::now() + milliseconds(timeout_ms), std::memory_order_release);
}

Result<int> StrangerTransport::Within(int timeout_ms) const {
  const Clock::time_point deadline = deadline_.load(std::memory_order_acquire), now = Clock::now();
  if (now >= deadline) return Status(Code::kUnavailable, "the peer did not say who it is in time");
  const auto left = std::chrono::ceil<milliseconds>(deadline - now).count();
  return static_cast<int>(timeout_ms == 0 ? left : std::min<int64_t>(left, timeout_ms));
}

Status StrangerTransport::Send(std::initializer_list<Bytes> parts, int timeout_ms) {
  if (!admitted_.load(std::memory_order_acquire)) {
    TALARIA_ASSIGN_OR_RETURN(timeout_ms, Within(timeout_ms));
  }
  return inner_->Send(parts, timeout_ms);
}

Result<size_t> StrangerTransport::ReceiveSome(MutableBytes out, size_t min_bytes, int timeout_ms) {
  size_t done = 0;
  // Piece by piece, so that the deadline is looked at after each.
  while (done < min_bytes && !admitted_.load(std::memory_order_acquire)) {
    TALARIA_ASSIGN_OR_RETURN(const int wait_ms, Within(timeout_ms));
    const Result<size_t> n = inner_->ReceiveSome(out.subspan(done), 1, wait_ms);
    if (!n.ok()) {
      TALARIA_RETURN_IF_ERROR(Within(timeout_ms).status());  // this time-out is the deadline
      return n.status();
    }
    done += *n;
  }
  if (done >= min_bytes) return done;
  return inner_->ReceiveSome(out, min_bytes, timeout_ms);
}

}  // namespace talaria::wire
