// Pools of mask rows, filled by background threads under a memory budget.
//
//   free -> filling -> ready -> drawn from -> (last ticket gone) -> free
//
// Memory is one locked arena; batches are wiped and used again, never reallocated. A row is handed
// out once, as a ticket.
#ifndef TALARIA_CVM_MASK_POOL_H_
#define TALARIA_CVM_MASK_POOL_H_

#include <chrono>
#include <functional>
#include <memory>
#include <span>

#include "talaria/base/cpu.h"
#include "talaria/base/result.h"
#include "talaria/base/secret.h"
#include "talaria/cvm/mask_source.h"
#include "talaria/cvm/masked_model.h"

namespace talaria::cvm {

struct MaskPoolOptions {
  // Bytes for all pools; at least one batch per group (PlanMemory().pool_batch). What is left of it
  // goes to the spares, if it is enough (pool_spares).
  uint64_t memory_budget = 0;
  int fill_threads = 1;
  Isa isa = Isa::kPortable;
  LockPolicy lock = LockPolicy::kRequire;
  // Nobody drew for so long: every batch is filled as soon as it is free.
  std::chrono::milliseconds idle{100};
  // Fills 32 bytes of fresh entropy for one batch key, from any thread. The default is
  // HKDF(getrandom || RDSEED) (cvm/entropy.h); it requires RDSEED when `lock` is kRequire.
  std::function<Status(std::span<uint8_t, 32>)> entropy;
};

// Draw() hands out exactly min(rows, 256) tickets, all at once, when a group has at least two
// batches: how rows are split over messages then depends on row counts alone. With a single batch
// it hands out what is left of it, because the next one needs its memory.
//
// Batches that are made in one pass share the reading of the hints, which is what a pass waits for.
// So a group with two batches or more is filled when two are free (or half of them, up to four);
// sooner when it has few rows left, when somebody waits, or when nobody draws anyhow. Groups of one
// shape, which the layers of a model take one after another, share two spare batches: with them the
// group to which a prompt comes next has as many rows as a prompt took before.
class MaskPool : public MaskSource {
 public:
  // Every group gets the same number of batches, as many as the budget allows. `model` must outlive
  // the pool; tickets may outlive both. kResourceExhausted with the numbers when the budget is
  // below one batch per group; kInvalidArgument.
  static Result<std::unique_ptr<MaskPool>> Create(const MaskedModel& model,
                                                  MaskPoolOptions options);
  // Blocks until nothing is left to fill (start-up, benchmarks). kCancelled, kSessionEnded.
  virtual Status WaitUntilFull() = 0;
  // Ends the fill threads and every Draw(). Any thread.
  virtual void Stop() = 0;
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_MASK_POOL_H_
