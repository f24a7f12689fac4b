// Pairs of TLS transports over a socket pair, for tests and benchmarks.
#ifndef TALARIA_WIRE_TESTING_TLS_TESTING_H_
#define TALARIA_WIRE_TESTING_TLS_TESTING_H_

#include <sys/socket.h>

#include <atomic>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "talaria/wire/tls.h"

namespace talaria::wire {

inline constexpr int kTestTimeoutMs = 20000;  // sanitizers on a loaded machine

// One for all tests of a program: making one takes a while.
inline const TlsKey& ClientKey() {
  static const TlsKey key = TlsKey::Generate().value();
  return key;
}
inline const TlsKey& ServerKey() {
  static const TlsKey key = TlsKey::Generate().value();
  return key;
}

struct PlainPair {
  std::unique_ptr<Transport> client, server;
};

inline std::pair<Fd, Fd> SocketPairFds() {
  int fds[2];
  TALARIA_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  return {Fd(fds[0]), Fd(fds[1])};
}

inline PlainPair MakePlainPair() {
  auto [a, b] = SocketPairFds();
  return {TransportFromSocket(std::move(a)), TransportFromSocket(std::move(b))};
}

// Keeps what is sent, and may be told to spoil it. What it counts into outlives it.
class Tap final : public Transport {
 public:
  struct Log {
    std::vector<uint8_t> sent;            // read it when nobody sends
    std::atomic<bool> flip_next{false};   // one bit of the next Send's last byte
    std::atomic<bool> fail_sends{false};  // kUnavailable, nothing is sent
  };
  Tap(std::unique_ptr<Transport> inner, Log* log) : inner_(std::move(inner)), log_(log) {}
  Status Send(std::initializer_list<Bytes> parts, int timeout_ms) override {
    if (log_->fail_sends) return Status(Code::kUnavailable, "tapped");
    std::vector<uint8_t> all;
    for (const Bytes& part : parts) all.insert(all.end(), part.begin(), part.end());
    if (!all.empty() && log_->flip_next.exchange(false)) all.back() ^= 1;
    log_->sent.insert(log_->sent.end(), all.begin(), all.end());
    return inner_->Send({all}, timeout_ms);
  }
  Result<size_t> ReceiveSome(MutableBytes out, size_t min_bytes, int timeout_ms) override {
    return inner_->ReceiveSome(out, min_bytes, timeout_ms);
  }
  void Shutdown() override { inner_->Shutdown(); }

 private:
  std::unique_ptr<Transport> inner_;
  Log* log_;
};

using TlsResult = Result<std::unique_ptr<TlsTransport>>;

struct TlsResults {
  TlsResult client, server;
};

// Both handshakes at once.
inline TlsResults HandshakeBoth(PlainPair plain, const TlsKey& client_key, const TlsKey& server_key,
                                const PeerKey& wanted_of_server, const PeerKey& wanted_of_client,
                                const TlsOptions& options = {}) {
  TlsResult server = Status(Code::kInternal, "did not run");
  std::thread accepting([&] {
    server =
        TlsAccept(std::move(plain.server), server_key, wanted_of_client, kTestTimeoutMs, options);
  });
  TlsResult client =
      TlsConnect(std::move(plain.client), client_key, wanted_of_server, kTestTimeoutMs, options);
  accepting.join();
  return {std::move(client), std::move(server)};
}

struct TlsPair {
  std::unique_ptr<TlsTransport> client, server;
};

// Each pins the other.
inline TlsPair MakeTlsPair(const TlsKey& client_key, const TlsKey& server_key,
                           const TlsOptions& options = {}, PlainPair plain = MakePlainPair()) {
  TlsResults both = HandshakeBoth(std::move(plain), client_key, server_key,
                                  PeerKey::Pinned(server_key.spki_sha256()),
                                  PeerKey::Pinned(client_key.spki_sha256()), options);
  return {std::move(both.client).value(), std::move(both.server).value()};
}

}  // namespace talaria::wire

#endif  // TALARIA_WIRE_TESTING_TLS_TESTING_H_
