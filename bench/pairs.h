// Pairs: plain llama.cpp and Talaria on the same work, one after the other, and the table and JSON
// of many such pairs. A row's ratio is of pairs, so that a change of the machine's speed hits both.
#ifndef TALARIA_BENCH_PAIRS_H_
#define TALARIA_BENCH_PAIRS_H_

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "bench/laboratory.h"
#include "bench/llama_bench.h"
#include "bench/setting.h"
#include "bench/statistics.h"
#include "talaria/base/result.h"

namespace talaria::bench {

// One llama-bench test. `sustained`: refilling of the mask pools is time of the run.
struct Workload {
  std::string name;
  std::vector<std::string> arguments;
  bool sustained = false;
};
// `decode` and `prompt` as every table has them: each uses at least twice the rows that the pools
// hold. The name is "decode" or "prompt".
Workload SustainedDecode(int pool_batches);
Workload SustainedPrompt(int pool_batches, int prompt_tokens);
// Short ones, whose rows fit into full pools.
Workload BurstDecode();
Workload BurstPrompt(int pool_batches, int prompt_tokens);

// A program's tokens per second, and CPU seconds of its process per token.
struct Speed {
  double tokens_per_second = 0, cpu = 0;
};

struct Sample {
  Speed plain;
  double talaria_speed = 0;                          // tokens/s
  double child_cpu = 0, cvm_cpu = 0, cloud_cpu = 0;  // CPU seconds per token, refilling included
  double bytes_sent = 0, bytes_received = 0, calls = 0;  // per token
};

double SpeedRatio(const Sample& sample);   // Talaria's tokens/s over plain llama.cpp's
double CvmCpuRatio(const Sample& sample);  // the CVM's two processes over plain llama.cpp

// kUnavailable and kInternal, of the programs.
Result<Speed> MeasurePlain(const Setting& setting, const std::string& model, const Workload& work,
                           int threads);
Status MeasureMasked(Laboratory& lab, const Workload& work,
                     Sample& sample);  // all but `plain`
// What a run on the masked model was, in units of a token. `seconds` has refilling in it or not.
void FillSample(const MaskedRun& run, double tokens, double seconds, Sample& sample);
// 1 or 2, whichever is faster, as a user of plain llama.cpp would choose; each is measured once,
// so `plain` is something short.
Result<int> BetterThreads(const std::function<Result<Speed>(int threads)>& plain);

// What a row measures, both ways.
struct Subject {
  std::string name;
  int plain_threads;
  std::function<Result<Speed>(int threads)> plain;
  std::function<Status(Sample& sample)> masked;  // fills all but `plain`
};
// A llama-bench test of `model`; on the masked side the laboratory's own model.
Subject LlamaBenchSubject(const Setting& setting, const std::string& model, Laboratory& lab,
                          const Workload& work, int plain_threads);

struct Row {
  std::string name;
  int plain_threads = 1;
  std::vector<Sample> samples = {};  // one per pair

  nlohmann::json ToJson() const;
  template <class F>
  Summary Over(F value) const {
    std::vector<double> values;
    for (const Sample& s : samples) values.push_back(value(s));
    return Summarise(std::move(values));
  }
};
// Every subject once per pair, plain llama.cpp first.
Result<std::vector<Row>> MeasurePairs(const std::vector<Subject>& subjects, int pairs);
// The table, and the same as json["workloads"].
void PrintTable(const std::vector<Row>& rows, nlohmann::json& json);
void PrintLegend(const Setting& setting);

// What every result says of its machine and its channel.
nlohmann::json Circumstances(const Setting& setting);

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_PAIRS_H_
