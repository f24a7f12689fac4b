// talaria-bench plan: rates by measuring for a few seconds, the estimate, and where each number is
// from.
#ifndef TALARIA_BENCH_PLAN_COMMAND_H_
#define TALARIA_BENCH_PLAN_COMMAND_H_

#include <string>
#include <vector>

#include "bench/laboratory.h"
#include "bench/plan.h"

namespace talaria::bench {

// Measures what can be measured in this process, and llama.cpp on `setting.model` (a small one, for
// its rates; constants when the file or the program is not there). Some ten seconds. `end_to_end`:
// the text of a result of that sub-command with the same model (ChargeCalls), or empty: the
// README's.
Result<Rates> Calibrate(const Setting& setting, const ModelShape& shape,
                        const std::string& end_to_end);

void PrintPlan(const ModelShape& shape, const Rates& rates, const Deployment& deployment,
               const Estimate& estimate);
// SmolLM2, 8B and 70B with 2, 8 and 32 cores at three distances: the table of doc/performance.md.
// `each` is called with every case, for JSON.
struct TableRow {
  ModelShape shape;
  Deployment deployment;
  std::string network;
  Estimate estimate;
};
Result<std::vector<TableRow>> MakeTable(const Rates& rates, const Deployment& base, double bits);
void PrintTable(const std::vector<TableRow>& rows, const Rates& rates, const Deployment& base);

struct NamedRate {
  const char* name;
  const Rate* rate;
};
std::vector<NamedRate> AllRates(const Rates& rates);

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_PLAN_COMMAND_H_
