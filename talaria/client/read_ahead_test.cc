#include "talaria/client/read_ahead.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <string>

namespace talaria::client {
namespace {

constexpr int kLongMs = 20'000;

struct Pair {
  std::unique_ptr<ReadAhead> here;
  std::unique_ptr<wire::Transport> there;
};

Pair MakePair() {
  int fds[2];
  TALARIA_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  return {std::make_unique<ReadAhead>(wire::TransportFromSocket(Fd(fds[0]))),
          wire::TransportFromSocket(Fd(fds[1]))};
}

bool Eventually(const std::function<bool()>& what) {
  for (const TimePoint end = After(kLongMs); std::chrono::steady_clock::now() < end;) {
    if (what()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

TEST(ReadAheadTest, BytesThenTheEnd) {
  Pair pair = MakePair();
  ASSERT_TRUE(pair.there->Send({AsBytes("abc")}, kLongMs).ok());
  pair.there.reset();
  ASSERT_TRUE(Eventually([&] { return pair.here->ended(); }));
  std::array<uint8_t, 2> two;
  EXPECT_EQ(*pair.here->ReadSome(two, After(kLongMs)), 2u);
  EXPECT_EQ(*pair.here->ReadSome(two, After(kLongMs)), 1u);
  EXPECT_EQ(two[0], 'c');
  EXPECT_EQ(pair.here->ReadSome(two, After(kLongMs)).status().code(), Code::kUnavailable);
}

TEST(ReadAheadTest, ADeadlineIsNotTheEnd) {
  Pair pair = MakePair();
  std::array<uint8_t, 8> out;
  EXPECT_EQ(pair.here->ReadSome(out, After(10)).status().code(), Code::kUnavailable);
  EXPECT_FALSE(pair.here->ended());
  EXPECT_TRUE(pair.here->quiet());
  ASSERT_TRUE(pair.there->Send({AsBytes("late")}, kLongMs).ok());
  EXPECT_TRUE(Eventually([&] { return !pair.here->quiet(); }));
  EXPECT_EQ(*pair.here->ReadSome(out, After(kLongMs)), 4u);
}

TEST(ReadAheadTest, MoreThanItHoldsArrivesInOrder) {
  Pair pair = MakePair();
  std::string sent;
  for (int i = 0; i < 300'000; ++i) sent += static_cast<char>('a' + i * 7 % 23);
  std::thread sender([&] { EXPECT_TRUE(pair.there->Send({AsBytes(sent)}, kLongMs).ok()); });
  std::string got;
  std::array<uint8_t, 4099> out;
  while (got.size() < sent.size()) {
    const auto n = pair.here->ReadSome(out, After(kLongMs));
    ASSERT_TRUE(n.ok());
    got.append(reinterpret_cast<const char*>(out.data()), *n);
  }
  sender.join();
  EXPECT_EQ(got, sent);
}

TEST(ReadAheadTest, TheEndIsToldOnceAndNotAfterItWasCalledOff) {
  std::atomic<int> told{0};
  Pair pair = MakePair();
  pair.here->OnEnd([&] { ++told; });
  pair.there->Shutdown();
  EXPECT_TRUE(Eventually([&] { return told == 1; }));
  pair.here->OnEnd([&] { ++told; });  // has ended already
  EXPECT_EQ(told, 2);

  Pair other = MakePair();
  other.here->OnEnd([&] { ++told; });
  other.here->OnEnd({});
  other.there->Shutdown();
  EXPECT_TRUE(Eventually([&] { return other.here->ended(); }));
  EXPECT_EQ(told, 2);
}

TEST(ReadAheadTest, ShutdownWakesAReader) {
  Pair pair = MakePair();
  std::thread other([&] { pair.here->Shutdown(); });
  std::array<uint8_t, 8> out;
  EXPECT_EQ(pair.here->ReadSome(out, After(kLongMs)).status().code(), Code::kCancelled);
  other.join();
  EXPECT_FALSE(pair.here->Send({AsBytes("x")}, kLongMs).ok());
}

}  // namespace
}  // namespace talaria::client
