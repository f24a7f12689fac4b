// Fetches a model through the cloud and checks all of it before anything depends on it.
//
//   setup.cc           the order of things, and what it costs in memory
//   setup_skeleton.cc  the GGUF with holes, into a sealed memfd
//   setup_group.cc     weights, scales and hints of one group
//   setup_worker.h     computes while the next bytes are on their way
#ifndef TALARIA_CVM_SETUP_H_
#define TALARIA_CVM_SETUP_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "talaria/base/cpu.h"
#include "talaria/base/digest.h"
#include "talaria/base/result.h"
#include "talaria/base/secret.h"
#include "talaria/cvm/cloud_link.h"
#include "talaria/cvm/masked_model.h"

namespace talaria::cvm {

struct SetupOptions {
  std::optional<Digest> identity;  // the model that clients pin; absent only with the simulated TEE
  int check_vectors = 2;           // 1 or 2
  int threads = 2;                 // 1: fetch and compute in turn; more: at once
  Isa isa = Isa::kPortable;
  LockPolicy lock = LockPolicy::kRequire;
  uint64_t memory_budget = 0;  // hints, A_d and skeleton together; 0 = what the machine has free
  std::function<void(std::string_view step, uint64_t done, uint64_t total)>
      on_progress;  // may be empty
};

// In order: manifest (digest against `identity`), skeleton into a sealed memfd, then per group:
// weights streamed once (digest, norms, u += W v, u' += W v'), dropped; hints into own memory
// (digest), and only then hint . v' = A . u' for all 2,048 rows. v and v' run over the whole group,
// which is one [d x o_padded] matrix: a wrong column anywhere in it is caught with the same
// probability as by vectors of its own, and A . u' is computed once instead of once per matrix.
// kSessionEnded for every failed check (one message, and nothing more is sent on the link),
// kUnavailable when the cloud is lost (a transfer begun anew draws fresh v, v'), kResourceExhausted
// with the numbers, kInvalidArgument for the options.
Result<MaskedModel> SetUpModel(CloudLink& link, const SetupOptions& options);

// Mask batches that the groups of one shape share, when there are several (mask_pool.h).
inline constexpr size_t kSpareBatches = 2;

// Bytes of memory that the model of this manifest needs in the CVM, for --check-config and the
// demo's plan.
struct MemoryPlan {
  uint64_t hints = 0, public_matrices = 0, skeleton_data = 0,
           pool_batch = 0 /* one batch of every group */,
           pool_spares = 0 /* two batches of every shape that several groups have */;

  // Of the pools, unless somebody decides otherwise.
  uint64_t Pools(uint64_t batches = 2) const { return batches * pool_batch + pool_spares; }
};
MemoryPlan PlanMemory(const model::Manifest& manifest);

// What one batch of a group occupies in a pool: mask rows of d_padded and unmask rows of o_padded
// columns.
struct BatchExtent {
  uint64_t unmask_offset = 0, bytes = 0;
};
BatchExtent BatchExtentOf(uint32_t d_padded, uint32_t o_padded);

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_SETUP_H_
