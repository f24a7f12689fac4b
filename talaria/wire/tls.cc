// One SSL object, two threads. OpenSSL's SSL is not thread-safe, so `mutex` guards it, and nobody
// waits for the network while holding it: the receiving thread waits for ciphertext in a buffer of
// its own and takes the lock to open it; the sending thread seals a batch of records under the lock
// and sends it without. Who sends holds `send_mutex` from the sealing to the end of the sending, so
// that records leave in the order of their numbers.
#include "talaria/wire/tls.h"

#include <atomic>
#include <chrono>
#include <mutex>

#include "talaria/attest/refusal.h"
#include "talaria/base/secret.h"
#include "talaria/wire/tls_bio.h"
#include "talaria/wire/tls_context.h"

namespace talaria::wire {
namespace {

using Clock = std::chrono::steady_clock;

// For alerts and the good-bye, which fit in a socket's buffer or are not worth waiting for.
constexpr int kFarewellMs = 1;
// How much too early the system's timers may be for our clock.
constexpr std::chrono::milliseconds kTimerSlack{2};

Status Cancelled() { return Status(Code::kCancelled, "the connection was shut down"); }

}  // namespace

struct TlsTransport::Impl {
  Impl(std::unique_ptr<Transport> transport, const PeerKey& peer, const TlsOptions& given)
      : inner(std::move(transport)),
        options(given),
        state(peer),
        scratch(std::make_unique_for_overwrite<uint8_t[]>(kRecordBytes)) {}
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { Wipe(scratch.get(), kRecordBytes); }

  const std::unique_ptr<Transport> inner;
  const TlsOptions options;
  HandshakeState state;  // constant after the handshake
  Digest own_key{};
  std::string group, version, cipher;
  std::atomic<bool> shutdown{false};

  std::mutex send_mutex;  // before `mutex`
  // What the holder of send_mutex has sent of buffers.Out(): dropped when it next takes `mutex`.
  size_t sent = 0;
  std::unique_ptr<uint8_t[]> scratch;  // with send_mutex

  std::mutex mutex;  // for all below
  // The receiving thread fills its Space(), and the sending one sends its Out(), without the lock.
  CiphertextBuffers buffers;
  Owned<SSL> ssl;        // after `buffers`, which its BIO uses
  uint64_t records = 0;  // sealed under the current key
  Status failed;         // of both directions, for good
  Status send_failed;    // the inner transport may have sent half a record

  Result<size_t> Receive(MutableBytes buffer, size_t min_bytes, int timeout_ms);
  Status Send(std::initializer_list<Bytes> parts, int timeout_ms);
  Status Handshake(const TlsKey& own, SSL_CTX* ctx, Role role, int timeout_ms);
  Status HandshakeSteps(int timeout_ms);
  void SendFarewell();
  void SayGoodBye();

  // With `mutex` held.
  Status Usable() const {
    if (shutdown.load(std::memory_order_acquire)) return Cancelled();
    return failed;
  }
  Status Fail(std::string_view what) {
    failed = Status(Code::kUnavailable, std::string(what) + ": " + TakeOpenSslError());
    return failed;
  }
  Status Seal(RecordCutter& records_left);
  size_t Open(MutableBytes buffer);
  void DropSent() {
    buffers.DropOut(sent);
    sent = 0;
  }
};

// --- The handshake: one thread, no lock needed, but the functions below are shared.

Status TlsTransport::Impl::Handshake(const TlsKey& own, SSL_CTX* ctx, Role role, int timeout_ms) {
  ssl.reset(SSL_new(ctx));
  BIO* const bio = buffers.NewBio();
  if (ssl == nullptr || bio == nullptr) {
    BIO_free(bio);
    ssl.reset();
    return Status(Code::kUnavailable, "TLS: out of memory");
  }
  SSL_set_bio(ssl.get(), bio, bio);
  SSL_set_app_data(ssl.get(), &state);
  if (state.peer.is_none()) {
    SSL_set_verify(ssl.get(), SSL_VERIFY_NONE, nullptr);
  } else if (state.peer.is_optional()) {
    SSL_set_verify(ssl.get(), SSL_VERIFY_PEER, nullptr);
  } else {
    SSL_set_verify(ssl.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  if (options.padding_bytes > 1) {
    TALARIA_CHECK(SSL_set_block_padding(ssl.get(), options.padding_bytes) == 1);
  }
  if (role == Role::kServer) {
    SSL_set_accept_state(ssl.get());
  } else {
    SSL_set_connect_state(ssl.get());
  }
  if (Status s = HandshakeSteps(timeout_ms); !s.ok()) {
    failed = s;
    return s;
  }
  if (state.own_asked) own_key = own.spki_sha256();
  version = SSL_get_version(ssl.get());
  cipher = SSL_get_cipher_name(ssl.get());
  const char* name =
      SSL_group_to_name(ssl.get(), static_cast<int>(SSL_get_negotiated_group(ssl.get())));
  group = name != nullptr ? name : "unknown";
  // Impossible as configured; checked because everything above relies on it.
  if (SSL_version(ssl.get()) != TLS1_3_VERSION || SSL_session_reused(ssl.get()) != 0 ||
      (!state.peer.is_optional() && (state.peer_key == Digest{}) != state.peer.is_none())) {
    failed = Status(Code::kUnavailable, "TLS handshake: not what was configured");
  }
  return failed;
}

Status TlsTransport::Impl::HandshakeSteps(int timeout_ms) {
  const Clock::time_point end = Clock::now() + std::chrono::milliseconds(timeout_ms);
  const Status late(Code::kUnavailable,
                    "TLS handshake: not done in " + std::to_string(timeout_ms) + " ms");
  for (;;) {
    ERR_clear_error();
    const int done = SSL_do_handshake(ssl.get());
    if (done != 1 && SSL_get_error(ssl.get(), done) != SSL_ERROR_WANT_READ) {
      const int reason = ERR_GET_REASON(ERR_peek_error());
      const Status status = Fail("TLS handshake");
      SendFarewell();
      if (!state.refusal.ok()) return state.refusal;
      if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
        return attest::Refuse("tls-no-certificate", "none", "one of the client");
      }
      return status;
    }
    // Rounded up, so that the inner time-out is not the earlier one.
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
    if (left <= 0) return late;
    if (const Bytes out = buffers.Out(); !out.empty()) {
      const Status status = inner->Send({out}, static_cast<int>(left));
      if (!status.ok()) return status.Annotate("TLS handshake");
      buffers.DropOut(out.size());
    }
    if (done == 1) return OkStatus();
    const Result<size_t> n = inner->ReceiveSome(buffers.Space(), 1, static_cast<int>(left));
    if (!n.ok())
      return Clock::now() >= end - kTimerSlack ? late : n.status().Annotate("TLS handshake");
    buffers.Filled(*n);
  }
}

// --- Sending.

Status TlsTransport::Impl::Seal(RecordCutter& records_left) {
  ERR_clear_error();
  while (!records_left.done() && buffers.HasRoomForRecord()) {
    if (records == options.records_per_key) {
      records = 0;
      if (SSL_key_update(ssl.get(), SSL_KEY_UPDATE_NOT_REQUESTED) != 1)
        return Fail("TLS key update");
    }
    const Bytes record = records_left.Next();
    size_t written = 0;
    // It can only fail for good: the BIO takes all. (That includes a peer who has sent the first
    // half of a message of its own handshake: OpenSSL would wait for the second; nobody of ours
    // does that.)
    if (SSL_write_ex(ssl.get(), record.data(), record.size(), &written) != 1 ||
        written != record.size()) {
      return Fail("TLS, sending");
    }
    ++records;
  }
  return OkStatus();
}

Status TlsTransport::Impl::Send(std::initializer_list<Bytes> parts, int timeout_ms) {
  const std::lock_guard sending(send_mutex);
  RecordCutter records_left(parts, scratch.get());
  do {
    Bytes out;
    {
      const std::lock_guard lock(mutex);
      TALARIA_RETURN_IF_ERROR(Usable());
      TALARIA_RETURN_IF_ERROR(send_failed);
      DropSent();
      TALARIA_RETURN_IF_ERROR(Seal(records_left));
      out = buffers.Out();
    }
    if (out.empty()) return OkStatus();
    if (Status s = inner->Send({out}, timeout_ms); !s.ok()) {
      const std::lock_guard lock(mutex);
      send_failed = s.Annotate("below TLS");
      return send_failed;
    }
    sent = out.size();
  } while (!records_left.done());
  return OkStatus();
}

// Sends what OpenSSL has left to say (an alert), if nobody is sending. `mutex` is not held.
void TlsTransport::Impl::SendFarewell() {
  const std::unique_lock sending(send_mutex, std::try_to_lock);
  if (!sending.owns_lock()) return;
  Bytes out;
  {
    const std::lock_guard lock(mutex);
    if (!send_failed.ok()) return;
    DropSent();
    out = buffers.Out();
  }
  if (out.empty()) return;
  (void)inner->Send({out}, kFarewellMs);
  sent = out.size();
}

void TlsTransport::Impl::SayGoodBye() {
  if (ssl == nullptr || shutdown || !failed.ok()) return;
  ERR_clear_error();
  (void)SSL_shutdown(ssl.get());
  ERR_clear_error();
  SendFarewell();
}

// --- Receiving.

size_t TlsTransport::Impl::Open(MutableBytes buffer) {
  size_t done = 0;
  ERR_clear_error();
  while (done < buffer.size() && (!buffers.in_empty() || SSL_pending(ssl.get()) > 0)) {
    size_t n = 0;
    const int ok = SSL_read_ex(ssl.get(), buffer.data() + done, buffer.size() - done, &n);
    if (ok == 1) {
      done += n;
      continue;
    }
    const int error = SSL_get_error(ssl.get(), ok);
    if (error == SSL_ERROR_WANT_READ) break;  // the rest is the beginning of a record
    if (error == SSL_ERROR_ZERO_RETURN) {
      failed = Status(Code::kUnavailable, "the peer closed the connection (close_notify)");
    } else {
      (void)Fail("TLS, receiving");
    }
    break;
  }
  return done;
}

Result<size_t> TlsTransport::Impl::Receive(MutableBytes buffer, size_t min_bytes, int timeout_ms) {
  TALARIA_CHECK(min_bytes >= 1 && min_bytes <= buffer.size());
  size_t done = 0, filled = 0;
  for (;;) {
    Status status;
    {
      const std::lock_guard lock(mutex);
      if (filled != 0) buffers.Filled(filled);
      status = Usable();
      if (status.ok()) {
        done += Open(buffer.subspan(done));
        if (done >= min_bytes) return done;  // a failure behind these bytes is the next call's
        status = failed;
      }
    }
    if (!status.ok()) {
      SendFarewell();
      return status;
    }
    // All that was received is opened: Open() stopped neither for want of room nor for a failure.
    const Result<size_t> n = inner->ReceiveSome(buffers.Space(), 1, timeout_ms);
    if (!n.ok()) {
      return shutdown.load(std::memory_order_acquire) ? Cancelled()
                                                      : n.status().Annotate("below TLS");
    }
    filled = *n;
  }
}

// --- The interface.

TlsTransport::TlsTransport(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TlsTransport::~TlsTransport() { impl_->SayGoodBye(); }

Result<std::unique_ptr<TlsTransport>> TlsTransport::Create(std::unique_ptr<Transport> inner,
                                                           const TlsKey& own, const PeerKey& peer,
                                                           int timeout_ms,
                                                           const TlsOptions& options, Role role) {
  if (timeout_ms <= 0) {
    return Status(Code::kInvalidArgument, "a TLS handshake needs a time-out");
  }
  if (options.padding_bytes > kRecordBytes || options.records_per_key == 0) {
    return Status(Code::kInvalidArgument, "TLS options out of range");
  }
  if (role == Role::kClient && (peer.is_none() || peer.is_optional())) {
    return Status(Code::kInvalidArgument, "a TLS client must ask for the server's key");
  }
  auto impl = std::make_unique<Impl>(std::move(inner), peer, options);
  TALARIA_RETURN_IF_ERROR(impl->Handshake(own, own.context(), role, timeout_ms));
  return std::unique_ptr<TlsTransport>(new TlsTransport(std::move(impl)));
}

Result<std::unique_ptr<TlsTransport>> TlsConnect(std::unique_ptr<Transport> inner,
                                                 const TlsKey& own, const PeerKey& peer,
                                                 int timeout_ms, const TlsOptions& options) {
  return TlsTransport::Create(std::move(inner), own, peer, timeout_ms, options,
                              TlsTransport::Role::kClient);
}

Result<std::unique_ptr<TlsTransport>> TlsAccept(std::unique_ptr<Transport> inner, const TlsKey& own,
                                                const PeerKey& peer, int timeout_ms,
                                                const TlsOptions& options) {
  return TlsTransport::Create(std::move(inner), own, peer, timeout_ms, options,
                              TlsTransport::Role::kServer);
}

Status TlsTransport::Send(std::initializer_list<Bytes> parts, int timeout_ms) {
  return impl_->Send(parts, timeout_ms);
}

Result<size_t> TlsTransport::ReceiveSome(MutableBytes out, size_t min_bytes, int timeout_ms) {
  return impl_->Receive(out, min_bytes, timeout_ms);
}

void TlsTransport::Shutdown() {
  impl_->shutdown.store(true, std::memory_order_release);
  impl_->inner->Shutdown();
}

Result<std::array<uint8_t, 32>> TlsTransport::Export(std::string_view label, Bytes context) const {
  const std::lock_guard lock(impl_->mutex);
  TALARIA_RETURN_IF_ERROR(impl_->Usable());
  std::array<uint8_t, 32> secret{};
  ERR_clear_error();
  if (SSL_export_keying_material(impl_->ssl.get(), secret.data(), secret.size(), label.data(),
                                 label.size(), context.data(), context.size(), 1) != 1) {
    return impl_->Fail("TLS exporter");
  }
  return secret;
}

const Digest& TlsTransport::peer_key() const { return impl_->state.peer_key; }
const Digest& TlsTransport::own_key() const { return impl_->own_key; }
const std::string& TlsTransport::group() const { return impl_->group; }
const std::string& TlsTransport::version() const { return impl_->version; }
const std::string& TlsTransport::cipher() const { return impl_->cipher; }

}  // namespace talaria::wire
