#include "talaria/client/attested_peer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <optional>

#include "talaria/attest/refusal.h"
#include "talaria/client/testing/fake_cvm.h"

namespace talaria::client {
namespace {

using testing::FakeCvm;
using testing::FakeCvmOptions;
using testing::kTestNow;

constexpr int kLongMs = 20'000;

class AttestedPeerTest : public ::testing::Test {
 protected:
  std::unique_ptr<AttestedPeer> MakePeer(int max_age_s = 0) {
    PeerOptions options{.server = {.endpoint = ParseServer(folder_.Address("cvm")).value()},
                        .max_age_s = max_age_s,
                        .now = [this] { return now_.load(); }};
    return std::make_unique<AttestedPeer>(std::move(options), testing::MakeVerifier(),
                                          wire::TlsKey::Generate().value());
  }
  void Start(FakeCvmOptions options = {}) {
    cvm_.reset();
    cvm_.emplace(folder_.Address("cvm"), std::move(options));
  }

  testing::SocketFolder folder_;
  std::atomic<attest::UnixTime> now_{kTestNow};
  std::optional<FakeCvm> cvm_;
};

TEST_F(AttestedPeerTest, AttestsOnceAndReusesConnections) {
  Start();
  const auto peer = MakePeer();
  EXPECT_EQ(peer->current(), nullptr);
  auto first = peer->Connect(After(kLongMs));
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  auto second = peer->Connect(After(kLongMs));
  ASSERT_TRUE(second.ok()) << second.status().ToString();
  EXPECT_EQ(cvm_->connections(), 2);
  const SecureConnection* was = second->get();
  peer->Return(std::move(*second));
  EXPECT_EQ(peer->Connect(After(kLongMs)).value().get(), was);
  EXPECT_EQ(cvm_->connections(), 2);
  EXPECT_EQ(cvm_->attestations(), 1);
  EXPECT_EQ(peer->current()->key, cvm_->key());
}

TEST_F(AttestedPeerTest, AttestsAgainAfterMaxAge) {
  Start();
  const auto peer = MakePeer(60);
  ASSERT_TRUE(peer->Connect(After(kLongMs)).ok());
  now_ += 59;
  ASSERT_TRUE(peer->Connect(After(kLongMs)).ok());
  EXPECT_EQ(cvm_->attestations(), 1);
  now_ += 1;
  EXPECT_EQ(peer->current(), nullptr);
  ASSERT_TRUE(peer->Connect(After(kLongMs)).ok());
  EXPECT_EQ(cvm_->attestations(), 2);
  now_ -= 100;  // the clock was set back
  EXPECT_EQ(peer->current(), nullptr);
  ASSERT_TRUE(peer->Connect(After(kLongMs)).ok());
  EXPECT_EQ(cvm_->attestations(), 3);
}

TEST_F(AttestedPeerTest, TheUserCannotStretchThePolicysMaxAge) {
  EXPECT_EQ(MakePeer(0)->max_age_s(), 3600);
  EXPECT_EQ(MakePeer(10)->max_age_s(), 10);
  EXPECT_EQ(MakePeer(100'000)->max_age_s(), 3600);
}

// The CVM closes what is verified and not used soon; a request must not meet that.
TEST_F(AttestedPeerTest, AConnectionThatWasOnlyVerifiedIsNotKeptForLong) {
  Start();
  const auto connections_after = [&](int max_unused_idle_ms, bool used) {
    PeerOptions options{.server = {.endpoint = ParseServer(folder_.Address("cvm")).value()},
                        .max_unused_idle_ms = max_unused_idle_ms,
                        .now = [this] { return now_.load(); }};
    AttestedPeer peer(std::move(options), testing::MakeVerifier(),
                      wire::TlsKey::Generate().value());
    const int before = cvm_->connections();
    EXPECT_TRUE(peer.Verify(After(kLongMs)).ok());
    if (used) peer.Return(peer.Connect(After(kLongMs)).value());
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_TRUE(peer.Connect(After(kLongMs)).ok());
    return cvm_->connections() - before;
  };
  EXPECT_EQ(connections_after(kLongMs, false), 1);
  EXPECT_EQ(connections_after(1, false), 2);
  EXPECT_EQ(connections_after(kLongMs, true), 1);
}

TEST_F(AttestedPeerTest, EveryConnectionShowsEvidenceWhereThatIsWanted) {
  Start();
  PeerOptions options{.server = {.endpoint = ParseServer(folder_.Address("cvm")).value()},
                      .attest_every_connection = true,
                      .now = [this] { return now_.load(); }};
  AttestedPeer peer(std::move(options), testing::MakeVerifier(), wire::TlsKey::Generate().value());
  auto first = peer.Connect(After(kLongMs));
  auto second = peer.Connect(After(kLongMs));
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(cvm_->attestations(), 2);
  peer.Return(std::move(*first));
  ASSERT_TRUE(peer.Connect(After(kLongMs)).ok());  // an idle one has shown its own
  EXPECT_EQ(cvm_->connections(), 2);
}

TEST_F(AttestedPeerTest, ANewKeyIsAttestedFirst) {
  Start();
  const auto peer = MakePeer();
  peer->Return(peer->Connect(After(kLongMs)).value());
  const Digest old_key = cvm_->key();
  Start();  // a new boot
  ASSERT_TRUE(peer->Connect(After(kLongMs)).ok());
  EXPECT_EQ(cvm_->attestations(), 1);
  EXPECT_NE(cvm_->key(), old_key);
  EXPECT_EQ(peer->current()->key, cvm_->key());
}

TEST_F(AttestedPeerTest, ANewKeyOfAnotherCvmIsRefused) {
  Start();
  const auto peer = MakePeer();
  ASSERT_TRUE(peer->Connect(After(kLongMs)).ok());
  FakeCvmOptions other;
  other.tee.measurement[0] ^= 1;
  Start(std::move(other));
  EXPECT_EQ(attest::ReasonOf(peer->Connect(After(kLongMs)).status()), "snp-measurement");
  EXPECT_EQ(peer->current(), nullptr);
  EXPECT_EQ(attest::ReasonOf(peer->last_error()), "snp-measurement");
  EXPECT_EQ(cvm_->requests(), 0);
}

TEST_F(AttestedPeerTest, ARefusalAtTheRenewalEndsTheTrust) {
  Start();
  const auto peer = MakePeer();
  ASSERT_TRUE(peer->Verify(After(kLongMs)).ok());
  FakeCvmOptions other;
  other.tee.debug = true;
  Start(std::move(other));
  EXPECT_EQ(attest::ReasonOf(peer->Verify(After(kLongMs))), "snp-debug");
  EXPECT_EQ(peer->current(), nullptr);
}

TEST_F(AttestedPeerTest, ACvmThatIsNotThereEndsNothing) {
  Start();
  const auto peer = MakePeer();
  ASSERT_TRUE(peer->Verify(After(kLongMs)).ok());
  cvm_.reset();
  EXPECT_EQ(peer->Verify(After(kLongMs)).code(), Code::kUnavailable);
  EXPECT_NE(peer->current(), nullptr);
  EXPECT_EQ(peer->last_error().code(), Code::kUnavailable);
}

TEST_F(AttestedPeerTest, AConnectionThatHasEndedIsNotTaken) {
  Start();
  const auto peer = MakePeer();
  auto connection = peer->Connect(After(kLongMs)).value();
  connection->stream().Shutdown();
  peer->Return(std::move(connection));
  ASSERT_TRUE(peer->Connect(After(kLongMs)).ok());
  EXPECT_EQ(cvm_->connections(), 2);
}

TEST_F(AttestedPeerTest, OneThreadAttestsForAll) {
  FakeCvmOptions slow;
  slow.alter_binding = [](attest::Binding&) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  };
  Start(std::move(slow));
  const auto peer = MakePeer();
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&] { good += peer->Connect(After(kLongMs)).ok(); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 8);
  EXPECT_EQ(cvm_->attestations(), 1);
}

}  // namespace
}  // namespace talaria::client
