// The goals that the project set itself for speed and memory, and what a measurement makes of them.
#ifndef TALARIA_BENCH_GOALS_H_
#define TALARIA_BENCH_GOALS_H_

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "talaria/base/result.h"

namespace talaria::bench {

enum class Better { kHigher, kLower };

struct Goal {
  const char* name;    // of the row: "decode/unix"
  const char* what;    // one line
  const char* metric;  // in the JSON; `compare` knows by it which direction is better
  Better better;
  double reach, dream;  // in the metric's unit
};
// All rows, in the order in which they are printed.
std::span<const Goal> Goals();

// Whether `name` is the row that `words` name, or one of several: "layer-8b" names
// "layer-8b/decode/q8_0".
bool IsNamed(std::string_view name, std::string_view words);
// The rows that `only` names (all when it is empty) and `without` does not. kInvalidArgument: a
// word that names no row; or none is left.
Result<std::vector<const Goal*>> ChooseGoals(const std::vector<std::string>& only,
                                             const std::vector<std::string>& without);

struct GoalResult {
  const Goal* goal = nullptr;
  std::vector<double> samples;  // one a run
  // Not ok: why there is no number. kUnsupported and kResourceExhausted are of this machine or of
  // what was asked for; everything else is a failure.
  Status status;
  std::string detail;  // what the number was made of
};

enum class Verdict { kDream, kReached, kMissed, kNotMeasured, kFailed };
Verdict Judge(const GoalResult& result);  // by the median
std::string_view VerdictName(Verdict verdict);

inline constexpr int kMissedExit = 1, kFailedExit = 5;
// 0: every goal that was measured is reached; kMissedExit: some are not; kFailedExit: a measurement
// failed, or nothing was measured.
int GoalsExitCode(std::span<const GoalResult> results);

void PrintGoals(std::span<const GoalResult> results);
// An object: each row by its name. Rows without a number have "not_measured" instead.
nlohmann::json GoalsJson(std::span<const GoalResult> results);

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_GOALS_H_
