// The choice alone, without rows; mask_pool_test.cc has it with threads that fill.
#include "talaria/cvm/mask_pool_groups.h"

#include <gtest/gtest.h>

#include "talaria/ring/batch.h"

namespace talaria::cvm {
namespace {

class PoolGroupsTest : public testing::Test {
 protected:
  // Groups of one shape, with `batches` each and as many more as spares.
  void Make(size_t groups, size_t batches, size_t spares) {
    ShapePool& shape = pools_.shapes[{32, 32}];
    shape.spares = spares;
    pools_.groups.resize(groups);
    for (GroupPool& group : pools_.groups) {
      group.shape = &shape;
      group.batches = batches;
    }
    for (size_t i = 0; i < groups * batches + spares; ++i) {
      batches_.push_back(std::make_shared<PoolBatch>(BatchRows{}, 0, 0, counters_));
      shape.free.push_back(batches_.back().get());
    }
  }
  // How many batches one pass makes.
  size_t Fill(size_t group) {
    GroupPool& pool = pools_.groups[group];
    std::vector<PoolBatch*> taken;
    pools_.Take(pool, taken);
    pool.filling -= taken.size();
    for (PoolBatch* batch : taken) pool.ready.emplace_back(std::shared_ptr<void>(), batch);
    pool.ready_rows += taken.size() * kBatchRows;
    return taken.size();
  }
  // The first ready batch is drawn to its end, and its last ticket is gone.
  void DrawBatch(size_t group) {
    GroupPool& pool = pools_.groups[group];
    (void)pools_.CountDraw(pool, kBatchRows);
    PoolBatch* const batch = pool.ready.front().get();
    pool.ready.pop_front();
    pools_.GiveBack(pool, {&batch, 1});
  }
  // -1: none.
  ptrdiff_t Choose(bool at_once = false) {
    const GroupPool* chosen = pools_.Choose(at_once);
    return chosen == nullptr ? -1 : chosen - pools_.groups.data();
  }

  PoolCounters counters_;
  std::vector<std::shared_ptr<PoolBatch>> batches_;
  PoolGroups pools_;
};

TEST_F(PoolGroupsTest, TheEmptiestIsFilledAndWhoeverSomebodyWaitsForBeforeIt) {
  Make(3, 2, 0);
  EXPECT_EQ(Choose(), 0);
  EXPECT_EQ(Fill(0), 2u);
  EXPECT_EQ(Choose(), 1);
  pools_.groups[2].waiting = 1;
  EXPECT_EQ(Choose(), 2);
  EXPECT_EQ(Fill(2), 2u);
  EXPECT_EQ(Choose(), 1);
  EXPECT_EQ(Fill(1), 2u);
  EXPECT_EQ(Choose(/*at_once=*/true), -1);
}

TEST_F(PoolGroupsTest, OneFreeBatchWaitsForAnotherUnlessThereIsAReason) {
  Make(2, 2, 0);
  Fill(0);
  Fill(1);
  DrawBatch(0);
  EXPECT_EQ(Choose(), -1);
  EXPECT_EQ(Choose(/*at_once=*/true), 0);
  // True just once: when the rows become few.
  EXPECT_FALSE(pools_.CountDraw(pools_.groups[0], 159));
  EXPECT_EQ(Choose(), -1);
  EXPECT_TRUE(pools_.CountDraw(pools_.groups[0], 1));
  EXPECT_FALSE(pools_.CountDraw(pools_.groups[0], 1));
  EXPECT_EQ(Choose(), 0);
  EXPECT_EQ(Fill(0), 1u);
  EXPECT_EQ(Choose(), -1);
}

TEST_F(PoolGroupsTest, APassMakesNoMoreThanItsKernelTakes) {
  Make(1, 9, 0);
  EXPECT_EQ(Fill(0), ring::kMaxBatchesPerPass);
  EXPECT_EQ(Fill(0), ring::kMaxBatchesPerPass);
  EXPECT_EQ(Choose(/*at_once=*/true), 0);
  EXPECT_EQ(Fill(0), 1u);
}

// A prompt takes 512 rows of one group after another; the spares let the next one have as many.
TEST_F(PoolGroupsTest, SparesGoToTheGroupThatAPromptVisitsNextAndComeBack) {
  Make(2, 2, 2);
  ShapePool& shape = pools_.shapes[{32, 32}];
  Fill(0);
  Fill(1);
  for (const size_t group : {0u, 1u}) {
    DrawBatch(group);
    DrawBatch(group);
  }
  // Both took 512 rows before and have none; the one visited longest ago comes first.
  EXPECT_EQ(Choose(), 0);
  EXPECT_EQ(Fill(0), 2u);
  EXPECT_EQ(shape.spares, 2u);
  DrawBatch(0);
  // Half of what it took before is left, and it is being drawn from: its own batch and a spare.
  pools_.groups[1].waiting = 1;
  EXPECT_EQ(Choose(), 1);
  EXPECT_EQ(Fill(1), 2u);
  pools_.groups[1].waiting = 0;
  (void)pools_.CountDraw(pools_.groups[1], 1);  // the visit of group 0 is over
  EXPECT_EQ(Choose(), 0);
  EXPECT_EQ(Fill(0), 2u);
  EXPECT_EQ(pools_.groups[0].held(), 3u);
  EXPECT_EQ(shape.spares, 1u);
  DrawBatch(0);
  EXPECT_EQ(shape.spares, 2u);
  EXPECT_EQ(pools_.groups[0].held(), 2u);
}

}  // namespace
}  // namespace talaria::cvm
