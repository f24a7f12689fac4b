// Whose rows are multiplied when, on a device that the test holds back.
#include "talaria/cloud/batch_scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <thread>

#include "talaria/cloud/testing/fake_device.h"
#include "talaria/gemm/product_testing.h"

namespace talaria::cloud {
namespace {

using testing::Barrier;
using ::testing::ElementsAre;
using testing::FakeCall;
using testing::FakeDevice;

constexpr size_t kD = 8, kPadded = 32, kInRow = 6 * 64, kOutRow = 6 * kPadded;

// A scheduler with three groups on a fake device.
class BatchSchedulerTest : public ::testing::Test {
 protected:
  explicit BatchSchedulerTest(size_t max_rows = 64) : device(max_rows) {}
  void SetUp() override { Make({.max_places = 100}); }
  void TearDown() override { barrier.Open(); }

  void Make(BatchScheduler::Options options) {
    scheduler.reset();
    weights.clear();
    std::vector<BatchScheduler::Group> groups;
    for (size_t g = 0; g < 3; ++g) {
      sources.push_back(gemm::RandomWeights(kPadded, kD, g));
      weights.push_back(device.CreateWeights(kD, kPadded).value());
      ASSERT_TRUE(weights[g]->SetColumns(0, sources[g]).ok());
      groups.push_back({weights[g].get(), kInRow, kOutRow, 1});
    }
    scheduler = std::make_unique<BatchScheduler>(std::move(groups), std::move(options));
  }
  void HoldBack() {
    device.SetScript([this](const FakeCall&) { return barrier.Wait(); });
  }
  void FailWith(std::function<Status(const FakeCall&)> script) {
    device.SetScript([this, script = std::move(script)](const FakeCall& call) {
      (void)barrier.Wait();
      return script(call);
    });
  }

  FakeDevice device;
  Barrier barrier;
  std::vector<std::vector<int8_t>> sources;
  std::vector<std::unique_ptr<gemm::DeviceWeights>> weights;
  std::atomic<bool> stopping{false};
  std::unique_ptr<BatchScheduler> scheduler;
};

// A connection that asks on a thread of its own.
class Asker {
 public:
  Asker(BatchScheduler& scheduler, const std::atomic<bool>& stopping,
        std::shared_ptr<BatchScheduler::Account> account = nullptr)
      : scheduler_(scheduler), stopping_(stopping), place_(scheduler) {
    if (account != nullptr) place_.Join(std::move(account));
  }
  ~Asker() { (void)Join(); }
  // Returns when the request has arrived: arrivals of a test have an order.
  void Ask(uint32_t group, size_t rows, uint64_t seed = 1) {
    (void)Join();
    group_ = group;
    planes_ = gemm::DigitPlanes(gemm::RandomResidues(rows, kD, seed), kD);
    out_.assign(rows * kOutRow, 0xff);
    const uint64_t before = scheduler_.stats().arrivals;
    thread_ = std::thread([this, rows] {
      status_ = scheduler_.Multiply(place_, group_, planes_, rows, out_, stopping_);
    });
    while (scheduler_.stats().arrivals == before) std::this_thread::yield();
  }
  Status Join() {
    if (thread_.joinable()) thread_.join();
    return status_;
  }
  bool IsRight(const std::vector<std::vector<int8_t>>& sources) {
    (void)Join();
    std::vector<uint8_t> expected(out_.size());
    gemm::ReferenceProduct(sources[group_], kD, planes_, out_.size() / kOutRow, expected);
    return status_.ok() && expected == out_;
  }

 private:
  BatchScheduler& scheduler_;
  const std::atomic<bool>& stopping_;
  BatchScheduler::Place place_;
  uint32_t group_ = 0;
  std::vector<uint8_t> planes_, out_;
  Status status_;
  std::thread thread_;
};

MATCHER_P2(Call, weights, rows, "") { return arg.weights == weights && arg.rows == rows; }
std::vector<size_t> Rows(std::initializer_list<size_t> rows) { return rows; }

TEST_F(BatchSchedulerTest, AnIdleDeviceStartsAtOnceAndOneConnectionHasAllRows) {
  Asker one(*scheduler, stopping);
  one.Ask(1, 200);
  EXPECT_TRUE(one.IsRight(sources));
  one.Ask(0, 1);
  EXPECT_TRUE(one.IsRight(sources));
  EXPECT_THAT(device.calls(),
              ElementsAre(Call(1u, Rows({64})), Call(1u, Rows({64})), Call(1u, Rows({64})),
                          Call(1u, Rows({8})), Call(0u, Rows({1}))));
}

TEST_F(BatchSchedulerTest, WhatCameWhileTheDeviceWasBusyBecomesOneProductAGroup) {
  HoldBack();
  Asker a(*scheduler, stopping), b(*scheduler, stopping), c(*scheduler, stopping),
      d(*scheduler, stopping), e(*scheduler, stopping);
  a.Ask(0, 1);
  barrier.Await(1);
  b.Ask(1, 2);
  c.Ask(2, 1);
  d.Ask(1, 1, 7);
  e.Ask(1, 1, 8);
  barrier.Open();
  for (Asker* asker : {&a, &b, &c, &d, &e}) EXPECT_TRUE(asker->IsRight(sources));
  EXPECT_THAT(device.calls(),
              ElementsAre(Call(0u, Rows({1})), Call(1u, Rows({1, 1, 2})), Call(2u, Rows({1}))));
  const BatchScheduler::Stats stats = scheduler->stats();
  EXPECT_EQ(stats.requests, 5u);
  EXPECT_EQ(stats.rows, 6u);
  EXPECT_EQ(stats.products, 3u);
  EXPECT_EQ(stats.blocks, 5u);
}

// What a stranger is to the scheduler: a place that never asks.
TEST_F(BatchSchedulerTest, StrangersChangeNoProduct) {
  std::vector<std::unique_ptr<BatchScheduler::Place>> strangers;
  for (int i = 0; i < 50; ++i)
    strangers.push_back(std::make_unique<BatchScheduler::Place>(*scheduler));
  Asker one(*scheduler, stopping);
  one.Ask(1, 200);
  EXPECT_TRUE(one.IsRight(sources));
  strangers.clear();
  one.Ask(1, 200, 2);
  EXPECT_TRUE(one.IsRight(sources));
  const std::vector<FakeCall> calls = device.calls();
  ASSERT_EQ(calls.size(), 8u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(calls[i].total(), i < 3 ? 64u : 8u);
    EXPECT_THAT(calls[i + 4], Call(1u, calls[i].rows));
  }
}

// Who has asked once makes the products of others small, until it ends.
TEST_F(BatchSchedulerTest, CompanyIsWhoHasAskedAndIsStillThere) {
  Asker one(*scheduler, stopping);
  {
    Asker other(*scheduler, stopping);
    other.Ask(0, 1);
    EXPECT_TRUE(other.IsRight(sources));
    one.Ask(1, 64);
    EXPECT_TRUE(one.IsRight(sources));
  }
  one.Ask(2, 64);
  EXPECT_TRUE(one.IsRight(sources));
  EXPECT_THAT(device.calls(), ElementsAre(Call(0u, Rows({1})), Call(1u, Rows({32})),
                                          Call(1u, Rows({32})), Call(2u, Rows({64}))));
}

TEST_F(BatchSchedulerTest, AConnectionWithManyRowsDelaysOneWithFewByOneProductOnly) {
  Asker large(*scheduler, stopping), small(*scheduler, stopping);
  small.Ask(1, 1);  // it has asked before: it is company
  EXPECT_TRUE(small.IsRight(sources));
  device.ForgetCalls();
  HoldBack();
  large.Ask(0, 1000);
  barrier.Await(1);
  for (size_t i = 0; i < 5; ++i) {
    small.Ask(1, 1, i);
    const size_t before = device.calls().size();  // of which the last one runs
    barrier.Pass();
    barrier.Await(before + 1);
    EXPECT_THAT(device.calls().back(), Call(1u, Rows({1}))) << i;
    barrier.Pass();
    EXPECT_TRUE(small.IsRight(sources));
    barrier.Await(before + 2);
    EXPECT_THAT(device.calls().back(), Call(0u, Rows({32}))) << i;
  }
  barrier.Open();
  EXPECT_TRUE(large.IsRight(sources));
}

TEST_F(BatchSchedulerTest, RowsOfAProductAreSharedEvenlyAndSmallRequestsGoWhole) {
  HoldBack();
  Asker first(*scheduler, stopping), one(*scheduler, stopping), ten(*scheduler, stopping),
      a(*scheduler, stopping), b(*scheduler, stopping);
  first.Ask(1, 1);
  barrier.Await(1);
  a.Ask(0, 500);
  b.Ask(0, 300, 3);
  ten.Ask(0, 5, 4);
  one.Ask(0, 1, 5);
  barrier.Open();
  for (Asker* asker : {&first, &one, &ten, &a, &b}) EXPECT_TRUE(asker->IsRight(sources));
  // 32 rows with company: 1 + 5, and 13 each.
  EXPECT_THAT(device.calls()[1], Call(0u, Rows({1, 5, 13, 13})));
  EXPECT_THAT(device.calls()[2], Call(0u, Rows({16, 16})));
}

// Three ask for all that they can get, in different groups; each gets a third of the work.
TEST_F(BatchSchedulerTest, ConnectionsOfDifferentGroupsTakeTurnsByRows) {
  HoldBack();
  Asker a(*scheduler, stopping), b(*scheduler, stopping), c(*scheduler, stopping);
  a.Ask(0, 320);
  barrier.Await(1);
  b.Ask(1, 320);
  c.Ask(2, 320);
  barrier.Open();
  for (Asker* asker : {&a, &b, &c}) EXPECT_TRUE(asker->IsRight(sources));
  std::map<size_t, size_t> rows;
  for (const FakeCall& call : device.calls()) {
    rows[call.weights] += call.total();
    size_t most = 0, least = 320;
    for (size_t g = 0; g < 3; ++g) {
      most = std::max(most, rows[g]);
      least = std::min(least, rows[g]);
    }
    if (most < 320) {
      EXPECT_LE(most - least, 2 * 32u);
    }
  }
}

// One CVM has four connections, another has one: each CVM has half of the rows.
TEST_F(BatchSchedulerTest, ConnectionsOfOneCvmShareItsShare) {
  HoldBack();
  const auto cvm = std::make_shared<BatchScheduler::Account>();
  Asker first(*scheduler, stopping), other(*scheduler, stopping);
  Asker a(*scheduler, stopping, cvm), b(*scheduler, stopping, cvm), c(*scheduler, stopping, cvm),
      d(*scheduler, stopping, cvm);
  first.Ask(1, 1);
  barrier.Await(1);
  a.Ask(0, 40, 2);
  b.Ask(0, 40, 3);
  c.Ask(0, 2, 4);
  d.Ask(0, 40, 5);
  other.Ask(0, 24, 6);
  barrier.Open();
  for (Asker* asker : {&first, &other, &a, &b, &c, &d}) EXPECT_TRUE(asker->IsRight(sources));
  // 32 rows: 16 for `other`, of the rest 2 and then 4, 5 and 5; of the next 32, 8 are all of it.
  EXPECT_THAT(device.calls()[1], Call(0u, Rows({2, 16, 4, 5, 5})));
  EXPECT_EQ(device.calls()[2].total(), 32u);
  EXPECT_THAT(device.calls()[2].rows, ::testing::UnorderedElementsAre(8u, 8u, 8u, 8u));
}

// The same by turns, when they ask for different groups.
TEST_F(BatchSchedulerTest, ConnectionsOfOneCvmTakeItsTurns) {
  HoldBack();
  const auto cvm = std::make_shared<BatchScheduler::Account>();
  Asker other(*scheduler, stopping), a(*scheduler, stopping, cvm), b(*scheduler, stopping, cvm);
  other.Ask(0, 64 + 32 * 4);
  barrier.Await(1);  // 64 of them, while it is alone
  a.Ask(1, 32 * 4);
  b.Ask(2, 32 * 4);
  barrier.Open();
  for (Asker* asker : {&other, &a, &b}) EXPECT_TRUE(asker->IsRight(sources));
  size_t others = 0, cvms = 0;
  for (size_t i = 1; i < device.calls().size() && others < 4; ++i) {
    const FakeCall call = device.calls()[i];
    EXPECT_EQ(call.total(), 32u);
    ++(call.weights == 0 ? others : cvms);
  }
  // It is two products behind at first; from then on they alternate, `other` first, who came first.
  EXPECT_EQ(others, 4u);
  EXPECT_EQ(cvms, 2u + 3);
}

// More requests of one CVM than rows: the first ones, and nobody starves.
TEST_F(BatchSchedulerTest, MoreRequestsOfOneCvmThanItsShare) {
  FakeDevice small(4);
  const auto resident = small.CreateWeights(kD, kPadded).value();
  ASSERT_TRUE(resident->SetColumns(0, sources[0]).ok());
  BatchScheduler tight({{resident.get(), kInRow, kOutRow, 1}}, {.max_places = 100});
  small.SetScript([this](const FakeCall&) { return barrier.Wait(); });
  const auto cvm = std::make_shared<BatchScheduler::Account>();
  std::vector<std::unique_ptr<Asker>> askers;
  for (size_t i = 0; i < 9; ++i) {
    askers.push_back(std::make_unique<Asker>(tight, stopping, i == 8 ? nullptr : cvm));
    askers.back()->Ask(0, 2, i);
    if (i == 0) barrier.Await(1);
  }
  barrier.Open();
  for (const auto& asker : askers) EXPECT_TRUE(asker->IsRight(sources));
  // Two rows for the one connection of its own, at once.
  EXPECT_THAT(small.calls()[1].rows, ::testing::UnorderedElementsAre(2u, 1u, 1u));
  for (const FakeCall& call : small.calls()) EXPECT_LE(call.total(), 4u);
}

// `busy` is alone for ten products of 64 rows; the tenth runs when `late` asks for the first time,
// and is the last of that size. Bounds of the next eight products, 32 rows each, from the rule:
// * `late` begins at the virtual time of the product that runs, the work of `busy` before it, and
//   not at 0: so `busy` is ahead by that product, 64 rows, and not by all ten.
// * Who is served next has the least work, ties go to the earlier request, and a product is 32
// rows:
//   so `late` has those 64 rows, two products, and from then on they alternate, `busy` first.
// So 2 + 3 of 8 are late's, in this order; with something saved up all eight would be.
TEST_F(BatchSchedulerTest, WhoWasIdleHasNothingSavedUp) {
  HoldBack();
  Asker busy(*scheduler, stopping), late(*scheduler, stopping);
  busy.Ask(0, 64 * 10 + 32 * 5);
  barrier.Await(1);
  barrier.Pass(9);
  barrier.Await(10);
  late.Ask(1, 32 * 10);
  barrier.Open();
  EXPECT_TRUE(busy.IsRight(sources));
  EXPECT_TRUE(late.IsRight(sources));
  std::vector<size_t> order;
  for (const FakeCall& call : device.calls()) {
    EXPECT_EQ(call.total(), order.size() < 10 ? 64u : 32u);
    order.push_back(call.weights);
  }
  ASSERT_EQ(order.size(), 25u);
  EXPECT_THAT(std::vector<size_t>(order.begin() + 10, order.begin() + 18),
              ElementsAre(1, 1, 0, 1, 0, 1, 0, 1));
}

TEST_F(BatchSchedulerTest, MoreRequestsThanRowsOfAProduct) {
  FakeDevice small(4);
  const auto resident = small.CreateWeights(kD, kPadded).value();
  ASSERT_TRUE(resident->SetColumns(0, sources[0]).ok());
  BatchScheduler tight({{resident.get(), kInRow, kOutRow, 1}}, {.max_places = 100});
  std::vector<std::unique_ptr<Asker>> askers;
  small.SetScript([this](const FakeCall&) { return barrier.Wait(); });
  for (size_t i = 0; i < 12; ++i) {
    askers.push_back(std::make_unique<Asker>(tight, stopping));
    askers.back()->Ask(0, 1 + i % 3, i);
    if (i == 0) barrier.Await(1);
  }
  barrier.Open();
  for (const auto& asker : askers) EXPECT_TRUE(asker->IsRight(sources));
  for (const FakeCall& call : small.calls()) EXPECT_LE(call.total(), 4u);
}

TEST_F(BatchSchedulerTest, OutOfMemoryTogetherIsTriedOneByOne) {
  FailWith([](const FakeCall& call) {
    return call.total() > 5 ? Status(Code::kResourceExhausted, "no memory") : OkStatus();
  });
  Asker first(*scheduler, stopping), a(*scheduler, stopping), b(*scheduler, stopping),
      c(*scheduler, stopping);
  first.Ask(1, 1);
  barrier.Await(1);
  a.Ask(0, 3);
  b.Ask(0, 9, 2);
  c.Ask(0, 2, 3);
  barrier.Open();
  EXPECT_TRUE(a.IsRight(sources));
  EXPECT_TRUE(c.IsRight(sources));
  EXPECT_EQ(b.Join().code(), Code::kResourceExhausted);
  EXPECT_EQ(b.Join().message(), "no memory");
  // The device lives, and so does the connection.
  b.Ask(0, 4, 4);
  EXPECT_TRUE(b.IsRight(sources));
}

TEST_F(BatchSchedulerTest, AnErrorEndsTheRequestsOfItsProductOnly) {
  FailWith([](const FakeCall& call) {
    return call.weights % 3 == 0 ? Status(Code::kInternal, "a bug") : OkStatus();
  });
  Asker first(*scheduler, stopping), a(*scheduler, stopping), b(*scheduler, stopping),
      other(*scheduler, stopping);
  first.Ask(1, 1);
  barrier.Await(1);
  a.Ask(0, 1);
  b.Ask(0, 1, 2);
  other.Ask(2, 1, 3);
  barrier.Open();
  EXPECT_TRUE(first.IsRight(sources));
  EXPECT_EQ(a.Join().code(), Code::kInternal);
  EXPECT_EQ(b.Join().code(), Code::kInternal);
  EXPECT_TRUE(other.IsRight(sources));
}

TEST_F(BatchSchedulerTest, ALostDeviceEndsAllRequestsNowAndLater) {
  std::atomic<int> told{0};
  Make({.max_places = 100, .on_lost = [&](const Status& status) {
          EXPECT_EQ(status.message(), "fell off the bus");
          ++told;
        }});
  FailWith([](const FakeCall&) { return Status(Code::kUnavailable, "fell off the bus"); });
  Asker a(*scheduler, stopping), b(*scheduler, stopping), c(*scheduler, stopping);
  a.Ask(0, 1);
  barrier.Await(1);
  b.Ask(0, 1);
  c.Ask(2, 1000);
  barrier.Open();
  for (Asker* asker : {&a, &b, &c}) {
    EXPECT_EQ(asker->Join().code(), Code::kUnavailable);
    EXPECT_EQ(asker->Join().message(), "fell off the bus");
  }
  EXPECT_EQ(device.calls().size(), 1u);
  EXPECT_EQ(told, 1);
  std::vector<uint8_t> planes(kInRow), out(kOutRow);
  BatchScheduler::Place place(*scheduler);
  EXPECT_EQ(scheduler->Multiply(place, 0, planes, 1, out, stopping).code(), Code::kUnavailable);
  EXPECT_EQ(device.calls().size(), 1u);
}

TEST_F(BatchSchedulerTest, StopEndsThoseWhoWait) {
  HoldBack();
  Asker large(*scheduler, stopping), a(*scheduler, stopping), b(*scheduler, stopping);
  large.Ask(0, 1000);
  barrier.Await(1);
  a.Ask(0, 1);
  b.Ask(2, 1);
  stopping = true;
  barrier.Pass();  // the product that runs ends; no other one starts
  for (Asker* asker : {&large, &a, &b}) {
    EXPECT_EQ(asker->Join().code(), Code::kCancelled);
    EXPECT_EQ(asker->Join().message(), "stopping");
  }
  EXPECT_EQ(device.calls().size(), 1u);
}

// Who is awake multiplies a small request of another at once; what takes longer than its own is led
// by somebody who waits for it anyway.
TEST_F(BatchSchedulerTest, ALeaderLeadsOnForSmallRequestsOnly) {
  Make({.max_places = 100, .lead_on = std::chrono::seconds(60)});
  std::mutex mutex;
  std::map<size_t, std::thread::id> threads;  // of the last product of a group
  FailWith([&](const FakeCall& call) {
    const std::lock_guard lock(mutex);
    threads[call.weights - 3] = std::this_thread::get_id();
    return OkStatus();
  });
  Asker a(*scheduler, stopping), small(*scheduler, stopping), large(*scheduler, stopping);
  a.Ask(0, 2);
  barrier.Await(1);
  small.Ask(1, 2, 2);
  large.Ask(2, 3, 3);
  barrier.Open();
  for (Asker* asker : {&a, &small, &large}) EXPECT_TRUE(asker->IsRight(sources));
  EXPECT_EQ(threads[0], threads[1]);
  EXPECT_NE(threads[0], threads[2]);
}

TEST_F(BatchSchedulerTest, NobodyIsWaitedForWithOneConnectionOrWithIdleOnes) {
  Make({.max_places = 100, .window = std::chrono::hours(1)});
  Asker one(*scheduler, stopping), idle(*scheduler, stopping);
  for (size_t i = 0; i < 3; ++i) {
    one.Ask(0, 1, i);
    EXPECT_TRUE(one.IsRight(sources));  // an hour would be noticed
  }
}

TEST_F(BatchSchedulerTest, TheWindowWaitsForConnectionsThatAreActive) {
  Make({.max_places = 100, .window = std::chrono::seconds(60), .active = std::chrono::seconds(60)});
  HoldBack();
  Asker a(*scheduler, stopping), b(*scheduler, stopping);
  a.Ask(0, 1);
  barrier.Await(1);
  b.Ask(0, 1, 2);
  barrier.Open();  // a is done, and b waits for it to come again
  EXPECT_TRUE(a.IsRight(sources));
  EXPECT_EQ(device.calls().size(), 1u);
  a.Ask(0, 2, 3);
  EXPECT_TRUE(a.IsRight(sources));
  EXPECT_TRUE(b.IsRight(sources));
  EXPECT_THAT(device.calls(), ElementsAre(Call(3u, Rows({1})), Call(3u, Rows({1, 2}))));
}

TEST_F(BatchSchedulerTest, TheWindowEndsForOtherWork) {
  Make({.max_places = 100, .window = std::chrono::seconds(60), .active = std::chrono::seconds(60)});
  HoldBack();
  Asker a(*scheduler, stopping), b(*scheduler, stopping), c(*scheduler, stopping);
  a.Ask(0, 1);
  barrier.Await(1);
  b.Ask(0, 1, 2);
  barrier.Open();
  EXPECT_TRUE(a.IsRight(sources));
  c.Ask(1, 1, 3);  // of another group: nobody is held up for a
  EXPECT_TRUE(b.IsRight(sources));
  a.Ask(1, 1, 4);  // c has nobody to wait for but a and b; it may wait for b
  b.Ask(1, 1, 5);
  for (Asker* asker : {&a, &b, &c}) EXPECT_TRUE(asker->IsRight(sources));
}

TEST_F(BatchSchedulerTest, TheWindowIsBounded) {
  Make({.max_places = 100, .window = std::chrono::milliseconds(5)});
  BatchScheduler::Place a(*scheduler), b(*scheduler);
  std::vector<uint8_t> planes(kInRow), out(kOutRow);
  ASSERT_TRUE(scheduler->Multiply(b, 1, planes, 1, out, stopping).ok());
  // b is active and does not come: a goes on after 5 ms, however often.
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(scheduler->Multiply(a, 0, planes, 1, out, stopping).ok());
  for (const FakeCall& call : device.calls()) EXPECT_EQ(call.rows.size(), 1u);
}

// Many connections, all groups, all sizes, under the sanitizers as well: every answer is right.
TEST_F(BatchSchedulerTest, ManyAtOnce) {
  for (const int window_us : {0, 200}) {
    Make({.max_places = 100, .window = std::chrono::microseconds(window_us)});
    std::vector<std::thread> threads;
    std::atomic<int> right{0};
    for (uint32_t t = 0; t < 16; ++t) {
      threads.emplace_back([&, t] {
        BatchScheduler::Place place(*scheduler);
        for (uint32_t i = 0; i < 30; ++i) {
          const uint32_t group = (t * 7 + i) % 3;
          const size_t rows = t % 5 == 0 ? 1 + (i * 37) % 150 : 1;
          const auto planes = gemm::DigitPlanes(gemm::RandomResidues(rows, kD, t * 100 + i), kD);
          std::vector<uint8_t> out(rows * kOutRow), expected(rows * kOutRow);
          ASSERT_TRUE(scheduler->Multiply(place, group, planes, rows, out, stopping).ok());
          gemm::ReferenceProduct(sources[group], kD, planes, rows, expected);
          if (out == expected) ++right;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(right, 16 * 30);
    EXPECT_EQ(scheduler->stats().requests, 16u * 30);
  }
}

}  // namespace
}  // namespace talaria::cloud
