// The link by itself. Lies about products and chunks: session_attack_test.cc, setup_test.cc.
#include "talaria/cvm/cloud_link.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "talaria/cvm/testing/rig.h"

namespace talaria::cvm {
namespace {

using namespace testing;
using std::chrono::milliseconds;
using wire::Type;
using Clock = std::chrono::steady_clock;

constexpr uint32_t kGroup = 2;  // d_padded = 128, o_padded = 128
std::vector<uint8_t> Planes(uint32_t rows) { return std::vector<uint8_t>(rows * 6 * 128, 1); }
std::vector<uint8_t> Residues(uint32_t rows) { return std::vector<uint8_t>(rows * 128 * 6, 0xaa); }

double Seconds(Clock::time_point since) {
  return std::chrono::duration<double>(Clock::now() - since).count();
}

TEST(CloudLinkTest, CreateChecksItsOptions) {
  CloudLinkOptions options;
  options.endpoint = "nonsense";
  EXPECT_EQ(CloudLink::Create(options).status().code(), Code::kInvalidArgument);
  options.endpoint = "unix:/nowhere";
  EXPECT_TRUE(CloudLink::Create(options).ok());
  options.idle_timeout_ms = 0;
  EXPECT_EQ(CloudLink::Create(options).status().code(), Code::kInvalidArgument);
  options = {.endpoint = "unix:/nowhere", .max_frame_bytes = wire::kMaxFrameBytes + 1};
  EXPECT_EQ(CloudLink::Create(options).status().code(), Code::kInvalidArgument);
}

TEST(CloudLinkTest, IdentityFetchAndMultiply) {
  FakeCloud cloud(SharedModel());
  const auto link = MakeLink(cloud);
  const Result<Digest> identity = link->Identity();
  ASSERT_TRUE(identity.ok());
  EXPECT_EQ(*identity, SharedModel().identity());
  std::vector<uint8_t> part(1000);
  ASSERT_TRUE(link->Fetch({model::StreamKind::kHints, 1}, 4321, part).ok());
  EXPECT_EQ(std::memcmp(part.data(), SharedModel().matrices[1].hints.data() + 4321, part.size()),
            0);
  std::vector<uint8_t> residues = Residues(2);
  ASSERT_TRUE(link->Multiply(kGroup, 2, Planes(2), residues).ok());
  EXPECT_NE(residues, Residues(2));
  EXPECT_EQ(cloud.connections(), 1u);
  const LinkStats stats = link->stats();
  EXPECT_EQ(stats.calls, 1u);
  EXPECT_EQ(stats.retries, 0u);
  EXPECT_EQ(stats.bytes_sent, cloud.bytes_received());
  EXPECT_GT(stats.bytes_received, residues.size());
}

// Whole chunks, parts of one, and one byte.
TEST(CloudLinkTest, FetchManifestOfAnySize) {
  for (const size_t size : {size_t{1}, size_t{2}, size_t{4095}, size_t{65535}, size_t{65536},
                            size_t{65537}, size_t{200001}, size_t{5000000}}) {
    SyntheticModel model = SharedModel();
    model.manifest_text = std::string(size, 'x');
    model.manifest_text.back() = 'y';
    FakeCloud cloud(model);
    const auto link = MakeLink(cloud);
    const Result<std::string> text = link->FetchManifest(model.identity(), 10'000'000);
    ASSERT_TRUE(text.ok()) << size << " " << text.status().ToString();
    EXPECT_EQ(*text, model.manifest_text);
  }
}

TEST(CloudLinkTest, AManifestBeyondItsBoundOrWithoutItsDigestEndsTheSession) {
  for (const bool too_large : {false, true}) {
    SyntheticModel model = SharedModel();
    model.manifest_text = std::string(100000, 'x');
    FakeCloud cloud(model);
    const auto link = MakeLink(cloud);
    const Digest other = Sha256Of(AsBytes("another"));
    const auto text = too_large ? link->FetchManifest(model.identity(), 99999)
                                : link->FetchManifest(other, 1 << 20);
    EXPECT_EQ(text.status().code(), Code::kSessionEnded);
    EXPECT_EQ(link->Identity().status().code(), Code::kSessionEnded);
  }
}

TEST(CloudLinkTest, AnUnexpectedIdentityEndsTheSession) {
  FakeCloud cloud(SharedModel());
  CloudLinkOptions options = LinkOptions(cloud);
  options.identity = Sha256Of(AsBytes("another"));
  auto link = CloudLink::Create(options);
  EXPECT_EQ((*link)->Identity().status().code(), Code::kSessionEnded);
  const uint64_t connections = cloud.connections();
  EXPECT_EQ((*link)->Identity().status().code(), Code::kSessionEnded);
  EXPECT_EQ(cloud.connections(), connections);
}

TEST(CloudLinkTest, MalformedHellosEndTheSession) {
  const std::vector<std::function<void(Reply&)>> lies = {
      [](Reply& r) { r.frame[4] = static_cast<uint8_t>(Type::kProduct); },
      [](Reply& r) { r.body()[0] ^= 2; },                     // version
      [](Reply& r) { std::memset(r.body() + 34, 0xff, 4); },  // frame limit over the limit
      [](Reply& r) { std::memset(r.body() + 34, 0, 4); },     // frame limit 0
      [](Reply& r) { r.frame.push_back(0), r.frame[0] += 1; },
      [](Reply& r) { r.frame.pop_back(), r.frame[0] -= 1; }};
  for (size_t i = 0; i < lies.size(); ++i) {
    FakeCloud cloud(SharedModel());
    cloud.SetHook([&](const Request& request, Reply& reply) {
      if (request.type == Type::kHello) lies[i](reply);
    });
    const auto link = MakeLink(cloud);
    EXPECT_EQ(link->Identity().status().code(), Code::kSessionEnded) << i;
  }
}

TEST(CloudLinkTest, RowsThatFitTheFrames) {
  FakeCloud cloud(SharedModel());
  cloud.SetHook([](const Request& request, Reply& reply) {
    if (request.type != Type::kHello) return;
    wire::HelloReply hello;
    hello.identity = SharedModel().identity();
    hello.max_frame_bytes = 4096;
    hello.manifest_bytes = 1;
    hello.attested = true;
    reply.frame = FakeCloud::Frame(Type::kHelloReply, wire::Encode(hello));
  });
  const auto link = MakeLink(cloud);
  EXPECT_EQ(link->MaxRows(128, 128), (wire::kMaxFrameBytes - 17) / (6 * 128));
  ASSERT_TRUE(link->Identity().ok());
  EXPECT_EQ(link->MaxRows(128, 128), 5u);  // 17 + 5 * 768 = 3857
  EXPECT_EQ(link->MaxRows(1024, 128), 0u);
  EXPECT_EQ(link->MaxRows(64, 11184808), 0u);
  std::vector<uint8_t> part(10000);  // chunks follow the limit too
  EXPECT_TRUE(link->Fetch({model::StreamKind::kHints, 0}, 0, part).ok());
  EXPECT_GE(cloud.CountRequests(Type::kFetch), 3u);
}

TEST(CloudLinkTest, ACloudThatIsAwayIsAnErrorInTimeAndComesBack) {
  FakeCloud cloud(SharedModel());
  const auto link = MakeLink(cloud);
  ASSERT_TRUE(link->Identity().ok());
  cloud.Stop();
  std::vector<uint8_t> residues = Residues(1);
  const auto began = Clock::now();
  EXPECT_EQ(link->Multiply(kGroup, 1, Planes(1), residues).code(), Code::kUnavailable);
  EXPECT_LT(Seconds(began), (kIdleTimeoutMs + 1000) / 1000.0);
  EXPECT_EQ(residues, Residues(1));

  // It comes back while a call waits.
  std::thread starter([&] {
    std::this_thread::sleep_for(milliseconds(300));
    cloud.Start();
  });
  EXPECT_TRUE(link->Multiply(kGroup, 1, Planes(1), residues).ok());
  starter.join();
}

// Silence costs one idle time-out and a little, not one per retry.
TEST(CloudLinkTest, ASilentCloudIsAnErrorInTime) {
  FakeCloud cloud(SharedModel());
  const auto link = MakeLink(cloud);
  cloud.SetHook([](const Request& request, Reply& reply) {
    if (request.type == Type::kMultiply) reply = {{}, Reply::Then::kStall};
  });
  std::vector<uint8_t> residues = Residues(1);
  const auto began = Clock::now();
  EXPECT_EQ(link->Multiply(kGroup, 1, Planes(1), residues).code(), Code::kUnavailable);
  EXPECT_GE(Seconds(began), kIdleTimeoutMs / 1000.0);
  EXPECT_LT(Seconds(began), (kIdleTimeoutMs + 1000) / 1000.0);
  cloud.SetHook(nullptr);
  EXPECT_TRUE(link->Multiply(kGroup, 1, Planes(1), residues).ok());
}

// Frames that Hello may be answered with, short of a lie, are a cloud that cannot serve now.
TEST(CloudLinkTest, AnOverloadedCloudIsTriedAgain) {
  FakeCloud cloud(SharedModel());
  cloud.SetHook([](const Request& request, Reply& reply) {
    if (request.type == Type::kHello && request.number < 3) {
      reply = {FakeCloud::Frame(Type::kError,
                                wire::Encode(wire::ErrorMessage{wire::ErrorCode::kOverloaded})),
               Reply::Then::kClose};
    }
  });
  const auto link = MakeLink(cloud);
  EXPECT_TRUE(link->Identity().ok());
  EXPECT_EQ(cloud.CountRequests(Type::kHello), 4u);
}

TEST(CloudLinkTest, ShutdownAndEndWakeACallFromAnotherThread) {
  for (const bool end : {false, true}) {
    for (const bool connected : {true, false}) {
      FakeCloud cloud(SharedModel());
      const auto link = MakeLink(cloud);
      if (connected) {
        cloud.SetHook([](const Request& request, Reply& reply) {
          if (request.type == Type::kMultiply) reply = {{}, Reply::Then::kStall};
        });
      } else {
        cloud.Stop();  // the call is between two attempts to connect
      }
      const auto began = Clock::now();
      std::thread stopper([&] {
        std::this_thread::sleep_for(milliseconds(100));
        if (end) {
          link->End();
        } else {
          link->Shutdown();
        }
      });
      const Code expected = end ? Code::kSessionEnded : Code::kCancelled;
      std::vector<uint8_t> residues = Residues(1);
      EXPECT_EQ(link->Multiply(kGroup, 1, Planes(1), residues).code(), expected);
      EXPECT_LT(Seconds(began), 1.0);
      stopper.join();
      EXPECT_EQ(link->Multiply(kGroup, 1, Planes(1), residues).code(), expected);
      EXPECT_EQ(link->Identity().status().code(), expected);
    }
  }
}

TEST(CloudLinkTest, OneCallAtATimeFromSeveralThreads) {
  FakeCloud cloud(SharedModel());
  const auto link = MakeLink(cloud);
  std::vector<std::thread> threads;
  for (uint32_t t = 1; t <= 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        std::vector<uint8_t> residues = Residues(t);
        EXPECT_TRUE(link->Multiply(kGroup, t, Planes(t), residues).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(link->stats().calls, 80u);
  EXPECT_EQ(link->stats().retries, 0u);
}

}  // namespace
}  // namespace talaria::cvm
