#include "bench/analysis_json.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "bench/llama_bench.h"

namespace talaria::bench {
namespace {

using Json = nlohmann::json;

Json ToJson(const Summary& s) { return {{"median", s.median}, {"min", s.min}, {"max", s.max}}; }

Json ToJson(const Side& side) {
  return {{"decode_tokens_per_second", side.decode},
          {"prompt_tokens_per_second", side.prompt},
          {"cvm_cpu_ms_per_decoded_token", side.decode_cpu_ms},
          {"cvm_cpu_ms_per_prompt_token", side.prompt_cpu_ms},
          {"cvm_memory_gb", side.memory_gb}};
}

std::string Key(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.0f", x);
  return text;
}

}  // namespace

std::string ToJson(const Scaling& scaling, const ScalingOptions& options) {
  Json json;
  json["machine"] = Json::parse(MachineJson());
  json["isa"] = IsaName(scaling.isa);
  json["product_isa"] = IsaName(scaling.product_isa);
  json["runs"] = options.runs;
  json["quick"] = options.quick;
  json["rates"] = {{"control_read_gb_per_second", ToJson(scaling.rates.read_gb_per_second)},
                   {"control_clock_ghz", ToJson(scaling.rates.clock_ghz)}};
  if (scaling.rates.ifma_per_ns.median > 0) {
    json["rates"]["control_ifma_rate"] = ToJson(scaling.rates.ifma_per_ns);
    json["rates"]["control_vnni_rate"] = ToJson(scaling.rates.vnni_per_ns);
  }
  json["scaling"] = Json::object();
  json["about"] = Json::object();
  for (const Series& series : scaling.series) {
    json["about"][series.name] = {{"x", series.x_name}, {"setting", series.setting}};
    if (series.name == "context") {
      json["model"] = options.setting.model;
      json["pool_batches"] = options.setting.pool_batches;
    }
    for (const auto& [x, values] : series.points) {
      for (const Measured& m : values) {
        Json& point = json["scaling"][series.name][Key(x)][m.name];
        point = ToJson(m.value);
        if (m.bound > 0) point["bound"] = m.bound;
      }
    }
  }
  return json.dump(2);
}

std::string ToJson(const std::vector<TableRow>& rows, const Rates& rates) {
  Json json;
  json["machine"] = Json::parse(MachineJson());
  for (const NamedRate& r : AllRates(rates))
    json["rates"][r.name] = {{"value", r.rate->value}, {"source", r.rate->source}};
  json["plans"] = Json::array();
  for (const TableRow& row : rows) {
    const Deployment& d = row.deployment;
    const Estimate& e = row.estimate;
    json["plans"].push_back({{"model", row.shape.name},
                             {"deployment",
                              {{"cores", d.cores},
                               {"gbit_per_second", d.gbit},
                               {"rtt_ms", d.rtt_ms},
                               {"cloud_cores", d.cloud_cores},
                               {"cloud_gb_per_second", d.cloud_gb},
                               {"cloud_gmac_per_second", d.cloud_gmac},
                               {"context", d.context},
                               {"prompt", d.prompt},
                               {"users", d.users},
                               {"pool_batches", d.pool_batches}}},
                             {"talaria", ToJson(e.talaria)},
                             {"alone", ToJson(e.alone)},
                             {"round_trips_per_token", e.round_trips},
                             {"bytes_up_per_token", e.bytes_up},
                             {"bytes_down_per_token", e.bytes_down},
                             {"hints_gb", e.hints_gb},
                             {"pools_gb", e.pools_gb},
                             {"public_matrices_gb", e.public_gb},
                             {"weights", e.weights},
                             {"step_ms",
                              {{"round_trips", e.step.network},
                               {"bytes", e.step.bytes},
                               {"products", e.step.product},
                               {"calls_and_tls", e.step.call},
                               {"mask_check_unmask", e.step.kernels},
                               {"llama_cpp", e.step.engine},
                               {"masks_cpu", e.step.masks_cpu},
                               {"masks_bound", e.step.masks_bound}}},
                             {"verdict", e.verdict},
                             {"reasons", e.reasons},
                             {"notes", row.shape.notes}});
  }
  return json.dump(2);
}

}  // namespace talaria::bench
