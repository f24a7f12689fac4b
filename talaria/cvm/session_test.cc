// The path of the data against an honest cloud, and against one that is lost. Lies:
// session_attack_test.cc.
#include "talaria/cvm/session.h"

#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <thread>

#include "talaria/cvm/lab/zero_mask_source.h"
#include "talaria/cvm/testing/rig.h"

namespace talaria::cvm {
namespace {

using namespace testing;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

std::vector<uint32_t> RowsOfMessages(const FakeCloud& cloud) {
  std::vector<uint32_t> out;
  for (const Request& request : cloud.Requests(wire::Type::kMultiply)) {
    Bytes planes;
    out.push_back(wire::DecodeMultiply(request.body, &planes)->rows);
  }
  return out;
}

void ExpectAccounted(const MaskSource& source, uint64_t rows) {
  const MaskStats stats = source.stats();
  EXPECT_EQ(stats.rows_drawn, rows);
  EXPECT_EQ(stats.rows_drawn, stats.rows_spent + stats.rows_burnt);
}

class SessionIsaTest : public ::testing::TestWithParam<Isa> {};

TEST_P(SessionIsaTest, EqualsTheExactProductAndTheUnmaskedRunBitForBit) {
  Rig masked({.isa = GetParam()});
  Rig plain({.isa = GetParam(), .masks = std::make_unique<lab::ZeroMaskSource>()});
  uint64_t rows_drawn = 0;
  for (uint32_t group = 0; group < masked.masked.groups.size(); ++group) {
    for (const uint32_t rows : {1u, 3u, 130u}) {
      const MaskedGroup& shape = masked.masked.groups[group];
      const std::vector<float> x = RandomRows(100 * group + rows, rows, shape.d);
      Outputs a(shape, rows), b(shape, rows);
      const auto result = Multiply(*masked.session, group, rows, x, a);
      ASSERT_TRUE(result.ok()) << result.status().ToString();
      EXPECT_TRUE(result->finite);
      ASSERT_TRUE(Multiply(*plain.session, group, rows, x, b).ok());
      EXPECT_EQ(a.values, ExactProduct(masked.model, masked.masked, group, rows, x));
      EXPECT_EQ(a.values, b.values);
      rows_drawn += rows;
    }
  }
  ExpectAccounted(*masked.source, rows_drawn);
  EXPECT_EQ(masked.session->stats().rows, rows_drawn);
}

INSTANTIATE_TEST_SUITE_P(Isas, SessionIsaTest, ::testing::ValuesIn(SupportedIsas()),
                         [](const auto& isa) { return std::string(IsaName(isa.param)); });

TEST(SessionTest, OneCheckVectorWorksToo) {
  Rig rig({.check_vectors = 1});
  const std::vector<float> x = RandomRows(5, 2, 128);
  Outputs out(rig.masked.groups[0], 2);
  ASSERT_TRUE(Multiply(*rig.session, 0, 2, x, out).ok());
  EXPECT_EQ(out.values, ExactProduct(rig.model, rig.masked, 0, 2, x));
}

TEST(SessionTest, StridedRowsAndZeroRows) {
  Rig rig;
  const uint32_t d = rig.masked.groups[1].d;
  const std::vector<float> x = RandomRows(6, 3, d);
  std::vector<float> wide(3 * (d + 17), 1e9f);
  for (size_t r = 0; r < 3; ++r) std::copy_n(x.data() + r * d, d, wide.data() + r * (d + 17));
  Outputs out(rig.masked.groups[1], 3);
  ASSERT_TRUE(rig.session->Multiply(1, 3, wide.data(), d + 17, out.pointers).ok());
  EXPECT_EQ(out.values, ExactProduct(rig.model, rig.masked, 1, 3, x));

  Outputs none(rig.masked.groups[1], 0);
  const size_t messages = rig.cloud.CountRequests(wire::Type::kMultiply);
  EXPECT_TRUE(rig.session->Multiply(1, 0, nullptr, d, none.pointers).ok());
  EXPECT_EQ(rig.cloud.CountRequests(wire::Type::kMultiply), messages);
  ExpectAccounted(*rig.source, 3);
}

TEST(SessionTest, BadArgumentsAreRefusedWithoutAMessage) {
  Rig rig;
  const std::vector<float> x(256);
  Outputs out(rig.masked.groups[0], 2);
  EXPECT_EQ(rig.session->Multiply(99, 1, x.data(), 128, out.pointers).status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(rig.session->Multiply(0, 2, x.data(), 127, out.pointers).status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(rig.session->Multiply(1, 1, x.data(), 200, out.pointers).status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(rig.cloud.CountRequests(wire::Type::kMultiply), 0u);
  ExpectAccounted(*rig.source, 0);
}

TEST(SessionTest, ARowThatIsNotFiniteGivesZerosOnTheSameSchedule) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Rig rig;
    std::vector<float> x = RandomRows(8, 3, 128);
    x[128 + 5] = bad;
    Outputs out(rig.masked.groups[2], 3);
    const auto result = Multiply(*rig.session, 2, 3, x, out);
    ASSERT_TRUE(result.ok());
    EXPECT_FALSE(result->finite);
    std::fill_n(x.begin() + 128, 128, 0.0f);
    EXPECT_EQ(out.values, ExactProduct(rig.model, rig.masked, 2, 3, x));
    EXPECT_EQ(rig.session->stats().rejected_rows, 1u);
    EXPECT_EQ(RowsOfMessages(rig.cloud), std::vector<uint32_t>{3});
    EXPECT_TRUE(Multiply(*rig.session, 2, 3, x, out)->finite);
    ExpectAccounted(*rig.source, 6);
  }
}

TEST(SessionTest, MessagesAreAFunctionOfRowCountsOnly) {
  const std::vector<uint32_t> expected = {128, 128, 44, 1, 128, 22, 128, 128, 44};
  for (const uint64_t seed : {1u, 2u}) {
    Rig rig;
    for (const uint32_t rows : {300u, 1u, 150u, 300u}) {
      std::vector<float> x = RandomRows(seed, rows, 128);
      if (seed == 2) std::fill(x.begin(), x.end(), 0.0f);
      Outputs out(rig.masked.groups[0], rows);
      ASSERT_TRUE(Multiply(*rig.session, 0, rows, x, out).ok());
    }
    EXPECT_EQ(RowsOfMessages(rig.cloud), expected);
  }
}

// One batch per group and pieces that do not divide it: a drawer that waited while holding rows
// would never wake up.
TEST(SessionTest, TheSmallestPoolServesSeveralThreads) {
  Rig rig({.batches = 1, .max_rows_per_message = 100});
  Session second(rig.masked, *rig.link, *rig.source,
                 {.isa = DetectIsa(), .max_rows_per_message = 60});
  constexpr int kThreads = 4, kCalls = 6;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Session& session = t % 2 == 0 ? *rig.session : second;
      for (int i = 0; i < kCalls; ++i) {
        const uint32_t group = static_cast<uint32_t>(t + i) % 4,
                       rows = 30 + 45 * static_cast<uint32_t>(i);
        const std::vector<float> x =
            RandomRows(static_cast<uint64_t>(10 * t + i), rows, rig.masked.groups[group].d);
        Outputs out(rig.masked.groups[group], rows);
        const auto result = Multiply(session, group, rows, x, out);
        ASSERT_TRUE(result.ok()) << result.status().ToString();
        EXPECT_EQ(out.values, ExactProduct(rig.model, rig.masked, group, rows, x));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ExpectAccounted(*rig.source, kThreads * (6 * 30 + 45 * 15));
}

TEST(SessionTest, ALostCloudFailsTheCallAndBurnsItsRows) {
  Rig rig;
  const std::vector<float> x = RandomRows(9, 5, 128);
  Outputs out(rig.masked.groups[0], 5);
  ASSERT_TRUE(Multiply(*rig.session, 0, 5, x, out).ok());
  rig.cloud.Stop();
  Outputs lost(rig.masked.groups[0], 5);
  const auto began = Clock::now();
  EXPECT_EQ(Multiply(*rig.session, 0, 5, x, lost).status().code(), Code::kUnavailable);
  EXPECT_LT(Clock::now() - began,
            milliseconds(kIdleTimeoutMs + 1000));  // 5 s with the default idle time-out
  EXPECT_TRUE(lost.Untouched());
  EXPECT_FALSE(rig.session->poisoned());
  ExpectAccounted(*rig.source, 10);

  rig.cloud.Start();
  Outputs again(rig.masked.groups[0], 5);
  ASSERT_TRUE(Multiply(*rig.session, 0, 5, x, again).ok());
  EXPECT_EQ(again.values, out.values);
  ExpectAccounted(*rig.source, 15);
}

// Every way of losing a reply: the identical bytes go out once more, and the result is right.
TEST(SessionTest, AFaultIsRetriedWithIdenticalBytes) {
  const std::vector<std::pair<const char*, FakeCloud::Hook>> faults = {
      {"closed without a reply",
       [](const Request&, Reply& r) {
         r = {{}, Reply::Then::kClose};
       }},
      {"killed inside the header",
       [](const Request&, Reply& r) { r.frame.resize(3), r.then = Reply::Then::kClose; }},
      {"killed inside the frame",
       [](const Request&, Reply& r) {
         r.frame.resize(r.frame.size() / 2), r.then = Reply::Then::kClose;
       }},
      {"killed before the last byte",
       [](const Request&, Reply& r) { r.frame.pop_back(), r.then = Reply::Then::kClose; }},
      {"error",
       [](const Request&, Reply& r) {
         r = {FakeCloud::Frame(wire::Type::kError,
                               wire::Encode(wire::ErrorMessage{wire::ErrorCode::kOverloaded})),
              Reply::Then::kClose};
       }},
      {"drain",
       [](const Request&, Reply& r) {
         r = {FakeCloud::Frame(wire::Type::kDrain, {}), Reply::Then::kClose};
       }},
      {"stall",
       [](const Request&, Reply& r) {
         r = {{}, Reply::Then::kStall};
       }},
      {"stall inside the frame",
       [](const Request&, Reply& r) { r.frame.resize(100), r.then = Reply::Then::kStall; }},
  };
  Rig rig;
  const std::vector<float> x = RandomRows(10, 2, 128);
  for (const auto& [name, fault] : faults) {
    SCOPED_TRACE(name);
    const size_t before = rig.cloud.CountRequests(wire::Type::kMultiply);
    rig.cloud.SetHook([&, fault = fault](const Request& request, Reply& reply) {
      if (request.type == wire::Type::kMultiply && request.number == before) fault(request, reply);
    });
    Outputs out(rig.masked.groups[2], 2);
    ASSERT_TRUE(Multiply(*rig.session, 2, 2, x, out).ok());
    EXPECT_EQ(out.values, ExactProduct(rig.model, rig.masked, 2, 2, x));
    const std::vector<Request> requests = rig.cloud.Requests(wire::Type::kMultiply);
    ASSERT_EQ(requests.size(), before + 2);
    EXPECT_EQ(requests[before].body, requests[before + 1].body);
    EXPECT_NE(requests[before].connection, requests[before + 1].connection);
  }
  EXPECT_EQ(rig.link->stats().retries, faults.size());
  ExpectAccounted(*rig.source, 2 * faults.size());
}

TEST(SessionTest, RetriesEnd) {
  Rig rig;
  rig.cloud.SetHook([](const Request& request, Reply& reply) {
    if (request.type == wire::Type::kMultiply) reply = {{}, Reply::Then::kClose};
  });
  const std::vector<float> x = RandomRows(11, 1, 128);
  Outputs out(rig.masked.groups[2], 1);
  EXPECT_EQ(Multiply(*rig.session, 2, 1, x, out).status().code(), Code::kUnavailable);
  EXPECT_TRUE(out.Untouched());
  EXPECT_EQ(rig.cloud.CountRequests(wire::Type::kMultiply), 3u);  // once, and max_retries = 2
  rig.cloud.SetHook(nullptr);
  EXPECT_TRUE(Multiply(*rig.session, 2, 1, x, out).ok());
}

void ExpectWiped(const Rig& rig) {
  for (const MaskedGroup& group : rig.masked.groups) {
    EXPECT_TRUE(IsZero(group.u));
    EXPECT_TRUE(IsZero(group.v));
    for (const SecretMemory& hints : group.hints) EXPECT_TRUE(IsZero(hints));
  }
}

TEST(SessionTest, PoisonEndsACallThatWaitsForTheCloud) {
  Rig rig;
  rig.cloud.SetHook([](const Request& request, Reply& reply) {
    if (request.type == wire::Type::kMultiply) reply = {{}, Reply::Then::kStall};
  });
  const std::vector<float> x = RandomRows(12, 1, 128);
  Outputs out(rig.masked.groups[0], 1);
  std::thread poisoner([&] {
    while (rig.cloud.CountRequests(wire::Type::kMultiply) == 0)
      std::this_thread::sleep_for(milliseconds(1));
    rig.session->Poison();
  });
  EXPECT_EQ(Multiply(*rig.session, 0, 1, x, out).status().code(), Code::kSessionEnded);
  poisoner.join();
  EXPECT_TRUE(rig.session->poisoned());
  EXPECT_TRUE(out.Untouched());
  EXPECT_EQ(Multiply(*rig.session, 0, 1, x, out).status().code(), Code::kSessionEnded);
  ExpectWiped(rig);
}

// Entropy that never comes keeps the pool empty.
TEST(SessionTest, PoisonEndsACallThatWaitsForMasks) {
  Rig rig;
  std::atomic<bool> asked{false}, release{false};
  MaskPoolOptions options = TestPool(rig.model, 1);
  options.entropy = [&](std::span<uint8_t, 32>) {
    asked = true;
    while (!release) std::this_thread::sleep_for(milliseconds(1));
    return OkStatus();
  };
  Result<std::unique_ptr<MaskPool>> pool = MaskPool::Create(rig.masked, options);
  ASSERT_TRUE(pool.ok());
  Session session(rig.masked, *rig.link, **pool, {.isa = DetectIsa()});
  std::thread poisoner([&] {
    while (!asked) std::this_thread::sleep_for(milliseconds(1));
    std::this_thread::sleep_for(milliseconds(20));
    std::thread releaser([&] {
      std::this_thread::sleep_for(milliseconds(20));
      release = true;
    });
    session.Poison();
    releaser.join();
  });
  const std::vector<float> x = RandomRows(13, 1, 128);
  Outputs out(rig.masked.groups[0], 1);
  EXPECT_EQ(Multiply(session, 0, 1, x, out).status().code(), Code::kSessionEnded);
  poisoner.join();
  EXPECT_TRUE(out.Untouched());
  rig.source->Poison();  // it reads the same hints
  ExpectWiped(rig);
}

TEST(SessionTest, ShutdownOfTheLinkCancelsAndStopOfThePoolTo) {
  Rig rig;
  const std::vector<float> x = RandomRows(14, 1, 128);
  Outputs out(rig.masked.groups[0], 1);
  rig.link->Shutdown();
  EXPECT_EQ(Multiply(*rig.session, 0, 1, x, out).status().code(), Code::kCancelled);
  rig.pool->Stop();
  EXPECT_EQ(Multiply(*rig.session, 0, 1, x, out).status().code(), Code::kCancelled);
  EXPECT_FALSE(rig.session->poisoned());
  EXPECT_TRUE(out.Untouched());
}

}  // namespace
}  // namespace talaria::cvm
