#include "talaria/wire/transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "talaria/base/testing/temp_folder.h"

namespace talaria::wire {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using testing::HasSubstr;

Endpoint Parsed(const std::string& text) {
  const Result<Endpoint> endpoint = Endpoint::Parse(text);
  EXPECT_TRUE(endpoint.ok()) << endpoint.status().ToString();
  return *endpoint;
}

std::vector<uint8_t> RandomBytes(size_t size) {
  std::mt19937_64 random(size);
  std::vector<uint8_t> out(size);
  for (uint8_t& b : out) b = static_cast<uint8_t>(random());
  return out;
}

struct Pair {
  std::unique_ptr<Transport> a, b;
};

enum class Kind { kUnix, kTcp, kSocketPair, kBusy };  // kBusy: both sides wait busily

class TransportTest : public testing::TestWithParam<Kind> {
 protected:
  Pair MakePair() {
    if (GetParam() == Kind::kSocketPair || GetParam() == Kind::kBusy) {
      int fds[2];
      EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
      Pair pair{TransportFromSocket(Fd(fds[0])), TransportFromSocket(Fd(fds[1]))};
      if (GetParam() == Kind::kBusy) {
        pair.a->SetBusyWait(milliseconds(20));
        pair.b->SetBusyWait(milliseconds(20));
      }
      return pair;
    }
    const std::string address =
        GetParam() == Kind::kTcp ? "127.0.0.1:0" : "unix:" + folder_.File("s");
    auto listener = Listener::Create(Parsed(address));
    EXPECT_TRUE(listener.ok()) << listener.status().ToString();
    auto a = Connect(Parsed((*listener)->address()), 1000);
    auto b = (*listener)->Accept();
    EXPECT_TRUE(a.ok() && b.ok());
    return {std::move(a).value(), std::move(b).value()};
  }
  TempFolder folder_;
};

std::string KindName(const testing::TestParamInfo<Kind>& info) {
  switch (info.param) {
    case Kind::kUnix:
      return "Unix";
    case Kind::kTcp:
      return "Tcp";
    case Kind::kSocketPair:
      return "SocketPair";
    case Kind::kBusy:
      return "Busy";
  }
  return "";
}
INSTANTIATE_TEST_SUITE_P(All, TransportTest,
                         testing::Values(Kind::kUnix, Kind::kTcp, Kind::kSocketPair, Kind::kBusy),
                         KindName);

TEST_P(TransportTest, PartsArriveInOrderAndInOneRead) {
  const Pair pair = MakePair();
  const std::vector<uint8_t> first{1, 2, 3}, second{4}, third{5, 6};
  ASSERT_TRUE(pair.a->Send({first, Bytes(), second, third}, 1000).ok());
  uint8_t out[64];
  const Result<size_t> n = pair.b->ReceiveSome(out, 1, 1000);
  ASSERT_TRUE(n.ok());
  EXPECT_THAT(Bytes(out).first(*n), testing::ElementsAre(1, 2, 3, 4, 5, 6));
}

TEST_P(TransportTest, ManyPartsAndNone) {
  const Pair pair = MakePair();
  const std::vector<uint8_t> one{7};
  ASSERT_TRUE(pair.a->Send({}, 1000).ok());
  const Bytes p(one);
  ASSERT_TRUE(
      pair.a->Send({p, p, p, p, p, p, p, p, p, p, p, p, p, p, p, p, p, p, p, p, p, p}, 1000).ok());
  uint8_t out[64];
  const Result<size_t> n = pair.b->ReceiveSome(out, 22, 1000);
  ASSERT_TRUE(n.ok());
  EXPECT_EQ(*n, 22u);
}

TEST_P(TransportTest, MoreThanTheSystemBuffersGoesThroughWhole) {
  const Pair pair = MakePair();
  const std::vector<uint8_t> sent = RandomBytes(9 << 20);
  std::thread sender([&] {
    const Bytes all(sent);
    EXPECT_TRUE(
        pair.a->Send({all.first(5), all.subspan(5, 1 << 20), all.subspan(5 + (1 << 20))}, 5000)
            .ok());
  });
  std::vector<uint8_t> received(sent.size());
  const Result<size_t> n = pair.b->ReceiveSome(received, received.size(), 5000);
  sender.join();
  ASSERT_TRUE(n.ok()) << n.status().ToString();
  EXPECT_EQ(received, sent);
}

TEST_P(TransportTest, AByteAtATimeIsCollected) {
  const Pair pair = MakePair();
  const std::vector<uint8_t> sent = RandomBytes(300);
  std::thread sender([&] {
    for (const uint8_t& b : sent) EXPECT_TRUE(pair.a->Send({Bytes(&b, 1)}, 1000).ok());
  });
  std::vector<uint8_t> received(sent.size());
  EXPECT_TRUE(pair.b->ReceiveSome(received, received.size(), 1000).ok());
  sender.join();
  EXPECT_EQ(received, sent);
}

TEST_P(TransportTest, ReceivingTimesOut) {
  const Pair pair = MakePair();
  uint8_t out[4];
  for (const int timeout_ms : {30, 60, 30}) {
    const auto start = steady_clock::now();
    const Result<size_t> n = pair.b->ReceiveSome(out, 1, timeout_ms);
    EXPECT_EQ(n.status().code(), Code::kUnavailable);
    EXPECT_THAT(n.status().message(),
                HasSubstr("no progress for " + std::to_string(timeout_ms) + " ms"));
    EXPECT_GE(steady_clock::now() - start, milliseconds(timeout_ms - 5));
  }
  ASSERT_TRUE(pair.a->Send({Bytes(out)}, 0).ok());  // and the connection still works
  EXPECT_TRUE(pair.b->ReceiveSome(out, 4, 1000).ok());
}

TEST_P(TransportTest, SendingTimesOutWhenNobodyReads) {
  const Pair pair = MakePair();
  const std::vector<uint8_t> sent(64 << 20);
  const auto start = steady_clock::now();
  const Status status = pair.a->Send({sent}, 50);
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("sending: no progress for 50 ms"));
  EXPECT_LT(steady_clock::now() - start, milliseconds(5000));
}

TEST_P(TransportTest, TimeOutsRunOnlyWithoutProgress) {
  const Pair pair = MakePair();
  std::thread sender([&] {
    for (uint8_t i = 0; i < 6; ++i) {
      std::this_thread::sleep_for(milliseconds(40));
      EXPECT_TRUE(pair.a->Send({Bytes(&i, 1)}, 1000).ok());
    }
  });
  uint8_t out[6];
  EXPECT_TRUE(pair.b->ReceiveSome(out, 6, 200).ok());  // 240 ms in all
  sender.join();
}

TEST_P(TransportTest, TheEndOfTheStreamIsAnError) {
  Pair pair = MakePair();
  const std::vector<uint8_t> sent{1, 2};
  ASSERT_TRUE(pair.a->Send({sent}, 1000).ok());
  pair.a.reset();
  uint8_t out[4];
  EXPECT_EQ(*pair.b->ReceiveSome(out, 2, 1000), 2u);
  const Result<size_t> n = pair.b->ReceiveSome(out, 1, 1000);
  EXPECT_EQ(n.status().code(), Code::kUnavailable);
  EXPECT_THAT(n.status().message(), HasSubstr("closed"));
}

TEST_P(TransportTest, SendingToAClosedPeerIsAnErrorAndNoSignal) {
  Pair pair = MakePair();
  pair.a.reset();
  const std::vector<uint8_t> sent(1 << 16);
  Status status;
  for (int i = 0; i < 100 && status.ok(); ++i) status = pair.b->Send({sent}, 100);
  EXPECT_EQ(status.code(), Code::kUnavailable);
}

TEST_P(TransportTest, ShutdownWakesAReceiver) {
  const Pair pair = MakePair();
  std::thread other([&] {
    std::this_thread::sleep_for(milliseconds(30));
    pair.b->Shutdown();
  });
  uint8_t out[4];
  EXPECT_EQ(pair.b->ReceiveSome(out, 1, 0).status().code(), Code::kCancelled);
  other.join();
  EXPECT_EQ(pair.b->ReceiveSome(out, 1, 0).status().code(), Code::kCancelled);
  EXPECT_EQ(pair.b->Send({Bytes(out)}, 0).code(), Code::kCancelled);
  EXPECT_EQ(pair.a->ReceiveSome(out, 1, 1000).status().code(),
            Code::kUnavailable);  // the peer sees the end
}

TEST_P(TransportTest, ShutdownWakesASender) {
  const Pair pair = MakePair();
  std::thread other([&] {
    std::this_thread::sleep_for(milliseconds(30));
    pair.a->Shutdown();
  });
  const std::vector<uint8_t> sent(64 << 20);
  EXPECT_EQ(pair.a->Send({sent}, 0).code(), Code::kCancelled);
  other.join();
}

void IgnoreSignal(int) {}

TEST_P(TransportTest, SignalsDoNotDisturb) {
  struct sigaction action {
  }, before{};
  action.sa_handler = IgnoreSignal;  // without SA_RESTART: blocked calls return EINTR
  ASSERT_EQ(sigaction(SIGUSR1, &action, &before), 0);
  const Pair pair = MakePair();
  const std::vector<uint8_t> sent = RandomBytes(6 << 20);
  std::vector<uint8_t> received(sent.size());
  std::atomic<bool> receiver_done{false}, sender_done{false};
  std::thread receiver([&] {
    size_t done = 0;
    while (done < received.size()) {  // slowly, so that the sender has to wait
      const size_t size = std::min<size_t>(256 << 10, received.size() - done);
      const Result<size_t> n =
          pair.b->ReceiveSome(MutableBytes(received).subspan(done, size), size, 5000);
      EXPECT_TRUE(n.ok()) << n.status().ToString();
      if (!n.ok()) break;
      done += *n;
      std::this_thread::sleep_for(milliseconds(2));
    }
    receiver_done = true;
    while (!sender_done) std::this_thread::yield();
  });
  std::thread sender([&] {
    EXPECT_TRUE(pair.a->Send({sent}, 5000).ok());
    sender_done = true;
    while (!receiver_done) std::this_thread::yield();
  });
  while (!receiver_done || !sender_done) {
    if (!receiver_done) pthread_kill(receiver.native_handle(), SIGUSR1);
    if (!sender_done) pthread_kill(sender.native_handle(), SIGUSR1);
    std::this_thread::sleep_for(milliseconds(1));
  }
  sender.join();
  receiver.join();
  EXPECT_EQ(received, sent);
  ASSERT_EQ(sigaction(SIGUSR1, &before, nullptr), 0);
}

TEST(EndpointTest, ParsesAndPrints) {
  for (const char* text : {"unix:/run/talaria.sock", "127.0.0.1:80", "localhost:65535", "[::1]:0",
                           "cloud.example:443"}) {
    EXPECT_EQ(Parsed(text).ToString(), text);
  }
  EXPECT_EQ(Parsed("unix:a:b").path, "a:b");
  EXPECT_EQ(Parsed("[::1]:80").host, "::1");
}

TEST(EndpointTest, RefusesWhatIsNoAddress) {
  for (const std::string& text :
       {std::string(), std::string("unix:"), "unix:" + std::string(200, 'x'), std::string("host"),
        std::string(":80"), std::string("host:"), std::string("host:65536"), std::string("host:-1"),
        std::string("host: 80"), std::string("host:80 "), std::string("host:http"),
        std::string("::1:80"), std::string("[::1]"), std::string("[::1]80"), std::string("[::1:80"),
        std::string("[]:80"), std::string("a\0b:80", 6)}) {
    EXPECT_EQ(Endpoint::Parse(text).status().code(), Code::kInvalidArgument) << text;
  }
}

TEST(EndpointTest, KnowsWhatIsLocal) {
  for (const char* text : {"unix:/x", "127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1",
                           "[::ffff:127.0.0.1]:1"}) {
    EXPECT_TRUE(Parsed(text).IsLocal()) << text;
  }
  for (const char* text : {"0.0.0.0:1", "10.0.0.1:1", "[::]:1", "[::2]:1", "example:1",
                           "localhost.example:1", "127.1:1"}) {
    EXPECT_FALSE(Parsed(text).IsLocal()) << text;
  }
}

TEST(ListenerTest, UnixSocketIsPrivateAndRemoved) {
  const TempFolder folder;
  const std::string path = folder.File("s");
  {
    const auto listener = Listener::Create(Parsed("unix:" + path));
    ASSERT_TRUE(listener.ok());
    EXPECT_EQ((*listener)->address(), "unix:" + path);
    struct stat info {};
    ASSERT_EQ(stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u);
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(ListenerTest, ALiveSocketIsRefusedAndAStaleOneReplaced) {
  const TempFolder folder;
  const Endpoint endpoint = Parsed("unix:" + folder.File("s"));
  {
    const auto live = Listener::Create(endpoint);
    ASSERT_TRUE(live.ok());
    const auto second = Listener::Create(endpoint);
    EXPECT_EQ(second.status().code(), Code::kIo);
    EXPECT_THAT(second.status().message(), HasSubstr("in use"));
    EXPECT_TRUE(Connect(endpoint, 1000).ok());  // the first one lives on
  }
  {
    const Fd stale(socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::memcpy(name.sun_path, endpoint.path.data(), endpoint.path.size());
    ASSERT_EQ(bind(stale.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  }
  ASSERT_TRUE(std::filesystem::exists(endpoint.path));
  const auto replaced = Listener::Create(endpoint);
  ASSERT_TRUE(replaced.ok()) << replaced.status().ToString();
  EXPECT_TRUE(Connect(endpoint, 1000).ok());
}

TEST(ListenerTest, AFileThatIsNoSocketIsLeftAlone) {
  const TempFolder folder;
  const Endpoint endpoint = Parsed("unix:" + folder.File("precious"));
  std::ofstream(endpoint.path) << "data";
  const auto listener = Listener::Create(endpoint);
  EXPECT_EQ(listener.status().code(), Code::kIo);
  EXPECT_THAT(listener.status().message(), HasSubstr("not a socket"));
  EXPECT_EQ(std::filesystem::file_size(endpoint.path), 4u);
}

TEST(ListenerTest, AnotherListenersFileIsNotRemoved) {
  const TempFolder folder;
  const Endpoint endpoint = Parsed("unix:" + folder.File("s"));
  auto first = Listener::Create(endpoint);
  ASSERT_TRUE(first.ok());
  std::filesystem::rename(endpoint.path, folder.File("moved"));
  const auto second = Listener::Create(endpoint);
  ASSERT_TRUE(second.ok());
  first->reset();
  EXPECT_TRUE(Connect(endpoint, 1000).ok());
}

TEST(ListenerTest, TcpPortInUse) {
  const auto first = Listener::Create(Parsed("127.0.0.1:0"));
  ASSERT_TRUE(first.ok());
  EXPECT_NE(Parsed((*first)->address()).port, "0");
  const auto second = Listener::Create(Parsed((*first)->address()));
  EXPECT_EQ(second.status().code(), Code::kIo);
  EXPECT_THAT(second.status().message(), HasSubstr("in use"));
}

TEST(ListenerTest, ShutdownWakesAccept) {
  for (const std::string& address :
       {std::string("127.0.0.1:0"),
        std::string("unix:/tmp/talaria-wire-test.") + std::to_string(getpid())}) {
    const auto listener = Listener::Create(Parsed(address));
    ASSERT_TRUE(listener.ok()) << listener.status().ToString();
    std::thread other([&] {
      std::this_thread::sleep_for(milliseconds(30));
      (*listener)->Shutdown();
    });
    EXPECT_EQ((*listener)->Accept().status().code(), Code::kCancelled);
    other.join();
    EXPECT_EQ((*listener)->Accept().status().code(), Code::kCancelled);
  }
}

TEST(ConnectTest, NobodyThere) {
  const TempFolder folder;
  EXPECT_EQ(Connect(Parsed("unix:" + folder.File("none")), 200).status().code(),
            Code::kUnavailable);
  std::string address;
  {
    const auto listener = Listener::Create(Parsed("127.0.0.1:0"));
    ASSERT_TRUE(listener.ok());
    address = (*listener)->address();
  }
  EXPECT_EQ(Connect(Parsed(address), 200).status().code(), Code::kUnavailable);
  EXPECT_EQ(Connect(Parsed("127.0.0.1:0"), 200).status().code(), Code::kInvalidArgument);
}

TEST(ConnectTest, AFullQueueTimesOut) {
  const TempFolder folder;
  const Endpoint endpoint = Parsed("unix:" + folder.File("s"));
  const Fd listener(socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, endpoint.path.data(), endpoint.path.size());
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  ASSERT_EQ(listen(listener.get(), 0), 0);
  const auto first = Connect(endpoint, 100);
  EXPECT_TRUE(first.ok());
  const auto second = Connect(endpoint, 100);
  EXPECT_EQ(second.status().code(), Code::kUnavailable);
  EXPECT_THAT(second.status().message(), HasSubstr("timed out"));
}

TEST(ConnectTest, LocalhostNeedsNoResolver) {
  const auto listener = Listener::Create(Parsed("localhost:0"));
  ASSERT_TRUE(listener.ok());
  EXPECT_THAT((*listener)->address(), testing::StartsWith("127.0.0.1:"));
  EXPECT_TRUE(Connect(Parsed("localhost:" + Parsed((*listener)->address()).port), 1000).ok());
}

}  // namespace
}  // namespace talaria::wire
