// The parts of set-up that setup.cc puts in order. Not for use outside setup*.cc.
#ifndef TALARIA_CVM_SETUP_PARTS_H_
#define TALARIA_CVM_SETUP_PARTS_H_

#include <cstdint>
#include <functional>
#include <string_view>

#include "talaria/base/bytes.h"
#include "talaria/base/file.h"
#include "talaria/cvm/setup.h"
#include "talaria/cvm/setup_worker.h"

namespace talaria::cvm::internal {

// The one answer to every failed check. `what` is for the operator's log; it holds no data.
Status Refused(std::string_view what);

using Advance = std::function<void(uint64_t bytes)>;

// kSessionEnded, kUnavailable, kResourceExhausted.
Result<Fd> FetchSkeleton(CloudLink& link, const model::Manifest& manifest, const Advance& advance);

struct GroupInputs {
  const model::Group* group;
  uint32_t first_matrix;  // number of its first matrix in the whole manifest
  const SecretMemory* a;  // A_d
};
// Fetches and checks one group into `out`. The checks run on `worker` and may still be running when
// this returns: `out` and what `inputs` points to stay where they are until worker.Finish() has
// returned OK.
Status FetchGroup(CloudLink& link, const SetupOptions& options, const GroupInputs& inputs,
                  const Advance& advance, SetupWorker& worker, MaskedGroup& out);

}  // namespace talaria::cvm::internal

#endif  // TALARIA_CVM_SETUP_PARTS_H_
