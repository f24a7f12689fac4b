// The matrices of a model as Talaria sees them: groups that share an input, one round trip each.
// From the head of a GGUF file by llama.cpp's names of tensors, or of three well-known models.
// Provisioning itself asks the graph (cloud/provision_plan.h), which this does not.
#ifndef TALARIA_BENCH_PLAN_SHAPE_H_
#define TALARIA_BENCH_PLAN_SHAPE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "talaria/base/result.h"
#include "talaria/model/gguf_header.h"

namespace talaria::bench {

struct GroupShape {
  uint32_t d = 0;
  std::vector<uint32_t> outputs;  // of each matrix
  uint32_t count = 1;             // so many in the model
  bool head = false;              // of a prompt, the last token alone has it
};

struct ModelShape {
  std::string name;
  uint32_t layers = 0;
  uint32_t width = 0;        // of the residual stream
  uint32_t kv_width = 0;     // of a key and of a value, all heads
  double product_bytes = 0;  // of the matrices as llama.cpp reads them for one token
  double kept_bytes = 0;     // of what is not offloaded (embedding, norms)
  std::vector<GroupShape> groups;
  std::vector<std::string> notes;
};

// kUnsupported: a mixture of experts, or a file without layers that Talaria could offload.
Result<ModelShape> ShapeOfGguf(const model::GgufHeader& header);
// "smollm2" (135M), "8b", "70b" (Llama 3). `bits`: per weight in llama.cpp, of the model alone in
// the CVM. kInvalidArgument.
Result<ModelShape> ShapeOf(const std::string& name, double bits);

double Padded(uint32_t outputs);                // to 32, as on the wire and in pools
double PaddedOutputs(const GroupShape& group);  // of all matrices
double Weights(const GroupShape& group);        // of one such group, without padding
uint32_t RoundTrips(const ModelShape& shape);   // of a decoded token

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_PLAN_SHAPE_H_
