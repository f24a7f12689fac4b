#include "apps/cvm_lab_run.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "apps/cvm_common.h"
#include "talaria/base/cpu.h"
#include "talaria/cvm/lab/batch_source.h"
#include "talaria/cvm/lab/comparing_session.h"
#include "talaria/cvm/lab/published_masks.h"
#include "talaria/cvm/lab/recording_session.h"
#include "talaria/cvm/lab/truth_session.h"
#include "talaria/cvm/lab/wire_tap.h"
#include "talaria/cvm/lab/zero_mask_source.h"
#include "talaria/cvm/service.h"

namespace talaria {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kShownValues = 6;
constexpr int kLearnTimeoutMs = 60000;  // for a reply of 128 rows of the widest group
constexpr const char* kRunner = "talaria-lab-runner";

double SecondsSince(Clock::time_point t) {
  return std::chrono::duration<double>(Clock::now() - t).count();
}

// A program that ran without the plug-in would have printed nonsense and exited with 0.
Status CheckLanded(const cvm::Service& service, int exit_code) {
  if (exit_code != 0 || service.all_matrices_landed()) return OkStatus();
  return Status(Code::kInternal,
                "the plug-in did not take every matrix of the manifest: the output is nonsense");
}

double CpuSeconds(int who) {
  rusage usage{};
  getrusage(who, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// The program's own arguments after what makes it read the masked model: from the memfd, read
// instead of mapped, with no other device and nothing guessed. Paths of files become absolute,
// because the child has a working directory of its own.
std::vector<std::string> ChildArguments(const std::vector<std::string>& command,
                                        const std::string& truth) {
  const std::string name = command[0].substr(command[0].rfind('/') + 1);
  const std::string model = "/proc/self/fd/" + std::to_string(engine::kSkeletonFd);
  std::vector<std::string> arguments = {"-m",  model,  "-lm",  "none", "-lzm",
                                        "off", "-dev", "none", "-ngl", "0"};
  if (name == kRunner) {
    arguments = {"--model", model};
    if (!truth.empty())
      arguments.insert(arguments.end(), {"--evaluations", truth + "/evaluations.jsonl"});
  } else if (name != "llama-bench") {
    arguments.insert(arguments.end(), {"-fit", "off"});
  }
  for (size_t i = 1; i < command.size(); ++i) {
    std::error_code error;
    const bool is_file = !command[i].empty() && command[i][0] != '-' &&
                         std::filesystem::is_regular_file(command[i], error);
    arguments.push_back(is_file ? std::filesystem::absolute(command[i]).string() : command[i]);
  }
  return arguments;
}

// What the cloud saw beside what it hides. `hidden` is empty for schemes that record nothing.
void ShowMasked(const cvm::lab::Tapped& seen, const std::vector<cvm::lab::RecordedCall>& hidden) {
  std::printf(
      "%llu calls with %llu rows crossed the wire to the cloud. How the first rows begin:\n",
      static_cast<unsigned long long>(seen.calls), static_cast<unsigned long long>(seen.rows));
  for (size_t c = 0; c < seen.first.size(); ++c) {
    const cvm::lab::TappedCall& call = seen.first[c];
    const bool known =
        c < hidden.size() && hidden[c].group == call.group && hidden[c].rows == call.rows;
    std::printf("group %u, %u x %u\n  the cloud saw ", call.group, call.rows, call.width);
    for (const uint64_t residue : call.first_row)
      std::printf(" %016llx", static_cast<unsigned long long>(residue));
    if (known) {
      std::printf("\n  which hides   ");
      for (const float x : hidden[c].first_row) std::printf(" %16.6f", static_cast<double>(x));
    }
    std::printf("\n");
  }
}

// What a run consists of, kept for its statistics.
class LabRun {
 public:
  explicit LabRun(const LabArguments& args) : args_(args) {}

  // The child's exit code.
  Result<int> Run() {
    SignalWaiter::Block();
    TALARIA_ASSIGN_OR_RETURN(m_, lab::PublicRows::Parse(args_.m));
    if (!args_.record.empty()) {
      truth_folder_ = std::filesystem::absolute(args_.record).string() + "/truth";
      TALARIA_RETURN_IF_ERROR(lab::MakeRecordingFolder(truth_folder_));
    }
    TALARIA_ASSIGN_OR_RETURN(std::unique_ptr<cvm::Launcher> launcher, cvm::Launcher::Create());
    const cvm::Platform platform{.simulated_tee = true, .isa = DetectIsa()};
    TALARIA_ASSIGN_OR_RETURN(cvm::ServiceOptions options, MakeOptions(platform));
    TALARIA_RETURN_IF_ERROR(cvm::HardenProcess(platform));
    std::unique_ptr<cvm::lab::WireTap> tap;
    std::unique_ptr<cvm::RunFolder> tap_folder;
    if (args_.show_masked > 0) {
      TALARIA_ASSIGN_OR_RETURN(cvm::RunFolder folder, cvm::RunFolder::Create({}));
      tap_folder = std::make_unique<cvm::RunFolder>(std::move(folder));
      TALARIA_ASSIGN_OR_RETURN(
          tap,
          cvm::lab::WireTap::Create("unix:" + tap_folder->path() + "/tap.sock",
                                    args_.config.cloud_endpoint, args_.show_masked, kShownValues));
      options.config.cloud_endpoint = tap->address();
    }
    int exit_code = 0;
    {
      if (!args_.config.cloud_plaintext) {
        TALARIA_ASSIGN_OR_RETURN(options.identity, cvm::MakeBootIdentity(args_.config, true));
        security_ = cvm::MakeCloudSecurity(args_.config, *options.identity);
      }
      TALARIA_ASSIGN_OR_RETURN(const std::unique_ptr<cvm::Service> service,
                               cvm::Service::Create(std::move(options), std::move(launcher)));
      const SignalWaiter waiter([&] { service->Stop(); });
      if (args_.batch) return RunBatch(*service);
      TALARIA_RETURN_IF_ERROR(RunChild(*service, &exit_code));
    }
    // The launcher has ended and was waited for, and with it the child: both count now.
    stats_["engine_cpu_seconds"] = CpuSeconds(RUSAGE_CHILDREN);
    if (tap) ShowMasked(tap->Seen(), recorded_);
    tap.reset();
    TALARIA_RETURN_IF_ERROR(truth_.Flush());
    TALARIA_RETURN_IF_ERROR(WriteStats());
    if (differing_values_ > 0)
      return Status(Code::kInternal, std::to_string(differing_values_) +
                                         " values differ between the masked and the unmasked path");
    return exit_code;
  }

 private:
  Result<cvm::ServiceOptions> MakeOptions(const cvm::Platform& platform) {
    cvm::ServiceOptions options;
    options.config = args_.config;
    options.config.identity = args_.identity;
    options.config.plugin = args_.plugin;
    options.platform = platform;
    options.on_progress = [progress = std::make_shared<StepProgress>()](
                              std::string_view step, uint64_t done, uint64_t total) {
      (*progress)(step, done, total);
    };
    if (args_.scheme != "lattice" && args_.scheme != "both") {
      options.masks = [this](const cvm::MaskedModel& model, const cvm::Config&,
                             const cvm::Platform& on) { return MakeLaboratoryMasks(model, on); };
    } else {
      options.masks = [batches = args_.pool_batches](const cvm::MaskedModel& model,
                                                     cvm::Config config, const cvm::Platform& on) {
        if (batches > 0) config.pool_bytes = cvm::PlanMemory(model.manifest).Pools(batches);
        return cvm::MakeMaskPool(model, config, on);
      };
    }
    if (!args_.record.empty()) {
      options.session =
          [this](cvm::MaskedModel& model, cvm::CloudLink& link, cvm::MaskSource& masks,
                 const cvm::SessionOptions& session) -> Result<std::unique_ptr<cvm::Session>> {
        TALARIA_ASSIGN_OR_RETURN(
            truth_, lab::RowFiles::Create(truth_folder_, "f32", model.groups.size(), args_.groups));
        return std::unique_ptr<cvm::Session>(
            std::make_unique<cvm::lab::TruthSession>(model, link, masks, session, truth_));
      };
    } else if (args_.show_masked > 0 && args_.scheme != "both") {
      options.session =
          [this](cvm::MaskedModel& model, cvm::CloudLink& link, cvm::MaskSource& masks,
                 const cvm::SessionOptions& session) -> Result<std::unique_ptr<cvm::Session>> {
        return std::unique_ptr<cvm::Session>(std::make_unique<cvm::lab::RecordingSession>(
            model, link, masks, session, args_.show_masked, kShownValues, recorded_));
      };
    }
    if (args_.scheme == "both") {
      options.session =
          [this](cvm::MaskedModel& model, cvm::CloudLink& link, cvm::MaskSource& masks,
                 const cvm::SessionOptions& session) -> Result<std::unique_ptr<cvm::Session>> {
        cvm::CloudLinkOptions plain;
        plain.endpoint = args_.config.cloud_endpoint;
        plain.identity = model.identity;
        plain.security = security_;
        TALARIA_ASSIGN_OR_RETURN(std::unique_ptr<cvm::CloudLink> plain_link,
                                 cvm::CloudLink::Create(plain));
        auto both = std::make_unique<cvm::lab::ComparingSession>(
            model, link, masks, session, std::move(plain_link),
            std::make_unique<cvm::lab::ZeroMaskSource>());
        comparing_ = both.get();
        return std::unique_ptr<cvm::Session>(std::move(both));
      };
    }
    if (!args_.batch) TALARIA_RETURN_IF_ERROR(Choose(args_.command));
    options.engine = [this](const model::Manifest&, const cvm::RunFolder&) {
      cvm::EngineOptions engine;
      engine.program = program_;
      engine.arguments = arguments_;
      engine.keep_output = true;
      engine.sandbox = !args_.no_sandbox;
      if (output_.valid()) engine.extra_descriptors = {{output_.get(), STDOUT_FILENO}};
      return engine;
    };
    return options;
  }

  Result<cvm::MaskSupply> MakeLaboratoryMasks(const cvm::MaskedModel& model,
                                              const cvm::Platform& platform) {
    using cvm::lab::BatchSource;
    const auto supply = [&model](BatchSource::Fill fill, BatchSource::Rows rows) {
      return cvm::MaskSupply{.source = std::make_unique<BatchSource>(model, std::move(fill), rows)};
    };
    if (args_.scheme == "none")
      return cvm::MaskSupply{.source = std::make_unique<cvm::lab::ZeroMaskSource>()};
    if (args_.scheme == "lattice-no-error") {
      TALARIA_ASSIGN_OR_RETURN(auto fill, cvm::lab::LatticeWithoutError(model, platform.isa));
      return supply(std::move(fill), BatchSource::Rows::kOnce);
    }
    if (args_.scheme == "lattice-reused") {
      TALARIA_ASSIGN_OR_RETURN(auto fill, cvm::lab::Lattice(model, platform.isa));
      return supply(std::move(fill), BatchSource::Rows::kReused);
    }
    cvm::CloudLinkOptions link;
    link.endpoint = args_.config.cloud_endpoint;
    link.identity = model.identity;
    link.security = security_;
    link.idle_timeout_ms = kLearnTimeoutMs;
    TALARIA_ASSIGN_OR_RETURN(const auto learning, cvm::CloudLink::Create(link));
    TALARIA_ASSIGN_OR_RETURN(
        std::shared_ptr<cvm::lab::PublishedMasks> masks,
        cvm::lab::PublishedMasks::Create(model, *learning, m_, platform.isa,
                                         std::max(2, args_.config.fill_threads)));
    published_hint_bytes_ = masks->hint_bytes();
    return supply(
        [masks](uint32_t group, const cvm::BatchRows& rows) { return masks->Fill(group, rows); },
        BatchSource::Rows::kOnce);
  }

  // What the CVM keeps of the weights to unmask with.
  uint64_t HintBytes(const cvm::MemoryPlan& plan) const {
    if (args_.scheme == "none") return 0;
    return args_.scheme == "published" ? published_hint_bytes_ : plan.hints;
  }

  // What the next StartEngine() runs.
  Status Choose(const std::vector<std::string>& command) {
    if (command.empty()) return Status(Code::kInvalidArgument, "an empty command");
    TALARIA_ASSIGN_OR_RETURN(program_, cvm::FindEngineProgram({}, command[0]));
    arguments_ = ChildArguments(command, truth_folder_);
    return OkStatus();
  }

  // One set-up, many programs: each line of standard input is {"arguments": [...], "output": FILE},
  // answered by one line of JSON on standard output when the program has ended and the pools are
  // full again. With "serves": true its end is SIGKILL, from whoever uses it. What talaria-bench
  // speaks.
  Result<int> RunBatch(cvm::Service& service) {
    TALARIA_RETURN_IF_ERROR(service.SetUp());
    const auto say = [](const nlohmann::json& line) {
      std::printf("%s\n", line.dump().c_str());
      std::fflush(stdout);
    };
    const cvm::MemoryPlan plan = cvm::PlanMemory(service.manifest());
    uint64_t weights = 0;
    for (const model::Group& group : service.manifest().groups) {
      for (const model::Matrix& matrix : group.matrices) weights += uint64_t{group.d} * matrix.o;
    }
    say({{"ready", true},
         {"weights", weights},
         {"hint_bytes", HintBytes(plan)},
         {"memory",
          {{"hints_mib", plan.hints >> 20},
           {"public_matrices_mib", plan.public_matrices >> 20},
           {"skeleton_mib", plan.skeleton_data >> 20},
           {"pools_mib", service.mask_stats().rows_capacity / 256 *
                                 (plan.pool_batch / service.manifest().groups.size()) >>
                             20}}}});
    for (std::string line; std::getline(std::cin, line);) {
      const nlohmann::json request = nlohmann::json::parse(line, nullptr, false);
      if (!request.is_object() || !request.contains("arguments") || !request.contains("output"))
        return Status(Code::kInvalidArgument, "not a request: " + line);
      TALARIA_RETURN_IF_ERROR(Choose(request["arguments"]));
      const std::string path = request["output"];
      output_ = Fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
      if (!output_.valid()) return Status(Code::kIo, path + " could not be written");
      const bool serves = request.value("serves", false);
      TALARIA_ASSIGN_OR_RETURN(const nlohmann::json reply, RunOne(service, serves));
      say(reply);
    }
    return 0;
  }

  Result<nlohmann::json> RunOne(cvm::Service& service, bool serves) {
    const cvm::LinkStats before = service.link_stats();
    const cvm::SessionStats session_before = service.session().stats();
    auto start = Clock::now();
    int exit_code = 0;
    TALARIA_RETURN_IF_ERROR(service.StartEngine());
    TALARIA_RETURN_IF_ERROR(service.WaitForEnd(&exit_code));
    if (serves && exit_code == 128 + SIGKILL) exit_code = 0;
    const double wall = SecondsSince(start);
    TALARIA_RETURN_IF_ERROR(CheckLanded(service, exit_code));
    start = Clock::now();
    TALARIA_RETURN_IF_ERROR(service.FillMasks());
    const cvm::LinkStats link = service.link_stats();
    const cvm::SessionStats session = service.session().stats();
    return nlohmann::json{
        {"exit", exit_code},
        {"wall_seconds", wall},
        {"refill_seconds", SecondsSince(start)},
        {"bytes_sent", link.bytes_sent - before.bytes_sent},
        {"bytes_received", link.bytes_received - before.bytes_received},
        {"calls", link.calls - before.calls},
        {"rows", session.rows - session_before.rows},
        {"mask_seconds", session.mask_seconds - session_before.mask_seconds},
        {"check_seconds", session.check_seconds - session_before.check_seconds},
        {"unmask_seconds", session.unmask_seconds - session_before.unmask_seconds}};
  }

  Status RunChild(cvm::Service& service, int* exit_code) {
    auto start = Clock::now();
    TALARIA_RETURN_IF_ERROR(service.SetUp());
    const cvm::LinkStats link_before = service.link_stats();
    const double cpu_before = CpuSeconds(RUSAGE_SELF);
    stats_["setup"] = {{"seconds", SecondsSince(start)},
                       {"cpu_seconds", cpu_before},
                       {"bytes_received", link_before.bytes_received}};
    start = Clock::now();
    TALARIA_RETURN_IF_ERROR(service.StartEngine());
    const Status end = service.WaitForEnd(exit_code);
    // Refill threads count, too: their masks replace the ones that the run used up.
    stats_["scheme"] = args_.scheme;
    stats_["command"] = args_.command;
    stats_["model"] = service.manifest().model_name;
    stats_["exit_code"] = *exit_code;
    stats_["seconds"] = SecondsSince(start);
    stats_["cpu_seconds"] = CpuSeconds(RUSAGE_SELF) - cpu_before;
    const cvm::LinkStats link = service.link_stats();
    stats_["link"] = {{"calls", link.calls - link_before.calls},
                      {"retries", link.retries - link_before.retries},
                      {"bytes_sent", link.bytes_sent - link_before.bytes_sent},
                      {"bytes_received", link.bytes_received - link_before.bytes_received}};
    const cvm::SessionStats session = service.session().stats();
    stats_["session"] = {{"calls", session.calls},
                         {"rows", session.rows},
                         {"rejected_rows", session.rejected_rows},
                         {"draw_seconds", session.draw_seconds},
                         {"mask_seconds", session.mask_seconds},
                         {"wire_seconds", session.wire_seconds},
                         {"check_seconds", session.check_seconds},
                         {"unmask_seconds", session.unmask_seconds}};
    const cvm::MaskStats masks = service.mask_stats();
    stats_["masks"] = {{"rows_generated", masks.rows_generated},
                       {"rows_drawn", masks.rows_drawn},
                       {"rows_spent", masks.rows_spent},
                       {"rows_burnt", masks.rows_burnt},
                       {"batches", masks.batches},
                       {"passes", masks.passes},
                       {"generation_cpu_seconds", masks.generation_cpu_seconds},
                       {"self_test_cpu_seconds", masks.self_test_cpu_seconds},
                       {"rows_ready", masks.rows_ready},
                       {"rows_capacity", masks.rows_capacity}};
    if (comparing_) {
      const cvm::lab::Comparison comparison = comparing_->comparison();
      differing_values_ = comparison.differing_values;
      stats_["comparison"] = {{"calls", comparison.calls},
                              {"values", comparison.values},
                              {"differing_values", comparison.differing_values}};
    }
    TALARIA_RETURN_IF_ERROR(end);
    return CheckLanded(service, *exit_code);
  }

  Status WriteStats() {
    if (args_.stats.empty()) return OkStatus();
    std::ofstream file(args_.stats);
    file << stats_.dump(2) << "\n";
    file.close();
    return file ? OkStatus() : Status(Code::kIo, args_.stats + " could not be written");
  }

  const LabArguments& args_;
  std::shared_ptr<const cvm::CloudSecurity> security_;
  std::string program_;  // of the next child
  std::vector<std::string> arguments_;
  Fd output_;  // its standard output, when not ours
  nlohmann::json stats_;
  std::vector<cvm::lab::RecordedCall> recorded_;
  std::string truth_folder_;  // absolute; empty: nothing is recorded
  lab::RowFiles truth_;
  lab::PublicRows m_;
  uint64_t published_hint_bytes_ = 0;
  const cvm::lab::ComparingSession* comparing_ = nullptr;  // the service's
  uint64_t differing_values_ = 0;
};

}  // namespace

Result<int> RunLab(const LabArguments& args) { return LabRun(args).Run(); }

}  // namespace talaria
