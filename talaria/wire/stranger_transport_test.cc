#include "talaria/wire/stranger_transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <optional>
#include <thread>
#include <vector>

namespace talaria::wire {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr int kLongMs = 20'000;

struct Pair {
  explicit Pair(int timeout_ms) {
    int fds[2];
    TALARIA_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    peer = Fd(fds[0]);
    transport.emplace(TransportFromSocket(Fd(fds[1])), timeout_ms);
  }
  Fd peer;
  std::optional<StrangerTransport> transport;
};

// One byte every 20 ms until it is told to end.
class Drip {
 public:
  explicit Drip(int fd)
      : thread_([this, fd] {
          while (!end_ && send(fd, "x", 1, MSG_NOSIGNAL) == 1)
            std::this_thread::sleep_for(milliseconds(20));
        }) {}
  ~Drip() {
    end_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> end_{false};
  std::thread thread_;
};

TEST(StrangerTransport, WhoDripsIsCutAtTheDeadline) {
  const auto start = Clock::now();
  Pair pair(300);
  const Drip drip(pair.peer.get());
  std::vector<uint8_t> out(100'000);
  // Progress is made all the time, and would go on for half an hour.
  const auto received = pair.transport->ReceiveSome(out, out.size(), kLongMs);
  EXPECT_EQ(received.status().code(), Code::kUnavailable);
  EXPECT_THAT(received.status().message(), HasSubstr("did not say who it is in time"));
  EXPECT_GE(Clock::now() - start, milliseconds(300));
  EXPECT_LT(Clock::now() - start, milliseconds(kLongMs));
  // For good, and in both directions.
  EXPECT_EQ(pair.transport->ReceiveSome(out, 1, kLongMs).status().code(), Code::kUnavailable);
  EXPECT_EQ(pair.transport->Send({Bytes(out).first(1)}, kLongMs).code(), Code::kUnavailable);
}

TEST(StrangerTransport, WhoIsSilentIsCutWithoutATimeOutOfTheCallers) {
  for (const int timeout_ms : {0, kLongMs}) {
    const auto start = Clock::now();
    Pair pair(100);
    std::array<uint8_t, 8> out;
    EXPECT_EQ(pair.transport->ReceiveSome(out, 1, timeout_ms).status().code(), Code::kUnavailable);
    EXPECT_GE(Clock::now() - start, milliseconds(100));
    EXPECT_LT(Clock::now() - start, milliseconds(kLongMs));
  }
}

TEST(StrangerTransport, WhoTakesNothingIsCut) {
  Pair pair(100);
  const std::vector<uint8_t> large(8 << 20);
  const auto start = Clock::now();
  EXPECT_EQ(pair.transport->Send({large}, kLongMs).code(), Code::kUnavailable);
  EXPECT_LT(Clock::now() - start, milliseconds(kLongMs));
}

TEST(StrangerTransport, AShorterTimeOutStaysOneAndIsNotFinal) {
  Pair pair(kLongMs);
  std::array<uint8_t, 8> out;
  EXPECT_THAT(pair.transport->ReceiveSome(out, 1, 20).status().message(), HasSubstr("20 ms"));
  ASSERT_EQ(send(pair.peer.get(), "abc", 3, MSG_NOSIGNAL), 3);
  EXPECT_EQ(pair.transport->ReceiveSome(out, 3, 1000).value(), 3u);
}

TEST(StrangerTransport, WhoIsAdmittedHasNoDeadline) {
  Pair pair(150);
  pair.transport->Admit();
  std::this_thread::sleep_for(milliseconds(200));
  const Drip drip(pair.peer.get());
  std::array<uint8_t, 10> out;
  EXPECT_EQ(pair.transport->ReceiveSome(out, 10, kLongMs).value(), 10u);
  EXPECT_TRUE(pair.transport->Send({Bytes(out)}, kLongMs).ok());
}

TEST(StrangerTransport, AStepMayHaveADeadlineOfItsOwn) {
  Pair pair(50);
  pair.transport->Extend(kLongMs);
  std::this_thread::sleep_for(milliseconds(100));
  ASSERT_EQ(send(pair.peer.get(), "abc", 3, MSG_NOSIGNAL), 3);
  std::array<uint8_t, 8> out;
  EXPECT_EQ(pair.transport->ReceiveSome(out, 3, 1000).value(), 3u);
  pair.transport->Extend(0);
  EXPECT_FALSE(pair.transport->ReceiveSome(out, 1, 1000).ok());
}

}  // namespace
}  // namespace talaria::wire
