#include "bench/attested_chain.h"

#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "talaria/base/digest.h"

namespace talaria::bench {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;
constexpr double kSetupTimeoutSeconds = 900;
constexpr int kListenSeconds = 120;
constexpr uint64_t kMaxSmallFileBytes = 16 << 20;
constexpr const char* kInsecure = "--insecure-simulated-tee";

Status WriteText(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.close();
  if (!file || chmod(path.c_str(), 0600) != 0) return Status(Code::kIo, path + ": not written");
  return OkStatus();
}

Result<std::string> DigestOfFile(const std::string& path) {
  TALARIA_ASSIGN_OR_RETURN(const auto bytes, ReadFile(path, kMaxSmallFileBytes));
  return ToHex(Sha256Of(bytes));
}

// One line of a program that ends.
Result<std::string> Line(const std::vector<std::string>& arguments, const std::string& log) {
  TALARIA_ASSIGN_OR_RETURN(const Finished run, RunProcess(arguments, log));
  return run.output.substr(0, run.output.find_last_not_of('\n') + 1);
}

Result<std::unique_ptr<Background>> Launch(const std::vector<std::string>& arguments,
                                           const std::string& log) {
  TALARIA_ASSIGN_OR_RETURN(auto process, Background::Start(arguments, log));
  return std::make_unique<Background>(std::move(process));
}

Status Await(const std::function<bool()>& condition, const std::string& log) {
  const auto end = Clock::now() + std::chrono::seconds(kListenSeconds);
  while (!condition()) {
    if (Clock::now() > end) return Status(Code::kUnavailable, "does not listen; see " + log);
    usleep(20000);
  }
  return OkStatus();
}

// Behind "listening at " in a log; empty while it is not there.
std::string AddressIn(const std::string& log) {
  constexpr std::string_view kBefore = "listening at ", kBehind = " for ";
  std::ifstream file(log);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const size_t begin = text.find(kBefore);
  const size_t end = text.find(kBehind, begin == std::string::npos ? 0 : begin);
  if (begin == std::string::npos || end == std::string::npos) return {};
  return text.substr(begin + kBefore.size(), end - begin - kBefore.size());
}

}  // namespace

Result<std::unique_ptr<AttestedChain>> AttestedChain::Start(const Setting& setting) {
  auto chain = std::unique_ptr<AttestedChain>(new AttestedChain);
  TALARIA_RETURN_IF_ERROR(chain->MakeKeysAndConfiguration(setting));
  TALARIA_RETURN_IF_ERROR(chain->StartProcesses(setting));
  return chain;
}

Status AttestedChain::MakeKeysAndConfiguration(const Setting& setting) {
  const std::string &work = setting.work, log = work + "/keys.log", user = setting.bin + "/talaria";
  engine_ = "unix:" + work + "/engine/llama.sock";
  policy_ = work + "/policy.toml";
  TALARIA_ASSIGN_OR_RETURN(
      const std::string provider,
      Line({setting.bin + "/talaria-cloud", "key", work + "/provider.pem"}, log));
  TALARIA_ASSIGN_OR_RETURN(const std::string tenant,
                           Line({user, "tenant", "init", work + "/tenant.pem"}, log));
  TALARIA_ASSIGN_OR_RETURN(
      token_, Line({user, "tenant", "issue", "--key", work + "/tenant.pem", "--user", "bench",
                    "--requests-per-minute", "1000000", "--unlimited-tokens"},
                   log));
  TALARIA_RETURN_IF_ERROR(WriteText(work + "/token", token_ + "\n"));
  TALARIA_ASSIGN_OR_RETURN(const std::string model, DigestOfFile(setting.store + "/manifest.json"));
  TALARIA_RETURN_IF_ERROR(WriteText(
      work + "/cvm.toml", "[cloud]\nendpoint = \"unix:" + work + "/cloud.sock\"\n" + provider +
                              "\n[model]\nidentity = \"" + model +
                              "\"\n[server]\nlisten = \"127.0.0.1:0\"\ncontext = 2048\n"
                              "[tenant]\nkey = \"" +
                              tenant + "\"\n[engine]\nrun_dir = \"" + work + "/engine\"\n"));
  TALARIA_ASSIGN_OR_RETURN(const std::string configuration, DigestOfFile(work + "/cvm.toml"));
  TALARIA_ASSIGN_OR_RETURN(const std::string measurement,
                           Line({user, "image", "measure", setting.bin + "/talaria-cvm"}, log));
  return Line({user, "policy", "init", "--type", "simulated", "--measurement", measurement,
               "--model", model, "--tenant-key", tenant, "--configuration", configuration, "--out",
               policy_},
              log)
      .status();
}

Status AttestedChain::StartProcesses(const Setting& setting) {
  const std::string& work = setting.work;
  TALARIA_ASSIGN_OR_RETURN(
      cloud_process_,
      Launch({setting.bin + "/talaria-cloud", "serve", setting.store, "--listen",
              "unix:" + work + "/cloud.sock", "--key", work + "/provider.pem", "--policy", policy_,
              "--threads", std::to_string(setting.cloud_threads), kInsecure},
             work + "/cloud.log"));
  TALARIA_RETURN_IF_ERROR(
      Await([&] { return std::filesystem::exists(work + "/cloud.sock"); }, work + "/cloud.log"));
  TALARIA_ASSIGN_OR_RETURN(cvm_process_, Launch({setting.bin + "/talaria-cvm", "serve", "--config",
                                                 work + "/cvm.toml", kInsecure},
                                                work + "/cvm.log"));
  const auto ready = cvm_process_->ReadLine(kSetupTimeoutSeconds);
  if (!ready.ok())
    return ready.status().Annotate("talaria-cvm did not start (see " + work + "/cvm.log)");
  const Json json = Json::parse(*ready, nullptr, false);
  if (!json.is_object() || json.value("event", "") != "ready")
    return Status(Code::kInternal, "talaria-cvm said something else: " + *ready);
  front_ = json.at("address").get<std::string>();
  TALARIA_ASSIGN_OR_RETURN(
      proxy_process_,
      Launch({setting.bin + "/talaria", "proxy", front_, "--policy", policy_, "--token-file",
              work + "/token", "--listen", "127.0.0.1:0", kInsecure},
             work + "/proxy.log"));
  return Await(
      [&] {
        proxy_ = AddressIn(work + "/proxy.log");
        return !proxy_.empty();
      },
      work + "/proxy.log");
}

}  // namespace talaria::bench
