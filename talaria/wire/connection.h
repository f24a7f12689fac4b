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

// One thread at a time, but Shutdown() from any. Counts its bytes.
class Connection {
 public:
  // `max_frame_bytes` bounds what is received (length field), before anything is allocated.
  Connection(std::unique_ptr<Transport> transport, uint32_t max_frame_bytes);
  // kUnavailable.
  Status Send(Type type, std::initializer_list<Bytes> body_parts, int timeout_ms);
  // kUnavailable: the transport failed (reset, end inside or between frames, time-out).
  // kCorrupt: a protocol violation (length 0 or over the limit, unknown type).
  Result<Frame> Receive(int timeout_ms);
  void Shutdown();
  uint64_t bytes_sent() const { return bytes_sent_; }
  uint64_t bytes_received() const { return bytes_received_; }

 private:
  std::unique_ptr<Transport> transport_;
  uint32_t max_frame_bytes_;
  std::vector<uint8_t> buffer_;   // received bytes; grows to the largest frame seen, never shrinks
  size_t begin_ = 0, end_ = 0;    // what of it is not yet consumed
  uint64_t bytes_sent_ = 0, bytes_received_ = 0;
};

}  // namespace talaria::wire

#endif  // TALARIA_WIRE_CONNECTION_H_
