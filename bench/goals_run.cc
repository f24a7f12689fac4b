// Measures the rows of bench/goals.h with what the other sub-commands measure with.
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "bench/goals.h"
#include "bench/kernel_costs.h"
#include "bench/library_product.h"
#include "bench/measurements.h"
#include "bench/process.h"
#include "bench/store_facts.h"
#include "bench/streams.h"
#include "talaria/gemm/product.h"

namespace talaria::bench {
namespace {

using Json = nlohmann::json;

constexpr int kStreams = 4, kPrompt = 512;
constexpr int kLargeLayerPairs = 3;  // minutes each
constexpr size_t kColdBytes = size_t{208} << 20;
// The largest group of a layer of SmolLM2-135M: masks of 576 inputs and of 3,072 outputs.
constexpr size_t kGenerateInputs = 576, kGenerateOutputs = 3072;
constexpr size_t kProductRows = 256;

template <class... Values>
std::string Text(const char* format, Values... values) {
  char text[256];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

class GoalsRun {
 public:
  GoalsRun(const GoalsOptions& options, const std::vector<const Goal*>& goals) : options_(options) {
    for (const Goal* goal : goals)
      results_.push_back({goal, {}, Status(Code::kInternal, "no code measures this row"), ""});
  }

  std::vector<GoalResult> Run() {
    const Timing timing{
        .runs = options_.pairs, .seconds = options_.quick ? 0.005 : 0.02, .cold_bytes = kColdBytes};
    Part("generate", [&](const std::string& words) { return Generate(words, timing); });
    Part("product-1", [&](const std::string&) { return Products(1, timing); });
    Part("product-256", [&](const std::string&) { return Products(kProductRows, timing); });
    Part("provision", [&](const std::string&) { return Provision(); });
    Part("setup memory", [&](const std::string&) { return SetUps(); });
    Part("decode/same-host decode/unix prompt streams cpu online",
         [&](const std::string&) { return EndToEndRows(Setting::Channel::kUnix); });
    Part("decode/tcp", [&](const std::string&) { return EndToEndRows(Setting::Channel::kTcp); });
    Part("layer-8b", [&](const std::string&) { return LayerRows("8b", options_.pairs); });
    Part("layer-70b", [&](const std::string& words) -> Status {
      if (options_.quick && options_.only.empty()) {
        return Status(Code::kUnsupported,
                      "left out by --quick (--only " + words + " measures it all the same)");
      }
      return LayerRows("70b", std::min(options_.pairs, kLargeLayerPairs));
    });
    return std::move(results_);
  }

 private:
  // What several rows are measured by: when any of them is wanted. An error is of those rows that
  // have no number yet, and the run goes on.
  template <class F>
  void Part(const std::string& rows, F measure) {
    std::vector<GoalResult*> wanted;
    for (GoalResult& result : results_)
      if (IsOf(result, rows)) wanted.push_back(&result);
    if (wanted.empty()) return;
    std::fprintf(stderr, "goals: %s\n", rows.c_str());
    const Status status = measure(rows);
    if (status.ok()) return;
    std::fprintf(stderr, "goals: %s: %s\n", rows.c_str(), status.ToString().c_str());
    for (GoalResult* result : wanted)
      if (result->samples.empty()) result->status = status;
  }

  static bool IsOf(const GoalResult& result, std::string_view rows) {
    while (!rows.empty()) {
      const std::string_view one = rows.substr(0, rows.find(' '));
      if (IsNamed(result.goal->name, one)) return true;
      rows.remove_prefix(std::min(rows.size(), one.size() + 1));
    }
    return false;
  }

  GoalResult* Find(std::string_view name) {
    const auto found = std::find_if(results_.begin(), results_.end(),
                                    [&](const GoalResult& r) { return name == r.goal->name; });
    return found == results_.end() ? nullptr : &*found;
  }

  void Set(std::string_view name, std::vector<double> samples, const std::string& detail) {
    if (GoalResult* const result = Find(name)) {
      result->samples = std::move(samples);
      result->detail = detail;
      result->status = OkStatus();
    }
  }

  Status Generate(const std::string&, const Timing& timing) {
    for (const auto& [name, isa] :
         {std::pair{"generate/avx512", Isa::kAvx512}, {"generate/avx2", Isa::kAvx2}}) {
      GoalResult* const result = Find(name);
      if (result == nullptr) continue;
      if (DetectIsa() < isa) {
        result->status =
            Status(Code::kUnsupported, "this processor has no " + std::string(IsaName(isa)));
        continue;
      }
      std::vector<double> samples, single, self_test;
      for (int run = 0; run < timing.runs; ++run) {
        Timing once = timing;
        once.runs = 1;
        TALARIA_ASSIGN_OR_RETURN(const CvmCosts costs,
                                 MeasureCvm(isa, kGenerateInputs, kGenerateOutputs, once));
        samples.push_back(costs.generate_four_ns.median);
        single.push_back(costs.generate_ns.median);
        self_test.push_back(costs.self_test_four_ns);
      }
      Set(name, samples,
          Text("%.2f of it the self-test; one batch a pass: %.2f; %zu inputs, %zu outputs",
               Summarise(self_test).median, Summarise(single).median, kGenerateInputs,
               kGenerateOutputs));
    }
    return OkStatus();
  }

  Status Products(size_t rows, const Timing& timing) {
    const Isa isa = gemm::SelfTestedIsa(DetectIsa());
    for (const auto& [d, o] : {std::pair<size_t, size_t>{576, 3072}, {1536, 576}, {4096, 6144}}) {
      const std::string name = Text("product-%zu/%zux%zu", rows, d, o);
      if (Find(name) == nullptr) continue;
      TALARIA_ASSIGN_OR_RETURN(const Call ours, PrepareProduct(isa, d, o, rows, timing.cold_bytes));
      LibraryProduct beside{nullptr, "reading"};
      double times = 1;
      if (rows == 1) {
        TALARIA_ASSIGN_OR_RETURN(beside.call, PrepareReading(d * o, timing.cold_bytes));
      } else {
        TALARIA_ASSIGN_OR_RETURN(beside, PrepareLibraryProduct(d, o, rows, timing.cold_bytes));
        times = gemm::kPlanes;
      }
      std::vector<double> ratios, our_us, other_us;
      for (const Turn& turn : TimeTurns(timing, ours, beside.call)) {
        ratios.push_back(turn.a_seconds / (times * turn.b_seconds));
        our_us.push_back(turn.a_seconds * 1e6);
        other_us.push_back(turn.b_seconds * 1e6);
      }
      Set(name, ratios,
          Text("%.0f us with %s; ", Summarise(our_us).median, std::string(IsaName(isa)).c_str()) +
              Text(rows == 1 ? "%s: %.0f us" : "%s: six times %.0f us", beside.name.c_str(),
                   Summarise(other_us).median));
    }
    return OkStatus();
  }

  Status Provision() {
    Setting s = options_.setting;
    s.store = s.work + "/provisioned";
    std::vector<double> samples;
    for (int run = 0; run < options_.pairs; ++run) {
      std::filesystem::remove_all(s.store);
      TALARIA_ASSIGN_OR_RETURN(const double seconds, MeasureProvisioning(s));
      samples.push_back(seconds);
      std::fprintf(stderr, "provisioning %d/%d: %.1f s\n", run + 1, options_.pairs, seconds);
    }
    std::filesystem::remove_all(s.store);
    Set("provision", samples, "");
    return OkStatus();
  }

  Status SetUps() {
    const Setting& s = options_.setting;
    TALARIA_RETURN_IF_ERROR(ProvisionIfAbsent(s));
    std::vector<double> seconds, gigabytes;
    std::string parts;
    for (int run = 0; run < options_.pairs; ++run) {
      TALARIA_ASSIGN_OR_RETURN(const auto lab, Laboratory::Start(s));
      seconds.push_back(lab->setup_seconds());
      parts.clear();
      const Json memory = Json::parse(lab->memory_json(), nullptr, false);
      for (const auto& [name, mib] : memory.items())
        parts += (parts.empty() ? "" : ", ") + name + " " + mib.dump();
      std::fprintf(stderr, "set-up %d/%d: %.1f s\n", run + 1, options_.pairs, seconds.back());
      if (Find("memory") == nullptr) continue;
      const StreamWork work{StreamWork::Kind::kPrompt, kStreams, 1, kPrompt};
      TALARIA_ASSIGN_OR_RETURN(const double mib, MeasureMaskedMemory(s, *lab, work));
      gigabytes.push_back(mib * (1 << 20) * 1e-9);
    }
    Set("setup", seconds, "");
    if (!gigabytes.empty()) Set("memory", gigabytes, parts);
    return OkStatus();
  }

  void SetRatios(const std::string& name, const Row& row, double (*ratio)(const Sample&)) {
    std::vector<double> samples;
    for (const Sample& sample : row.samples) samples.push_back(ratio(sample));
    const bool cpu = ratio == CvmCpuRatio;
    const auto plain = [cpu](const Sample& s) {
      return cpu ? s.plain.cpu * 1e3 : s.plain.tokens_per_second;
    };
    const auto ours = [cpu](const Sample& s) {
      return cpu ? (s.cvm_cpu + s.child_cpu) * 1e3 : s.talaria_speed;
    };
    Set(name, samples,
        Text("Talaria %.5g, llama.cpp %.5g %s, %d thread%s", row.Over(ours).median,
             row.Over(plain).median, cpu ? "CPU ms a token" : "tokens/s", row.plain_threads,
             row.plain_threads == 1 ? "" : "s"));
  }

  Status EndToEndRows(Setting::Channel channel) {
    EndToEndOptions e;
    e.setting = options_.setting;
    e.setting.channel = channel;
    e.pairs = options_.pairs;
    e.prompt = kPrompt;
    e.streams = kStreams;
    const bool unix_socket = channel == Setting::Channel::kUnix;
    const auto any = [this](std::initializer_list<const char*> names) {
      return std::any_of(names.begin(), names.end(), [this](const char* n) { return Find(n); });
    };
    TALARIA_RETURN_IF_ERROR(ProvisionIfAbsent(e.setting));
    TALARIA_ASSIGN_OR_RETURN(const auto lab, Laboratory::Start(e.setting));
    const auto wanted = [&](const std::string& row) {
      if (!unix_socket) return row == "decode";
      if (row == "decode") return any({"decode/same-host", "decode/unix", "cpu/decode"});
      if (row == "prompt") return any({"prompt", "cpu/prompt"});
      return row == std::to_string(kStreams) + " parallel streams" && any({"streams"});
    };
    TALARIA_ASSIGN_OR_RETURN(const auto subjects, EndToEndSubjects(e, *lab, wanted));
    TALARIA_ASSIGN_OR_RETURN(const std::vector<Row> rows, MeasurePairs(subjects, e.pairs));
    for (const Row& row : rows) {
      if (!unix_socket) {
        SetRatios("decode/tcp", row, SpeedRatio);
      } else if (row.name == "decode") {
        SetRatios("decode/same-host", row, SpeedRatio);
        SetRatios("decode/unix", row, SpeedRatio);
        SetRatios("cpu/decode", row, CvmCpuRatio);
      } else if (row.name == "prompt") {
        SetRatios("prompt", row, SpeedRatio);
        SetRatios("cpu/prompt", row, CvmCpuRatio);
      } else {
        SetRatios("streams", row, SpeedRatio);
      }
    }
    return unix_socket && Find("online") != nullptr ? Online(*lab) : OkStatus();
  }

  // While decoding from full pools, so that nobody makes masks beside it.
  Status Online(Laboratory& lab) {
    TALARIA_ASSIGN_OR_RETURN(const model::Manifest manifest, ReadManifest(options_.setting.store));
    std::vector<double> samples, mask, check, unmask;
    for (int run = 0; run < options_.pairs; ++run) {
      TALARIA_ASSIGN_OR_RETURN(const MaskedRun r,
                               lab.Run(LlamaBench({"llama-bench"}, BurstDecode().arguments, 1)));
      const auto add = [&](double seconds, std::vector<double>& to) -> Status {
        TALARIA_ASSIGN_OR_RETURN(const double ns, OnlineNs(manifest, seconds, r.calls, r.rows));
        to.push_back(ns);
        return OkStatus();
      };
      TALARIA_RETURN_IF_ERROR(add(r.mask_seconds, mask));
      TALARIA_RETURN_IF_ERROR(add(r.check_seconds, check));
      TALARIA_RETURN_IF_ERROR(add(r.unmask_seconds, unmask));
      samples.push_back(mask.back() + check.back() + unmask.back());
      std::fprintf(stderr, "online %d/%d: %.2f ns an element\n", run + 1, options_.pairs,
                   samples.back());
    }
    Set("online", samples,
        Text("mask %.2f, check %.2f, unmask %.2f; ", Summarise(mask).median,
             Summarise(check).median, Summarise(unmask).median) +
            std::to_string(ElementsPerToken(manifest)) + " elements a token");
    return OkStatus();
  }

  Status LayerRows(const std::string& shape, int pairs) {
    LayerOptions l;
    l.setting = options_.setting;
    l.shape = shape;
    l.pairs = pairs;
    l.prompt = kPrompt;
    const auto goal_of = [&](const std::string& row) {  // of "decode, q8_0"
      const size_t comma = row.find(", ");
      return "layer-" + shape + "/" + row.substr(0, comma) + "/" + row.substr(comma + 2);
    };
    TALARIA_ASSIGN_OR_RETURN(const LayerRun run, MeasureLayer(l, [&](const std::string& row) {
                               return Find(goal_of(row)) != nullptr;
                             }));
    for (const Row& row : run.rows) SetRatios(goal_of(row.name), row, CvmCpuRatio);
    return OkStatus();
  }

  const GoalsOptions& options_;
  std::vector<GoalResult> results_;
};

// Cores that this process and its children may use.
int UsableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

}  // namespace

const char* const kGoalsFooter =
    "Rows: decode/same-host, decode/unix, decode/tcp, prompt, streams, cpu/decode, cpu/prompt,\n"
    "layer-8b/... and layer-70b/... (decode/q8_0, decode/q4_k, prompt/q8_0, prompt/q4_k),\n"
    "generate/avx512, generate/avx2, online, product-1/... and product-256/... (576x3072,\n"
    "1536x576, 4096x6144), provision, setup, memory. doc/performance.md says what each is.\n\n"
    "The goals are of SmolLM2-135M, the default model, with CVM and cloud together on 2 cores: on "
    "a\n"
    "machine with more, `taskset -c 0,1 talaria-bench goals`. Every channel is attested TLS 1.3.\n"
    "product-256 needs a build that found oneDNN (Debian: libdnnl-dev), generate/avx512 a "
    "processor\n"
    "that has it, layer-70b 8 GB of memory and of disk.\n\n"
    "With the defaults on 2 quiet cores it takes some 45 minutes by its sizes: 20 for layer-70b "
    "(3\n"
    "pairs at most), 10 for layer-8b, 12 for the other pairs. --quick takes 5 to 8 and leaves\n"
    "layer-70b out.\n\n"
    "Exit codes: 0 every goal that was measured is reached; 1 some are not; 2 usage; 5 a "
    "measurement\n"
    "failed, or nothing could be measured. A row that this machine cannot measure says why, and\n"
    "changes no exit code.\n\n"
    "Examples:\n  talaria-bench goals --without layer-70b --json goals.json\n"
    "  talaria-bench goals --only decode online --store smollm2.store\n"
    "  talaria-bench compare goals.json goals-after.json";

Result<int> MeasureGoals(const GoalsOptions& options) {
  TALARIA_ASSIGN_OR_RETURN(const auto chosen, ChooseGoals(options.only, options.without));
  const int cores = UsableCores();
  const std::vector<GoalResult> results = GoalsRun(options, chosen).Run();
  const Setting& s = options.setting;
  std::printf(
      "%s, %d cores; goals are for 2%s\nTLS 1.3, attested (simulated TEE), as talaria-cvm "
      "has it\n\n",
      s.model.substr(s.model.rfind('/') + 1).c_str(), cores,
      cores == 2 ? "" : ": `taskset -c 0,1` limits this run to two");
  PrintGoals(results);
  Json json = Circumstances(s);
  json["pairs"] = options.pairs;
  json["prompt_tokens"] = kPrompt;
  json["streams"] = kStreams;
  json["quick"] = options.quick;
  json["usable_cores"] = cores;
  json["channel"] = "of each row";
  json["goals"] = GoalsJson(results);
  TALARIA_RETURN_IF_ERROR(WriteJson(json, options.json));
  return GoalsExitCode(results);
}

}  // namespace talaria::bench
