#include "talaria/cvm/setup.h"

#include <algorithm>
#include <map>
#include <string>

#include "talaria/base/log.h"
#include "talaria/base/memory.h"
#include "talaria/cvm/setup_parts.h"
#include "talaria/ring/layout.h"
#include "talaria/ring/public_matrix.h"

namespace talaria::cvm {
namespace internal {

Status Refused(std::string_view what) {
  LogError("set-up refused what the cloud sent: " + std::string(what));
  return Status(Code::kSessionEnded, "the session has ended");
}

}  // namespace internal

namespace {

using internal::Refused;

std::string MiB(uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

// As SecretMemory maps it.
uint64_t Mapped(uint64_t bytes) {
  constexpr uint64_t kPage = 4096;
  return ring::RoundUp(bytes, kPage);
}

Status CheckBudget(const MemoryPlan& plan, uint64_t budget) {
  const uint64_t needed = plan.hints + plan.public_matrices + plan.skeleton_data;
  const uint64_t limit = budget != 0 ? budget : AvailableMemory();
  if (needed <= limit) return OkStatus();
  return Status(Code::kResourceExhausted,
                "the model needs " + MiB(needed) + " of memory (hints " + MiB(plan.hints) +
                    ", public matrices " + MiB(plan.public_matrices) + ", skeleton " +
                    MiB(plan.skeleton_data) + "), and there are " + MiB(limit));
}

// Everything after the options; a Status that is kSessionEnded ends the link in SetUpModel.
Status SetUp(CloudLink& link, const SetupOptions& options, MaskedModel& out) {
  const auto report = [&options](std::string_view step, uint64_t done, uint64_t total) {
    if (options.on_progress) options.on_progress(step, done, total);
  };
  TALARIA_ASSIGN_OR_RETURN(out.identity, link.Identity());
  if (options.identity && *options.identity != out.identity)
    return Refused("it serves another model than the one asked for");
  link.PinIdentity(out.identity);
  TALARIA_ASSIGN_OR_RETURN(out.manifest_text,
                           link.FetchManifest(out.identity, model::kMaxManifestBytes));
  {
    Result<model::Manifest> manifest = model::DecodeManifest(out.manifest_text);
    if (!manifest.ok()) return Refused(manifest.status().message());
    out.manifest = std::move(manifest).value();
  }
  report("manifest", 1, 1);
  const model::Manifest& manifest = out.manifest;
  const MemoryPlan plan = PlanMemory(manifest);
  TALARIA_RETURN_IF_ERROR(CheckBudget(plan, options.memory_budget));
  out.hints_bytes = plan.hints;

  uint64_t done = 0;
  TALARIA_ASSIGN_OR_RETURN(out.skeleton,
                           internal::FetchSkeleton(link, manifest, [&](uint64_t bytes) {
                             done += bytes;
                             report("skeleton", done, plan.skeleton_data);
                           }));

  uint64_t total = 0;
  for (const model::MatrixRef& ref : model::AllMatrices(manifest)) {
    total += uint64_t{ref.group->d} * ref.matrix->o + ring::ModuleMatrixBytes(ref.matrix->o);
  }
  done = 0;
  const internal::Advance advance = [&](uint64_t bytes) {
    done += bytes;
    report("weights and hints", done, total);
  };
  const Digest core = model::CoreDigest(manifest);
  out.groups.resize(
      manifest.groups.size());  // the worker keeps references: no reallocation from here on
  internal::SetupWorker worker(options.threads > 1);
  uint32_t first_matrix = 0;
  for (size_t g = 0; g < manifest.groups.size(); ++g) {
    const model::Group& group = manifest.groups[g];
    SecretMemory& a = out.public_matrices[group.d];
    if (a.size() == 0) {
      const size_t bytes = ring::ModuleMatrixBytes(group.d);
      TALARIA_ASSIGN_OR_RETURN(a, SecretMemory::Create(bytes + ring::kSlack, options.lock));
      ring::ExpandPublicMatrix(ring::PublicMatrixKey(manifest.profile, core, group.d), 0, group.d,
                               a.Expose().first(bytes));
    }
    TALARIA_RETURN_IF_ERROR(internal::FetchGroup(link, options, {&group, first_matrix, &a}, advance,
                                                 worker, out.groups[g]));
    first_matrix += static_cast<uint32_t>(group.matrices.size());
  }
  return worker.Finish();
}

}  // namespace

BatchExtent BatchExtentOf(uint32_t d_padded, uint32_t o_padded) {
  constexpr uint64_t kPage = 4096;
  BatchExtent extent;
  extent.unmask_offset = ring::RoundUp(ring::RowPanelsBytes(d_padded) + ring::kSlack, kPage);
  extent.bytes =
      extent.unmask_offset + ring::RoundUp(ring::RowPanelsBytes(o_padded) + ring::kSlack, kPage);
  return extent;
}

MemoryPlan PlanMemory(const model::Manifest& manifest) {
  MemoryPlan plan;
  std::map<uint32_t, bool> widths;
  std::map<std::pair<uint32_t, uint32_t>, size_t> shapes;
  for (const model::Group& group : manifest.groups) {
    for (const model::Matrix& matrix : group.matrices) {
      plan.hints += Mapped(ring::ModuleMatrixBytes(matrix.o) + ring::kSlack);
    }
    if (widths.emplace(group.d, true).second)
      plan.public_matrices += Mapped(ring::ModuleMatrixBytes(group.d) + ring::kSlack);
    const uint32_t d = PaddedInputs(group.d), o = model::GroupOutputs(group);
    const uint64_t batch = BatchExtentOf(d, o).bytes;
    plan.pool_batch += batch;
    if (++shapes[{d, o}] == 2) plan.pool_spares += kSpareBatches * batch;
  }
  plan.skeleton_data = manifest.skeleton_bytes;
  for (const model::Hole& hole : manifest.holes) plan.skeleton_data -= hole.bytes;
  return plan;
}

Result<MaskedModel> SetUpModel(CloudLink& link, const SetupOptions& options) {
  if (options.check_vectors < 1 || options.check_vectors > 2 || options.threads < 1) {
    return Status(Code::kInvalidArgument,
                  "set-up: check_vectors is 1 or 2, and threads at least 1");
  }
  TALARIA_RETURN_IF_ERROR(CheckNoSwap(options.lock));
  MaskedModel out;
  out.check_vectors = options.check_vectors;
  const Status status = SetUp(link, options, out);
  if (status.ok()) return out;
  if (status.code() == Code::kSessionEnded) link.End();
  return status;
}

}  // namespace talaria::cvm
