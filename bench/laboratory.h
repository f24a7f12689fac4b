// The system under measurement: talaria-cloud and talaria-cvm-lab as processes of their own,
// running llama.cpp's own programs on the masked model, one after the other, on one set-up.
#ifndef TALARIA_BENCH_LABORATORY_H_
#define TALARIA_BENCH_LABORATORY_H_

#include <memory>
#include <string>
#include <vector>

#include "bench/process.h"
#include "talaria/base/result.h"

namespace talaria::bench {

struct Setting {
  std::string model;     // GGUF
  std::string bin;       // Talaria's programs
  std::string llama;     // llama.cpp as scripts/setup built it
  std::string store;     // provisioned when absent
  std::string work;      // logs and sockets
  int pool_batches = 2;  // of 256 rows, per group
  int cloud_threads = 2;
  std::string scheme = "lattice";  // of talaria-cvm-lab
  std::string m = "1/2";           // of the scheme `published`
};

// One llama.cpp program run through the masked model.
struct MaskedRun {
  std::string output;  // its standard output
  double wall_seconds = 0;
  double refill_seconds = 0;  // from its end until the pools were as full as before
  double child_cpu_seconds = 0, cvm_cpu_seconds = 0, cloud_cpu_seconds = 0;  // refilling included
  double bytes_sent = 0, bytes_received = 0, calls = 0, rows = 0;
};

class Laboratory {
 public:
  // Starts cloud and CVM side, waits until set up and the pools are full.
  static Result<std::unique_ptr<Laboratory>> Start(const Setting& setting);
  // arguments[0] is a llama.cpp program; the model is added.
  Result<MaskedRun> Run(const std::vector<std::string>& arguments);
  double setup_seconds() const { return setup_seconds_; }
  Usage cvm() const { return cvm_->Measure(); }
  Usage cloud() const { return cloud_->Measure(); }
  double hint_bytes_per_weight() const { return hint_bytes_per_weight_; }
  const std::string& memory_json() const {
    return memory_json_;
  }  // the CVM side's memory, line by line

 private:
  Laboratory() = default;
  Setting setting_;
  std::unique_ptr<Background> cloud_, cvm_;
  double setup_seconds_ = 0, hint_bytes_per_weight_ = 0;
  std::string memory_json_;
};

// Runs talaria-cloud provision when the store is absent.
Status ProvisionIfAbsent(const Setting& setting);

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_LABORATORY_H_
