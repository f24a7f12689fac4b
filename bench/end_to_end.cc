#include <fstream>
#include <nlohmann/json.hpp>

#include "bench/commands.h"
#include "bench/llama_bench.h"
#include "bench/statistics.h"

namespace talaria::bench {
namespace {

using Json = nlohmann::json;

// What is measured: the arguments of one llama-bench test.
struct Workload {
  const char* name;
  std::vector<std::string> arguments;
};

struct Sample {
  double plain_speed = 0, talaria_speed = 0;  // tokens/s, refilling of the pools added
  double plain_cpu = 0, child_cpu = 0, cvm_cpu = 0, cloud_cpu = 0;  // CPU seconds per token
  double bytes_sent = 0, bytes_received = 0, calls = 0;             // per token
};

Status MeasurePlain(const Setting& s, const Workload& work, int threads, Sample& sample) {
  TALARIA_ASSIGN_OR_RETURN(
      const Finished run, RunProcess(LlamaBench({s.llama + "/plain/bin/llama-bench", "-m", s.model},
                                                work.arguments, threads),
                                     s.work + "/plain.log"));
  TALARIA_ASSIGN_OR_RETURN(const Timed t, ParseLlamaBench(run.output));
  sample.plain_speed = t.tokens / t.seconds;
  sample.plain_cpu = run.usage.cpu_seconds / t.tokens;
  return OkStatus();
}

Status MeasureMasked(Laboratory& lab, const Workload& work, bool sustained, Sample& sample) {
  TALARIA_ASSIGN_OR_RETURN(const MaskedRun run,
                           lab.Run(LlamaBench({"llama-bench"}, work.arguments, 1)));
  TALARIA_ASSIGN_OR_RETURN(const Timed t, ParseLlamaBench(run.output));
  sample.talaria_speed = t.tokens / (t.seconds + (sustained ? run.refill_seconds : 0));
  sample.child_cpu = run.child_cpu_seconds / t.tokens;
  sample.cvm_cpu = run.cvm_cpu_seconds / t.tokens;
  sample.cloud_cpu = run.cloud_cpu_seconds / t.tokens;
  sample.bytes_sent = run.bytes_sent / t.tokens;
  sample.bytes_received = run.bytes_received / t.tokens;
  sample.calls = run.calls / t.tokens;
  return OkStatus();
}

template <class F>
Summary Over(const std::vector<Sample>& samples, F value) {
  std::vector<double> values;
  for (const Sample& s : samples) values.push_back(value(s));
  return Summarise(std::move(values));
}

Json ToJson(const Summary& s) {
  return {{"median", s.median}, {"min", s.min}, {"max", s.max}, {"spread", s.spread}};
}

void PrintRow(const char* name, const std::vector<Sample>& samples) {
  const Summary plain = Over(samples, [](const Sample& s) { return s.plain_speed; });
  const Summary ours = Over(samples, [](const Sample& s) { return s.talaria_speed; });
  const Summary ratio =
      Over(samples, [](const Sample& s) { return s.talaria_speed / s.plain_speed; });
  const Summary cpu =
      Over(samples, [](const Sample& s) { return (s.cvm_cpu + s.child_cpu) / s.plain_cpu; });
  std::printf("%-16s %9.1f %9.1f %8.3f %6.1f %%%s %9.3f\n", name, plain.median, ours.median,
              ratio.median, ratio.spread * 100, ratio.spread > 0.1 ? " !" : "  ", cpu.median);
}

}  // namespace

Status EndToEnd(const EndToEndOptions& options) {
  const Setting& s = options.setting;
  TALARIA_RETURN_IF_ERROR(ProvisionIfAbsent(s));
  const int pool_rows = 256 * s.pool_batches;
  // Sustained: each timed part uses at least twice the rows that the pools hold.
  const std::string gen = std::to_string(2 * pool_rows),
                    prompts = std::to_string((2 * pool_rows + options.prompt - 1) / options.prompt);
  const std::string prompt = std::to_string(options.prompt);
  const std::vector<Workload> works = {
      {"decode", {"-p", "0", "-n", gen, "-r", "1"}},
      {"prompt", {"-p", prompt, "-n", "0", "-r", prompts}},
      {"decode, burst", {"-p", "0", "-n", "64", "-r", "1"}},
      {"prompt, burst",
       {"-p", std::to_string(std::min(options.prompt, pool_rows)), "-n", "0", "-r", "1"}},
      {"first token", {"-p", "0", "-n", "0", "-pg", "128,1", "-r", "1"}},
  };
  TALARIA_ASSIGN_OR_RETURN(const auto lab, Laboratory::Start(s));
  std::fprintf(stderr, "Set up in %.1f s\n", lab->setup_seconds());

  // The better of 1 and 2 threads for plain llama.cpp, as a user would choose.
  const auto better = [&s](const Workload& work) -> Result<int> {
    Sample one, two;
    TALARIA_RETURN_IF_ERROR(MeasurePlain(s, work, 1, one));
    TALARIA_RETURN_IF_ERROR(MeasurePlain(s, work, 2, two));
    return one.plain_speed > two.plain_speed ? 1 : 2;
  };
  TALARIA_ASSIGN_OR_RETURN(const int decode_threads, better(works[2]));
  TALARIA_ASSIGN_OR_RETURN(const int prompt_threads, better(works[3]));
  const std::vector<int> plain_threads = {decode_threads, prompt_threads, decode_threads,
                                          prompt_threads, prompt_threads};
  std::vector<std::vector<Sample>> samples(works.size());
  for (int pair = 0; pair < options.pairs; ++pair) {
    for (size_t w = 0; w < works.size(); ++w) {
      Sample sample;
      TALARIA_RETURN_IF_ERROR(MeasurePlain(s, works[w], plain_threads[w], sample));
      TALARIA_RETURN_IF_ERROR(MeasureMasked(*lab, works[w], w < 2, sample));
      samples[w].push_back(sample);
      std::fprintf(stderr, "pair %d/%d %-14s plain %8.1f, Talaria %8.1f tokens/s, ratio %.3f\n",
                   pair + 1, options.pairs, works[w].name, sample.plain_speed, sample.talaria_speed,
                   sample.talaria_speed / sample.plain_speed);
    }
  }

  std::printf("%-16s %9s %9s %8s %9s %9s\n", "tokens/s", "llama.cpp", "Talaria", "ratio", "spread",
              "CVM CPU");
  Json json;
  for (size_t w = 0; w < works.size(); ++w) {
    PrintRow(works[w].name, samples[w]);
    json["workloads"][works[w].name] = {
        {"plain_threads", plain_threads[w]},
        {"plain_tokens_per_second",
         ToJson(Over(samples[w], [](const Sample& x) { return x.plain_speed; }))},
        {"talaria_tokens_per_second",
         ToJson(Over(samples[w], [](const Sample& x) { return x.talaria_speed; }))},
        {"ratio",
         ToJson(Over(samples[w], [](const Sample& x) { return x.talaria_speed / x.plain_speed; }))},
        {"cvm_cpu_ratio",
         ToJson(Over(samples[w],
                     [](const Sample& x) { return (x.cvm_cpu + x.child_cpu) / x.plain_cpu; }))},
        {"cpu_ms_per_token",
         {{"plain", Over(samples[w], [](const Sample& x) { return x.plain_cpu * 1e3; }).median},
          {"llama_child",
           Over(samples[w], [](const Sample& x) { return x.child_cpu * 1e3; }).median},
          {"cvm", Over(samples[w], [](const Sample& x) { return x.cvm_cpu * 1e3; }).median},
          {"cloud", Over(samples[w], [](const Sample& x) { return x.cloud_cpu * 1e3; }).median}}},
        {"bytes_sent_per_token",
         Over(samples[w], [](const Sample& x) { return x.bytes_sent; }).median},
        {"bytes_received_per_token",
         Over(samples[w], [](const Sample& x) { return x.bytes_received; }).median},
        {"round_trips_per_token",
         Over(samples[w], [](const Sample& x) { return x.calls; }).median}};
  }
  const auto first = [&](auto value) { return Over(samples[4], value).median; };
  std::printf("%-16s %7.0f ms %6.0f ms   (prompt of 128 tokens)\n", "first token",
              129e3 / first([](const Sample& x) { return x.plain_speed; }),
              129e3 / first([](const Sample& x) { return x.talaria_speed; }));
  std::printf("\n%-16s %9s %9s %9s %9s   CPU ms per token (refilling included)\n", "", "llama.cpp",
              "engine", "CVM", "cloud");
  for (size_t w = 0; w < 2; ++w) {
    const Json& c = json["workloads"][works[w].name]["cpu_ms_per_token"];
    std::printf("%-16s %9.3f %9.3f %9.3f %9.3f\n", works[w].name, c["plain"].get<double>(),
                c["llama_child"].get<double>(), c["cvm"].get<double>(), c["cloud"].get<double>());
  }
  const Json& d = json["workloads"]["decode"];
  std::printf("\nper token of decoding: %.1f round trips, %.0f bytes up, %.0f down\n",
              d["round_trips_per_token"].get<double>(), d["bytes_sent_per_token"].get<double>(),
              d["bytes_received_per_token"].get<double>());
  const Usage cvm = lab->cvm(), cloud = lab->cloud();
  std::printf("set-up %.1f s; resident memory: CVM %.0f MiB (peak %.0f), cloud %.0f MiB\n",
              lab->setup_seconds(), cvm.resident_mib, cvm.resident_peak_mib, cloud.resident_mib);
  std::printf("CVM memory: %s\n", lab->memory_json().c_str());
  std::printf(
      "Spread: range of the pairwise ratios without the lowest and highest fifth, over the median; "
      "! marks more than 10 %%.\n");

  json["decode_ratio"] = json["workloads"]["decode"]["ratio"]["median"];
  json["prompt_ratio"] = json["workloads"]["prompt"]["ratio"]["median"];
  json["cvm_cpu_ratio"] = json["workloads"]["decode"]["cvm_cpu_ratio"]["median"];
  json["cvm_cpu_ratio_prompt"] = json["workloads"]["prompt"]["cvm_cpu_ratio"]["median"];
  json["setup_seconds"] = lab->setup_seconds();
  json["cvm_resident_mib"] = cvm.resident_mib;
  json["cvm_resident_peak_mib"] = cvm.resident_peak_mib;
  json["cloud_resident_mib"] = cloud.resident_mib;
  json["pairs"] = options.pairs;
  json["pool_batches"] = s.pool_batches;
  json["machine"] = Json::parse(MachineJson());
  json["channel"] = "unix, plaintext (simulated TEE)";
  if (!options.json.empty()) std::ofstream(options.json) << json.dump(2) << "\n";
  return OkStatus();
}

}  // namespace talaria::bench
