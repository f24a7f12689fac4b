// The transport, once the handshake is done. tls_handshake_test.cc has the handshake.
#include "talaria/wire/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <thread>

#include "talaria/wire/connection.h"
#include "talaria/wire/testing/tls_testing.h"

namespace talaria::wire {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using testing::HasSubstr;
using Buffer = std::vector<uint8_t>;

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int kWorkDivisor = 8;
#else
constexpr int kWorkDivisor = 1;
#endif

Buffer RandomBytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  Buffer out(size);
  for (uint8_t& b : out) b = static_cast<uint8_t>(random());
  return out;
}

TlsPair MakePair(const TlsOptions& options = {}, PlainPair plain = MakePlainPair()) {
  return MakeTlsPair(ClientKey(), ServerKey(), options, std::move(plain));
}

// Sends from one thread, receives in this one, compares.
void ExpectThrough(Transport& from, Transport& to, const Buffer& sent) {
  std::thread sender([&] { EXPECT_TRUE(from.Send({sent}, kTestTimeoutMs).ok()); });
  Buffer received(sent.size());
  const Result<size_t> n = to.ReceiveSome(received, received.size(), kTestTimeoutMs);
  sender.join();
  ASSERT_TRUE(n.ok()) << n.status().ToString();
  EXPECT_EQ(*n, sent.size());
  EXPECT_TRUE(received == sent);
}

TEST(TlsTest, BytesOfAllSizesBothWays) {
  const TlsPair pair = MakePair();
  // Around one record (16,384), one batch (12 records), and far over it.
  for (const size_t size : {1, 2, 100, 4096, 16383, 16384, 16385, 32768, 65536, 196607, 196608,
                            196609, 1 << 20, (64 << 20) / kWorkDivisor + 3}) {
    SCOPED_TRACE(size);
    const Buffer sent = RandomBytes(size, size);
    ExpectThrough(*pair.client, *pair.server, sent);
    ExpectThrough(*pair.server, *pair.client, sent);
  }
}

TEST(TlsTest, PartsArriveInOrderAndSmallOnesInOneRecord) {
  Tap::Log log;
  PlainPair plain = MakePlainPair();
  plain.client = std::make_unique<Tap>(std::move(plain.client), &log);
  const TlsPair pair = MakePair({}, std::move(plain));
  log.sent.clear();
  ASSERT_TRUE(pair.client->Send({}, 1000).ok());
  ASSERT_TRUE(pair.client->Send({Bytes(), Bytes()}, 1000).ok());
  EXPECT_TRUE(log.sent.empty());
  const Buffer first{1, 2, 3}, second{4}, third{5, 6};
  ASSERT_TRUE(pair.client->Send({Bytes(), first, Bytes(), second, third, Bytes()}, 1000).ok());
  EXPECT_EQ(log.sent.size(), 6u + 22);
  uint8_t out[64];
  const Result<size_t> n = pair.server->ReceiveSome(out, 1, kTestTimeoutMs);
  ASSERT_TRUE(n.ok()) << n.status().ToString();
  EXPECT_THAT(Bytes(out).first(*n), testing::ElementsAre(1, 2, 3, 4, 5, 6));
}

TEST(TlsTest, PartsThatSpanRecords) {
  const TlsPair pair = MakePair();
  const Buffer all = RandomBytes(200000, 5);
  const Bytes bytes(all);
  for (const size_t cut : {1, 5, 16383, 16384, 16385, 20000, 49152}) {
    std::thread sender([&] {
      EXPECT_TRUE(pair.client
                      ->Send({bytes.first(cut), bytes.subspan(cut, 7), Bytes(),
                              bytes.subspan(cut + 7, 16384), bytes.subspan(cut + 7 + 16384)},
                             kTestTimeoutMs)
                      .ok());
    });
    Buffer received(all.size());
    EXPECT_TRUE(pair.server->ReceiveSome(received, received.size(), kTestTimeoutMs).ok());
    sender.join();
    EXPECT_TRUE(received == all) << cut;
  }
}

TEST(TlsTest, ReceivesAsMuchAsThereIsAndKeepsTheRest) {
  const TlsPair pair = MakePair();
  const Buffer sent = RandomBytes(1000, 1);
  ASSERT_TRUE(pair.client->Send({sent}, 1000).ok());
  Buffer received;
  for (const size_t size : {1, 9, 90, 400, 500}) {
    Buffer piece(size);
    const Result<size_t> n = pair.server->ReceiveSome(piece, 1, kTestTimeoutMs);
    ASSERT_TRUE(n.ok());
    ASSERT_EQ(*n, size);
    received.insert(received.end(), piece.begin(), piece.end());
  }
  EXPECT_EQ(received, sent);
  ASSERT_TRUE(pair.client->Send({Bytes(sent).first(10)}, 1000).ok());
  EXPECT_EQ(*pair.server->ReceiveSome(received, 1, kTestTimeoutMs), 10u);
}

TEST(TlsTest, TwoThreadsPerSideAtFullSpeed) {
  const TlsPair pair = MakePair({.records_per_key = 50});  // key updates in the midst of it
  const size_t total = size_t{48 << 20} / kWorkDivisor;
  const Buffer data = RandomBytes(total, 9);
  const auto send = [&](TlsTransport& to) {
    std::mt19937 random(3);
    for (Bytes left(data); !left.empty();) {
      const size_t size = std::min<size_t>(left.size(), 1 + random() % 70000);
      ASSERT_TRUE(
          to.Send({left.first(size / 2), left.subspan(size / 2, size - size / 2)}, kTestTimeoutMs)
              .ok());
      left = left.subspan(size);
    }
  };
  const auto receive = [&](TlsTransport& from) {
    Buffer received(total);
    for (size_t done = 0; done < total;) {
      const Result<size_t> n =
          from.ReceiveSome(MutableBytes(received).subspan(done), 1, kTestTimeoutMs);
      ASSERT_TRUE(n.ok()) << n.status().ToString();
      done += *n;
    }
    EXPECT_TRUE(received == data);
  };
  std::thread a([&] { send(*pair.client); }), b([&] { send(*pair.server); }),
      c([&] { receive(*pair.client); });
  receive(*pair.server);
  a.join();
  b.join();
  c.join();
}

TEST(TlsTest, KeyUpdatesAreSentAndUnderstood) {
  Tap::Log log;
  PlainPair plain = MakePlainPair();
  plain.client = std::make_unique<Tap>(std::move(plain.client), &log);
  const TlsPair pair = MakePair({.records_per_key = 2}, std::move(plain));
  log.sent.clear();
  const uint8_t byte = 7;
  for (int i = 0; i < 9; ++i) {
    ASSERT_TRUE(pair.client->Send({Bytes(&byte, 1)}, 1000).ok());
    uint8_t out[2];
    const Result<size_t> n = pair.server->ReceiveSome(out, 1, kTestTimeoutMs);
    ASSERT_TRUE(n.ok()) << n.status().ToString();
    EXPECT_EQ(*n, 1u);
  }
  // Nine records of one byte, and after every second one a KeyUpdate: a header of four and a byte.
  EXPECT_EQ(log.sent.size(), 9u * (1 + 22) + 4 * (5 + 22));
}

TEST(TlsTest, PaddingHidesLengths) {
  for (const size_t size : {1, 100, 511}) {
    Tap::Log log;
    PlainPair plain = MakePlainPair();
    plain.client = std::make_unique<Tap>(std::move(plain.client), &log);
    const TlsPair pair = MakePair({.padding_bytes = 512}, std::move(plain));
    log.sent.clear();
    const Buffer sent = RandomBytes(size, 1);
    ExpectThrough(*pair.client, *pair.server, sent);
    EXPECT_EQ(log.sent.size(), 512u + 5 + 16);
    ExpectThrough(*pair.client, *pair.server, RandomBytes(100000, 2));
    ExpectThrough(*pair.server, *pair.client, RandomBytes(100000, 2));
  }
}

TEST(TlsTest, NothingReadableGoesOut) {
  Tap::Log log;
  PlainPair plain = MakePlainPair();
  plain.client = std::make_unique<Tap>(std::move(plain.client), &log);
  const TlsPair pair = MakePair({}, std::move(plain));
  const Buffer sent(5000, 0x41);
  ExpectThrough(*pair.client, *pair.server, sent);
  const Buffer needle(4, 0x41);
  EXPECT_EQ(std::search(log.sent.begin(), log.sent.end(), needle.begin(), needle.end()),
            log.sent.end());
}

TEST(TlsTest, FramesOverIt) {
  TlsPair pair = MakePair();
  Connection client(std::move(pair.client), kMaxFrameBytes),
      server(std::move(pair.server), kMaxFrameBytes);
  std::thread sender([&] {
    for (const size_t size : {0, 1, 70000, 5 << 20, 12}) {
      const Buffer body = RandomBytes(size, size);
      EXPECT_TRUE(client.Send(Type::kChunk, {body}, kTestTimeoutMs).ok());
    }
  });
  for (const size_t size : {0, 1, 70000, 5 << 20, 12}) {
    const Result<Frame> frame = server.Receive(kTestTimeoutMs);
    ASSERT_TRUE(frame.ok()) << frame.status().ToString();
    EXPECT_TRUE(std::ranges::equal(frame->body, RandomBytes(size, size)));
  }
  sender.join();
}

TEST(TlsTest, ReceivingTimesOutAndGoesOn) {
  const TlsPair pair = MakePair();
  uint8_t out[4] = {};
  for (const int timeout_ms : {30, 60, 30}) {
    const auto start = steady_clock::now();
    const Result<size_t> n = pair.server->ReceiveSome(out, 1, timeout_ms);
    EXPECT_EQ(n.status().code(), Code::kUnavailable);
    EXPECT_THAT(n.status().message(),
                HasSubstr("no progress for " + std::to_string(timeout_ms) + " ms"));
    EXPECT_GE(steady_clock::now() - start, milliseconds(timeout_ms - 5));
  }
  ASSERT_TRUE(pair.client->Send({Bytes(out)}, 0).ok());
  EXPECT_TRUE(pair.server->ReceiveSome(out, 4, kTestTimeoutMs).ok());
}

TEST(TlsTest, SendingTimesOutForGood) {
  const TlsPair pair = MakePair();
  const Buffer sent(64 << 20);
  const Status status = pair.client->Send({sent}, 50);
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("sending: no progress for 50 ms"));
  // Half a record may be out: no later one may follow, though there would be room again.
  Buffer received(1 << 20);
  EXPECT_TRUE(pair.server->ReceiveSome(received, 100000, kTestTimeoutMs).ok());
  EXPECT_THAT(pair.client->Send({Bytes(sent).first(1)}, 1000).message(),
              HasSubstr("no progress for 50 ms"));
  // The other direction lives.
  ASSERT_TRUE(pair.server->Send({Bytes(sent).first(9)}, 1000).ok());
  EXPECT_EQ(*pair.client->ReceiveSome(received, 9, kTestTimeoutMs), 9u);
}

TEST(TlsTest, TheEndIsAnErrorAfterTheLastByte) {
  TlsPair pair = MakePair();
  const Buffer sent{1, 2};
  ASSERT_TRUE(pair.client->Send({sent}, 1000).ok());
  pair.client.reset();
  uint8_t out[4];
  EXPECT_EQ(*pair.server->ReceiveSome(out, 2, kTestTimeoutMs), 2u);
  for (int i = 0; i < 2; ++i) {
    const Status status = pair.server->ReceiveSome(out, 1, kTestTimeoutMs).status();
    EXPECT_EQ(status.code(), Code::kUnavailable);
    EXPECT_THAT(status.message(), HasSubstr("close_notify"));
  }
}

TEST(TlsTest, TruncationIsNotTheEnd) {
  TlsPair pair = MakePair();
  const Buffer sent{1, 2};
  ASSERT_TRUE(pair.client->Send({sent}, 1000).ok());
  pair.client->Shutdown();  // of the inner stream: no close_notify
  pair.client.reset();
  uint8_t out[4];
  EXPECT_EQ(*pair.server->ReceiveSome(out, 2, kTestTimeoutMs), 2u);
  const Status status = pair.server->ReceiveSome(out, 1, kTestTimeoutMs).status();
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_EQ(status.message(), "below TLS: the peer closed the connection");
}

TEST(TlsTest, AFlippedBitEndsTheConnection) {
  Tap::Log log;
  PlainPair plain = MakePlainPair();
  plain.client = std::make_unique<Tap>(std::move(plain.client), &log);
  const TlsPair pair = MakePair({}, std::move(plain));
  const Buffer sent = RandomBytes(100, 1);
  ExpectThrough(*pair.client, *pair.server, sent);
  log.flip_next = true;
  ASSERT_TRUE(pair.client->Send({sent}, 1000).ok());
  uint8_t out[200];
  for (int i = 0; i < 2; ++i) {
    const Status status = pair.server->ReceiveSome(out, 1, kTestTimeoutMs).status();
    EXPECT_EQ(status.code(), Code::kUnavailable);
    EXPECT_THAT(status.message(), HasSubstr("bad record mac"));
  }
  EXPECT_THAT(pair.server->Send({sent}, 1000).message(), HasSubstr("bad record mac"));
  // And the other side is told.
  EXPECT_THAT(pair.client->ReceiveSome(out, 1, kTestTimeoutMs).status().message(),
              HasSubstr("alert bad record mac"));
}

TEST(TlsTest, BytesBeforeAFailureAreStillHandedOut) {
  Tap::Log log;
  PlainPair plain = MakePlainPair();
  plain.client = std::make_unique<Tap>(std::move(plain.client), &log);
  const TlsPair pair = MakePair({}, std::move(plain));
  const Buffer sent = RandomBytes(100, 1);
  ASSERT_TRUE(pair.client->Send({sent}, 1000).ok());
  log.flip_next = true;
  ASSERT_TRUE(pair.client->Send({sent}, 1000).ok());
  uint8_t out[200];
  EXPECT_EQ(*pair.server->ReceiveSome(out, 1, kTestTimeoutMs), 100u);
  EXPECT_THAT(pair.server->ReceiveSome(out, 1, kTestTimeoutMs).status().message(),
              HasSubstr("bad record mac"));
}

TEST(TlsTest, ShutdownWakesBothThreads) {
  const TlsPair pair = MakePair();
  const Buffer sent(64 << 20);
  std::thread sender([&] { EXPECT_EQ(pair.client->Send({sent}, 0).code(), Code::kCancelled); });
  std::thread other([&] {
    std::this_thread::sleep_for(milliseconds(30));
    pair.client->Shutdown();
  });
  uint8_t out[4];
  EXPECT_EQ(pair.client->ReceiveSome(out, 1, 0).status().code(), Code::kCancelled);
  sender.join();
  other.join();
  EXPECT_EQ(pair.client->ReceiveSome(out, 1, 0).status().code(), Code::kCancelled);
  EXPECT_EQ(pair.client->Send({Bytes(out)}, 0).code(), Code::kCancelled);
  EXPECT_EQ(pair.client->Export("EXPERIMENTAL-talaria-test", {}).status().code(), Code::kCancelled);
}

TEST(TlsTest, TheGoodByeDoesNotWait) {
  TlsPair pair = MakePair();
  const Buffer sent(64 << 20);
  EXPECT_FALSE(pair.client->Send({sent}, 50).ok());  // the socket is full
  const auto start = steady_clock::now();
  pair.client.reset();
  EXPECT_LT(steady_clock::now() - start, milliseconds(1000));
}

TEST(TlsTest, AFailedInnerSendIsFinalAndNamed) {
  Tap::Log log;
  PlainPair plain = MakePlainPair();
  plain.client = std::make_unique<Tap>(std::move(plain.client), &log);
  const TlsPair pair = MakePair({}, std::move(plain));
  log.fail_sends = true;
  const Buffer sent(10);
  EXPECT_EQ(pair.client->Send({sent}, 1000).message(), "below TLS: tapped");
  log.fail_sends = false;
  EXPECT_EQ(pair.client->Send({sent}, 1000).message(), "below TLS: tapped");
}

TEST(TlsTest, ExportersAgreeWithinAConnectionOnly) {
  const char* const label = "EXPERIMENTAL-talaria-test";
  const Buffer nonce = RandomBytes(32, 1), other = RandomBytes(32, 2);
  const TlsPair one = MakePair(), two = MakePair();
  const auto secret = one.client->Export(label, nonce).value();
  EXPECT_EQ(secret, one.server->Export(label, nonce).value());
  EXPECT_NE(secret, two.client->Export(label, nonce).value());
  EXPECT_NE(secret, one.server->Export(label, other).value());
  EXPECT_NE(secret, one.server->Export("EXPERIMENTAL-talaria-other", nonce).value());
  // Bytes that have passed, and key updates, do not change it.
  ExpectThrough(*one.client, *one.server, nonce);
  EXPECT_EQ(secret, one.server->Export(label, nonce).value());
}

}  // namespace
}  // namespace talaria::wire
