#include "talaria/cvm/cloud_link.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>

#include "talaria/attest/binding.h"
#include "talaria/attest/claim.h"
#include "talaria/base/log.h"
#include "talaria/wire/tls.h"

namespace talaria::cvm {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using wire::Connection;
using wire::ErrorCode;
using wire::Frame;
using wire::Type;

constexpr int kRetryAllowanceMs = 800;   // for all retries together, on top of one idle time-out
constexpr int kLeastRetryMs = 500;       // however late the first failure was noticed
constexpr milliseconds kFirstPause{10};  // between two attempts to connect; doubles
constexpr milliseconds kLongestPause{200};

Status Ended() { return Status(Code::kSessionEnded, "the session has ended"); }

}  // namespace

struct CloudLink::Impl {
  CloudLinkOptions options;
  wire::Endpoint endpoint;

  std::mutex call_mutex;        // one exchange at a time; guards the members of this paragraph
  Digest identity{};            // of the last Hello
  uint32_t manifest_bytes = 0;  // the same
  uint64_t next_call = 0;
  uint64_t closed_sent = 0, closed_received = 0;  // bytes of connections that are gone
  std::optional<ErrorCode> last_error;
  bool made_evidence = false;  // for the connection that was opened last

  // Guards what Shutdown() and End() touch. `connection` is replaced under it and by the calling
  // thread only, which therefore may use the object without it.
  std::mutex state_mutex;
  std::condition_variable wake;
  bool shut_down = false, ended = false;
  std::unique_ptr<Connection> connection;
  std::optional<Digest> pinned;

  std::atomic<uint32_t> peer_max_frame{wire::kMaxFrameBytes};
  std::atomic<uint64_t> calls{0}, retries{0}, bytes_sent{0}, bytes_received{0};

  // OK, or why no call may be made.
  Status CheckOpen() {
    std::lock_guard lock(state_mutex);
    if (ended) return Ended();
    if (shut_down) return Status(Code::kCancelled, "the link was shut down");
    return OkStatus();
  }

  void Stop(bool end) {
    std::lock_guard lock(state_mutex);
    (end ? ended : shut_down) = true;
    if (connection) connection->Shutdown();
    wake.notify_all();
  }

  // The cloud broke the protocol. The reason is for the operator; callers see one code.
  Status Violation(std::string_view what) {
    LogError("the cloud broke the protocol: " + std::string(what));
    Stop(/*end=*/true);
    Close();
    return Ended();
  }

  void Count() {
    bytes_sent.store(closed_sent + (connection ? connection->bytes_sent() : 0),
                     std::memory_order_relaxed);
    bytes_received.store(closed_received + (connection ? connection->bytes_received() : 0),
                         std::memory_order_relaxed);
  }

  // Whatever was on its way is never read.
  void Close() {
    std::lock_guard lock(state_mutex);
    if (!connection) return;
    closed_sent += connection->bytes_sent();
    closed_received += connection->bytes_received();
    connection.reset();
    Count();
  }

  // kUnavailable for a transport failure, kSessionEnded for a violation, kCancelled.
  Result<Frame> Receive(int timeout_ms) {
    Result<Frame> frame = connection->Receive(timeout_ms);
    if (!frame.ok()) {
      if (frame.status().code() == Code::kCorrupt) return Violation(frame.status().message());
      return frame.status();
    }
    if (frame->type == Type::kError) {
      Result<wire::ErrorMessage> error = wire::DecodeError(frame->body);
      if (!error.ok()) return Violation(error.status().message());
      last_error = error->code;
      return Status(Code::kUnavailable, "the cloud answered with error " +
                                            std::to_string(static_cast<int>(error->code)));
    }
    if (frame->type == Type::kDrain) {
      if (!frame->body.empty()) return Violation("a Drain with a body");
      return Status(Code::kUnavailable, "the cloud is going away");
    }
    return frame;
  }

  // *tls is the channel below `connection`, null for plaintext.
  Status OpenChannel(int timeout_ms, const wire::TlsTransport** tls) {
    *tls = nullptr;
    Result<std::unique_ptr<wire::Transport>> transport =
        wire::Connect(endpoint, std::min(timeout_ms, options.connect_timeout_ms));
    if (!transport.ok()) return Status(Code::kUnavailable, transport.status().message());
    if (options.security != nullptr) {
      Result<std::unique_ptr<wire::TlsTransport>> secured =
          wire::TlsConnect(std::move(*transport), options.security->key,
                           wire::PeerKey::Pinned(options.security->provider_key), timeout_ms);
      // Whoever answers with another key is not the cloud: as if nobody had answered.
      if (!secured.ok())
        return Status(Code::kUnavailable,
                      "the channel to the cloud: " + secured.status().message());
      *tls = secured->get();
      transport = std::unique_ptr<wire::Transport>(std::move(*secured));
    }
    std::lock_guard lock(state_mutex);
    if (ended) return Ended();
    if (shut_down) return Status(Code::kCancelled, "the link was shut down");
    connection =
        std::make_unique<Connection>(std::move(transport).value(), options.max_frame_bytes);
    return OkStatus();
  }

  Status CheckIdentity(const wire::HelloReply& reply) {
    {
      std::lock_guard lock(state_mutex);
      if (!pinned || *pinned == reply.identity) return OkStatus();
    }
    return Violation("it serves another model than the one that is pinned");
  }

  // Nothing is given to us before, so nothing is lost by a provider that wants no evidence.
  Status Attest(const wire::TlsTransport& tls, const std::array<uint8_t, 32>& nonce) {
    const CloudSecurity& security = *options.security;
    made_evidence = true;
    TALARIA_ASSIGN_OR_RETURN(const auto exporter, tls.Export(attest::kExporterLabel, nonce));
    const attest::ReportData report_data =
        attest::ReportDataFor({.role = attest::Role::kClientToCloud,
                               .type = security.attester.type(),
                               .nonce = nonce,
                               .exporter = exporter,
                               .cvm_key = tls.own_key(),
                               .peer_key = tls.peer_key(),
                               .context = DigestOf(security.context)});
    Result<attest::Evidence> evidence = security.attester.Attest(
        report_data, Clock::now() + milliseconds(options.attest_timeout_ms));
    if (!evidence.ok()) return evidence.status().Annotate("evidence for the cloud");
    const std::vector<uint8_t> claim =
        Encode(attest::Claim{security.context, std::move(*evidence)});
    TALARIA_RETURN_IF_ERROR(
        connection->Send(Type::kAttest, {Bytes(claim)}, options.attest_timeout_ms));
    last_error.reset();
    Result<Frame> frame = Receive(options.attest_timeout_ms);
    if (!frame.ok()) {
      if (last_error != ErrorCode::kNotAttested) return frame.status();
      return Status(Code::kUntrusted, "the provider's policy does not accept this CVM's evidence");
    }
    if (frame->type != Type::kAttested || !frame->body.empty()) return Violation("no Attested");
    return OkStatus();
  }

  Status ConnectOnce(int timeout_ms) {
    const wire::TlsTransport* tls = nullptr;
    TALARIA_RETURN_IF_ERROR(OpenChannel(timeout_ms, &tls));
    wire::Hello hello;
    hello.max_frame_bytes = options.max_frame_bytes;
    TALARIA_RETURN_IF_ERROR(
        connection->Send(Type::kHello, {Bytes(wire::Encode(hello))}, timeout_ms));
    TALARIA_ASSIGN_OR_RETURN(const Frame frame, Receive(timeout_ms));
    if (frame.type != Type::kHelloReply) return Violation("no HelloReply");
    const Result<wire::HelloReply> reply = wire::DecodeHelloReply(frame.body);
    if (!reply.ok()) return Violation(reply.status().message());
    TALARIA_RETURN_IF_ERROR(CheckIdentity(*reply));
    identity = reply->identity;
    manifest_bytes = reply->manifest_bytes;
    peer_max_frame.store(reply->max_frame_bytes, std::memory_order_relaxed);
    if (reply->attested) return OkStatus();
    if (tls == nullptr) return Violation("it wants evidence over a channel without TLS");
    return Attest(*tls, reply->nonce);
  }

  // Connects if there is no connection, again and again until `deadline`: a cloud that restarts
  // refuses for a moment.
  Status EnsureConnected(Clock::time_point deadline) {
    if (connection) return OkStatus();
    milliseconds pause = kFirstPause;
    for (;;) {
      TALARIA_RETURN_IF_ERROR(CheckOpen());
      const Status status =
          ConnectOnce(std::min(options.idle_timeout_ms, MillisecondsUntil(deadline)));
      if (status.ok()) return status;
      Close();
      if (status.code() != Code::kUnavailable) return FinalStatus(status);
      if (Clock::now() + pause >= deadline) return status;
      std::unique_lock lock(state_mutex);
      wake.wait_for(lock, pause, [this] { return ended || shut_down; });
      pause = std::min(2 * pause, kLongestPause);
    }
  }

  // After End() a call that was interrupted says so, and not that it was cancelled.
  Status FinalStatus(const Status& status) {
    const Status open = CheckOpen();
    return open.ok() ? status : open;
  }

  static int MillisecondsUntil(Clock::time_point deadline) {
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - Clock::now()).count();
    return static_cast<int>(std::clamp<int64_t>(left, 1, 1 << 30));
  }

  // One request and its one reply: `send` writes the request, the same bytes each time; `accept`
  // checks and copies the reply, or returns an error that makes it a violation.
  template <class Send, class Accept>
  Status Exchange(Type reply_type, Send send, Accept accept) {
    TALARIA_RETURN_IF_ERROR(CheckOpen());
    const milliseconds budget(options.idle_timeout_ms + kRetryAllowanceMs);
    Clock::time_point deadline = Clock::now() + budget;
    for (int attempt = 0;; ++attempt) {
      made_evidence = false;
      TALARIA_RETURN_IF_ERROR(EnsureConnected(deadline));
      // Making evidence may have taken longer than a retry is given.
      if (made_evidence)
        deadline = std::max(deadline, Clock::now() + milliseconds(options.idle_timeout_ms));
      const Clock::time_point began = Clock::now();
      const int timeout_ms = attempt == 0
                                 ? options.idle_timeout_ms
                                 : std::min(options.idle_timeout_ms, MillisecondsUntil(deadline));
      last_error.reset();
      Status status = send(*connection, timeout_ms);
      if (status.ok()) {
        Result<Frame> frame = Receive(timeout_ms);
        status = frame.status();
        if (frame.ok()) {
          if (frame->type != reply_type) return Violation("a reply of the wrong type");
          if (const Status bad = accept(frame->body); !bad.ok()) return Violation(bad.message());
          Count();
          return OkStatus();
        }
      }
      Close();
      if (status.code() != Code::kUnavailable) return FinalStatus(status);
      if (attempt == 0) {
        const Clock::time_point now = Clock::now();
        deadline =
            now + std::max<Clock::duration>(milliseconds(kLeastRetryMs), budget - (now - began));
      }
      if (attempt >= options.max_retries || Clock::now() >= deadline)
        return status.Annotate("the cloud was lost");
      retries.fetch_add(1, std::memory_order_relaxed);
    }
  }

  size_t ChunkLimit() const {
    const size_t frame =
        std::min(options.max_frame_bytes, peer_max_frame.load(std::memory_order_relaxed));
    return std::min<size_t>(wire::kMaxChunkBytes, frame - 1 - wire::kChunkHeaderBytes);
  }

  // One chunk. call_mutex is held.
  Status FetchChunk(model::StreamId stream, uint64_t offset, MutableBytes out) {
    const std::vector<uint8_t> request =
        wire::Encode(wire::Fetch{stream, offset, static_cast<uint32_t>(out.size())});
    return Exchange(
        Type::kChunk,
        [&](Connection& c, int timeout_ms) {
          return c.Send(Type::kFetch, {Bytes(request)}, timeout_ms);
        },
        [&](Bytes body) {
          Bytes data;
          TALARIA_ASSIGN_OR_RETURN(const wire::ChunkHeader header, wire::DecodeChunk(body, &data));
          if (header.stream != stream || header.offset != offset || data.size() != out.size()) {
            return Status(Code::kCorrupt, "a chunk that was not asked for");
          }
          std::memcpy(out.data(), data.data(), data.size());
          return OkStatus();
        });
  }
};

CloudLink::CloudLink() : impl_(std::make_unique<Impl>()) {}
CloudLink::~CloudLink() = default;

Result<std::unique_ptr<CloudLink>> CloudLink::Create(CloudLinkOptions options) {
  TALARIA_ASSIGN_OR_RETURN(wire::Endpoint endpoint, wire::Endpoint::Parse(options.endpoint));
  if (options.connect_timeout_ms <= 0 || options.idle_timeout_ms <= 0 || options.max_retries < 0 ||
      options.max_frame_bytes < wire::kMinFrameLimit ||
      options.max_frame_bytes > wire::kMaxFrameBytes) {
    return Status(Code::kInvalidArgument,
                  "cloud link: a time-out, the retries or the frame limit is out of range");
  }
  std::unique_ptr<CloudLink> link(new CloudLink());
  link->impl_->endpoint = std::move(endpoint);
  if (options.identity != Digest{}) link->impl_->pinned = options.identity;
  link->impl_->options = std::move(options);
  return link;
}

Result<Digest> CloudLink::Identity() {
  std::lock_guard lock(impl_->call_mutex);
  TALARIA_RETURN_IF_ERROR(impl_->CheckOpen());
  TALARIA_RETURN_IF_ERROR(impl_->EnsureConnected(
      Clock::now() + milliseconds(impl_->options.idle_timeout_ms + kRetryAllowanceMs)));
  return impl_->identity;
}

void CloudLink::PinIdentity(const Digest& identity) {
  std::lock_guard lock(impl_->state_mutex);
  impl_->pinned = identity;
}

Status CloudLink::Fetch(model::StreamId stream, uint64_t offset, MutableBytes out) {
  std::lock_guard lock(impl_->call_mutex);
  while (!out.empty()) {
    const size_t n = std::min(out.size(), impl_->ChunkLimit());
    TALARIA_RETURN_IF_ERROR(impl_->FetchChunk(stream, offset, out.first(n)));
    offset += n;
    out = out.subspan(n);
  }
  return OkStatus();
}

Result<std::string> CloudLink::FetchManifest(const Digest& identity, size_t max_bytes) {
  std::lock_guard lock(impl_->call_mutex);
  TALARIA_RETURN_IF_ERROR(impl_->CheckOpen());
  TALARIA_RETURN_IF_ERROR(impl_->EnsureConnected(
      Clock::now() + milliseconds(impl_->options.idle_timeout_ms + kRetryAllowanceMs)));
  if (impl_->manifest_bytes > max_bytes) return impl_->Violation("its manifest is too large");
  std::string text(impl_->manifest_bytes, '\0');
  for (size_t have = 0; have < text.size();) {
    const size_t step = std::min(text.size() - have, impl_->ChunkLimit());
    TALARIA_RETURN_IF_ERROR(impl_->FetchChunk(
        {model::StreamKind::kManifest, 0}, have,
        MutableBytes(reinterpret_cast<uint8_t*>(text.data()), text.size()).subspan(have, step)));
    have += step;
  }
  if (Sha256Of(AsBytes(text)) != identity)
    return impl_->Violation("its manifest has not the digest that it named");
  return text;
}

Status CloudLink::Multiply(uint32_t group, uint32_t rows, Bytes planes, MutableBytes residues,
                           const std::function<void()>& meanwhile) {
  std::lock_guard lock(impl_->call_mutex);
  // Counted for the whole life of the link, and not per connection: a repeated request is the
  // identical bytes.
  const wire::MultiplyHeader request{impl_->next_call++, group, rows};
  uint8_t header[wire::kCallHeaderBytes];
  wire::EncodeTo(request, header);
  impl_->calls.fetch_add(1, std::memory_order_relaxed);
  return impl_->Exchange(
      Type::kProduct,
      [&](Connection& c, int timeout_ms) {
        TALARIA_RETURN_IF_ERROR(c.Send(Type::kMultiply, {Bytes(header), planes}, timeout_ms));
        if (meanwhile) meanwhile();
        return OkStatus();
      },
      [&](Bytes body) {
        Bytes data;
        TALARIA_ASSIGN_OR_RETURN(const wire::ProductHeader reply, wire::DecodeProduct(body, &data));
        if (reply.call != request.call || reply.group != group || reply.rows != rows ||
            data.size() != residues.size()) {
          return Status(Code::kCorrupt, "a product that was not asked for");
        }
        std::memcpy(residues.data(), data.data(), data.size());
        return OkStatus();
      });
}

uint32_t CloudLink::MaxRows(uint32_t d_padded, uint32_t o_padded) const {
  constexpr uint64_t kOverhead = 1 + wire::kCallHeaderBytes;
  const uint64_t sent = (impl_->peer_max_frame.load(std::memory_order_relaxed) - kOverhead) /
                        (uint64_t{6} * d_padded);
  const uint64_t received = (impl_->options.max_frame_bytes - kOverhead) / (uint64_t{6} * o_padded);
  return static_cast<uint32_t>(std::min(sent, received));
}

LinkStats CloudLink::stats() const {
  return {impl_->calls.load(std::memory_order_relaxed),
          impl_->retries.load(std::memory_order_relaxed),
          impl_->bytes_sent.load(std::memory_order_relaxed),
          impl_->bytes_received.load(std::memory_order_relaxed)};
}

void CloudLink::Shutdown() { impl_->Stop(/*end=*/false); }
void CloudLink::End() { impl_->Stop(/*end=*/true); }

}  // namespace talaria::cvm
