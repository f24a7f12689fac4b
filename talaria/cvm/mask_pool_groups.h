// How many batches the groups of a mask pool have, and which group is filled next: counts alone.
// Memory, threads and waiting are mask_pool.cc's, whose mutex guards all of this. Internal to the
// pool; mask_pool.h says when a group is filled.
#ifndef TALARIA_CVM_MASK_POOL_GROUPS_H_
#define TALARIA_CVM_MASK_POOL_GROUPS_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "talaria/cvm/mask_pool_batch.h"

namespace talaria::cvm {

// The groups of one shape.
struct ShapePool {
  std::vector<PoolBatch*> free;  // wiped
  size_t spares = 0;             // of them, beyond what every group may have of its own
};

struct GroupPool {
  ShapePool* shape = nullptr;
  size_t batches = 0;                            // of its own; it has more with spares
  std::deque<std::shared_ptr<PoolBatch>> ready;  // the first one is being drawn from
  size_t filling = 0, draining = 0;              // draining: all rows handed out, some still in use
  size_t waiting = 0;                            // callers
  uint64_t ready_rows = 0;
  // A visit is a run of draws from this group and no other.
  uint64_t visit = 0, visit_rows = 0;  // the last one: its number, and the rows that it took
  uint64_t most_rows = 0;              // that a visit took

  size_t held() const { return ready.size() + filling + draining; }
  size_t own_free() const { return held() < batches ? batches - held() : 0; }
  // That are there or being made.
  uint64_t rows() const { return ready_rows + filling * kBatchRows; }
};

class PoolGroups {
 public:
  std::vector<GroupPool> groups;
  std::map<std::pair<size_t, size_t>, ShapePool> shapes;  // by padded widths

  // Counts `rows` of the ready ones as drawn. True: the group has few left now, and had more.
  bool CountDraw(GroupPool& pool, uint64_t rows);
  // The group to fill: one that somebody waits for, else the emptiest; null: none is worth it.
  // `at_once`: whatever is free is.
  GroupPool* Choose(bool at_once);
  // Free batches for the group to be filled with, as many as are worth a pass; 1 to
  // ring::kMaxBatchesPerPass.
  void Take(GroupPool& pool, std::vector<PoolBatch*>& out);
  // `pool` has let go of the batches, which are wiped.
  void GiveBack(GroupPool& pool, std::span<PoolBatch* const> batches);

 private:
  bool RunsOut(const GroupPool& pool) const;
  bool Short(const GroupPool& pool) const;
  size_t Free(const GroupPool& pool) const;
  bool WorthFilling(const GroupPool& pool, bool at_once) const;
  uint64_t visit_ = 0;  // the number of the latest visit
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_MASK_POOL_GROUPS_H_
