#include "talaria/cvm/mask_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <random>
#include <set>
#include <thread>
#include <type_traits>

#include "talaria/cvm/testing/rig.h"
#include "talaria/ring/layout.h"

namespace talaria::cvm {

struct RowTicketPeer {
  static RowTicket Forge(const RowTicket& ticket) { return RowTicket(ticket.owner_, ticket.row_); }
};

namespace {

using namespace testing;
using std::chrono::milliseconds;

// A ticket cannot be used twice because it cannot be had twice.
static_assert(!std::is_copy_constructible_v<RowTicket> && !std::is_copy_assignable_v<RowTicket>);
static_assert(std::is_nothrow_move_constructible_v<RowTicket> &&
              !std::is_move_assignable_v<RowTicket>);
static_assert(!std::is_copy_constructible_v<SecretMemory> &&
              !std::is_copy_assignable_v<SecretMemory>);

class MaskPoolTest : public ::testing::Test {
 protected:
  MaskPoolTest() : cloud_(SharedModel()), link_(MakeLink(cloud_)) {
    Result<MaskedModel> masked = SetUpModel(*link_, TestSetup(SharedModel()));
    TALARIA_CHECK(masked.ok());
    masked_ = std::move(masked).value();
  }
  std::unique_ptr<MaskPool> Pool(uint64_t batches, int threads = 1) {
    MaskPoolOptions options = TestPool(SharedModel(), batches);
    options.fill_threads = threads;
    Result<std::unique_ptr<MaskPool>> pool = MaskPool::Create(masked_, options);
    TALARIA_CHECK(pool.ok());
    return std::move(pool).value();
  }
  std::vector<uint8_t> MaskOf(const MaskRowView& view, uint32_t group) const {
    std::vector<uint8_t> out;
    for (size_t p = 0; p < masked_.groups[group].d_padded / 32; ++p) {
      out.insert(out.end(), view.mask + p * view.panel_stride,
                 view.mask + p * view.panel_stride + ring::kPanelRowBytes);
    }
    return out;
  }
  std::vector<uint8_t> UnmaskOf(const MaskRowView& view, uint32_t group) const {
    std::vector<uint8_t> out;
    for (size_t p = 0; p < masked_.groups[group].o_padded / 32; ++p) {
      out.insert(out.end(), view.unmask + p * view.panel_stride,
                 view.unmask + p * view.panel_stride + ring::kPanelRowBytes);
    }
    return out;
  }
  static bool AllZero(const std::vector<uint8_t>& bytes) {
    return std::all_of(bytes.begin(), bytes.end(), [](uint8_t b) { return b == 0; });
  }

  FakeCloud cloud_;
  std::unique_ptr<CloudLink> link_;
  MaskedModel masked_;
};

TEST_F(MaskPoolTest, FillsEveryGroupAndCounts) {
  for (const uint64_t batches : {1u, 2u, 5u}) {
    auto pool = Pool(batches);
    ASSERT_TRUE(pool->WaitUntilFull().ok());
    const MaskStats stats = pool->stats();
    EXPECT_EQ(stats.rows_capacity, 4 * batches * kBatchRows);
    EXPECT_EQ(stats.rows_ready, stats.rows_capacity);
    EXPECT_EQ(stats.rows_generated, stats.rows_capacity);
    EXPECT_EQ(stats.batches, 4 * batches);
    EXPECT_EQ(stats.rows_drawn, 0u);
    EXPECT_GT(stats.generation_cpu_seconds, stats.self_test_cpu_seconds);
    EXPECT_GT(stats.self_test_cpu_seconds, 0);
  }
}

TEST_F(MaskPoolTest, NoRowIsHandedOutTwice) {
  auto pool = Pool(2, /*threads=*/2);
  std::set<std::vector<uint8_t>> masks, unmasks;
  uint64_t rows = 0;
  while (rows < 5 * kBatchRows) {
    std::vector<RowTicket> tickets;
    ASSERT_TRUE(pool->Draw(0, 100, tickets).ok());
    ASSERT_EQ(tickets.size(), 100u);
    for (RowTicket& ticket : tickets) {
      const MaskRowView view = ticket.Spend();
      masks.insert(MaskOf(view, 0));
      unmasks.insert(UnmaskOf(view, 0));
    }
    rows += tickets.size();
  }
  EXPECT_EQ(masks.size(), rows);
  EXPECT_EQ(unmasks.size(), rows);
  EXPECT_EQ(pool->stats().rows_spent, rows);
}

TEST_F(MaskPoolTest, ADrawIsWholeWithTwoBatchesAndSplitsWithOne) {
  for (const auto& [batches, expected] :
       {std::pair<uint64_t, std::vector<size_t>>{2, {100, 100, 100, 100, 256, 256}},
        {1, {100, 100, 56, 100, 156, 256}}}) {
    auto pool = Pool(batches);
    std::vector<size_t> drawn;
    for (const uint32_t rows : {100u, 100u, 100u, 100u, 256u, 1000u}) {
      std::vector<RowTicket> tickets;
      ASSERT_TRUE(pool->Draw(2, rows, tickets).ok());
      drawn.push_back(tickets.size());
    }
    EXPECT_EQ(drawn, expected);
  }
}

// What is filled, and with how many passes over the hints, follows from what was drawn.
TEST_F(MaskPoolTest, TwoBatchesShareAPassUnlessRowsAreFew) {
  MaskPoolOptions options = TestPool(SharedModel(), 2);
  options.idle = std::chrono::hours(1);
  auto made = MaskPool::Create(masked_, options);
  ASSERT_TRUE(made.ok());
  MaskPool& pool = **made;
  const auto draw = [&](uint32_t rows) {
    std::vector<RowTicket> tickets;
    ASSERT_TRUE(pool.Draw(0, rows, tickets).ok());
  };
  const auto wait_for = [&](uint64_t generated) {
    for (int i = 0; i < 10000 && pool.stats().rows_generated < generated; ++i)
      std::this_thread::sleep_for(milliseconds(1));
    EXPECT_EQ(pool.stats().rows_generated, generated);
  };
  const uint64_t full = 4 * 2 * kBatchRows;
  wait_for(full);
  EXPECT_EQ(pool.stats().passes, 4u);

  draw(128);  // a prompt of 512 tokens, in the pieces of a session
  draw(128);
  std::this_thread::sleep_for(milliseconds(30));
  EXPECT_EQ(pool.stats().rows_generated, full) << "one free batch, and many rows left";
  draw(128);
  std::vector<RowTicket> last;
  ASSERT_TRUE(pool.Draw(0, 128, last).ok());
  std::this_thread::sleep_for(milliseconds(30));
  EXPECT_EQ(pool.stats().rows_generated, full) << "the other batch is about to be free";
  last.clear();
  wait_for(full + 2 * kBatchRows);
  EXPECT_EQ(pool.stats().passes, 5u);

  draw(256);  // decoding: the first batch is used up, then the second one nearly
  for (int i = 0; i < 159; ++i) draw(1);
  std::this_thread::sleep_for(milliseconds(30));
  EXPECT_EQ(pool.stats().rows_generated, full + 2 * kBatchRows);
  draw(1);
  wait_for(full + 3 * kBatchRows);
  EXPECT_EQ(pool.stats().passes, 6u);
}

// Groups 0 and 1 have the same shape, and so two spare batches.
TEST(MaskPoolSpareTest, ARepeatedPromptFindsItsRowsReady) {
  const SyntheticModel model = SyntheticModel::Make(3, {{128, {64}}, {128, {64}}, {200, {64}}});
  FakeCloud cloud(model);
  const std::unique_ptr<CloudLink> link = MakeLink(cloud);
  Result<MaskedModel> masked = SetUpModel(*link, TestSetup(model));
  ASSERT_TRUE(masked.ok());
  const MemoryPlan plan = PlanMemory(model.manifest);
  EXPECT_EQ(plan.pool_spares, kSpareBatches * BatchExtentOf(128, 64).bytes);
  MaskPoolOptions options = TestPool(model, 2);
  options.memory_budget = plan.Pools(2);
  options.idle = std::chrono::hours(1);
  auto made = MaskPool::Create(*masked, options);
  ASSERT_TRUE(made.ok());
  MaskPool& pool = **made;
  ASSERT_TRUE(pool.WaitUntilFull().ok());
  const MaskStats full = pool.stats();
  EXPECT_EQ(full.rows_ready, full.rows_capacity) << "spares are not filled up";
  EXPECT_EQ(full.passes, 3u);

  const auto prompt = [&](uint32_t group) {
    for (int i = 0; i < 4; ++i) {
      std::vector<RowTicket> tickets;
      ASSERT_TRUE(pool.Draw(group, 128, tickets).ok());
    }
  };
  // Passes since then, of two batches each.
  const auto expect_passes = [&](const MaskStats& since, uint64_t passes) {
    for (int i = 0; i < 10000 && pool.stats().passes < since.passes + passes; ++i)
      std::this_thread::sleep_for(milliseconds(1));
    std::this_thread::sleep_for(milliseconds(20));
    EXPECT_EQ(pool.stats().passes, since.passes + passes);
    EXPECT_EQ(pool.stats().rows_generated, since.rows_generated + passes * 2 * kBatchRows);
  };
  // Rows that do not divide a batch, so that two batches hold less than a prompt from now on.
  for (const uint32_t group : {0u, 1u}) {
    std::vector<RowTicket> tickets;
    ASSERT_TRUE(pool.Draw(group, 100, tickets).ok());
  }
  for (const uint32_t group : {0u, 1u}) prompt(group);  // of a length that nobody could foresee
  // Until nothing is filled any more, on a busy machine too: half a second without a pass.
  MaskStats before = pool.stats();
  for (int quiet = 0; quiet < 50; ++quiet) {
    std::this_thread::sleep_for(milliseconds(10));
    const MaskStats now = pool.stats();
    if (now.passes != before.passes) quiet = 0;
    before = now;
  }
  uint64_t passes = 0;
  for (const uint32_t group : {0u, 1u, 0u, 1u}) {
    prompt(group);
    expect_passes(before, ++passes);  // for the other group, while this one was visited
  }
}

// Batches that go from group to group, of one padded shape and different true ones: no row comes
// twice in any of them, every product is right, and in the end nothing is left of what was seen.
TEST(MaskPoolSpareTest, ABatchThatChangesItsGroupCarriesNothingOver) {
  const SyntheticModel model =
      SyntheticModel::Make(4, {{128, {64}}, {100, {30, 20}}, {70, {33}}, {200, {64}}});
  FakeCloud cloud(model);
  const std::unique_ptr<CloudLink> link = MakeLink(cloud);
  Result<MaskedModel> masked = SetUpModel(*link, TestSetup(model));
  ASSERT_TRUE(masked.ok());
  MaskPoolOptions options = TestPool(model, 2);
  options.memory_budget = PlanMemory(model.manifest).Pools(2);
  options.fill_threads = 2;
  auto made = MaskPool::Create(*masked, options);
  ASSERT_TRUE(made.ok());

  // Notes every row that is used.
  class Notes final : public MaskSource {
   public:
    Notes(MaskPool& pool, const MaskedModel& masked) : pool_(pool), masked_(masked) {}
    Status Draw(uint32_t group, uint32_t rows, std::vector<RowTicket>& out) override {
      std::vector<RowTicket> drawn;
      TALARIA_RETURN_IF_ERROR(pool_.Draw(group, rows, drawn));
      for (RowTicket& ticket : drawn)
        out.emplace_back(std::make_shared<Noted>(*this, std::move(ticket), group), 0);
      return OkStatus();
    }
    MaskStats stats() const override { return pool_.stats(); }
    void Poison() override { pool_.Poison(); }
    static std::vector<uint8_t> Row(const uint8_t* first, size_t columns) {
      std::vector<uint8_t> out;
      for (size_t p = 0; p < columns / ring::kPanelColumns; ++p)
        out.insert(out.end(), first + p * ring::kPanelBytes,
                   first + p * ring::kPanelBytes + ring::kPanelRowBytes);
      return out;
    }
    std::set<std::vector<uint8_t>> masks, unmasks;
    std::vector<std::pair<MaskRowView, uint32_t>> seen;

   private:
    // Of one ticket, which shares its end.
    class Noted final : public RowOwner {
     public:
      Noted(Notes& notes, RowTicket ticket, uint32_t group)
          : notes_(notes), ticket_(std::move(ticket)), group_(group) {}
      ~Noted() override {
        if (spent_ && !burnt_) ticket_.Finish();
      }
      MaskRowView Spend(uint32_t) override {
        const MaskRowView view = ticket_.Spend();
        spent_ = true;
        notes_.seen.emplace_back(view, group_);
        notes_.masks.insert(Row(view.mask, notes_.masked_.groups[group_].d_padded));
        notes_.unmasks.insert(Row(view.unmask, notes_.masked_.groups[group_].o_padded));
        return view;
      }
      void Burn(uint32_t) override { burnt_ = true; }

     private:
      Notes& notes_;
      RowTicket ticket_;
      const uint32_t group_;
      bool spent_ = false, burnt_ = false;
    };
    MaskPool& pool_;
    const MaskedModel& masked_;
  } notes(**made, *masked);
  Session session(*masked, *link, notes, {.isa = DetectIsa()});

  std::mt19937 random(5);
  for (int visit = 0; visit < 60; ++visit) {
    const auto group = static_cast<uint32_t>(random() % 3);
    const uint32_t rows = std::array<uint32_t, 4>{1, 7, 200, 500}[random() % 4];
    const std::vector<float> x = RandomRows(random(), rows, masked->groups[group].d);
    Outputs out(masked->groups[group], rows);
    ASSERT_TRUE(Multiply(session, group, rows, x, out).ok());
    EXPECT_EQ(out.values, ExactProduct(model, *masked, group, rows, x));
    std::vector<RowTicket> unused;  // dies with it
    ASSERT_TRUE(notes.Draw(group, 1 + static_cast<uint32_t>(random() % 50), unused).ok());
  }
  std::map<const uint8_t*, std::set<uint32_t>> groups_at;
  for (const auto& [view, group] : notes.seen) groups_at[view.mask].insert(group);
  EXPECT_TRUE(std::ranges::any_of(groups_at, [](const auto& at) { return at.second.size() > 1; }))
      << "no batch has changed its group";
  EXPECT_EQ(notes.masks.size(), notes.seen.size());
  EXPECT_EQ(notes.unmasks.size(), notes.seen.size());
  (*made)->Stop();
  for (const auto& [view, group] : notes.seen) {
    for (const auto& [first, columns] : {std::pair(view.mask, masked->groups[group].d_padded),
                                         std::pair(view.unmask, masked->groups[group].o_padded)}) {
      const std::vector<uint8_t> left = Notes::Row(first, columns);
      ASSERT_TRUE(std::ranges::all_of(left, [](uint8_t byte) { return byte == 0; }));
    }
  }
}

TEST_F(MaskPoolTest, AnIdlePoolIsFilledUp) {
  MaskPoolOptions options = TestPool(SharedModel(), 2);
  options.idle = milliseconds(20);
  auto made = MaskPool::Create(masked_, options);
  ASSERT_TRUE(made.ok());
  MaskPool& pool = **made;
  ASSERT_TRUE(pool.WaitUntilFull().ok());
  std::vector<RowTicket> tickets;
  ASSERT_TRUE(pool.Draw(1, 256, tickets).ok());
  tickets.clear();
  const uint64_t capacity = pool.stats().rows_capacity;
  for (int i = 0; i < 10000 && pool.stats().rows_ready < capacity; ++i)
    std::this_thread::sleep_for(milliseconds(1));
  EXPECT_EQ(pool.stats().rows_ready, capacity);
}

TEST_F(MaskPoolTest, ATicketThatDiesUnspentBurnsItsRow) {
  auto pool = Pool(1);
  MaskRowView view;
  std::vector<RowTicket> keep;
  {
    std::vector<RowTicket> tickets;
    ASSERT_TRUE(pool->Draw(0, 3, tickets).ok());
    view = tickets[0].Spend();
    EXPECT_FALSE(AllZero(MaskOf(view, 0)));
    EXPECT_FALSE(AllZero(UnmaskOf(view, 0)));
    keep.push_back(std::move(tickets[2]));  // keeps the batch from being used again while we look
  }
  EXPECT_TRUE(AllZero(MaskOf(view, 0)));  // spent and not finished: wiped
  EXPECT_TRUE(AllZero(UnmaskOf(view, 0)));
  view.mask += ring::kPanelRowBytes;  // row 1: never spent
  view.unmask += ring::kPanelRowBytes;
  EXPECT_TRUE(AllZero(MaskOf(view, 0)));
  EXPECT_TRUE(AllZero(UnmaskOf(view, 0)));
  view.mask += ring::kPanelRowBytes;  // row 2: still held
  EXPECT_FALSE(AllZero(MaskOf(view, 0)));
  EXPECT_EQ(pool->stats().rows_spent, 1u);
  EXPECT_EQ(pool->stats().rows_burnt, 1u);
}

using MaskPoolDeathTest = MaskPoolTest;

TEST_F(MaskPoolDeathTest, SpendingTwiceEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        auto pool = Pool(1);
        std::vector<RowTicket> tickets;
        if (!pool->Draw(0, 1, tickets).ok()) std::exit(0);
        tickets[0].Spend();
        tickets[0].Spend();
      },
      "spent_");
  // Not even with a second ticket for the row.
  EXPECT_DEATH(
      {
        auto pool = Pool(1);
        std::vector<RowTicket> tickets;
        if (!pool->Draw(0, 1, tickets).ok()) std::exit(0);
        RowTicket forged = RowTicketPeer::Forge(tickets[0]);
        tickets[0].Spend();
        forged.Spend();
      },
      "MarkUsed");
}

TEST_F(MaskPoolTest, DrawsFromSeveralThreadsAddUp) {
  auto pool = Pool(1, /*threads=*/2);
  std::atomic<uint64_t> rows{0};
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint32_t i = 0; i < 40; ++i) {
        std::vector<RowTicket> tickets;
        ASSERT_TRUE(pool->Draw((t + i) % 4, 1 + 37 * i % 256, tickets).ok());
        for (size_t k = 0; k < tickets.size(); k += 2) (void)tickets[k].Spend();
        rows += tickets.size();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const MaskStats stats = pool->stats();
  EXPECT_EQ(stats.rows_drawn, rows);
  EXPECT_EQ(stats.rows_drawn, stats.rows_spent + stats.rows_burnt);
  EXPECT_LE(stats.rows_drawn, stats.rows_generated);
}

// Slow entropy: nobody is ever served.
MaskPoolOptions Starving(std::atomic<bool>& stop) {
  MaskPoolOptions options = TestPool(SharedModel(), 1);
  options.entropy = [&stop](std::span<uint8_t, 32>) {
    while (!stop) std::this_thread::sleep_for(milliseconds(1));
    return OkStatus();
  };
  return options;
}

TEST_F(MaskPoolTest, StopAndPoisonWakeWhoWaits) {
  for (const bool poison : {false, true}) {
    std::atomic<bool> stop{false};
    Result<std::unique_ptr<MaskPool>> made = MaskPool::Create(masked_, Starving(stop));
    ASSERT_TRUE(made.ok());
    MaskPool& pool = **made;
    const Code expected = poison ? Code::kSessionEnded : Code::kCancelled;
    std::thread drawer([&] {
      std::vector<RowTicket> tickets;
      EXPECT_EQ(pool.Draw(1, 1, tickets).code(), expected);
      EXPECT_TRUE(tickets.empty());
    });
    std::thread waiter([&] { EXPECT_EQ(pool.WaitUntilFull().code(), expected); });
    std::this_thread::sleep_for(milliseconds(20));
    std::thread releaser([&] {
      std::this_thread::sleep_for(milliseconds(20));
      stop = true;
    });
    if (poison) {
      pool.Poison();
    } else {
      pool.Stop();
    }
    drawer.join();
    waiter.join();
    releaser.join();
  }
}

TEST_F(MaskPoolTest, PoisonWipesWhatNobodyHolds) {
  auto pool = Pool(1);
  ASSERT_TRUE(pool->WaitUntilFull().ok());
  std::vector<RowTicket> tickets;
  ASSERT_TRUE(pool->Draw(0, 2, tickets).ok());
  MaskRowView held = tickets[0].Spend();
  MaskRowView third = held;  // not drawn
  third.mask += 2 * ring::kPanelRowBytes;
  third.unmask += 2 * ring::kPanelRowBytes;
  EXPECT_FALSE(AllZero(MaskOf(third, 0)));
  pool->Poison();
  EXPECT_TRUE(AllZero(MaskOf(third, 0)));
  EXPECT_TRUE(AllZero(UnmaskOf(third, 0)));
  EXPECT_FALSE(AllZero(MaskOf(held, 0)));  // its holder wipes it
  tickets.clear();
  EXPECT_TRUE(AllZero(MaskOf(held, 0)));
  std::vector<RowTicket> none;
  EXPECT_EQ(pool->Draw(0, 1, none).code(), Code::kSessionEnded);
  EXPECT_EQ(pool->WaitUntilFull().code(), Code::kSessionEnded);
  EXPECT_EQ(pool->stats().rows_ready, 0u);
  EXPECT_EQ(pool->stats().rows_drawn, pool->stats().rows_spent + pool->stats().rows_burnt);
}

TEST_F(MaskPoolTest, AFailedSelfTestPoisonsThePool) {
  masked_.groups[3].hints[0].Expose()[12345] ^= 1;
  auto pool = Pool(1);
  EXPECT_EQ(pool->WaitUntilFull().code(), Code::kSessionEnded);
  std::vector<RowTicket> tickets;
  EXPECT_EQ(pool->Draw(0, 1, tickets).code(), Code::kSessionEnded);

  // Its session says so at once, and wipes at the next call.
  Session session(masked_, *link_, *pool, {.isa = DetectIsa()});
  EXPECT_TRUE(session.poisoned());
  const std::vector<float> x = RandomRows(1, 1, 128);
  Outputs out(masked_.groups[0], 1);
  EXPECT_EQ(Multiply(session, 0, 1, x, out).status().code(), Code::kSessionEnded);
  EXPECT_TRUE(IsZero(masked_.groups[0].v));
  EXPECT_EQ(cloud_.CountRequests(wire::Type::kMultiply), 0u);
}

TEST_F(MaskPoolTest, TicketsOutliveThePool) {
  std::vector<RowTicket> tickets;
  {
    auto pool = Pool(2);
    ASSERT_TRUE(pool->Draw(0, 256, tickets).ok());
  }
  const MaskRowView view = tickets[7].Spend();
  EXPECT_FALSE(AllZero(MaskOf(view, 0)));
  tickets.clear();
}

TEST_F(MaskPoolTest, RowsThatTheKernelsWipedAreCleanForTheNextBatch) {
  Rig rig({.batches = 1});
  for (int i = 0; i < 3; ++i) {
    const std::vector<float> x = RandomRows(static_cast<uint64_t>(i), 200, rig.masked.groups[1].d);
    Outputs out(rig.masked.groups[1], 200);
    std::vector<RowTicket> last;
    ASSERT_TRUE(Multiply(*rig.session, 1, 200, x, out).ok());
  }
  // Row 0 of the batch that is there now; the rows after what was drawn are unread, the ones before
  // are zero.
  std::vector<RowTicket> tickets;
  ASSERT_TRUE(rig.source->Draw(1, 1, tickets).ok());
  const uint32_t drawn = 600 % kBatchRows;
  MaskRowView view = tickets[0].Spend();
  for (uint32_t back = 1; back <= drawn; ++back) {
    MaskRowView earlier = view;
    earlier.mask -= back * ring::kPanelRowBytes;
    earlier.unmask -= back * ring::kPanelRowBytes;
    ASSERT_TRUE(AllZero(MaskOf(earlier, 1))) << back;
    ASSERT_TRUE(AllZero(UnmaskOf(earlier, 1))) << back;
  }
}

TEST_F(MaskPoolTest, TheBudgetIsAnErrorWithNumbers) {
  MaskPoolOptions options = TestPool(SharedModel(), 1);
  options.memory_budget -= 1;
  const Status status = MaskPool::Create(masked_, options).status();
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_NE(status.message().find("MiB"), std::string::npos);
  options.memory_budget += 1;
  options.fill_threads = 0;
  EXPECT_EQ(MaskPool::Create(masked_, options).status().code(), Code::kInvalidArgument);
}

TEST_F(MaskPoolTest, TheDefaultEntropyWorks) {
  MaskPoolOptions options = TestPool(SharedModel(), 1);
  options.entropy = nullptr;
  Result<std::unique_ptr<MaskPool>> pool = MaskPool::Create(masked_, options);
  ASSERT_TRUE(pool.ok());
  EXPECT_TRUE((*pool)->WaitUntilFull().ok());
}

}  // namespace
}  // namespace talaria::cvm
