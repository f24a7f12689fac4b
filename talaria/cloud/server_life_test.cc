// Clients that misbehave, limits, and stopping: nobody may harm another, or keep the server from
// ending.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "talaria/cloud/server_testing.h"
#include "talaria/cloud/testing/fake_device.h"

namespace talaria::cloud {
namespace {

using std::chrono::milliseconds;
using wire::ErrorCode;
using wire::Type;

const std::vector<TinyStore::Shape> kShapes = {{64, {64}}};

// 384 bytes a row in, 3,072 out: the reply to kManyRows rows is more than a socket's buffer holds.
const std::vector<TinyStore::Shape> kWide = {{64, {512}}};
constexpr uint32_t kManyRows = 1000;

std::unique_ptr<wire::Transport> RawConnection(const std::string& address) {
  return wire::Connect(wire::Endpoint::Parse(address).value(), 2000).value();
}

void ExpectWorks(const TinyStore& store, Client& client, uint64_t seed) {
  const Buffer planes = store.Planes(0, 2, seed);
  const Result<Bytes> residues = client.Multiply(0, 2, planes);
  ASSERT_TRUE(residues.ok()) << residues.status().ToString();
  EXPECT_TRUE(std::ranges::equal(*residues, store.Oracle(0, planes, 2)));
}

TEST(ServerLifeTest, GarbageDoesNotHarmOthers) {
  const TinyStore store(kShapes);
  const RunningServer server(TestOptions(store));
  Client good(server.address);
  ASSERT_TRUE(good.Greet().ok());
  std::mt19937_64 random(99);
  const Buffer hello{7, 0, 0, 0, 1, 2, 0, 0, 0, 0, 4};
  for (uint64_t i = 0; i < 60; ++i) {
    const auto bad = RawConnection(server.address);
    Buffer garbage = RandomBytes(1 + random() % 3000, i);
    if (i % 3 == 1) garbage.insert(garbage.begin(), hello.begin(), hello.end());
    if (i % 3 == 2) {  // a valid start, then the line goes dead in the middle of a frame
      garbage = hello;
      garbage.insert(garbage.end(), {0, 1, 0, 0, 5});
      garbage.resize(garbage.size() + random() % 200);
    }
    (void)bad->Send({garbage}, 1000);
    if (i % 10 == 0) ExpectWorks(store, good, i);
  }
  ExpectWorks(store, good, 1000);
}

TEST(ServerLifeTest, ViolationsAreAnsweredWithAnErrorAndTheEnd) {
  const TinyStore store(kShapes);
  const RunningServer server(TestOptions(store));
  const std::vector<Buffer> violations = {{0, 0, 0, 0, 1},  // no type
                                          {1, 0, 0, 4, 1},  // one over the protocol's limit
                                          {0xff, 0xff, 0xff, 0xff, 1},  // huge
                                          {1, 0, 0, 0, 13},             // unknown type
                                          {1, 0, 0, 0, 0}};
  for (const bool greet : {false, true}) {
    for (const Buffer& violation : violations) {
      const auto transport = RawConnection(server.address);
      if (greet) {
        const Buffer hello{7, 0, 0, 0, 1, 2, 0, 0, 0, 0, 4};
        ASSERT_TRUE(transport->Send({hello}, 1000).ok());
        uint8_t reply[80];  // HelloReply
        ASSERT_TRUE(transport->ReceiveSome(reply, sizeof(reply), 2000).ok());
      }
      ASSERT_TRUE(transport->Send({violation}, 1000).ok());
      uint8_t error[7];
      ASSERT_TRUE(transport->ReceiveSome(error, sizeof(error), 2000).ok());
      EXPECT_THAT(error, ::testing::ElementsAre(3, 0, 0, 0, 7, 1, 0));
      EXPECT_EQ(transport->ReceiveSome(error, 1, 2000).status().code(), Code::kUnavailable);
    }
  }
}

TEST(ServerLifeTest, ConnectionsAreLimitedAndFreedAgain) {
  const TinyStore store(kShapes);
  ServerOptions options = TestOptions(store);
  options.max_connections = 3;
  const RunningServer server(options);
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<Client>(server.address));
    ASSERT_TRUE(clients.back()->Greet().ok());
  }
  for (int i = 0; i < 5; ++i) {
    Client refused(server.address);
    EXPECT_EQ(refused.ReceiveErrorAndEnd(), ErrorCode::kOverloaded);
  }
  ExpectWorks(store, *clients[1], 1);
  clients.erase(clients.begin());
  bool admitted = false;
  for (int i = 0; i < 200 && !admitted; ++i) {  // the server sees the end soon, not at once
    Client next(server.address);
    next.Send(Type::kHello, Encode(wire::Hello{}));
    const auto frame = next.Receive();
    admitted = frame.ok() && frame->type == Type::kHelloReply;
    if (!admitted) std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_TRUE(admitted);
}

TEST(ServerLifeTest, ManyShortConnections) {
  const TinyStore store(kShapes);
  ServerOptions options = TestOptions(store);
  options.max_connections = 4;
  const RunningServer server(options);
  int served = 0;
  for (int i = 0; i < 200; ++i) {
    Client client(server.address);
    client.Send(Type::kHello, Encode(wire::Hello{}));
    const auto frame = client.Receive();
    served += frame.ok() && frame->type == Type::kHelloReply;
  }
  EXPECT_GT(served, 20);  // some may find the last ones not yet gone
}

TEST(ServerLifeTest, ASlowReaderIsDroppedAndBlocksNobody) {
  const TinyStore store(kWide);
  ServerOptions options = TestOptions(store);
  options.frame_timeout_ms = 150;
  const RunningServer server(options);
  Client slow(server.address), good(server.address);
  ASSERT_TRUE(slow.Greet().ok());
  ASSERT_TRUE(good.Greet().ok());
  const Buffer planes = store.Planes(0, kManyRows, 1);
  slow.timeout_ms = 100;
  Status status;
  for (int i = 0; i < 100 && status.ok(); ++i) {  // nobody reads the replies
    status = slow.SendMultiply(0, kManyRows, planes);
    ExpectWorks(store, good, static_cast<uint64_t>(i));
  }
  std::this_thread::sleep_for(milliseconds(300));
  ExpectWorks(store, good, 7);
  slow.timeout_ms = 5000;
  Result<wire::Frame> frame = slow.Receive();
  while (frame.ok()) frame = slow.Receive();
  EXPECT_EQ(frame.status().message().find("no progress"), std::string::npos) << "still connected";
}

TEST(ServerLifeTest, IdleAndStuckConnectionsAreEnded) {
  const TinyStore store(kShapes);
  ServerOptions options = TestOptions(store);
  options.idle_timeout_ms = 60;
  options.frame_timeout_ms = 60;
  const RunningServer server(options);
  Client idle(server.address);
  ASSERT_TRUE(idle.Greet().ok());
  idle.ExpectEnd();
  const auto stuck = RawConnection(server.address);
  const Buffer half{7, 0, 0, 0, 1, 1};
  ASSERT_TRUE(stuck->Send({half}, 1000).ok());
  uint8_t byte;
  EXPECT_EQ(stuck->ReceiveSome({&byte, 1}, 1, 3000).status().message().find("no progress"),
            std::string::npos);
}

TEST(ServerLifeTest, ADeviceThatMultipliesWronglyIsRefusedAtTheStart) {
  const TinyStore store(kShapes);
  ServerOptions options = TestOptions(store);
  const auto device = std::make_shared<testing::FakeDevice>();
  device->Lie();
  options.test_device = device;
  const auto server = Server::Create(options);
  EXPECT_EQ(server.status().code(), Code::kUnsupported);
  EXPECT_THAT(server.status().message(),
              ::testing::HasSubstr("the products of fake differ from the reference"));
}

TEST(ServerLifeTest, ADeviceWithoutMemoryEndsTheRequestAndNobodyElse) {
  const TinyStore store(kShapes);
  ServerOptions options = TestOptions(store);
  const auto device = std::make_shared<testing::FakeDevice>();
  options.test_device = device;
  const RunningServer server(options);
  device->SetScript([](const testing::FakeCall& call) {
    return call.total() > 10 ? Status(Code::kResourceExhausted, "no memory") : OkStatus();
  });
  Client large(server.address), small(server.address);
  ASSERT_TRUE(large.Greet().ok());
  ASSERT_TRUE(small.Greet().ok());
  ExpectWorks(store, large, 1);
  ASSERT_TRUE(large.SendMultiply(0, 20, store.Planes(0, 20, 1)).ok());
  EXPECT_EQ(large.ReceiveErrorAndEnd(), ErrorCode::kOverloaded);
  ExpectWorks(store, small, 2);
}

TEST(ServerLifeTest, ALostDeviceEndsTheServerWithAReason) {
  const TinyStore store(kShapes);
  ServerOptions options = TestOptions(store);
  const auto device = std::make_shared<testing::FakeDevice>();
  options.test_device = device;
  auto server = Server::Create(options);
  ASSERT_TRUE(server.ok()) << server.status().ToString();
  device->SetScript(
      [](const testing::FakeCall&) { return Status(Code::kUnavailable, "fell off the bus"); });
  Status status;
  std::thread runs([&] { status = (*server)->Run(); });
  Client asking((*server)->address()), idle((*server)->address());
  ASSERT_TRUE(asking.Greet().ok());
  ASSERT_TRUE(idle.Greet().ok());
  ASSERT_TRUE(asking.SendMultiply(0, 1, store.Planes(0, 1, 1)).ok());
  EXPECT_EQ(asking.ReceiveErrorAndEnd(), ErrorCode::kInternal);
  const auto drain = idle.Receive();
  ASSERT_TRUE(drain.ok());
  EXPECT_EQ(drain->type, Type::kDrain);
  runs.join();
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_EQ(status.message(), "the device was lost, and with it every product: fell off the bus");
}

TEST(ServerLifeTest, StopTellsIdleClients) {
  const TinyStore store(kShapes);
  RunningServer server(TestOptions(store));
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 5; ++i) {
    clients.push_back(std::make_unique<Client>(server.address));
    ASSERT_TRUE(clients.back()->Greet().ok());
  }
  EXPECT_LT(server.Stop(), 1000);
  for (const auto& client : clients) {
    const auto drain = client->Receive();
    ASSERT_TRUE(drain.ok()) << drain.status().ToString();
    EXPECT_EQ(drain->type, Type::kDrain);
    client->ExpectEnd();
  }
  EXPECT_FALSE(wire::Connect(wire::Endpoint::Parse(server.address).value(), 100).ok());
}

TEST(ServerLifeTest, StopWhileBusy) {
  const TinyStore store(kShapes);
  RunningServer server(TestOptions(store));
  std::atomic<int> greeted{0}, answered{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Client client(server.address);
      ASSERT_TRUE(client.Greet().ok());
      ++greeted;
      const Buffer planes = store.Planes(0, 8, t);
      const Buffer expected = store.Oracle(0, planes, 8);
      for (;;) {
        if (!client.SendMultiply(0, 8, planes).ok()) return;
        const auto frame = client.Receive();
        if (!frame.ok()) return;
        if (frame->type != Type::kProduct) {
          EXPECT_TRUE(frame->type == Type::kDrain || frame->type == Type::kError);
          return;
        }
        EXPECT_TRUE(std::ranges::equal(frame->body.subspan(wire::kCallHeaderBytes), expected));
        ++answered;
      }
    });
  }
  while (greeted < 4 || answered < 20) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_LT(server.Stop(), 3000);
  for (std::thread& thread : threads) thread.join();
}

TEST(ServerLifeTest, StopDoesNotWaitForThoseWhoDoNotRead) {
  const TinyStore store(kWide);
  ServerOptions options = TestOptions(store);
  options.frame_timeout_ms = 60000;
  RunningServer server(options);
  Client stuck(server.address), half(server.address);
  ASSERT_TRUE(stuck.Greet().ok());
  ASSERT_TRUE(half.Greet().ok());
  ASSERT_TRUE(stuck.SendMultiply(0, kManyRows, store.Planes(0, kManyRows, 1)).ok());
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_LT(server.Stop(), 4000);  // 1 s of grace, and slack for sanitizers
}

TEST(ServerLifeTest, StopBeforeRun) {
  const TinyStore store(kShapes);
  SetLog("test", LogLevel::kError);
  auto server = Server::Create(TestOptions(store));
  ASSERT_TRUE(server.ok());
  (*server)->Stop();
  EXPECT_TRUE((*server)->Run().ok());
}

}  // namespace
}  // namespace talaria::cloud
