#include <fstream>
#include <nlohmann/json.hpp>

#include "bench/commands.h"
#include "bench/llama_bench.h"
#include "bench/statistics.h"

namespace talaria::bench {
namespace {

using Json = nlohmann::json;

struct Workload {
  const char* name;
  std::vector<std::string> arguments;
};

// Per token, but the speed.
struct Sample {
  double speed = 0;  // tokens/s, with what it takes to fill the pools again
  double cvm_cpu_ms = 0, engine_cpu_ms = 0, cloud_cpu_ms = 0;
  double bytes_sent = 0, bytes_received = 0;
};

Result<Sample> Measure(Laboratory& lab, const Workload& work) {
  TALARIA_ASSIGN_OR_RETURN(const MaskedRun run,
                           lab.Run(LlamaBench({"llama-bench"}, work.arguments, 1)));
  TALARIA_ASSIGN_OR_RETURN(const Timed t, ParseLlamaBench(run.output));
  return Sample{.speed = t.tokens / (t.seconds + run.refill_seconds),
                .cvm_cpu_ms = run.cvm_cpu_seconds * 1e3 / t.tokens,
                .engine_cpu_ms = run.child_cpu_seconds * 1e3 / t.tokens,
                .cloud_cpu_ms = run.cloud_cpu_seconds * 1e3 / t.tokens,
                .bytes_sent = run.bytes_sent / t.tokens,
                .bytes_received = run.bytes_received / t.tokens};
}

Json ToJson(const std::vector<Sample>& samples) {
  const auto add = [&samples](Json& json, const char* name, auto member) {
    std::vector<double> values;
    for (const Sample& s : samples) values.push_back(s.*member);
    const Summary summary = Summarise(std::move(values));
    json[name] = {{"median", summary.median}, {"min", summary.min}, {"max", summary.max}};
  };
  Json json;
  add(json, "tokens_per_second", &Sample::speed);
  add(json, "cvm_cpu_ms_per_token", &Sample::cvm_cpu_ms);
  add(json, "engine_cpu_ms_per_token", &Sample::engine_cpu_ms);
  add(json, "cloud_cpu_ms_per_token", &Sample::cloud_cpu_ms);
  add(json, "bytes_sent_per_token", &Sample::bytes_sent);
  add(json, "bytes_received_per_token", &Sample::bytes_received);
  return json;
}

void PrintRow(const std::string& scheme, const char* work, const Json& row, double hints) {
  const auto median = [&row](const char* name) { return row[name]["median"].get<double>(); };
  std::printf("%-10s %-7s %9.1f %11.2f %11.2f %11.2f %9.2f %11.1f %11.1f\n", scheme.c_str(), work,
              median("tokens_per_second"), median("cvm_cpu_ms_per_token"),
              median("engine_cpu_ms_per_token"), median("cloud_cpu_ms_per_token"), hints,
              median("bytes_sent_per_token") / 1e3, median("bytes_received_per_token") / 1e3);
}

}  // namespace

Status Schemes(const SchemesOptions& options) {
  TALARIA_RETURN_IF_ERROR(ProvisionIfAbsent(options.setting));
  // All rows of the pools at least once, so that what masks cost is in the times.
  const int rows = 256 * options.setting.pool_batches;
  const std::vector<Workload> works = {
      {"decode", {"-p", "0", "-n", std::to_string(rows), "-r", "1"}},
      {"prompt", {"-p", "512", "-n", "0", "-r", std::to_string((2 * rows + 511) / 512)}}};
  Json json;
  json["machine"] = Json::parse(MachineJson());
  json["model"] = options.setting.model;
  json["m"] = options.setting.m;
  json["runs"] = options.runs;
  json["pool_batches"] = options.setting.pool_batches;
  json["channel"] = "unix, plaintext (simulated TEE)";
  std::printf("%-10s %-7s %9s %11s %11s %11s %9s %11s %11s\n", "scheme", "", "tokens/s",
              "CVM ms/tok", "engine", "cloud", "hint B/w", "sent kB/tok", "received");
  for (const char* scheme : {"lattice", "published", "none"}) {
    Setting setting = options.setting;
    setting.scheme = scheme;
    TALARIA_ASSIGN_OR_RETURN(const auto lab, Laboratory::Start(setting));
    json["schemes"][scheme] = {{"hint_bytes_per_weight", lab->hint_bytes_per_weight()},
                               {"setup_seconds", lab->setup_seconds()}};
    for (const Workload& work : works) {
      std::vector<Sample> samples;
      for (int run = 0; run < options.runs; ++run) {
        TALARIA_ASSIGN_OR_RETURN(const Sample sample, Measure(*lab, work));
        samples.push_back(sample);
        std::fprintf(stderr, "%s, %s, run %d/%d: %.1f tokens/s\n", scheme, work.name, run + 1,
                     options.runs, sample.speed);
      }
      const Json row = ToJson(samples);
      PrintRow(scheme, work.name, row, lab->hint_bytes_per_weight());
      json["schemes"][scheme][work.name] = row;
    }
  }
  std::printf(
      "Medians of %d runs. CVM: masks, checks and unmasking; engine: what llama.cpp computes "
      "beside "
      "the products.\npublished (m = %s) is broken and here for comparison only; its masks are "
      "made "
      "when they are drawn.\n",
      options.runs, options.setting.m.c_str());
  if (options.json.empty()) return OkStatus();
  std::ofstream file(options.json);
  file << json.dump(2) << "\n";
  file.close();
  return file ? OkStatus() : Status(Code::kIo, options.json + " could not be written");
}

}  // namespace talaria::bench
