#include <nlohmann/json.hpp>

#include "bench/commands.h"
#include "bench/laboratory.h"
#include "bench/pairs.h"

namespace talaria::bench {
namespace {

using Json = nlohmann::json;

Json ToJson(const std::vector<Sample>& samples) {
  Json json;
  const auto add = [&](const char* name, auto value) {
    std::vector<double> values;
    for (const Sample& s : samples) values.push_back(value(s));
    const Summary summary = Summarise(std::move(values));
    json[name] = {{"median", summary.median}, {"min", summary.min}, {"max", summary.max}};
  };
  add("tokens_per_second", [](const Sample& s) { return s.talaria_speed; });
  add("cvm_cpu_ms_per_token", [](const Sample& s) { return s.cvm_cpu * 1e3; });
  add("engine_cpu_ms_per_token", [](const Sample& s) { return s.child_cpu * 1e3; });
  add("cloud_cpu_ms_per_token", [](const Sample& s) { return s.cloud_cpu * 1e3; });
  add("bytes_sent_per_token", [](const Sample& s) { return s.bytes_sent; });
  add("bytes_received_per_token", [](const Sample& s) { return s.bytes_received; });
  return json;
}

void PrintRow(const std::string& scheme, const std::string& work, const Json& row, double hints) {
  const auto median = [&row](const char* name) { return row[name]["median"].get<double>(); };
  std::printf("%-10s %-7s %9.1f %11.2f %11.2f %11.2f %9.2f %11.1f %11.1f\n", scheme.c_str(),
              work.c_str(), median("tokens_per_second"), median("cvm_cpu_ms_per_token"),
              median("engine_cpu_ms_per_token"), median("cloud_cpu_ms_per_token"), hints,
              median("bytes_sent_per_token") / 1e3, median("bytes_received_per_token") / 1e3);
}

}  // namespace

Status Schemes(const SchemesOptions& options) {
  TALARIA_RETURN_IF_ERROR(ProvisionIfAbsent(options.setting));
  // All rows of the pools at least once, so that what masks cost is in the times.
  const int rows = 256 * options.setting.pool_batches;
  const std::vector<Workload> works = {
      {"decode", {"-p", "0", "-n", std::to_string(rows), "-r", "1"}, true},
      {"prompt", {"-p", "512", "-n", "0", "-r", std::to_string((2 * rows + 511) / 512)}, true}};
  Json json = Circumstances(options.setting);
  json["m"] = options.setting.m;
  json["runs"] = options.runs;
  std::printf("%-10s %-7s %9s %11s %11s %11s %9s %11s %11s\n", "scheme", "", "tokens/s",
              "CVM ms/tok", "engine", "cloud", "hint B/w", "sent kB/tok", "received");
  for (const char* scheme : {"lattice", "published", "none"}) {
    Setting setting = options.setting;
    setting.scheme = scheme;
    TALARIA_ASSIGN_OR_RETURN(const auto lab, Laboratory::Start(setting));
    json["schemes"][scheme] = {{"hint_bytes_per_weight", lab->hint_bytes_per_weight()},
                               {"setup_seconds", lab->setup_seconds()}};
    for (const Workload& work : works) {
      std::vector<Sample> samples(static_cast<size_t>(options.runs));
      for (int run = 0; run < options.runs; ++run) {
        Sample& sample = samples[static_cast<size_t>(run)];
        TALARIA_RETURN_IF_ERROR(MeasureMasked(*lab, work, sample));
        std::fprintf(stderr, "%s, %s, run %d/%d: %.1f tokens/s\n", scheme, work.name.c_str(),
                     run + 1, options.runs, sample.talaria_speed);
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
      "when they are drawn.\n%s\n",
      options.runs, options.setting.m.c_str(), DescribeChannel(options.setting).c_str());
  return WriteJson(json, options.json);
}

}  // namespace talaria::bench
