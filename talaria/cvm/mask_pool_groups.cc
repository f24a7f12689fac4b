#include "talaria/cvm/mask_pool_groups.h"

#include <algorithm>
#include <tuple>

#include "talaria/ring/batch.h"

namespace talaria::cvm {
namespace {

// A group with no more rows is filled with what is free. Below the rows of a message (128), so that
// a prompt, which takes a group's rows in such pieces, leaves two batches free at once; enough for
// the tokens that are decoded while the groups are filled, one after another.
constexpr uint64_t kFewRows = 96;

// What a pass over the hints is worth waiting for.
size_t Share(const GroupPool& pool) {
  return std::clamp(pool.batches / 2, std::min(pool.batches, size_t{2}), ring::kMaxBatchesPerPass);
}

// Least first. Every group has the same capacity, so this orders by the fraction; then by who was
// visited longest ago, which a prompt visits next.
std::tuple<bool, uint64_t, uint64_t> Urgency(const GroupPool& pool) {
  return {pool.waiting == 0, pool.rows(), pool.visit};
}

}  // namespace

bool PoolGroups::CountDraw(GroupPool& pool, uint64_t rows) {
  if (pool.visit != visit_ || visit_ == 0) {
    pool.visit = ++visit_;
    pool.visit_rows = 0;
  }
  pool.ready_rows -= rows;
  pool.visit_rows += rows;
  pool.most_rows = std::max(pool.most_rows, pool.visit_rows);
  return pool.ready_rows <= kFewRows && pool.ready_rows + rows > kFewRows;
}

GroupPool* PoolGroups::Choose(bool at_once) {
  GroupPool* best = nullptr;
  for (GroupPool& pool : groups) {
    if (!WorthFilling(pool, at_once)) continue;
    if (best == nullptr || Urgency(pool) < Urgency(*best)) best = &pool;
  }
  return best;
}

bool PoolGroups::WorthFilling(const GroupPool& pool, bool at_once) const {
  if (Short(pool)) return true;
  if (pool.own_free() == 0) return false;
  const bool few = pool.rows() <= kFewRows && pool.draining == 0;
  return at_once || pool.waiting > 0 || few || RunsOut(pool) || Free(pool) >= Share(pool);
}

// A prompt is taking its rows, and will have to wait if it takes as many as those before.
bool PoolGroups::RunsOut(const GroupPool& pool) const {
  return pool.visit == visit_ && pool.visit_rows > kFewRows &&
         pool.rows() + pool.visit_rows < pool.most_rows;
}

// The next prompt would have to wait.
bool PoolGroups::Short(const GroupPool& pool) const {
  return pool.visit != visit_ && pool.rows() < pool.most_rows && pool.held() <= pool.batches &&
         pool.own_free() + pool.shape->spares >= Share(pool);
}

// Spares are for who gives them back soon.
size_t PoolGroups::Free(const GroupPool& pool) const {
  return pool.own_free() + (RunsOut(pool) || Short(pool) ? pool.shape->spares : 0);
}

void PoolGroups::Take(GroupPool& pool, std::vector<PoolBatch*>& out) {
  const size_t own = pool.own_free();
  const size_t count =
      std::min(std::max(own, std::min(Free(pool), Share(pool))), ring::kMaxBatchesPerPass);
  for (size_t i = 0; i < count; ++i) {
    out.push_back(pool.shape->free.back());
    pool.shape->free.pop_back();
  }
  pool.filling += count;
  pool.shape->spares -= count - std::min(count, own);
}

void PoolGroups::GiveBack(GroupPool& pool, std::span<PoolBatch* const> batches) {
  pool.shape->free.insert(pool.shape->free.end(), batches.begin(), batches.end());
  pool.shape->spares += batches.size() - std::min(batches.size(), pool.own_free());
}

}  // namespace talaria::cvm
