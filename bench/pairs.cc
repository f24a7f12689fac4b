#include "bench/pairs.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace talaria::bench {
namespace {

using Json = nlohmann::json;
constexpr int kBatchRows = 256;
constexpr double kNoisy = 0.1;  // a spread beyond this is marked

Json ToJson(const Summary& s) {
  return {{"median", s.median}, {"min", s.min}, {"max", s.max}, {"spread", s.spread}};
}

const char* Mark(const Summary& s) { return s.spread > kNoisy ? "!" : " "; }

}  // namespace

double SpeedRatio(const Sample& sample) {
  return sample.talaria_speed / sample.plain.tokens_per_second;
}
double CvmCpuRatio(const Sample& sample) {
  return (sample.cvm_cpu + sample.child_cpu) / sample.plain.cpu;
}

Workload SustainedDecode(int pool_batches) {
  return {
      "decode", {"-p", "0", "-n", std::to_string(2 * kBatchRows * pool_batches), "-r", "1"}, true};
}

Workload SustainedPrompt(int pool_batches, int prompt_tokens) {
  const int prompts = (2 * kBatchRows * pool_batches + prompt_tokens - 1) / prompt_tokens;
  return {"prompt",
          {"-p", std::to_string(prompt_tokens), "-n", "0", "-r", std::to_string(prompts)},
          true};
}

Workload BurstDecode() { return {"decode, burst", {"-p", "0", "-n", "64", "-r", "1"}}; }

Workload BurstPrompt(int pool_batches, int prompt_tokens) {
  const int tokens = std::min(prompt_tokens, kBatchRows * pool_batches);
  return {"prompt, burst", {"-p", std::to_string(tokens), "-n", "0", "-r", "1"}};
}

Result<Speed> MeasurePlain(const Setting& setting, const std::string& model, const Workload& work,
                           int threads) {
  TALARIA_ASSIGN_OR_RETURN(
      const Finished run,
      RunProcess(LlamaBench({setting.llama + "/plain/bin/llama-bench", "-m", model}, work.arguments,
                            threads),
                 setting.work + "/plain.log"));
  TALARIA_ASSIGN_OR_RETURN(const Timed t, ParseLlamaBench(run.output));
  return Speed{t.tokens / t.seconds, run.usage.cpu_seconds / t.tokens};
}

void FillSample(const MaskedRun& run, double tokens, double seconds, Sample& sample) {
  sample.talaria_speed = tokens / seconds;
  sample.child_cpu = run.child_cpu_seconds / tokens;
  sample.cvm_cpu = run.cvm_cpu_seconds / tokens;
  sample.cloud_cpu = run.cloud_cpu_seconds / tokens;
  sample.bytes_sent = run.bytes_sent / tokens;
  sample.bytes_received = run.bytes_received / tokens;
  sample.calls = run.calls / tokens;
}

Status MeasureMasked(Laboratory& lab, const Workload& work, Sample& sample) {
  TALARIA_ASSIGN_OR_RETURN(const MaskedRun run,
                           lab.Run(LlamaBench({"llama-bench"}, work.arguments, 1)));
  TALARIA_ASSIGN_OR_RETURN(const Timed t, ParseLlamaBench(run.output));
  FillSample(run, t.tokens, t.seconds + (work.sustained ? run.refill_seconds : 0), sample);
  return OkStatus();
}

Result<int> BetterThreads(const std::function<Result<Speed>(int threads)>& plain) {
  TALARIA_ASSIGN_OR_RETURN(const Speed one, plain(1));
  TALARIA_ASSIGN_OR_RETURN(const Speed two, plain(2));
  return one.tokens_per_second > two.tokens_per_second ? 1 : 2;
}

Subject LlamaBenchSubject(const Setting& setting, const std::string& model, Laboratory& lab,
                          const Workload& work, int plain_threads) {
  return {
      work.name, plain_threads,
      [setting, model, work](int threads) { return MeasurePlain(setting, model, work, threads); },
      [&lab, work](Sample& sample) { return MeasureMasked(lab, work, sample); }};
}

Result<std::vector<Row>> MeasurePairs(const std::vector<Subject>& subjects, int pairs) {
  std::vector<Row> rows;
  for (const Subject& subject : subjects) rows.push_back({subject.name, subject.plain_threads});
  for (int pair = 0; pair < pairs; ++pair) {
    for (size_t i = 0; i < subjects.size(); ++i) {
      Sample sample;
      TALARIA_ASSIGN_OR_RETURN(sample.plain, subjects[i].plain(subjects[i].plain_threads));
      TALARIA_RETURN_IF_ERROR(subjects[i].masked(sample));
      rows[i].samples.push_back(sample);
      std::fprintf(stderr, "pair %d/%d %-20s plain %8.1f, Talaria %8.1f tokens/s, ratio %.3f\n",
                   pair + 1, pairs, rows[i].name.c_str(), sample.plain.tokens_per_second,
                   sample.talaria_speed, SpeedRatio(sample));
    }
  }
  return rows;
}

void PrintTable(const std::vector<Row>& rows, Json& json) {
  std::printf("%-20s %9s %9s %7s %9s %8s %9s\n", "tokens/s", "llama.cpp", "Talaria", "ratio",
              "spread", "CVM CPU", "spread");
  for (const Row& row : rows) {
    const Summary ratio = row.Over(SpeedRatio), cpu = row.Over(CvmCpuRatio);
    std::printf("%-20s %9.1f %9.1f %7.3f %6.1f %%%s %8.3f %6.1f %%%s\n", row.name.c_str(),
                row.Over([](const Sample& s) { return s.plain.tokens_per_second; }).median,
                row.Over([](const Sample& s) { return s.talaria_speed; }).median, ratio.median,
                ratio.spread * 100, Mark(ratio), cpu.median, cpu.spread * 100, Mark(cpu));
    json["workloads"][row.name] = row.ToJson();
  }
}

Json Row::ToJson() const {
  const auto summary = [this](auto value) { return bench::ToJson(Over(value)); };
  const auto median = [this](auto value) { return Over(value).median; };
  return {{"plain_threads", plain_threads},
          {"plain_tokens_per_second",
           summary([](const Sample& s) { return s.plain.tokens_per_second; })},
          {"talaria_tokens_per_second", summary([](const Sample& s) { return s.talaria_speed; })},
          {"ratio", summary(SpeedRatio)},
          {"cvm_cpu_ratio", summary(CvmCpuRatio)},
          {"cpu_ms_per_token",
           {{"plain", median([](const Sample& s) { return s.plain.cpu * 1e3; })},
            {"llama_child", median([](const Sample& s) { return s.child_cpu * 1e3; })},
            {"cvm", median([](const Sample& s) { return s.cvm_cpu * 1e3; })},
            {"cloud", median([](const Sample& s) { return s.cloud_cpu * 1e3; })}}},
          {"bytes_sent_per_token", median([](const Sample& s) { return s.bytes_sent; })},
          {"bytes_received_per_token", median([](const Sample& s) { return s.bytes_received; })},
          {"round_trips_per_token", median([](const Sample& s) { return s.calls; })}};
}

void PrintLegend(const Setting& setting) {
  std::printf(
      "%s\nCVM CPU: CPU seconds per token of the CVM's two processes, refilling included, over "
      "those of llama.cpp.\nSpread: range of the pairwise ratios without the lowest and highest "
      "fifth, over the median; ! marks more than %.0f %%.\n",
      DescribeChannel(setting).c_str(), kNoisy * 100);
}

Json Circumstances(const Setting& setting) {
  return {{"machine", Json::parse(MachineJson())},
          {"model", setting.model},
          {"pool_batches", setting.pool_batches},
          {"cloud_threads", setting.cloud_threads},
          {"channel", ChannelName(setting)},
          {"plaintext", setting.plaintext},
          {"tee", "simulated"}};
}

}  // namespace talaria::bench
