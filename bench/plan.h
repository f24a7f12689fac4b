// What a deployment of Talaria would reach, beside the same model alone in the confidential VM:
// arithmetic on a model's shape, on rates measured on this machine, and on named constants.
//
// Talaria, decoding: the groups of a token one after the other, each
//   mask + call + round trip + bytes / bandwidth + product + check + unmask,
// and llama.cpp's own part. Masks are made beside that; when they need more than the cores give,
// they are what a token takes. Alone: reading the weights or multiplying by them, whichever takes
// longer, spread over all cores without loss, and the same part of llama.cpp. Where this is unsure
// it errs in favour of the model alone.
#ifndef TALARIA_BENCH_PLAN_H_
#define TALARIA_BENCH_PLAN_H_

#include <string>
#include <vector>

#include "bench/plan_shape.h"

namespace talaria::bench {

struct Rate {
  double value = 0;
  std::string source;  // "measured in this run: ..." or where it is from
};

// Of one core.
struct Rates {
  Rate mask_ns;       // per input element of a row: norms, quantise, mask, H~ . u
  Rate open_ns;       // per output element: check and unmask
  Rate generate_ns;   // per element, inputs and outputs: masks ahead of time
  Rate call_wall_us;  // a call from llama.cpp to the cloud and back: all but its work
  Rate call_cpu_us;   // of that, the CVM's CPU
  Rate encrypt_ns;    // per byte, one direction: TLS
  Rate read_gb;       // GB/s from memory
  Rate plain_decode_gmac, plain_prompt_gmac;  // llama.cpp, 10^9 products a second
  Rate engine_decode_us, engine_prompt_us;  // llama.cpp's other work, per layer and token, 576 wide
  Rate cloud_read_gb;                       // GB/s of weights, a core of the cloud
  Rate cloud_gmac;  // 10^9 products of a 48-bit value with a weight a second, a core of the cloud
};

struct Deployment {
  int cores = 2;      // of the confidential VM
  double gbit = 0;    // 10^9 bits a second each way; 0: the same host
  double rtt_ms = 0;  //
  int cloud_cores = 16;
  double cloud_gb = 0, cloud_gmac = 0;  // of the whole cloud, instead of cores; 0: from the cores
  int context = 512;                    // tokens that attention reads
  int prompt = 512;                     // tokens
  int users = 1;                        // sequences decoded in one step
  int pool_batches = 2;
};

struct Side {
  double decode = 0, prompt = 0;                // tokens/s, of all users together
  double decode_cpu_ms = 0, prompt_cpu_ms = 0;  // of the confidential VM, per token
  double memory_gb = 0;                         // of the confidential VM, without keys and values
};

// Milliseconds of one decoding step.
struct Step {
  double network = 0, bytes = 0, product = 0, call = 0, kernels = 0, engine = 0;
  double masks_cpu = 0;  // made beside it
  bool masks_bound = false;
};

struct Estimate {
  Side talaria, alone;
  Step step;
  uint32_t round_trips = 0;             // a step
  double bytes_up = 0, bytes_down = 0;  // a decoded token
  double hints_gb = 0, pools_gb = 0, public_gb = 0;
  double weights = 0;   // that are offloaded
  std::string verdict;  // "Talaria pays" ...
  std::vector<std::string> reasons;
};

// A run of `end-to-end`, decoding.
struct MeasuredRun {
  double tokens_per_second = 0, cvm_cpu_ms = 0;  // of both processes of the CVM, per token
  int cores = 2, cloud_cores = 2;
  std::string source;
};
// What a measured token took beyond the parts that are modelled (waking up, spinning, copying,
// threads in each other's way) is charged to its round trips alike; at least what `rates` has. So
// the estimate of the same run is that run.
Rates ChargeCalls(const ModelShape& shape, Rates rates, const MeasuredRun& run);

Estimate MakeEstimate(const ModelShape& shape, const Rates& rates, const Deployment& deployment);

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_PLAN_H_
