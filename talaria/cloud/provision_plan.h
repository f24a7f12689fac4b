// Which matrices leave the CVM and how: pure decisions from the head of a GGUF file and the
// recorded graph.
#ifndef TALARIA_CLOUD_PROVISION_PLAN_H_
#define TALARIA_CLOUD_PROVISION_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "talaria/base/result.h"
#include "talaria/cloud/graph_probe.h"
#include "talaria/model/gguf_header.h"
#include "talaria/model/manifest.h"

namespace talaria::cloud {

struct PlanOptions {
  std::vector<std::string> keep_local;  // POSIX extended expressions, found anywhere in a name
  uint32_t min_dimension = 128;
  uint32_t profile = 1;
};

// A tensor of the source and what becomes of it in skeleton.gguf.
struct SkeletonPart {
  size_t source = 0;         // index in the source's header
  uint64_t file_offset = 0;  // in skeleton.gguf
  bool hole = false;
};

struct Plan {
  model::Manifest manifest;     // all but the digests
  std::vector<size_t> sources;  // per matrix, in the manifest's order: index in the source's header
  std::vector<uint8_t> skeleton_head;  // the first bytes of skeleton.gguf, up to its tensor data
  std::vector<SkeletonPart> skeleton;  // every tensor, in the file's order
  std::vector<std::string> kept;       // "name: reason", in the file's order
};

// `head` is the source's bytes up to its tensor data. A tensor is offloaded when it has two
// dimensions and more than one row, its name ends in ".weight", and the graph uses it exactly once,
// as source 0 of MUL_MAT with F32 inputs, itself and not a view, and min(d, o) >= min_dimension.
// Matrices with the same input are one group; groups and members stand in the order of their first
// use. kUnsupported, kInvalidArgument (an expression).
Result<Plan> MakePlan(const model::GgufHeader& header, Bytes head, const GraphUses& uses,
                      const PlanOptions& options);

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_PROVISION_PLAN_H_
