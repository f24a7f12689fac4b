// A transport for tests and fuzzers: receives prepared bytes, a piece at a time, and keeps what is
// sent.
#ifndef TALARIA_WIRE_TESTING_MEMORY_TRANSPORT_H_
#define TALARIA_WIRE_TESTING_MEMORY_TRANSPORT_H_

#include <algorithm>
#include <cstring>
#include <vector>

#include "talaria/wire/transport.h"

namespace talaria::wire {

class MemoryTransport final : public Transport {
 public:
  // `piece`: how many bytes one read of the "system" yields at most; >= 1. The end of `input` is
  // the peer's end of stream. `sent` may be null; it outlives the transport.
  MemoryTransport(Bytes input, size_t piece, std::vector<uint8_t>* sent)
      : input_(input.begin(), input.end()), piece_(piece), sent_(sent) {}

  Status Send(std::initializer_list<Bytes> parts, int /*timeout_ms*/) override {
    if (shutdown_) return Status(Code::kCancelled, "shut down");
    for (const Bytes& part : parts) {
      if (sent_ != nullptr) sent_->insert(sent_->end(), part.begin(), part.end());
    }
    return OkStatus();
  }

  Result<size_t> ReceiveSome(MutableBytes out, size_t min_bytes, int /*timeout_ms*/) override {
    TALARIA_CHECK(min_bytes >= 1 && min_bytes <= out.size());
    largest_request_ = std::max(largest_request_, out.size());
    if (shutdown_) return Status(Code::kCancelled, "shut down");
    size_t done = 0;
    while (done < min_bytes) {
      const size_t n = std::min({piece_, input_.size() - position_, out.size() - done});
      if (n == 0) return Status(Code::kUnavailable, "the peer closed the connection");
      std::memcpy(out.data() + done, input_.data() + position_, n);
      position_ += n;
      done += n;
    }
    return done;
  }

  void Shutdown() override { shutdown_ = true; }

  size_t position() const { return position_; }                // of the input, consumed
  size_t largest_request() const { return largest_request_; }  // the largest buffer ever offered

 private:
  std::vector<uint8_t> input_;
  size_t piece_;
  std::vector<uint8_t>* sent_;
  size_t position_ = 0, largest_request_ = 0;
  bool shutdown_ = false;
};

}  // namespace talaria::wire

#endif  // TALARIA_WIRE_TESTING_MEMORY_TRANSPORT_H_
