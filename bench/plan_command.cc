#include "bench/plan_command.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "bench/compare.h"
#include "bench/kernel_costs.h"
#include "bench/llama_bench.h"
#include "bench/process.h"
#include "talaria/gemm/product.h"

namespace talaria::bench {
namespace {

constexpr Timing kTiming = {.runs = 5, .seconds = 0.02};
constexpr size_t kWidest = 8192;
constexpr int kTokens = 64;  // of llama-bench, decoded and in a prompt

// SmolLM2-135M with the products replaced by nothing, one thread of a Zen 4 core at 3.65 GHz: 0.43
// ms for a token of decoding and 0.50 ms for one of a prompt, over 30 layers.
constexpr double kEngineDecodeUs = 14.3, kEnginePromptUs = 16.7;
// README, "Measured": 78.0 and 367.8 tokens/s on two cores.
constexpr double kPlainDecode = 78.0, kPlainPrompt = 367.8, kPlainCores = 2;
// README, "Measured": CVM and cloud on the same two cores. CPU: 0.59 times that of two threads at
// 78.0 tokens/s.
constexpr double kTalariaDecode = 35.8, kTalariaCpuMs = 0.59 * 2e3 / kPlainDecode;

Rate InThisRun(const Summary& summary, const std::string& what) {
  char spread[48];
  std::snprintf(spread, sizeof spread, "; runs %.3g to %.3g", summary.min, summary.max);
  return {summary.median, "measured in this run: " + what + spread};
}

size_t ToUnit(double x) {
  const auto rounded = static_cast<size_t>(x / 64 + 0.5) * 64;
  return std::clamp<size_t>(rounded, 64, kWidest);
}

// Products of llama.cpp for one token; those of a prompt's token are without the head.
double ProductsOf(const ModelShape& shape, bool head) {
  double sum = 0;
  for (const GroupShape& group : shape.groups) {
    if (head || !group.head) sum += Weights(group) * group.count;
  }
  return sum;
}

// Seconds a token minus llama.cpp's other work give the rate of its products.
double PlainRate(const ModelShape& shape, double seconds, double engine_us, bool head,
                 double cores) {
  const double own = shape.layers * engine_us * 1e-6 * shape.width / 576.0;
  return ProductsOf(shape, head) / (std::max(seconds - own, seconds / 2) * cores) * 1e-9;
}

// CPU seconds: of two runs of different length, so that loading the model cancels.
Result<double> SecondsPerToken(const Setting& s, const std::vector<std::string>& head,
                               const char* option, int few, int many, int tokens_each) {
  double cpu[2];
  for (int i = 0; i < 2; ++i) {
    std::vector<std::string> test = head;
    test.insert(test.end(), {option, std::to_string(i == 0 ? few : many)});
    TALARIA_ASSIGN_OR_RETURN(
        const Finished run,
        RunProcess(LlamaBench({s.llama + "/plain/bin/llama-bench", "-m", s.model}, test, 1),
                   "/dev/null"));
    TALARIA_RETURN_IF_ERROR(ParseLlamaBench(run.output).status());
    cpu[i] = run.usage.cpu_seconds;
  }
  const double seconds = (cpu[1] - cpu[0]) / ((many - few) * tokens_each);
  if (seconds > 0) return seconds;
  return Status(Code::kInternal, "llama-bench: a longer run took less CPU time");
}

// The demo model.
Result<ModelShape> SmallShape(const Setting& setting) {
  if (!std::filesystem::exists(setting.model)) return ShapeOf("smollm2", 5);
  TALARIA_ASSIGN_OR_RETURN(const model::GgufHeader header,
                           model::ReadGgufHeader(setting.model, nullptr));
  return ShapeOfGguf(header);
}

Result<MeasuredRun> RunOf(const Setting& setting, const std::string& end_to_end) {
  if (end_to_end.empty()) {
    return MeasuredRun{
        kTalariaDecode, kTalariaCpuMs, 2, 2,
        "README's run of SmolLM2-135M, CVM and cloud on the same two cores: what its "
        "parts do not explain, per round trip"};
  }
  TALARIA_ASSIGN_OR_RETURN(const Results results, ParseResults(end_to_end));
  const std::string model = std::filesystem::path(setting.model).filename().string();
  const auto said = [&results](const char* key) {
    const auto at = results.setting.find(key);
    return at == results.setting.end() ? std::string() : at->second;
  };
  const auto median = [&results](const char* name) {
    for (const Metric& metric : results.metrics)
      if (metric.name == std::string("workloads/decode/") + name) return metric.median;
    return 0.0;
  };
  MeasuredRun run{median("talaria_tokens_per_second"),
                  median("cpu_ms_per_token/cvm") + median("cpu_ms_per_token/llama_child"),
                  std::atoi(said("machine.cores").c_str()),
                  std::atoi(said("cloud_threads").c_str()),
                  "the run of " + model +
                      " in the file given: what its parts do not explain, per "
                      "round trip"};
  if (said("model") != model || run.tokens_per_second <= 0 || run.cores < 1 || run.cloud_cores < 1)
    return Status(Code::kInvalidArgument, "not a result of talaria-bench end-to-end with " + model);
  return run;
}

Status CalibratePlain(const Setting& setting, const ModelShape& small, Rates& rates) {
  if (std::filesystem::exists(setting.model) &&
      std::filesystem::exists(setting.llama + "/plain/bin/llama-bench")) {
    TALARIA_ASSIGN_OR_RETURN(const double decode, SecondsPerToken(setting, {"-p", "0", "-r", "1"},
                                                                  "-n", 8, kTokens + 8, 1));
    TALARIA_ASSIGN_OR_RETURN(
        const double prompt,
        SecondsPerToken(setting, {"-n", "0", "-p", std::to_string(kTokens)}, "-r", 1, 3, kTokens));
    const std::string what = "measured in this run: CPU time of llama-bench, one thread, " +
                             std::filesystem::path(setting.model).filename().string();
    rates.plain_decode_gmac = {PlainRate(small, decode, kEngineDecodeUs, true, 1), what};
    rates.plain_prompt_gmac = {PlainRate(small, prompt, kEnginePromptUs, false, 1), what};
    return OkStatus();
  }
  const std::string what = "README, plain llama.cpp, SmolLM2-135M on two cores";
  rates.plain_decode_gmac = {
      PlainRate(small, 1 / kPlainDecode, kEngineDecodeUs / kPlainCores, true, kPlainCores), what};
  rates.plain_prompt_gmac = {
      PlainRate(small, 1 / kPlainPrompt, kEnginePromptUs / kPlainCores, false, kPlainCores), what};
  return OkStatus();
}

// Three digits, and no exponent.
std::string Number(double x) {
  char text[48];
  std::snprintf(text, sizeof text, x < 1000 ? "%.3g" : "%.0f", x);
  return text;
}

std::string Network(const Deployment& d) {
  if (d.gbit <= 0) return "same host";
  char text[64];
  std::snprintf(text, sizeof text, "%g Gbit/s, %g ms", d.gbit, d.rtt_ms);
  return text;
}

}  // namespace

Result<Rates> Calibrate(const Setting& setting, const ModelShape& shape,
                        const std::string& end_to_end) {
  TALARIA_ASSIGN_OR_RETURN(const MeasuredRun run, RunOf(setting, end_to_end));
  TALARIA_ASSIGN_OR_RETURN(const ModelShape small, SmallShape(setting));
  std::fprintf(stderr, "Measuring this machine's rates\n");
  double inputs = 0, outputs = 0, count = 0;
  for (const GroupShape& group : shape.groups) {
    if (group.head) continue;
    inputs += group.d * static_cast<double>(group.count);
    outputs += PaddedOutputs(group) * group.count;
    count += group.count;
  }
  const size_t d = ToUnit(inputs / count), o = ToUnit(outputs / count);
  const std::string size = std::to_string(d) + " x " + std::to_string(o);

  const MachineRates machine = MeasureMachine(kTiming);
  const Isa isa = std::min(DetectIsa(), Isa::kAvx512),  // masks have no use for more
      product_isa = gemm::SelfTestedIsa(DetectIsa());
  TALARIA_ASSIGN_OR_RETURN(const CvmCosts cvm, MeasureCvm(isa, d, o, kTiming));
  TALARIA_ASSIGN_OR_RETURN(const Summary one, MeasureProduct(product_isa, d, o, 1, kTiming));
  TALARIA_ASSIGN_OR_RETURN(const Summary many, MeasureProduct(product_isa, d, o, 256, kTiming));
  const CallCosts call = MeasureCall(64, 64, kTiming);
  TALARIA_ASSIGN_OR_RETURN(const Summary encrypt, MeasureEncryption(kTiming));

  Rates rates;
  const std::string kernels = "kernels with " + std::string(IsaName(isa)) + ", " + size;
  rates.mask_ns = InThisRun(cvm.mask_ns, kernels);
  Summary open = cvm.check_ns;
  open.median += cvm.unmask_ns.median;
  open.min += cvm.unmask_ns.min;
  open.max += cvm.unmask_ns.max;
  rates.open_ns = InThisRun(open, kernels);
  rates.generate_ns = InThisRun(cvm.generate_ns, kernels + ", one batch a pass");
  rates.call_wall_us =
      InThisRun(call.wall_us, "fastest run of frames between two threads, Unix socket");
  rates.call_wall_us.value = call.wall_us.min;  // a neighbour's time slice is no cost of a call
  rates.call_cpu_us = InThisRun(call.cpu_us, "the asking thread of these");
  rates.encrypt_ns = InThisRun(encrypt, "AES-256-GCM, OpenSSL");
  rates.read_gb = InThisRun(machine.read_gb_per_second, "one core, from memory");
  rates.engine_decode_us = {kEngineDecodeUs,
                            "constant: SmolLM2 with products replaced by nothing, "
                            "Zen 4 at 3.65 GHz; grows with the width"};
  rates.engine_prompt_us = {kEnginePromptUs, rates.engine_decode_us.source};
  const double weights = static_cast<double>(d * o);
  const std::string product = "product with " + std::string(IsaName(product_isa)) + ", " + size;
  rates.cloud_read_gb = {weights / one.median * 1e-3,
                         "measured in this run: " + product + ", 1 row"};
  rates.cloud_gmac = {256 * weights / many.median * 1e-3,
                      "measured in this run: " + product + ", 256 rows"};
  TALARIA_RETURN_IF_ERROR(CalibratePlain(setting, small, rates));
  return ChargeCalls(small, rates, run);
}

std::vector<NamedRate> AllRates(const Rates& r) {
  return {{"mask_ns", &r.mask_ns},
          {"open_ns", &r.open_ns},
          {"generate_ns", &r.generate_ns},
          {"call_wall_us", &r.call_wall_us},
          {"call_cpu_us", &r.call_cpu_us},
          {"encrypt_ns", &r.encrypt_ns},
          {"read_gb", &r.read_gb},
          {"plain_decode_gmac", &r.plain_decode_gmac},
          {"plain_prompt_gmac", &r.plain_prompt_gmac},
          {"engine_decode_us", &r.engine_decode_us},
          {"engine_prompt_us", &r.engine_prompt_us},
          {"cloud_read_gb", &r.cloud_read_gb},
          {"cloud_gmac", &r.cloud_gmac}};
}

void PrintPlan(const ModelShape& shape, const Rates& rates, const Deployment& d,
               const Estimate& e) {
  std::printf("%s: %u layers, %.3g weights offloaded, %u round trips a token\n", shape.name.c_str(),
              shape.layers, e.weights, e.round_trips);
  std::printf("Confidential VM with %d cores, cloud: %s; context %d, %d user%s a step\n\n", d.cores,
              Network(d).c_str(), d.context, d.users, d.users == 1 ? "" : "s");
  std::printf("%-44s %12s %12s\n", "", "Talaria", "model alone");
  const auto row = [](const char* name, double a, double b) {
    std::printf("%-44s %12.4g %12.4g\n", name, a, b);
  };
  row("decode, tokens/s", e.talaria.decode, e.alone.decode);
  row("prompt, tokens/s", e.talaria.prompt, e.alone.prompt);
  row("confidential VM's CPU, ms a decoded token", e.talaria.decode_cpu_ms, e.alone.decode_cpu_ms);
  row("confidential VM's CPU, ms a prompt token", e.talaria.prompt_cpu_ms, e.alone.prompt_cpu_ms);
  row("confidential VM's memory, GB (no keys, values)", e.talaria.memory_gb, e.alone.memory_gb);
  std::printf("\nTalaria's memory: hints %.3g, pools %.3g, public matrices %.3g GB, rest %.3g GB\n",
              e.hints_gb, e.pools_gb, e.public_gb, shape.kept_bytes * 1e-9);
  std::printf("Wire, MB a decoded token: %.3g up, %.3g down\n", e.bytes_up * 1e-6,
              e.bytes_down * 1e-6);
  std::printf(
      "A step of decoding, ms: round trips %.3g, bytes %.3g, products %.3g, calls and TLS %.3g,\n"
      "  mask, check and unmask %.3g, llama.cpp %.3g; beside it %.3g ms of CPU for masks%s\n",
      e.step.network, e.step.bytes, e.step.product, e.step.call, e.step.kernels, e.step.engine,
      e.step.masks_cpu, e.step.masks_bound ? ", which bound it" : "");
  std::printf("\nVerdict: %s.\n", e.verdict.c_str());
  for (const std::string& reason : e.reasons) std::printf("  %s\n", reason.c_str());
  std::printf(
      "Not weighed: with Talaria the provider's weights never enter the confidential VM.\n\n"
      "Where the numbers are from (one core):\n");
  for (const NamedRate& r : AllRates(rates))
    std::printf("  %-18s %9.4g  %s\n", r.name, r.rate->value, r.rate->source.c_str());
  for (const std::string& note : shape.notes) std::printf("  note: %s\n", note.c_str());
  std::printf(
      "The model alone gets all cores without loss, for products and memory alike: on many cores "
      "that is\nkind to it. An estimate is no measurement: talaria-bench end-to-end measures.\n");
}

Result<std::vector<TableRow>> MakeTable(const Rates& rates, const Deployment& base, double bits) {
  std::vector<TableRow> rows;
  const struct { double gbit, rtt_ms; } networks[] = {{0, 0}, {10, 0.2}, {1, 1}};
  for (const char* name : {"smollm2", "8b", "70b"}) {
    TALARIA_ASSIGN_OR_RETURN(const ModelShape shape, ShapeOf(name, bits));
    for (const int cores : {2, 8, 32}) {
      for (const auto& network : networks) {
        Deployment d = base;
        d.cores = cores;
        d.gbit = network.gbit;
        d.rtt_ms = network.rtt_ms;
        rows.push_back({shape, d, Network(d), MakeEstimate(shape, rates, d)});
      }
    }
  }
  return rows;
}

void PrintTable(const std::vector<TableRow>& rows, const Rates& rates, const Deployment& base) {
  std::printf(
      "| model | cores | cloud | decode, tokens/s: Talaria / alone | prompt: Talaria / alone | CPU "
      "of a token: Talaria / alone, ms | memory: Talaria / alone, GB | faster |\n"
      "|---|---|---|---|---|---|---|---|\n");
  for (const TableRow& row : rows) {
    const Estimate& e = row.estimate;
    const bool decode = e.talaria.decode >= e.alone.decode,
               prompt = e.talaria.prompt >= e.alone.prompt;
    const auto both = [](double talaria, double alone) {
      return Number(talaria) + " / " + Number(alone);
    };
    std::printf("| %s | %d | %s | %s | %s | %s | %s | %s |\n", row.shape.name.c_str(),
                row.deployment.cores, row.network.c_str(),
                both(e.talaria.decode, e.alone.decode).c_str(),
                both(e.talaria.prompt, e.alone.prompt).c_str(),
                both(e.talaria.decode_cpu_ms, e.alone.decode_cpu_ms).c_str(),
                both(e.talaria.memory_gb, e.alone.memory_gb).c_str(),
                decode && prompt ? "**Talaria**"
                : decode         ? "answers: Talaria"
                : prompt         ? "prompts: Talaria"
                                 : "alone");
  }
  std::printf("\nCloud: %d cores like these", base.cloud_cores);
  if (base.cloud_gb > 0) std::printf(", but %g GB/s", base.cloud_gb);
  if (base.cloud_gmac > 0) std::printf(", but %g masked GMAC/s", base.cloud_gmac);
  std::printf("; context %d, prompt %d, %d user%s a step. Rates of one core:", base.context,
              base.prompt, base.users, base.users == 1 ? "" : "s");
  for (const NamedRate& r : AllRates(rates)) std::printf(" %s %.3g", r.name, r.rate->value);
  std::printf(".\n");
}

}  // namespace talaria::bench
