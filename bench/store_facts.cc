#include "bench/store_facts.h"

#include <cmath>

#include "talaria/base/file.h"
#include "talaria/cvm/setup.h"

namespace talaria::bench {
namespace {

std::string Gigabytes(uint64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f GB", static_cast<double>(bytes) * 1e-9);
  return text;
}

}  // namespace

Result<model::Manifest> ReadManifest(const std::string& store) {
  const std::string path = store + "/manifest.json";
  TALARIA_ASSIGN_OR_RETURN(const auto text, ReadFile(path, model::kMaxManifestBytes));
  auto manifest = model::DecodeManifest(
      std::string_view(reinterpret_cast<const char*>(text.data()), text.size()));
  if (!manifest.ok()) return manifest.status().Annotate(path);
  return manifest;
}

uint64_t ElementsPerToken(const model::Manifest& manifest) {
  uint64_t elements = 0;
  for (const model::Group& group : manifest.groups) {
    elements += group.d;
    for (const model::Matrix& matrix : group.matrices) elements += matrix.o;
  }
  return elements;
}

Result<double> OnlineNs(const model::Manifest& manifest, double seconds, double calls,
                        double rows) {
  const double tokens = calls / static_cast<double>(manifest.groups.size());
  if (tokens < 1 || tokens != std::floor(tokens) || rows != calls) {
    return Status(Code::kInternal, "not whole tokens of one row a call: " + std::to_string(calls) +
                                       " calls, " + std::to_string(rows) + " rows, " +
                                       std::to_string(manifest.groups.size()) + " groups");
  }
  return seconds * 1e9 / (tokens * static_cast<double>(ElementsPerToken(manifest)));
}

uint64_t NeededMemory(const model::Manifest& manifest, int pool_batches) {
  const cvm::MemoryPlan plan = cvm::PlanMemory(manifest);
  uint64_t weights = 0;
  for (const model::Group& group : manifest.groups)
    for (const model::Matrix& matrix : group.matrices) weights += uint64_t{group.d} * matrix.o;
  return plan.hints + plan.public_matrices + plan.skeleton_data +
         plan.Pools(static_cast<uint64_t>(pool_batches)) + weights + (uint64_t{1} << 30);
}

Status CheckMemory(uint64_t needed, uint64_t available) {
  if (needed <= available) return OkStatus();
  return Status(Code::kResourceExhausted, "too little memory: CVM and cloud need " +
                                              Gigabytes(needed) + ", and " + Gigabytes(available) +
                                              " are available");
}

}  // namespace talaria::bench
