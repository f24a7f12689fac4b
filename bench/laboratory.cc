#include "bench/laboratory.h"

#include <signal.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "bench/provider.h"
#include "bench/store_facts.h"
#include "talaria/base/memory.h"
#include "talaria/cvm/setup.h"

namespace talaria::bench {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;
constexpr double kSetupTimeoutSeconds = 900;
constexpr double kRunTimeoutSeconds = 3600;

Result<Json> ReadJson(Background& process, double timeout_seconds) {
  TALARIA_ASSIGN_OR_RETURN(const std::string line, process.ReadLine(timeout_seconds));
  Json json = Json::parse(line, nullptr, false);
  if (!json.is_object()) return Status(Code::kInternal, "not a JSON object: " + line);
  return json;
}

}  // namespace

Result<double> MeasureProvisioning(const Setting& setting) {
  TALARIA_ASSIGN_OR_RETURN(
      const Finished run,
      RunProcess({setting.bin + "/talaria-cloud", "provision", setting.model, setting.store},
                 setting.work + "/provision.log"));
  return run.wall_seconds;
}

Status ProvisionIfAbsent(const Setting& setting) {
  if (std::filesystem::exists(setting.store + "/manifest.json")) return OkStatus();
  std::fprintf(stderr, "Provisioning %s\n", setting.model.c_str());
  return MeasureProvisioning(setting).status();
}

Result<std::unique_ptr<Laboratory>> Laboratory::Start(const Setting& setting) {
  auto lab = std::unique_ptr<Laboratory>(new Laboratory);
  lab->setting_ = setting;
  TALARIA_ASSIGN_OR_RETURN(const model::Manifest manifest, ReadManifest(setting.store));
  TALARIA_RETURN_IF_ERROR(
      CheckMemory(NeededMemory(manifest, setting.pool_batches), AvailableMemory()));
  Provider provider;
  std::string policy;
  std::vector<std::string> security;
  if (!setting.plaintext) {
    TALARIA_ASSIGN_OR_RETURN(provider, MakeProvider(setting));
    // The laboratory's program has no configuration file and no users.
    TALARIA_ASSIGN_OR_RETURN(policy, MakePolicy(setting, provider,
                                                {.program = setting.bin + "/talaria-cvm-lab",
                                                 .tenant_key = std::string(64, '0'),
                                                 .configuration = std::string(64, '0')}));
    security = {"--provider-key", provider.key, "--identity", provider.model};
  }
  TALARIA_ASSIGN_OR_RETURN(CloudProcess cloud, StartCloud(setting, provider, policy));
  lab->cloud_ = std::move(cloud.process);
  std::vector<std::string> arguments = {setting.bin + "/talaria-cvm-lab",
                                        "batch",
                                        "--cloud",
                                        cloud.endpoint,
                                        "--scheme",
                                        setting.scheme,
                                        "--m",
                                        setting.m,
                                        "--pool-batches",
                                        std::to_string(setting.pool_batches)};
  arguments.insert(arguments.end(), security.begin(), security.end());
  const auto start = Clock::now();
  TALARIA_ASSIGN_OR_RETURN(lab->cvm_, Launch(arguments, setting.work + "/cvm.log"));
  auto ready = ReadJson(*lab->cvm_, kSetupTimeoutSeconds);
  if (!ready.ok())
    return ready.status().Annotate("the CVM side did not start (see " + setting.work + "/cvm.log)");
  lab->setup_seconds_ = std::chrono::duration<double>(Clock::now() - start).count();
  lab->hint_bytes_per_weight_ =
      ready->at("hint_bytes").get<double>() / ready->at("weights").get<double>();
  if (ready->contains("memory")) lab->memory_json_ = (*ready)["memory"].dump();
  return lab;
}

Status Laboratory::Say(const std::vector<std::string>& arguments, bool serves) {
  return cvm_->WriteLine(Json{
      {"arguments", arguments},
      {"output", setting_.work + "/masked.out"},
      {"serves", serves}}.dump());
}

Result<MaskedRun> Laboratory::Collect(const CpuSeconds& before) {
  TALARIA_ASSIGN_OR_RETURN(const Json reply, ReadJson(*cvm_, kRunTimeoutSeconds));
  if (reply.value("exit", -1) != 0) {
    return Status(Code::kUnavailable, "a program failed on the masked model: " + reply.dump() +
                                          "; see " + setting_.work + "/cvm.log");
  }
  MaskedRun run;
  run.wall_seconds = reply.at("wall_seconds");
  run.refill_seconds = reply.at("refill_seconds");
  run.bytes_sent = reply.at("bytes_sent");
  run.bytes_received = reply.at("bytes_received");
  run.calls = reply.at("calls");
  run.rows = reply.at("rows");
  run.mask_seconds = reply.at("mask_seconds");
  run.check_seconds = reply.at("check_seconds");
  run.unmask_seconds = reply.at("unmask_seconds");
  run.cvm_cpu_seconds = cvm_->Measure().cpu_seconds - before.cvm;
  run.cloud_cpu_seconds = cloud_->Measure().cpu_seconds - before.cloud;
  return run;
}

Result<MaskedRun> Laboratory::Run(const std::vector<std::string>& arguments) {
  const CpuSeconds before{cloud_->Measure().cpu_seconds, cvm_->Measure().cpu_seconds,
                          cvm_->MeasureEndedGrandchildren()};
  TALARIA_RETURN_IF_ERROR(Say(arguments, false));
  TALARIA_ASSIGN_OR_RETURN(MaskedRun run, Collect(before));
  run.child_cpu_seconds =
      cvm_->MeasureEndedGrandchildren() - before.child;  // the launcher waited for it
  TALARIA_ASSIGN_OR_RETURN(const auto text,
                           ReadFile(setting_.work + "/masked.out", uint64_t{64} << 20));
  run.output.assign(text.begin(), text.end());
  return run;
}

Status Laboratory::StartServer(const std::vector<std::string>& arguments) {
  return Say(arguments, true);
}

double Laboratory::ResidentMib() const {
  return cvm_->Measure().resident_mib + MemoryOf(cvm_->Grandchild()).resident_mib;
}

void Laboratory::BeginTimed() {
  timed_ = {cloud_->Measure().cpu_seconds, cvm_->Measure().cpu_seconds,
            CpuSecondsOf(cvm_->Grandchild())};
}

Result<MaskedRun> Laboratory::EndServer() {
  const pid_t server = cvm_->Grandchild();
  if (server < 0) return Status(Code::kUnavailable, "the server has ended by itself");
  const double child = CpuSecondsOf(server) - timed_.child;
  const auto start = Clock::now();
  kill(server, SIGKILL);  // it inherits blocked signals from the CVM
  TALARIA_ASSIGN_OR_RETURN(MaskedRun run, Collect(timed_));
  run.child_cpu_seconds = child;
  run.refill_seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return run;
}

}  // namespace talaria::bench
