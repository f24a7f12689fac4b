// The system under measurement: talaria-cloud and talaria-cvm-lab as processes of their own,
// running llama.cpp's own programs on the masked model, one after the other, on one set-up.
#ifndef TALARIA_BENCH_LABORATORY_H_
#define TALARIA_BENCH_LABORATORY_H_

#include <memory>
#include <string>
#include <vector>

#include "bench/process.h"
#include "bench/setting.h"
#include "talaria/base/result.h"

namespace talaria::bench {

// One llama.cpp program run through the masked model.
struct MaskedRun {
  std::string output;  // its standard output
  double wall_seconds = 0;
  double refill_seconds = 0;  // from its end until the pools were as full as before
  double child_cpu_seconds = 0, cvm_cpu_seconds = 0, cloud_cpu_seconds = 0;  // refilling included
  double bytes_sent = 0, bytes_received = 0, calls = 0, rows = 0;
  // Of the session: what the CVM does to a row before it is sent and after it came back.
  double mask_seconds = 0, check_seconds = 0, unmask_seconds = 0;
};

class Laboratory {
 public:
  // Starts cloud and CVM side, waits until set up and the pools are full. kResourceExhausted: the
  // store's model does not fit into this machine's memory.
  static Result<std::unique_ptr<Laboratory>> Start(const Setting& setting);
  // arguments[0] is a llama.cpp program; the model is added.
  Result<MaskedRun> Run(const std::vector<std::string>& arguments);
  // A llama.cpp server, which runs until EndServer(): whatever is between StartServer() and
  // BeginTimed() counts in nothing but the traffic. The times of EndServer() are those from
  // BeginTimed() on; its `refill_seconds` are from its beginning, the server's end included.
  Status StartServer(const std::vector<std::string>& arguments);
  void BeginTimed();
  Result<MaskedRun> EndServer();
  double setup_seconds() const { return setup_seconds_; }
  Usage cvm() const { return cvm_->Measure(); }
  Usage cloud() const { return cloud_->Measure(); }
  // Of the CVM's two processes, MiB; pages that both map are counted twice. While a server runs.
  double ResidentMib() const;
  double hint_bytes_per_weight() const { return hint_bytes_per_weight_; }
  const std::string& memory_json() const {
    return memory_json_;
  }  // the CVM side's memory, line by line

 private:
  Laboratory() = default;
  struct CpuSeconds {
    double cloud = 0, cvm = 0, child = 0;
  };
  Status Say(const std::vector<std::string>& arguments, bool serves);
  // After the program's end. Leaves child_cpu_seconds to the caller.
  Result<MaskedRun> Collect(const CpuSeconds& before);
  Setting setting_;
  CpuSeconds timed_;  // of a server, when its timed part began
  std::unique_ptr<Background> cloud_, cvm_;
  double setup_seconds_ = 0, hint_bytes_per_weight_ = 0;
  std::string memory_json_;
};

// Runs talaria-cloud provision into setting.store, which is absent; its seconds.
Result<double> MeasureProvisioning(const Setting& setting);
// The same when the store is absent, and nothing otherwise.
Status ProvisionIfAbsent(const Setting& setting);

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_LABORATORY_H_
