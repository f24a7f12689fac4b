// Two result files of talaria-bench, metric by metric: what changed beyond the noise, and for the
// worse.
//
// The rule. A metric has a median and an interval: the file's own 95 % interval of the median, or
// all of its runs. It changed when the two intervals do not overlap. With [lowest, highest] of n
// and m runs that happens to a metric that did not change, in one given direction, with probability
// n! m! / (n + m)!: 1 in 3,432 for 7 and 7 runs. Files for which it is above 1 % are not judged,
// nor is a metric that says itself that it had fewer runs than its file. Perplexities have no
// noise.
//
// Runs of two sessions share no session: a machine that is busier today looks like slower code. So
// the files carry controls (plain llama.cpp, TLS alone). When a control changed, absolute figures
// are not held against the code; ratios, differences and counts of one session still are.
#ifndef TALARIA_BENCH_COMPARE_H_
#define TALARIA_BENCH_COMPARE_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "talaria/base/result.h"

namespace talaria::bench {

struct Metric {
  std::string name;  // the path in the file: "workloads/decode/ratio"
  double median = 0;
  bool has_interval = false;
  double low = 0, high = 0;
  int runs = 0;  // its own number of runs; 0: the file's
};

struct Results {
  std::string kind;  // the sub-command that wrote it
  int runs = 1;
  bool exact = false;  // fidelity: the same every time, so that any difference is one
  std::string model_path;
  std::map<std::string, std::string> setting;  // "machine.cpu", "model" (no folder), "channel", ...
  std::vector<Metric> metrics;                 // in the file's order, which is alphabetical
};

// kCorrupt: not JSON, or not of a sub-command whose files are known.
Result<Results> ParseResults(std::string_view text);

enum class Finding {
  kSame,       // the intervals overlap
  kBetter,     //
  kWorse,      // the only one that makes a regression
  kMachine,    // changed, and so did a control
  kControl,    // a control, whatever it did
  kNotJudged,  // a single value, too few runs, or a name whose better direction is not known
};
std::string_view FindingName(Finding finding);

struct Change {
  std::string name;
  double before = 0, after = 0;
  double percent = 0;  // of `before`; 0 when that is 0
  bool beyond_noise = false;
  Finding finding = Finding::kNotJudged;
};

struct Comparison {
  std::vector<Change> changes;
  std::vector<std::string> missing, added;  // metrics that only one file has
  std::vector<std::string> notes;
  bool machine_changed = false;  // a control did
  bool judged = false;           // enough runs in both files
  int regressions = 0;
};

// kInvalidArgument names every setting that differs (machine, model, channel, sizes), or says that
// nothing is common to both. `any_machine` lets processor and cores differ.
Result<Comparison> CompareResults(const Results& before, const Results& after, bool any_machine);

// 1 / C(n + m, n).
double ChanceOfSeparation(int n, int m);

// The sub-command that measures again what `results` has, with its settings: arguments after the
// program's name. kUnsupported when the file does not say enough.
Result<std::vector<std::string>> MeasureAgain(const Results& results);

void Print(const Comparison& comparison);
std::string ToJson(const Comparison& comparison);

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_COMPARE_H_
