#include "bench/laboratory.h"

#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>

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

Status ProvisionIfAbsent(const Setting& setting) {
  if (std::filesystem::exists(setting.store + "/manifest.json")) return OkStatus();
  std::fprintf(stderr, "Provisioning %s\n", setting.model.c_str());
  return RunProcess({setting.bin + "/talaria-cloud", "provision", setting.model, setting.store},
                    setting.work + "/provision.log")
      .status();
}

Result<std::unique_ptr<Laboratory>> Laboratory::Start(const Setting& setting) {
  auto lab = std::unique_ptr<Laboratory>(new Laboratory);
  lab->setting_ = setting;
  const std::string endpoint = "unix:" + setting.work + "/cloud.sock";
  TALARIA_ASSIGN_OR_RETURN(
      auto cloud,
      Background::Start({setting.bin + "/talaria-cloud", "serve", setting.store, "--listen",
                         endpoint, "--threads", std::to_string(setting.cloud_threads),
                         "--insecure-simulated-tee", "--insecure-plaintext"},
                        setting.work + "/cloud.log"));
  lab->cloud_ = std::make_unique<Background>(std::move(cloud));
  const auto listening = Clock::now() + std::chrono::seconds(120);
  while (!std::filesystem::exists(setting.work + "/cloud.sock")) {
    if (Clock::now() > listening)
      return Status(Code::kUnavailable,
                    "the cloud did not start; see " + setting.work + "/cloud.log");
    usleep(20000);
  }
  const auto start = Clock::now();
  TALARIA_ASSIGN_OR_RETURN(
      auto cvm, Background::Start({setting.bin + "/talaria-cvm-lab", "batch", "--cloud", endpoint,
                                   "--scheme", setting.scheme, "--m", setting.m, "--pool-batches",
                                   std::to_string(setting.pool_batches)},
                                  setting.work + "/cvm.log"));
  lab->cvm_ = std::make_unique<Background>(std::move(cvm));
  auto ready = ReadJson(*lab->cvm_, kSetupTimeoutSeconds);
  if (!ready.ok())
    return ready.status().Annotate("the CVM side did not start (see " + setting.work + "/cvm.log)");
  lab->setup_seconds_ = std::chrono::duration<double>(Clock::now() - start).count();
  lab->hint_bytes_per_weight_ =
      ready->at("hint_bytes").get<double>() / ready->at("weights").get<double>();
  if (ready->contains("memory")) lab->memory_json_ = (*ready)["memory"].dump();
  return lab;
}

Result<MaskedRun> Laboratory::Run(const std::vector<std::string>& arguments) {
  const std::string output = setting_.work + "/masked.out";
  const double cloud_before = cloud_->Measure().cpu_seconds,
               cvm_before = cvm_->Measure().cpu_seconds,
               children_before = cvm_->MeasureEndedGrandchildren();
  TALARIA_RETURN_IF_ERROR(
      cvm_->WriteLine(Json{{"arguments", arguments}, {"output", output}}.dump()));
  TALARIA_ASSIGN_OR_RETURN(const Json reply, ReadJson(*cvm_, kRunTimeoutSeconds));
  if (reply.value("exit", -1) != 0) {
    return Status(Code::kUnavailable, arguments[0] + " failed on the masked model: " +
                                          reply.dump() + "; see " + setting_.work + "/cvm.log");
  }
  MaskedRun run;
  run.wall_seconds = reply.at("wall_seconds");
  run.refill_seconds = reply.at("refill_seconds");
  run.child_cpu_seconds =
      cvm_->MeasureEndedGrandchildren() - children_before;  // the launcher waited for it
  run.bytes_sent = reply.at("bytes_sent");
  run.bytes_received = reply.at("bytes_received");
  run.calls = reply.at("calls");
  run.rows = reply.at("rows");
  run.cvm_cpu_seconds = cvm_->Measure().cpu_seconds - cvm_before;
  run.cloud_cpu_seconds = cloud_->Measure().cpu_seconds - cloud_before;
  TALARIA_ASSIGN_OR_RETURN(const auto text, ReadFile(output, uint64_t{64} << 20));
  run.output.assign(text.begin(), text.end());
  return run;
}

}  // namespace talaria::bench
