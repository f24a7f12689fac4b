// Pools of mask rows, filled by background threads under a memory budget.
#ifndef TALARIA_CVM_MASK_POOL_H_
#define TALARIA_CVM_MASK_POOL_H_

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
  uint64_t memory_budget = 0;  // bytes for all pools; at least one batch per group (PlanMemory().pool_batch)
  int fill_threads = 1;
  Isa isa = Isa::kPortable;
  LockPolicy lock = LockPolicy::kRequire;
  // Fills 32 bytes of fresh entropy for one batch key. The default is HKDF(getrandom || RDSEED) (cvm/entropy.h).
  std::function<Status(std::span<uint8_t, 32>)> entropy;
};

class MaskPool : public MaskSource {
 public:
  // `model` must outlive the pool. kResourceExhausted with the numbers when the budget is below one batch per group.
  static Result<std::unique_ptr<MaskPool>> Create(const MaskedModel& model, MaskPoolOptions options);
  // Blocks until every pool is full (start-up, benchmarks). kCancelled, kSessionEnded.
  virtual Status WaitUntilFull() = 0;
  virtual void Stop() = 0;
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_MASK_POOL_H_
