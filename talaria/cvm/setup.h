// Fetches a model through the cloud and checks all of it before anything depends on it.
#ifndef TALARIA_CVM_SETUP_H_
#define TALARIA_CVM_SETUP_H_

#include <cstdint>
#include <functional>
#include <optional>

#include "talaria/base/cpu.h"
#include "talaria/base/digest.h"
#include "talaria/base/result.h"
#include "talaria/base/secret.h"
#include "talaria/cvm/cloud_link.h"
#include "talaria/cvm/masked_model.h"

namespace talaria::cvm {

struct SetupOptions {
  std::optional<Digest> identity;   // the model that clients pin; absent only with the simulated TEE
  int check_vectors = 2;            // 1 or 2
  int threads = 2;
  Isa isa = Isa::kPortable;
  LockPolicy lock = LockPolicy::kRequire;
  uint64_t memory_budget = 0;       // hints, A_d and skeleton together; 0 = no limit but the machine's
  std::function<void(std::string_view step, uint64_t done, uint64_t total)> on_progress;  // may be empty
};

// In order: manifest (digest against `identity`), skeleton into a sealed memfd, then per matrix: weights streamed once (digest,
// norms, u += W v, u' = W v'), dropped; hints into own memory (digest), and only then hint . v' = A . u' for all 2,048 rows.
// kSessionEnded for every failed check, kUnavailable when the cloud is lost (a transfer begun anew draws fresh v, v'),
// kResourceExhausted with the numbers.
Result<MaskedModel> SetUpModel(CloudLink& link, const SetupOptions& options);

// Bytes of memory that the model of this manifest needs in the CVM, for --check-config and the demo's plan.
struct MemoryPlan {
  uint64_t hints = 0, public_matrices = 0, skeleton_data = 0, pool_batch = 0 /* one batch of every group */;
};
MemoryPlan PlanMemory(const model::Manifest& manifest);

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_SETUP_H_
