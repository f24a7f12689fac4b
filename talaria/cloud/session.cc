#include "talaria/cloud/session.h"

#include <sys/random.h>

#include <algorithm>
#include <new>

#include "talaria/base/log.h"
#include "talaria/wire/shared_transport.h"

namespace talaria::cloud {
namespace {

using wire::ErrorCode;
using wire::Type;

constexpr uint32_t kMaxAttestFrameBytes = 1 + attest::kMaxClaimBytes;
constexpr std::chrono::microseconds kBusyWait{1000};  // of a CVM that is decoding
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
    case Code::kUntrusted:
      return ErrorCode::kNotAttested;
    case Code::kResourceExhausted:
      return ErrorCode::kOverloaded;
    case Code::kCancelled:
      return ErrorCode::kDraining;
    default:
      return ErrorCode::kInternal;
  }
}

}  // namespace

Session::Session(std::unique_ptr<wire::Transport> transport, const SessionContext& context)
    : context_(context),
      products_(context.products),
      socket_(std::make_shared<wire::StrangerTransport>(std::move(transport),
                                                        context.hello_timeout_ms)) {}

void Session::Run() {
  try {
    if (Open()) {
      while (ServeOne()) {
      }
    }
  } catch (const std::bad_alloc&) {
    LogError("out of memory for a request; its connection is closed");
  }
  const std::lock_guard drain(replying_);
  const std::lock_guard lock(life_);
  connection_.reset();
  socket_.reset();
  std::vector<uint8_t>().swap(buffer_);
}

// Until a peer is attested its frames are small: strangers must not make the server hold memory.
bool Session::Open() {
  std::unique_ptr<wire::Transport> transport = std::make_unique<wire::SharedTransport>(socket_);
  if (context_.gate == nullptr) {
    socket_->Admit();
  } else {
    Result<std::unique_ptr<wire::TlsTransport>> tls =
        wire::TlsAccept(std::move(transport), context_.gate->key(), wire::PeerKey::Any(),
                        context_.frame_timeout_ms);
    Status status = tls.status();
    if (status.ok()) status = context_.gate->CheckKeyExchange((*tls)->group());
    if (!status.ok()) {
      context_.refused_connections.Warn("refused a connection: " + status.ToString());
      return false;
    }
    tls_ = tls->get();
    transport = std::move(*tls);
  }
  auto connection = std::make_unique<wire::Connection>(std::move(transport), wire::kMinFrameLimit);
  const std::lock_guard drain(replying_);
  const std::lock_guard lock(life_);
  connection_ = std::move(connection);
  return true;
}

bool Session::IsAttested() const {
  if (tls_ == nullptr) return true;
  return attested_until_ && context_.gate->Now() < *attested_until_;
}

// False: the connection is over.
bool Session::ServeOne() {
  // For a stranger the deadline of its socket counts. Who was admitted has none there, also when
  // max_age is over.
  const int idle_timeout_ms = socket_->admitted() ? context_.idle_timeout_ms : 0;
  const Result<wire::Frame> frame =
      connection_->Receive(idle_timeout_ms, context_.frame_timeout_ms);
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
  if (frame.type == Type::kAttest) return AnswerAttest(frame.body);
  // Before a channel is attested nothing else is answered: a product with unit vectors would give
  // the weights away. The same when max_age is over: the CVM connects anew and is asked again.
  if (!IsAttested()) return Status(Code::kUntrusted, "not attested");
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
  peer_max_frame_bytes_ = hello.max_frame_bytes;
  TALARIA_ASSIGN_OR_RETURN(const uint64_t manifest_bytes,
                           context_.store.StreamBytes({model::StreamKind::kManifest, 0}));
  if (tls_ != nullptr) attested_until_ = context_.gate->AdmittedUntil(tls_->peer_key());
  wire::HelloReply reply;
  reply.identity = context_.store.identity();
  reply.manifest_bytes = static_cast<uint32_t>(manifest_bytes);
  reply.attested = IsAttested();
  if (reply.attested) {
    if (tls_ != nullptr) TALARIA_RETURN_IF_ERROR(products_.Admit(tls_->peer_key()));
    socket_->Admit();
  } else {
    socket_->Extend(context_.evidence_timeout_ms);
    if (getrandom(nonce_.data(), nonce_.size(), 0) != static_cast<ssize_t>(nonce_.size()))
      return Status(Code::kInternal, "getrandom");
    challenged_ = true;
    reply.nonce = nonce_;
  }
  connection_->SetMaxFrameBytes(reply.attested ? wire::kMaxFrameBytes : kMaxAttestFrameBytes);
  return connection_->Send(Type::kHelloReply, {Encode(reply)}, context_.frame_timeout_ms);
}

// A nonce is used once, and a connection has one: whoever fails must connect anew.
Status Session::AnswerAttest(Bytes body) {
  if (!challenged_) return Status(Code::kInvalidArgument, "evidence that was not asked for");
  challenged_ = false;
  const auto judge = [&]() -> Result<Gate::Time> {
    TALARIA_ASSIGN_OR_RETURN(const attest::Claim claim, attest::DecodeClaim(body));
    TALARIA_ASSIGN_OR_RETURN(const auto exporter, tls_->Export(attest::kExporterLabel, nonce_));
    return context_.gate->Admit(claim, attest::Channel{.role = attest::Role::kClientToCloud,
                                                       .nonce = nonce_,
                                                       .exporter = exporter,
                                                       .cvm_key = tls_->peer_key(),
                                                       .peer_key = tls_->own_key()});
  };
  const Result<Gate::Time> until = judge();
  if (!until.ok()) {
    context_.refused_claims.Warn("refused a CVM: " + until.status().ToString());
    return Status(Code::kUntrusted, "not attested");
  }
  TALARIA_RETURN_IF_ERROR(products_.Admit(tls_->peer_key()));
  attested_until_ = *until;
  socket_->Admit();
  connection_->SetMaxFrameBytes(wire::kMaxFrameBytes);
  return connection_->Send(Type::kAttested, {}, context_.frame_timeout_ms);
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
  TALARIA_ASSIGN_OR_RETURN(
      const Bytes residues,
      context_.products.Multiply(products_, request, planes, peer_max_frame_bytes_,
                                 context_.stopping, buffer_));
  if (context_.observer != nullptr)
    context_.observer->OnMultiply(context_.connection, request, planes);
  uint8_t header[wire::kCallHeaderBytes];
  EncodeTo(wire::ProductHeader{request.call, request.group, request.rows}, header);
  socket_->SetBusyWait(kBusyWait);  // the next call of this token comes soon
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
  if (socket_ != nullptr) socket_->Shutdown();
}

}  // namespace talaria::cloud
