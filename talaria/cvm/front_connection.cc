#include "talaria/cvm/front_connection.h"

#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <mutex>
#include <system_error>
#include <utility>
#include <vector>

#include "talaria/attest/binding.h"
#include "talaria/base/limited_log.h"
#include "talaria/base/log.h"
#include "talaria/wire/shared_transport.h"

namespace talaria::cvm {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr size_t kPieceBytes = 16 << 10;  // a TLS record's
constexpr size_t kPaddingBytes = 512;     // lengths of answers show in steps of so many bytes
constexpr int kPollMs = 250;  // how late a receiving thread may notice the end of its connection
constexpr int kLingerMs = 2'000;  // longer than the gateway's own, which closes its end

// Who knocks chooses how often these come.
LimitedLog& Failures() {
  static LimitedLog log(5, "failures for clients");
  return log;
}

// May outlive the connection, and the front: the gateway's worker holds it.
class Channel final : public ClientChannel {
 public:
  Channel(std::shared_ptr<const FrontOptions> options,
          const std::shared_ptr<wire::TlsTransport>& tls)
      : options_(std::move(options)), tls_(tls), client_key_(tls->peer_key()) {}

  Result<attest::Claim> Attest(const std::array<uint8_t, attest::kNonceBytes>& nonce) override {
    attest::Binding binding{.role = attest::Role::kServerToClient,
                            .type = options_->attester->type(),
                            .nonce = nonce,
                            .exporter = {},
                            .cvm_key = options_->key->spki_sha256(),
                            .peer_key = client_key_,
                            .context = {}};
    // Not held while the TEE works: a client that leaves is to be gone at once.
    if (const auto tls = tls_.lock()) {
      TALARIA_ASSIGN_OR_RETURN(binding.exporter, tls->Export(attest::kExporterLabel, nonce));
    } else {
      return Status(Code::kUnavailable, "the client has left");
    }
    const attest::Context context = options_->context();
    binding.context = attest::DigestOf(context);
    Result<attest::Evidence> evidence = options_->attester->Attest(
        attest::ReportDataFor(binding), Clock::now() + milliseconds(options_->attest_timeout_ms));
    if (!evidence.ok()) {
      Failures().Warn("no evidence for a client: " + evidence.status().ToString());
      return evidence.status();
    }
    auto attested = std::make_shared<const Attested>(
        Attested{binding.exporter, nonce, {.context = context, .evidence = std::move(*evidence)}});
    const std::lock_guard lock(mutex_);
    attested_ = std::move(attested);
    return attested_->claim;
  }

  Result<std::vector<uint8_t>> MakeReceipt(const attest::Exchange& exchange) override {
    std::shared_ptr<const Attested> attested;
    {
      const std::lock_guard lock(mutex_);
      attested = attested_;
    }
    if (!attested) return Status(Code::kNotFound, "this connection was not attested");
    attest::Receipt receipt{.time = std::max<int64_t>(0, std::time(nullptr)),
                            .nonce = attested->nonce,
                            .exporter = attested->exporter,
                            .peer_key = client_key_,
                            .key = {},
                            .exchange = exchange,
                            .claim = attested->claim,
                            .signature = {}};
    const std::vector<uint8_t> spki = options_->key->spki();
    TALARIA_CHECK(spki.size() == receipt.key.size());
    std::ranges::copy(spki, receipt.key.begin());
    TALARIA_ASSIGN_OR_RETURN(receipt.signature, options_->key->Sign(attest::SignedBytes(receipt)));
    return attest::Encode(receipt);
  }

  const Digest& client_key() const override { return client_key_; }

 private:
  struct Attested {
    std::array<uint8_t, attest::kExporterBytes> exporter;
    std::array<uint8_t, attest::kNonceBytes> nonce;
    attest::Claim claim;
  };
  const std::shared_ptr<const FrontOptions> options_;
  const std::weak_ptr<wire::TlsTransport> tls_;
  const Digest client_key_;
  std::mutex mutex_;
  std::shared_ptr<const Attested> attested_;  // null before the first evidence
};

bool SendAll(int fd, Bytes data) {
  while (!data.empty()) {
    const ssize_t n = send(fd, data.data(), data.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data = data.subspan(static_cast<size_t>(n));
  }
  return true;
}

// Until the other end of a socket pair is closed for both directions, or ours is shut down.
void AwaitHangup(int fd) {
  const auto end = Clock::now() + milliseconds(kLingerMs);
  for (;;) {
    const auto left = std::chrono::duration_cast<milliseconds>(end - Clock::now()).count();
    pollfd entry{.fd = fd, .events = 0, .revents = 0};
    if (left <= 0 || poll(&entry, 1, static_cast<int>(left)) > 0) return;
  }
}

}  // namespace

FrontConnection::FrontConnection(std::shared_ptr<const FrontOptions> options,
                                 std::unique_ptr<wire::Transport> client)
    : options_(std::move(options)), client_(std::move(client)) {}

FrontConnection::~FrontConnection() {
  Stop();
  if (thread_.joinable()) thread_.join();
}

Status FrontConnection::Start() {
  try {
    thread_ = std::thread([this] { Run(); });
  } catch (const std::system_error&) {
    return Status(Code::kResourceExhausted, "no thread for a client");
  }
  return OkStatus();
}

void FrontConnection::Stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  if (client_) client_->Shutdown();
  if (pair_.valid()) (void)shutdown(pair_.get(), SHUT_RDWR);
}

bool FrontConnection::HasUnsent() {
  const std::lock_guard lock(mutex_);
  int bytes = 0;
  return pair_.valid() && ioctl(pair_.get(), FIONREAD, &bytes) == 0 && bytes > 0;
}

void FrontConnection::Run() {
  {
    // Only this thread replaces client_, so it may be read without the lock here.
    Result<std::unique_ptr<wire::TlsTransport>> accepted = wire::TlsAccept(
        std::make_unique<wire::SharedTransport>(client_), *options_->key, wire::PeerKey::Optional(),
        options_->handshake_timeout_ms, {.padding_bytes = kPaddingBytes});
    // A failed handshake is not logged: whoever reaches the address can make as many as it likes.
    if (accepted.ok()) Serve(std::shared_ptr<wire::TlsTransport>(std::move(accepted).value()));
  }
  {
    const std::lock_guard lock(mutex_);
    client_ = nullptr;
    pair_ = Fd();
  }
  done_ = true;
}

void FrontConnection::Serve(const std::shared_ptr<wire::TlsTransport>& tls) {
  Fd gateway_end;
  if (!OpenPair(&gateway_end)) return;
  options_->gateway->Adopt(std::move(gateway_end), std::make_shared<Channel>(options_, tls));
  std::thread sender;
  try {
    sender = std::thread([this, &tls] { ToClient(*tls); });
  } catch (const std::system_error&) {
    Failures().Warn("no thread for a client");
  }
  if (sender.joinable()) ToGateway(*tls);
  // The client has left: nothing that the sender still has will be taken. Otherwise it has ended
  // itself, and TLS is left able to say good-bye.
  if (!ending_) client_->Shutdown();
  (void)shutdown(pair_.get(), SHUT_RDWR);
  if (sender.joinable()) sender.join();
}

bool FrontConnection::OpenPair(Fd* gateway_end) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    Failures().Warn("no socket pair for a client");
    return false;
  }
  *gateway_end = Fd(fds[1]);
  Fd ours(fds[0]);
  const std::lock_guard lock(mutex_);
  if (stopped_) return false;
  pair_ = std::move(ours);
  return true;
}

void FrontConnection::ToGateway(wire::TlsTransport& tls) {
  std::vector<uint8_t> piece(kPieceBytes);
  while (!ending_) {
    const Clock::time_point began = Clock::now();
    const Result<size_t> n = tls.ReceiveSome(piece, 1, kPollMs);
    if (n.ok()) {
      if (!SendAll(pair_.get(), Bytes(piece).first(*n))) return;
      continue;
    }
    // The end of a wait has the same code as the end of the connection, which fails the next call
    // at once.
    if (Clock::now() - began < milliseconds(kPollMs / 2)) return;
  }
}

// A piece is taken off the pair only when it was sent: HasUnsent() looks there.
void FrontConnection::ToClient(wire::TlsTransport& tls) {
  std::vector<uint8_t> piece(kPieceBytes);
  bool taken = true;
  for (;;) {
    const ssize_t n = recv(pair_.get(), piece.data(), piece.size(), MSG_PEEK);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    const Bytes data = Bytes(piece).first(static_cast<size_t>(n));
    taken = tls.Send({data}, options_->write_timeout_ms).ok();
    if (!taken) break;
    (void)!recv(pair_.get(), piece.data(), data.size(), MSG_DONTWAIT);
  }
  // The gateway has said its last word and swallows what the client still sends, so that the
  // answer is not lost in a reset: the other direction goes on until it closes.
  if (taken) AwaitHangup(pair_.get());
  ending_ = true;
  (void)shutdown(pair_.get(), SHUT_RDWR);
}

}  // namespace talaria::cvm
