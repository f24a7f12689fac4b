#include "bench/analysis_commands.h"

#include <stdlib.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>

#include "bench/analysis_json.h"
#include "bench/compare.h"
#include "bench/laboratory.h"
#include "bench/plan_command.h"
#include "bench/process.h"
#include "bench/scaling.h"
#include "talaria/base/log.h"

namespace talaria::bench {
namespace {

constexpr uint64_t kMaxResultBytes = uint64_t{64} << 20;
// compare's own, like diff's: 1 says that something is worse.
constexpr int kWorseExit = 1, kNotComparableExit = 2;
// llama.cpp's Q4_K_M of Llama-3.1-8B: 4.58 GiB for 8.03e9 weights.
constexpr double kUsualBits = 4.89;

Result<std::string> MakeFolder() {
  char folder[] = "/tmp/talaria-bench.XXXXXX";
  if (mkdtemp(folder) == nullptr) return Status(Code::kIo, "cannot make a folder in /tmp");
  return std::string(folder);
}

Status WriteText(const std::string& path, const std::string& text) {
  if (path.empty()) return OkStatus();
  std::ofstream file(path);
  file << text << "\n";
  file.close();
  return file ? OkStatus() : Status(Code::kIo, path + " could not be written");
}

Result<Results> ReadResults(const std::string& path) {
  auto bytes = ReadFile(path, kMaxResultBytes);
  if (!bytes.ok()) return bytes.status();
  auto results =
      ParseResults(std::string_view(reinterpret_cast<const char*>(bytes->data()), bytes->size()));
  if (!results.ok()) return results.status().Annotate(path);
  return results;
}

// What the baseline measured, now, by the sub-command that did it.
Result<Results> Measure(const Results& baseline, const Setting& setting) {
  TALARIA_ASSIGN_OR_RETURN(std::vector<std::string> arguments, MeasureAgain(baseline));
  TALARIA_ASSIGN_OR_RETURN(const std::string folder, MakeFolder());
  const std::string json = folder + "/new.json", log = folder + "/log";
  arguments.insert(arguments.begin(), setting.bin + "/talaria-bench");
  arguments.insert(arguments.end(), {"--json", json});
  if (!setting.store.empty()) arguments.insert(arguments.end(), {"--store", setting.store});
  std::fprintf(stderr, "Measuring again (log: %s):", log.c_str());
  for (const std::string& argument : arguments) std::fprintf(stderr, " %s", argument.c_str());
  std::fprintf(stderr, "\n");
  auto run = RunProcess(arguments, log);
  if (!run.ok()) return run.status().Annotate("see " + log);
  auto results = ReadResults(json);
  if (results.ok()) std::filesystem::remove_all(folder);
  return results;
}

}  // namespace

struct AnalysisCommands::Impl {
  Setting& setting;
  CLI::App *compare = nullptr, *scaling = nullptr, *plan = nullptr;

  std::string baseline, changed;
  bool any_machine = false, as_json = false;

  ScalingOptions scaling_options;
  std::string scaling_json;

  std::string plan_model, plan_shape, plan_json, plan_run;
  Deployment deployment;
  double bits = kUsualBits;
  bool table = false;

  explicit Impl(Setting& s) : setting(s) {}

  void AddCompare(CLI::App& app);
  void AddScaling(CLI::App& app);
  void AddPlan(CLI::App& app);
  Result<Comparison> RunCompare() const;
  int Compare() const;
  Status Scale();
  Status Plan() const;
};

void AnalysisCommands::Impl::AddCompare(CLI::App& app) {
  compare = app.add_subcommand(
      "compare", "Two result files, metric by metric: what got worse beyond the noise of both");
  compare->add_option("BASELINE", baseline, "What --json of a sub-command wrote")->required();
  compare->add_option("NEW", changed,
                      "Another one; absent: the baseline's sub-command runs now, with its sizes");
  compare->add_flag("--any-machine", any_machine, "Let processor, cores and kernel differ");
  compare->add_flag("--json", as_json, "Print JSON");
  compare->add_option("--store", setting.store, "Provisioned store for measuring now");
  compare->footer(
      "A metric changed when its two intervals do not overlap: the file's 95 % interval of the "
      "median\n(attest), or lowest to highest run (the others). With n and m runs, lowest to "
      "highest of an unchanged\nmetric separate in one direction with probability n! m! / (n + "
      "m)!, 1 in 3,432 for 7 and 7; where it\nis above 1 % (4 and 4 runs, and fewer) nothing is "
      "judged, and single values never are. When a control\nchanged too (plain llama.cpp, TLS "
      "alone: what Talaria cannot slow down), the machine is another today:\nonly ratios, "
      "differences of pairs and counts can be a regression then.\n\nExit codes: 0 nothing is "
      "worse; 1 something is; 2 unreadable, too few runs, or not comparable: another\nprocessor "
      "or core count, model, channel or size.\n\nExamples:\n  talaria-bench end-to-end --json "
      "before.json; ...; talaria-bench end-to-end --json after.json\n  talaria-bench compare "
      "before.json after.json\n  talaria-bench compare before.json    # measures \"after\" now");
}

void AnalysisCommands::Impl::AddScaling(CLI::App& app) {
  scaling = app.add_subcommand(
      "scaling", "Cost against width, rows and context, beside the least that this machine allows");
  scaling->add_flag("--quick", scaling_options.quick,
                    "Widths to 4,096, rows to 256, no context: a minute");
  scaling->add_option("--only", scaling_options.only, "These series: cvm,product,rows,wire,context")
      ->delimiter(',')
      ->check(CLI::IsMember(
          std::vector<std::string>(std::begin(kScalingSeries), std::end(kScalingSeries))));
  scaling->add_option("--runs", scaling_options.runs, "Runs of each point; medians are shown")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  scaling->add_option("--json", scaling_json, "Write the results there");
  scaling->add_option("--model", setting.model, "GGUF file, for the context's length")
      ->check(CLI::ExistingFile)
      ->capture_default_str();
  scaling->add_option("--store", setting.store,
                      "Its provisioned store; default: one made in /tmp and removed");
  scaling->footer(
      "cvm      norms, quantising, masking and H~ . u; check; unmask; and making masks: ns an "
      "element, us a row\nproduct  one masked row times an int8 matrix [d x d]\nrows     1 to "
      "1,024 "
      "rows times one matrix\nwire     bytes of a row\ncontext  llama.cpp alone and Talaria, "
      "decoding at depths: attention is llama.cpp's, inside the CVM\n\nOne thread, weights and "
      "hints from memory. Bounds: bytes over the memory's bandwidth, or instructions over\ntheir "
      "rate, both measured in the same run (AMX: 1,024 products a cycle by Intel's manual, times "
      "the\nmeasured clock).\n\nExample:\n  talaria-bench scaling --json scaling.json && "
      "scripts/plot-scaling scaling.json plots");
}

void AnalysisCommands::Impl::AddPlan(CLI::App& app) {
  plan = app.add_subcommand(
      "plan", "An estimate for a model, cores and a network, and whether Talaria pays there");
  auto* model = plan->add_option("--model", plan_model, "GGUF file; only its head is read")
                    ->check(CLI::ExistingFile);
  auto* shape = plan->add_option("--shape", plan_shape, "Instead of a file")
                    ->check(CLI::IsMember({"smollm2", "8b", "70b"}));
  auto* all = plan->add_flag("--table", table,
                             "All three shapes with 2, 8 and 32 cores at three distances, as a "
                             "table (doc/performance.md)");
  model->excludes(shape)->excludes(all);
  shape->excludes(all);
  plan->add_option("--cores", deployment.cores, "Of the confidential VM")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  plan->add_option("--bandwidth", deployment.gbit,
                   "To the cloud, Gbit/s each way; 0: the same host")
      ->check(CLI::Range(0.0, 1e5))
      ->capture_default_str();
  plan->add_option("--rtt", deployment.rtt_ms, "To the cloud and back, ms")
      ->check(CLI::Range(0.0, 1e5))
      ->capture_default_str();
  plan->add_option("--cloud-cores", deployment.cloud_cores, "Of the cloud, each like these here")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  plan->add_option("--cloud-gb", deployment.cloud_gb,
                   "GB/s at which the cloud reads weights, instead of the cores'")
      ->check(CLI::Range(0.0, 1e6));
  plan->add_option("--cloud-gmac", deployment.cloud_gmac,
                   "10^9 masked products a second (six of int8 each), instead of the cores'")
      ->check(CLI::Range(0.0, 1e9));
  plan->add_option("--context", deployment.context, "Tokens that attention reads")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  plan->add_option("--prompt", deployment.prompt, "Tokens of a prompt")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  plan->add_option("--users", deployment.users, "Answers decoded together, one row each a step")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  plan->add_option("--pool-batches", deployment.pool_batches, "Mask batches of 256 rows per group")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  plan->add_option("--end-to-end", plan_run,
                   "JSON of talaria-bench end-to-end with the demo model on this machine: what its "
                   "tokens took beyond the parts is charged to round trips; default: README's run")
      ->check(CLI::ExistingFile);
  plan->add_option("--bits", bits, "Bits a weight in llama.cpp, for shapes without a file")
      ->check(CLI::Range(1.0, 32.0))
      ->capture_default_str();
  plan->add_option("--json", plan_json, "Write the estimate there, with every rate and its source");
  plan->footer(
      "Measures this machine's rates for some ten seconds, reads the model's shapes, and does the "
      "arithmetic of\ndoc/performance.md, \"When Talaria pays\". Every number is printed with "
      "where it is from. The other side of\nthe comparison is plain llama.cpp with all cores of "
      "the "
      "same confidential VM.\n\nExamples:\n  talaria-bench plan --model model.gguf --cores 8 "
      "--bandwidth 10 --rtt 0.2\n  talaria-bench plan --shape 70b --cores 16 --bandwidth 25 --rtt "
      "0.1 --cloud-gb 3000 --cloud-gmac 100000\n  talaria-bench plan --table --end-to-end "
      "end-to-end.json");
}

Result<Comparison> AnalysisCommands::Impl::RunCompare() const {
  TALARIA_ASSIGN_OR_RETURN(const Results before, ReadResults(baseline));
  TALARIA_ASSIGN_OR_RETURN(const Results after,
                           changed.empty() ? Measure(before, setting) : ReadResults(changed));
  return CompareResults(before, after, any_machine);
}

int AnalysisCommands::Impl::Compare() const {
  const auto comparison = RunCompare();
  if (!comparison.ok()) {
    LogError(comparison.status().ToString());
    return kNotComparableExit;
  }
  if (as_json) {
    std::printf("%s\n", ToJson(*comparison).c_str());
  } else {
    Print(*comparison);
  }
  if (!comparison->judged) return kNotComparableExit;
  return comparison->regressions == 0 ? 0 : kWorseExit;
}

Status AnalysisCommands::Impl::Scale() {
  TALARIA_ASSIGN_OR_RETURN(const std::string folder, MakeFolder());
  setting.work = folder;
  if (setting.store.empty()) setting.store = folder + "/store";
  scaling_options.setting = setting;
  auto result = MeasureScaling(scaling_options);
  if (!result.ok()) return result.status().Annotate("logs are in " + folder);
  std::filesystem::remove_all(folder);
  Print(*result);
  return WriteText(scaling_json, ToJson(*result, scaling_options));
}

Status AnalysisCommands::Impl::Plan() const {
  ModelShape shape;
  if (!plan_model.empty()) {
    TALARIA_ASSIGN_OR_RETURN(const model::GgufHeader header,
                             model::ReadGgufHeader(plan_model, nullptr));
    TALARIA_ASSIGN_OR_RETURN(shape, ShapeOfGguf(header));
  } else if (!plan_shape.empty() || table) {
    TALARIA_ASSIGN_OR_RETURN(shape, ShapeOf(table ? "8b" : plan_shape, bits));
  } else {
    return Status(Code::kInvalidArgument, "plan: name --model, --shape or --table");
  }
  std::string run;
  if (!plan_run.empty()) {
    TALARIA_ASSIGN_OR_RETURN(const auto bytes, ReadFile(plan_run, kMaxResultBytes));
    run.assign(bytes.begin(), bytes.end());
  }
  TALARIA_ASSIGN_OR_RETURN(const Rates rates, Calibrate(setting, shape, run));
  if (table) {
    TALARIA_ASSIGN_OR_RETURN(const std::vector<TableRow> rows, MakeTable(rates, deployment, bits));
    PrintTable(rows, rates, deployment);
    return WriteText(plan_json, ToJson(rows, rates));
  }
  const Estimate estimate = MakeEstimate(shape, rates, deployment);
  PrintPlan(shape, rates, deployment, estimate);
  return WriteText(plan_json, ToJson({{shape, deployment, "", estimate}}, rates));
}

AnalysisCommands::AnalysisCommands(CLI::App& app, Setting& setting)
    : impl_(std::make_unique<Impl>(setting)) {
  impl_->AddCompare(app);
  impl_->AddScaling(app);
  impl_->AddPlan(app);
}

AnalysisCommands::~AnalysisCommands() = default;

bool AnalysisCommands::parsed() const {
  return impl_->compare->parsed() || impl_->scaling->parsed() || impl_->plan->parsed();
}

int AnalysisCommands::Run() {
  if (impl_->compare->parsed()) return impl_->Compare();
  const Status status = impl_->scaling->parsed() ? impl_->Scale() : impl_->Plan();
  if (status.ok()) return 0;
  LogError(status.ToString());
  return ExitCode(status.code());
}

}  // namespace talaria::bench
