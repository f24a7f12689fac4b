// Frames over a Transport.
#ifndef TALARIA_WIRE_CONNECTION_H_
#define TALARIA_WIRE_CONNECTION_H_

#include <initializer_list>
#include <memory>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/result.h"
#include "talaria/wire/messages.h"
#include "talaria/wire/transport.h"

namespace talaria::wire {

struct Frame {
  Type type = Type::kError;
  Bytes body;  // in the connection's private buffer, valid until the next Receive
};

// One thread sends and one receives at a time, which may be two; Shutdown() from any. Counts its
// bytes.
class Connection {
 public:
  static constexpr size_t kMaxBodyParts = 4;

  // `max_frame_bytes` bounds what is received (length field), before anything is allocated; at most
  // kMaxFrameBytes. The buffer grows with what has really arrived, to at most twice of it, never
  // with what a length field promises.
  Connection(std::unique_ptr<Transport> transport, uint32_t max_frame_bytes);
  // At most kMaxBodyParts parts, sent with the header in one go. kUnavailable; kCancelled after
  // Shutdown(); kInvalidArgument (nothing was sent) for a body that no frame can hold. Time-outs
  // here and below: no progress for so long; 0 = none.
  Status Send(Type type, std::initializer_list<Bytes> body_parts, int timeout_ms);
  // kUnavailable: the transport failed (reset, end inside or between frames, time-out).
  // kCorrupt: a protocol violation (length 0 or over the limit, unknown type); every later call
  // says so again. kCancelled after Shutdown(). A failure inside a frame is final; a time-out
  // between frames is not.
  Result<Frame> Receive(int timeout_ms) { return Receive(timeout_ms, timeout_ms); }
  // The same with a time-out of its own for the wait between two frames.
  Result<Frame> Receive(int idle_timeout_ms, int frame_timeout_ms);
  // For later frames; from the receiving thread. A server lets strangers send small ones only.
  void SetMaxFrameBytes(uint32_t max_frame_bytes);
  void Shutdown();
  uint64_t bytes_sent() const { return bytes_sent_; }
  uint64_t bytes_received() const { return bytes_received_; }

 private:
  Status ReceiveUntil(size_t wanted, int timeout_ms);

  std::unique_ptr<Transport> transport_;
  uint32_t max_frame_bytes_;
  std::vector<uint8_t> buffer_;  // received bytes; grows to the largest frame seen, never shrinks
  size_t begin_ = 0, end_ = 0;   // what of it is not yet consumed
  bool broken_ = false;          // a frame was lost half-way
  uint64_t bytes_sent_ = 0, bytes_received_ = 0;
};

}  // namespace talaria::wire

#endif  // TALARIA_WIRE_CONNECTION_H_
