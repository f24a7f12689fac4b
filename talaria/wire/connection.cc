#include "talaria/wire/connection.h"

#include <algorithm>
#include <cstring>

namespace talaria::wire {
namespace {

constexpr size_t kLengthBytes = 4;
// Fits every decode call of a small model, so a frame is one read; bigger ones grow the buffer
// once.
constexpr size_t kInitialBuffer = size_t{64} << 10;

}  // namespace

Connection::Connection(std::unique_ptr<Transport> transport, uint32_t max_frame_bytes)
    : transport_(std::move(transport)),
      max_frame_bytes_(std::min(max_frame_bytes, kMaxFrameBytes)) {}

Status Connection::Send(Type type, std::initializer_list<Bytes> body_parts, int timeout_ms) {
  TALARIA_CHECK(body_parts.size() <= kMaxBodyParts);
  Bytes part[kMaxBodyParts];
  std::copy(body_parts.begin(), body_parts.end(), part);
  size_t length = 1;  // the type
  for (const Bytes& p : part) length += p.size();
  if (length > kMaxFrameBytes) {
    return Status(Code::kInvalidArgument,
                  "a frame of " + std::to_string(length) + " bytes is over the limit");
  }
  uint8_t header[kFrameHeaderBytes];
  const uint32_t field = static_cast<uint32_t>(length);
  std::memcpy(header, &field, kLengthBytes);
  header[kLengthBytes] = static_cast<uint8_t>(type);
  TALARIA_RETURN_IF_ERROR(
      transport_->Send({Bytes(header), part[0], part[1], part[2], part[3]}, timeout_ms));
  bytes_sent_ += kLengthBytes + length;
  return OkStatus();
}

Result<Frame> Connection::Receive(int idle_timeout_ms, int frame_timeout_ms) {
  if (broken_) return Status(Code::kUnavailable, "the connection failed before");
  if (begin_ == end_) {
    begin_ = end_ = 0;
    TALARIA_RETURN_IF_ERROR(ReceiveUntil(1, idle_timeout_ms));
  }
  TALARIA_RETURN_IF_ERROR(ReceiveUntil(kFrameHeaderBytes, frame_timeout_ms));
  const uint32_t length = LoadLe<uint32_t>(&buffer_[begin_]);
  const uint8_t type = buffer_[begin_ + kLengthBytes];
  if (length == 0) return Status(Code::kCorrupt, "a frame without a type");
  if (length > max_frame_bytes_) return Status(Code::kCorrupt, "a frame over the limit");
  if (!IsType(type)) return Status(Code::kCorrupt, "a frame of unknown type");
  const size_t total = kLengthBytes + length;
  TALARIA_RETURN_IF_ERROR(ReceiveUntil(total, frame_timeout_ms));
  const Frame frame{static_cast<Type>(type),
                    Bytes(buffer_).subspan(begin_ + kFrameHeaderBytes, length - 1)};
  begin_ += total;
  return frame;
}

void Connection::SetMaxFrameBytes(uint32_t max_frame_bytes) {
  max_frame_bytes_ = std::min(max_frame_bytes, kMaxFrameBytes);
}

void Connection::Shutdown() { transport_->Shutdown(); }

// Receives until `wanted` bytes lie at begin_, and whatever more is there and fits. Invariant:
// [begin_, end_) is unconsumed.
Status Connection::ReceiveUntil(size_t wanted, int timeout_ms) {
  while (end_ - begin_ < wanted) {
    const size_t have = end_ - begin_;
    if (begin_ + wanted > buffer_.size()) {
      if (begin_ != 0) {
        std::memmove(buffer_.data(), buffer_.data() + begin_, have);
        begin_ = 0;
        end_ = have;
      }
      if (wanted > buffer_.size() && have == buffer_.size()) {
        // Full: all of it is this frame's bytes, so doubling stays within twice of what was
        // received.
        const size_t size = std::min(wanted, 2 * have);
        buffer_.resize(std::max(size, kInitialBuffer));
      }
    }
    const size_t room = buffer_.size() - end_;
    const size_t missing = std::min(wanted - have, room);
    Result<size_t> n =
        transport_->ReceiveSome(MutableBytes(buffer_).subspan(end_), missing, timeout_ms);
    if (!n.ok()) {
      // A transport may drop what it had received before it failed, so the frame cannot be
      // continued.
      broken_ = have != 0;
      return broken_ ? n.status().Annotate("inside a frame") : n.status();
    }
    end_ += *n;
    bytes_received_ += *n;
  }
  return OkStatus();
}

}  // namespace talaria::wire
