#include "talaria/cloud/session.h"

#include <algorithm>
#include <new>

#include "talaria/base/log.h"

namespace talaria::cloud {
namespace {

using wire::ErrorCode;
using wire::Type;

constexpr int kDrainSendTimeoutMs =
    10;  // between requests a socket's buffer is empty, unless the peer never reads

// What the peer is told. The text of a status stays here.
ErrorCode ToErrorCode(const Status& status) {
  switch (status.code()) {
    case Code::kInvalidArgument:
    case Code::kCorrupt:
      return ErrorCode::kBadRequest;
    case Code::kUnsupported:
      return ErrorCode::kUnsupportedVersion;
    case Code::kSessionEnded:
      return ErrorCode::kNotAttested;
    case Code::kCancelled:
      return ErrorCode::kDraining;
    default:
      return ErrorCode::kInternal;
  }
}

}  // namespace

Session::Session(std::unique_ptr<wire::Transport> transport, const SessionContext& context)
    : context_(context),
      connection_(std::make_unique<wire::Connection>(std::move(transport), wire::kMinFrameLimit)),
      attested_(context.simulated_tee) {}

void Session::Run() {
  try {
    while (ServeOne()) {
    }
  } catch (const std::bad_alloc&) {
    LogError("out of memory for a request; its connection is closed");
  }
  const std::lock_guard drain(replying_);
  const std::lock_guard lock(life_);
  connection_.reset();
  std::vector<uint8_t>().swap(buffer_);
}

// False: the connection is over.
bool Session::ServeOne() {
  const Result<wire::Frame> frame =
      connection_->Receive(context_.idle_timeout_ms, context_.frame_timeout_ms);
  const std::lock_guard lock(replying_);
  if (drained_) return false;
  Status status = frame.status();
  if (frame.ok()) {
    status = context_.stopping ? Status(Code::kCancelled, "stopping") : Answer(*frame);
  } else if (status.code() != Code::kCorrupt) {
    return false;  // nobody is there to be told
  }
  if (status.ok() && !context_.stopping) return true;
  if (status.ok()) {
    SendDrain(context_.frame_timeout_ms);
  } else if (status.code() != Code::kUnavailable) {
    const std::vector<uint8_t> body = Encode(wire::ErrorMessage{ToErrorCode(status)});
    (void)connection_->Send(Type::kError, {body}, context_.frame_timeout_ms);
  }
  return false;
}

Status Session::Answer(const wire::Frame& frame) {
  if (frame.type == Type::kHello) return AnswerHello(frame.body);
  // Before a channel is attested nothing but Hello is answered: a product with unit vectors would
  // give the weights away.
  if (!attested_) return Status(Code::kSessionEnded, "not attested");
  if (!greeted_) return Status(Code::kInvalidArgument, "a request before Hello");
  switch (frame.type) {
    case Type::kFetch:
      return AnswerFetch(frame.body);
    case Type::kMultiply:
      return AnswerMultiply(frame.body);
    case Type::kPing:
      return AnswerPing(frame.body);
    default:
      return Status(Code::kInvalidArgument, "not a request");
  }
}

Status Session::AnswerHello(Bytes body) {
  TALARIA_ASSIGN_OR_RETURN(const wire::Hello hello, wire::DecodeHello(body));
  if (greeted_) return Status(Code::kInvalidArgument, "a second Hello");
  greeted_ = true;
  // Until here a frame was small: strangers must not make the server hold memory.
  if (attested_) connection_->SetMaxFrameBytes(wire::kMaxFrameBytes);
  peer_max_frame_bytes_ = hello.max_frame_bytes;
  wire::HelloReply reply;
  reply.identity = context_.store.identity();
  return connection_->Send(Type::kHelloReply, {Encode(reply)}, context_.frame_timeout_ms);
}

Status Session::AnswerFetch(Bytes body) {
  TALARIA_ASSIGN_OR_RETURN(const wire::Fetch fetch, wire::DecodeFetch(body));
  TALARIA_ASSIGN_OR_RETURN(const uint64_t size, context_.store.StreamBytes(fetch.stream));
  if (fetch.offset > size || fetch.bytes > size - fetch.offset) {
    return Status(Code::kInvalidArgument, "outside the stream");
  }
  if (1 + wire::kChunkHeaderBytes + fetch.bytes > peer_max_frame_bytes_) {
    return Status(Code::kInvalidArgument, "the reply would be over the frame limit");
  }
  if (buffer_.size() < fetch.bytes) buffer_.resize(fetch.bytes);
  const MutableBytes bytes = MutableBytes(buffer_).first(fetch.bytes);
  if (const Status status = context_.store.ReadStream(fetch.stream, fetch.offset, bytes);
      !status.ok()) {
    LogError("reading the store: " + status.ToString());
    return Status(Code::kInternal, "reading the store");
  }
  uint8_t header[wire::kChunkHeaderBytes];
  EncodeTo(wire::ChunkHeader{fetch.stream, fetch.offset}, header);
  return connection_->Send(Type::kChunk, {header, bytes}, context_.frame_timeout_ms);
}

Status Session::AnswerMultiply(Bytes body) {
  Bytes planes;
  TALARIA_ASSIGN_OR_RETURN(const wire::MultiplyHeader request, wire::DecodeMultiply(body, &planes));
  TALARIA_ASSIGN_OR_RETURN(const Bytes residues,
                           context_.products.Multiply(request, planes, peer_max_frame_bytes_,
                                                      context_.stopping, buffer_));
  uint8_t header[wire::kCallHeaderBytes];
  EncodeTo(wire::ProductHeader{request.call, request.group, request.rows}, header);
  return connection_->Send(Type::kProduct, {header, residues}, context_.frame_timeout_ms);
}

Status Session::AnswerPing(Bytes body) {
  TALARIA_RETURN_IF_ERROR(wire::DecodeEmpty(body));
  return connection_->Send(Type::kPong, {}, context_.frame_timeout_ms);
}

// The caller holds replying_.
void Session::SendDrain(int timeout_ms) {
  drained_ = true;
  (void)connection_->Send(Type::kDrain, {}, timeout_ms);
}

void Session::Drain() {
  const std::unique_lock lock(replying_, std::try_to_lock);
  if (!lock.owns_lock() || connection_ == nullptr || drained_) return;
  SendDrain(kDrainSendTimeoutMs);
  connection_->Shutdown();
}

void Session::Abort() {
  const std::lock_guard lock(life_);
  if (connection_ != nullptr) connection_->Shutdown();
}

}  // namespace talaria::cloud
