#include "talaria/client/proxy.h"

#include <algorithm>
#include <atomic>
#include <list>
#include <thread>
#include <utility>

#include "talaria/base/log.h"
#include "talaria/client/proxy_connection.h"
#include "talaria/client/receipt_copy.h"
#include "talaria/client/verdict_text.h"

namespace talaria::client {
namespace {

constexpr int kKeeperStepMs = 100;
constexpr int kMaxPauseMs = 10'000;  // between attempts that fail
constexpr int kAcceptPauseMs = 100;  // while the system has no descriptor left
constexpr int kVerifyTimeoutMs = 120'000;

// A bearer token as RFC 6750 writes it: nothing that could end the header.
bool IsToken(std::string_view token) {
  for (const char c : token) {
    if (c <= 0x20 || c > 0x7e) return false;
  }
  return true;
}

class ProxyImpl final : public Proxy {
 public:
  ProxyImpl(ProxyOptions options, AttestedPeer& peer, std::unique_ptr<wire::Listener> listener,
            bool tcp)
      : options_(std::move(options)),
        peer_(peer),
        listener_(std::move(listener)),
        context_{options_, peer_, tcp, stopping_} {}

  Status Run() override {
    std::thread keeper([this] { KeepYoung(); });
    const Status status = Accept();
    stopping_ = true;
    keeper.join();
    for (Connection& connection : connections_) connection.stream->Shutdown();
    for (Connection& connection : connections_) connection.thread.join();
    connections_.clear();
    return status;
  }

  void Stop() override {
    stopping_ = true;
    listener_->Shutdown();
  }

  std::string address() const override { return listener_->address(); }

 private:
  struct Connection {
    std::unique_ptr<ReadAhead> stream;
    std::atomic<bool> done{false};
    std::thread thread;
  };

  Status Accept() {
    for (;;) {
      auto transport = listener_->Accept();
      if (!transport.ok()) {
        if (transport.status().code() == Code::kCancelled) return OkStatus();
        if (transport.status().code() != Code::kResourceExhausted) return transport.status();
        LogWarning("a connection waits: " + transport.status().message());
        std::this_thread::sleep_for(std::chrono::milliseconds(kAcceptPauseMs));
        continue;
      }
      Reap();
      if (connections_.size() >= static_cast<size_t>(options_.max_connections)) {
        const std::string answer = TooManyConnections();
        (void)(*transport)->Send({AsBytes(answer)}, 1);
        continue;
      }
      Connection& connection = connections_.emplace_back();
      connection.stream = std::make_unique<ReadAhead>(std::move(*transport));
      connection.thread = std::thread([this, &connection] {
        ServeLocalClient(*connection.stream, context_);
        connection.stream->Shutdown();
        connection.done = true;
      });
    }
  }

  void Reap() {
    for (auto it = connections_.begin(); it != connections_.end();) {
      if (!it->done) {
        ++it;
        continue;
      }
      it->thread.join();
      it = connections_.erase(it);
    }
  }

  // Attests again when four fifths of the age are over, so that no request waits for it, and at
  // once after a failure. Says in the log what changes, whoever attested.
  void KeepYoung() {
    std::shared_ptr<const Attested> told;
    std::string complaint;
    int pause_ms = options_.retry_ms;
    while (!stopping_) {
      const auto attested = peer_.current();
      if (attested && attested != told) {
        LogInfo("verified: evidence " + ToHex(attested->verdict.evidence_digest) + ", key " +
                ToHex(attested->key));
        if (IsDevelopment(*attested)) LogWarning(kDevelopmentWarning);
        told = attested;
        complaint.clear();
        pause_ms = options_.retry_ms;
      }
      if (attested && peer_.now() - attested->verified_at < peer_.max_age_s() * int64_t{4} / 5) {
        Pause(kKeeperStepMs);
        continue;
      }
      const Status status = peer_.Verify(After(kVerifyTimeoutMs));
      if (status.ok()) continue;
      if (std::string text = "not verified: " + status.ToString(); text != complaint) {
        LogWarning(text);
        complaint = std::move(text);
      }
      Pause(pause_ms);
      pause_ms = std::min(2 * pause_ms, kMaxPauseMs);
    }
  }

  void Pause(int ms) const {
    const TimePoint end = After(ms);
    while (!stopping_ && std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(std::chrono::milliseconds(std::min(ms, kKeeperStepMs)));
  }

  const ProxyOptions options_;
  AttestedPeer& peer_;
  const std::unique_ptr<wire::Listener> listener_;
  std::atomic<bool> stopping_{false};
  static_assert(std::atomic<bool>::is_always_lock_free, "Stop() runs in signal handlers");
  const ProxyContext context_;
  std::list<Connection> connections_;  // of the accepting thread
};

}  // namespace

Result<std::unique_ptr<Proxy>> Proxy::Create(ProxyOptions options, AttestedPeer& peer) {
  TALARIA_ASSIGN_OR_RETURN(const wire::Endpoint endpoint, wire::Endpoint::Parse(options.listen));
  if (!endpoint.IsLocal()) {
    return Status(Code::kInvalidArgument,
                  options.listen +
                      ": the proxy listens on a Unix socket or a loopback address "
                      "only, because what it receives is not encrypted");
  }
  if (!IsToken(options.token))
    return Status(Code::kInvalidArgument, "the token has characters that no token has");
  if (!options.receipts.empty()) {
    if (!peer.attests_every_connection())
      return Status(Code::kInvalidArgument, "receipts need evidence on every connection");
    TALARIA_RETURN_IF_ERROR(MakeCopiesFolder(options.receipts));
  }
  TALARIA_ASSIGN_OR_RETURN(auto listener, wire::Listener::Create(endpoint));
  return std::unique_ptr<Proxy>(new ProxyImpl(std::move(options), peer, std::move(listener),
                                              endpoint.kind == wire::Endpoint::Kind::kTcp));
}

}  // namespace talaria::client
