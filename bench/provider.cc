#include "bench/provider.h"

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "talaria/base/digest.h"

namespace talaria::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kListenTime{120};
constexpr uint64_t kMaxManifestBytes = 16 << 20;

size_t SizeOf(const std::string& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  return error ? 0 : size;
}

}  // namespace

Result<std::string> Line(const std::vector<std::string>& arguments, const std::string& log) {
  TALARIA_ASSIGN_OR_RETURN(const Finished run, RunProcess(arguments, log));
  return run.output.substr(0, run.output.find_last_not_of('\n') + 1);
}

Result<std::unique_ptr<Background>> Launch(const std::vector<std::string>& arguments,
                                           const std::string& log) {
  TALARIA_ASSIGN_OR_RETURN(auto process, Background::Start(arguments, log));
  return std::make_unique<Background>(std::move(process));
}

LogReader::LogReader(std::string path) : path_(std::move(path)), begin_(SizeOf(path_)) {}

Result<std::string> LogReader::Await(const std::string& before, const std::string& behind,
                                     const Background& process) const {
  const auto end = Clock::now() + kListenTime;
  for (bool last = false; !last; usleep(20000)) {
    last = process.ended() || Clock::now() > end;  // then one more look
    std::ifstream file(path_);
    file.seekg(static_cast<std::streamoff>(begin_));
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    const size_t at = text.find(before);
    if (at == std::string::npos) continue;
    const size_t from = at + before.size(), to = text.find(behind, from);
    if (to != std::string::npos) return text.substr(from, to - from);
  }
  return Status(Code::kUnavailable, "a program did not start; see " + path_);
}

Result<Provider> MakeProvider(const Setting& setting) {
  Provider provider;
  provider.key_file = setting.work + "/provider.pem";
  TALARIA_ASSIGN_OR_RETURN(const std::string said, Line({setting.bin + "/talaria-cloud", "key",
                                                         "--json", provider.key_file},
                                                        setting.work + "/keys.log"));
  const auto json = nlohmann::json::parse(said, nullptr, false);
  if (!json.is_object() || !json.contains("provider_key"))
    return Status(Code::kInternal, "talaria-cloud key said something else: " + said);
  provider.key = json["provider_key"].get<std::string>();
  TALARIA_ASSIGN_OR_RETURN(const auto manifest,
                           ReadFile(setting.store + "/manifest.json", kMaxManifestBytes));
  provider.model = ToHex(Sha256Of(manifest));
  return provider;
}

Result<std::string> MakePolicy(const Setting& setting, const Provider& provider,
                               const Accepted& accepted) {
  const std::string user = setting.bin + "/talaria", log = setting.work + "/keys.log",
                    path = setting.work + "/policy.toml";
  std::filesystem::remove(path);  // a run before, with the same work folder
  TALARIA_ASSIGN_OR_RETURN(const std::string measurement,
                           Line({user, "image", "measure", accepted.program}, log));
  TALARIA_RETURN_IF_ERROR(
      Line({user, "policy", "init", "--type", "simulated", "--measurement", measurement, "--model",
            provider.model, "--tenant-key", accepted.tenant_key, "--configuration",
            accepted.configuration, "--out", path},
           log)
          .status());
  return path;
}

Result<CloudProcess> StartCloud(const Setting& setting, const Provider& provider,
                                const std::string& policy) {
  const std::string log = setting.work + "/cloud.log";
  const std::string listen = setting.channel == Setting::Channel::kTcp
                                 ? "127.0.0.1:0"
                                 : "unix:" + setting.work + "/cloud.sock";
  std::vector<std::string> arguments = {setting.bin + "/talaria-cloud",
                                        "serve",
                                        setting.store,
                                        "--listen",
                                        listen,
                                        "--threads",
                                        std::to_string(setting.cloud_threads),
                                        "--insecure-simulated-tee"};
  const std::vector<std::string> security =
      setting.plaintext ? std::vector<std::string>{"--insecure-plaintext"}
                        : std::vector<std::string>{"--key", provider.key_file, "--policy", policy};
  arguments.insert(arguments.end(), security.begin(), security.end());
  const LogReader reader(log);
  CloudProcess cloud;
  TALARIA_ASSIGN_OR_RETURN(cloud.process, Launch(arguments, log));
  TALARIA_ASSIGN_OR_RETURN(cloud.endpoint,
                           reader.Await("serving " + setting.store + " at ", "\n", *cloud.process));
  return cloud;
}

}  // namespace talaria::bench
