// Runs a model's graph on two tokens and then on one with llama.cpp on the CPU and records every
// use of every weight. The model file is parsed by llama.cpp, which may stop the process on a file
// it does not like; so the run happens in a child process.
#ifndef TALARIA_CLOUD_GRAPH_PROBE_H_
#define TALARIA_CLOUD_GRAPH_PROBE_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/result.h"

namespace talaria::cloud {

// One source of one node of the graph that is a weight or a view of one.
struct WeightUse {
  std::string operation;   // ggml's name: "MUL_MAT", "GET_ROWS", ...
  uint32_t source = 0;     // its index among the node's sources
  bool view = false;       // not the weight itself
  bool f32_input = false;  // MUL_MAT source 0 only: source 1 is F32
  uint32_t input = 0;  // MUL_MAT source 0 only: equal numbers are the same source-1 tensor of the
                       // same evaluation
  uint32_t order = 0;  // counts through all nodes
};

struct GraphUses {
  std::map<std::string, std::vector<WeightUse>>
      weights;                   // by name of the tensor; a weight that is never used is absent
  bool chooses_experts = false;  // MUL_MAT_ID occurs
};

struct ProbeOptions {
  std::string gguf;
  std::string llama_backend_dir;  // folder with libggml-cpu.so
  int threads = 2;
  const std::atomic<bool>* cancel = nullptr;
};

// Some architectures build another graph for a single token. What two evaluations of one kind
// (prompt and decoding) have in common: a product has the same number in both only if it had in
// each; a use that only one has is added to the uses of its weight. Pure.
GraphUses CombineEvaluations(const GraphUses& prompt, const GraphUses& decoding);

// kUnsupported: llama.cpp refuses the model or stops on it, with its words. kCorrupt: tensor data
// that are not finite. kNotFound: no CPU backend. kCancelled. Call it while the process has one
// thread.
Result<GraphUses> ProbeGraph(const ProbeOptions& options);

// The same in this process: what the child runs. llama.cpp's state and log are global, so once at a
// time.
Result<GraphUses> ProbeGraphHere(const ProbeOptions& options);

// How the child tells the parent. Decode is bounded and takes nothing but what Encode writes:
// kInternal.
std::vector<uint8_t> EncodeGraphUses(const Result<GraphUses>& uses);
Result<GraphUses> DecodeGraphUses(Bytes bytes);

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_GRAPH_PROBE_H_
