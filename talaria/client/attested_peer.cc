#include "talaria/client/attested_peer.h"

#include <algorithm>
#include <utility>

#include "talaria/attest/refusal.h"

namespace talaria::client {
AttestedPeer::AttestedPeer(PeerOptions options, attest::Verifier verifier, wire::TlsKey own)
    : options_(std::move(options)),
      verifier_(std::move(verifier)),
      own_(std::move(own)),
      max_age_s_(options_.max_age_s == 0
                     ? *verifier_.policy().max_age_s
                     : std::min(options_.max_age_s, *verifier_.policy().max_age_s)) {
  TALARIA_CHECK(options_.now);
}

bool AttestedPeer::IsYoung(const Attested& attested) const {
  const attest::UnixTime now = options_.now();
  // A clock that was set back makes nothing young.
  return now >= attested.verified_at && now - attested.verified_at < max_age_s_ &&
         now <= attested.verdict.valid_until;
}

std::unique_ptr<SecureConnection> AttestedPeer::TakeIdle() {
  while (!idle_.empty()) {
    Idle last = std::move(idle_.back());
    idle_.pop_back();
    if (After(0) <= last.until && last.connection->stream().quiet())
      return std::move(last.connection);
  }
  return nullptr;
}

Result<std::unique_ptr<SecureConnection>> AttestedPeer::Attest(Lock& lock, TimePoint deadline) {
  attesting_ = true;
  lock.unlock();
  ServerOptions server = options_.server;
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                        deadline - std::chrono::steady_clock::now())
                        .count();
  server.attest_timeout_ms =
      static_cast<int>(std::clamp<int64_t>(left, 1, server.attest_timeout_ms));
  server.connect_timeout_ms =
      static_cast<int>(std::clamp<int64_t>(left, 1, server.connect_timeout_ms));
  auto connection = SecureConnection::Open(server, verifier_, own_, options_.now());
  lock.lock();
  attesting_ = false;
  ++attempts_;
  last_error_ = connection.status();
  if (connection.ok()) {
    if (!attested_ || attested_->key != (*connection)->attested()->key) idle_.clear();
    attested_ = (*connection)->attested();
  } else if (connection.status().code() == Code::kUntrusted) {
    attested_.reset();
    idle_.clear();
  }
  attest_done_.notify_all();
  return connection;
}

Result<std::unique_ptr<SecureConnection>> AttestedPeer::Connect(TimePoint deadline) {
  Lock lock(mutex_);
  for (;;) {
    const bool young = attested_ && IsYoung(*attested_);
    if (young) {
      if (auto idle = TakeIdle()) return idle;
    }
    if (young && !options_.attest_every_connection) {
      const std::shared_ptr<const Attested> attested = attested_;
      lock.unlock();
      auto connection = SecureConnection::OpenPinned(options_.server, verifier_, own_, attested);
      if (connection.ok() || attest::ReasonOf(connection.status()) != "tls-peer-key")
        return connection;
      lock.lock();
      if (attested_ == attested) {
        attested_.reset();
        idle_.clear();
      }
      if (std::chrono::steady_clock::now() >= deadline) return connection;
      continue;
    }
    if (attesting_) {
      const uint64_t attempts = attempts_;
      if (!attest_done_.wait_until(lock, deadline, [&] { return attempts_ != attempts; }))
        return Status(Code::kUnavailable, "the CVM is still being verified");
      if (!last_error_.ok()) return last_error_;
      continue;
    }
    auto connection = Attest(lock, deadline);
    if (!connection.ok() || (*connection)->reusable()) return connection;
    if (std::chrono::steady_clock::now() >= deadline)
      return Status(Code::kUnavailable, "the CVM keeps no connection open");
  }
}

Status AttestedPeer::Verify(TimePoint deadline) {
  std::unique_ptr<SecureConnection> connection;
  {
    Lock lock(mutex_);
    if (attesting_) {
      const uint64_t attempts = attempts_;
      if (!attest_done_.wait_until(lock, deadline, [&] { return attempts_ != attempts; }))
        return Status(Code::kUnavailable, "the CVM is still being verified");
      return last_error_;
    }
    TALARIA_ASSIGN_OR_RETURN(connection, Attest(lock, deadline));
  }
  if (connection->reusable()) Keep(std::move(connection), options_.max_unused_idle_ms);
  return OkStatus();
}

void AttestedPeer::Return(std::unique_ptr<SecureConnection> connection) {
  Keep(std::move(connection), 1000 * options_.max_idle_s);
}

void AttestedPeer::Keep(std::unique_ptr<SecureConnection> connection, int idle_ms) {
  // Closing takes time, and is done without the lock.
  std::unique_ptr<SecureConnection> dropped;
  const std::lock_guard lock(mutex_);
  if (!attested_ || connection->attested()->key != attested_->key ||
      idle_.size() >= options_.max_idle) {
    dropped = std::move(connection);
    return;
  }
  idle_.push_back({std::move(connection), After(idle_ms)});
}

std::shared_ptr<const Attested> AttestedPeer::current() const {
  const std::lock_guard lock(mutex_);
  return attested_ && IsYoung(*attested_) ? attested_ : nullptr;
}

Status AttestedPeer::last_error() const {
  const std::lock_guard lock(mutex_);
  return last_error_;
}

}  // namespace talaria::client
