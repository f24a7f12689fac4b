// Cost against size: the CVM's work on a row, the cloud's product, bytes on the wire and the length
// of the context, each beside the least that this machine's memory and instructions allow.
#ifndef TALARIA_BENCH_SCALING_H_
#define TALARIA_BENCH_SCALING_H_

#include <string>
#include <utility>
#include <vector>

#include "bench/kernel_costs.h"
#include "bench/laboratory.h"

namespace talaria::bench {

struct ScalingOptions {
  Setting setting;                // for the context's length alone
  bool quick = false;             // fewer and smaller sizes
  int runs = 7;                   // medians are over so many
  std::vector<std::string> only;  // of kScalingSeries; empty: all, quick: without "context"
};
inline constexpr const char* kScalingSeries[] = {"cvm", "product", "rows", "wire", "context"};

struct Measured {
  std::string name;  // with its unit: "mask_ns"
  Summary value;
  double bound = 0;  // the least possible, in the same unit; 0: not known
};

struct Series {
  std::string name, x_name;
  std::string setting;  // what is held fixed, and what the bound is
  std::vector<std::pair<double, std::vector<Measured>>> points;
};

struct Scaling {
  Isa isa{}, product_isa{};
  MachineRates rates;
  double product_peak = 0;  // 10^9 products of int8 a second, one core; 0: not known
  std::vector<Series> series;
};

Result<Scaling> MeasureScaling(const ScalingOptions& options);
void Print(const Scaling& scaling);

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_SCALING_H_
