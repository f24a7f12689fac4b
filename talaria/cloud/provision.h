// What the provider prepares once: MODEL.gguf -> STORE. A deterministic function of (GGUF, tool
// version, options).
#ifndef TALARIA_CLOUD_PROVISION_H_
#define TALARIA_CLOUD_PROVISION_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "talaria/base/result.h"
#include "talaria/gemm/device.h"
#include "talaria/model/manifest.h"

namespace talaria::cloud {

struct ProvisionOptions {
  std::string gguf;
  std::string store;              // must not exist; written aside and renamed
  std::string llama_backend_dir;  // folder with libggml-cpu.so for the probe of the graph
  std::vector<std::string>
      keep_local;  // POSIX extended expressions over tensor names that stay in the CVM
  uint32_t min_dimension = 128;  // smaller matrices stay in the CVM
  uint32_t profile = 1;
  int threads = 2;
  // Where the products of the hints are computed; its threads are those above.
  gemm::DeviceSpec device{.isa = Isa::kAmx};
  bool dry_run = false;  // only the plan: what would be offloaded, memory, disk
  const std::atomic<bool>* cancel = nullptr;  // set by a signal handler; leaves no half store
  // Called from the calling thread: what is going on, and how much of it is done. May be null.
  std::function<void(std::string_view stage, uint64_t done, uint64_t total)> on_progress;
};

struct MatrixSummary {
  std::string name;
  model::Role role;
  uint32_t d = 0, o = 0, group = 0;
  std::string source_type;  // ggml's name of the source quantisation
  double relative_error =
      0;  // ||dequantised source - int8 * scale||_F / ||source||_F; 0 for a dry run
};

struct ProvisionSummary {
  std::string model_name;
  Digest identity{};  // zero for a dry run
  std::vector<MatrixSummary> matrices;
  std::vector<std::string> kept;  // tensors that stay in the CVM, with the reason: "name: reason"
  uint64_t weights_bytes = 0, hints_bytes = 0, skeleton_bytes = 0, skeleton_data_bytes = 0,
           scales_bytes = 0;
  std::vector<std::string> removed;  // left-over folders of interrupted runs, removed now
  uint64_t disk_needed = 0, disk_free = 0;
  uint64_t cvm_hints_bytes = 0;     // memory of the CVM: 12,288 bytes per output column
  uint64_t cvm_pool_row_bytes = 0;  // per row of all groups
  double seconds = 0;
};

// kUnsupported with the reason (mixture of experts, nothing to offload, an architecture that
// llama.cpp does not know ...), kCorrupt (truncated or inconsistent GGUF, non-finite weights),
// kResourceExhausted (disk, with the numbers), kInvalidArgument (the store exists, an expression
// that is none or fits no tensor), kNotFound, kCancelled, and those of gemm::CreateDevice. Starts a
// child process for a moment (graph_probe.h): call it while the process has one thread.
Result<ProvisionSummary> Provision(const ProvisionOptions& options);

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_PROVISION_H_
