// The JSON of scaling and plan.
#ifndef TALARIA_BENCH_ANALYSIS_JSON_H_
#define TALARIA_BENCH_ANALYSIS_JSON_H_

#include <string>
#include <vector>

#include "bench/plan_command.h"
#include "bench/scaling.h"

namespace talaria::bench {

// What `compare` and scripts/plot-scaling read.
std::string ToJson(const Scaling& scaling, const ScalingOptions& options);
std::string ToJson(const std::vector<TableRow>& rows, const Rates& rates);

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_ANALYSIS_JSON_H_
