#include "bench/attested_chain.h"

#include <sys/stat.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "bench/provider.h"
#include "talaria/base/digest.h"

namespace talaria::bench {
namespace {

using Json = nlohmann::json;
constexpr double kSetupTimeoutSeconds = 900;
constexpr const char* kInsecure = "--insecure-simulated-tee";

Status WriteText(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.close();
  if (!file || chmod(path.c_str(), 0600) != 0) return Status(Code::kIo, path + ": not written");
  return OkStatus();
}

}  // namespace

Result<std::unique_ptr<AttestedChain>> AttestedChain::Start(const Setting& setting) {
  auto chain = std::unique_ptr<AttestedChain>(new AttestedChain);
  const std::string& work = setting.work;
  const std::string log = work + "/keys.log", user = setting.bin + "/talaria";
  TALARIA_ASSIGN_OR_RETURN(const Provider provider, MakeProvider(setting));
  TALARIA_ASSIGN_OR_RETURN(const std::string tenant,
                           Line({user, "tenant", "init", work + "/tenant.pem"}, log));
  TALARIA_ASSIGN_OR_RETURN(chain->token_,
                           Line({user, "tenant", "issue", "--key", work + "/tenant.pem", "--user",
                                 "bench", "--requests-per-minute", "1000000", "--unlimited-tokens"},
                                log));
  TALARIA_RETURN_IF_ERROR(WriteText(work + "/token", chain->token_ + "\n"));
  // The configuration's digest is in the policy, and the cloud, which needs the policy to start,
  // is named in the configuration: hence a socket, whose name is known before.
  TALARIA_CHECK(setting.channel == Setting::Channel::kUnix && !setting.plaintext);
  chain->engine_ = "unix:" + work + "/engine/llama.sock";
  const std::string configuration =
      "[cloud]\nendpoint = \"unix:" + work + "/cloud.sock\"\nprovider_key = \"" + provider.key +
      "\"\n[model]\nidentity = \"" + provider.model +
      "\"\n[server]\nlisten = \"127.0.0.1:0\"\ncontext = 2048\n[tenant]\nkey = \"" + tenant +
      "\"\n[engine]\nrun_dir = \"" + work + "/engine\"\n";
  TALARIA_RETURN_IF_ERROR(WriteText(work + "/cvm.toml", configuration));
  TALARIA_ASSIGN_OR_RETURN(chain->policy_,
                           MakePolicy(setting, provider,
                                      {.program = setting.bin + "/talaria-cvm",
                                       .tenant_key = tenant,
                                       .configuration = ToHex(Sha256Of(AsBytes(configuration)))}));
  TALARIA_ASSIGN_OR_RETURN(CloudProcess cloud, StartCloud(setting, provider, chain->policy_));
  chain->cloud_process_ = std::move(cloud.process);
  TALARIA_RETURN_IF_ERROR(chain->StartCvmAndProxy(setting));
  return chain;
}

Status AttestedChain::StartCvmAndProxy(const Setting& setting) {
  const std::string& work = setting.work;
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
  const LogReader reader(work + "/proxy.log");
  TALARIA_ASSIGN_OR_RETURN(
      proxy_process_,
      Launch({setting.bin + "/talaria", "proxy", front_, "--policy", policy_, "--token-file",
              work + "/token", "--listen", "127.0.0.1:0", kInsecure},
             work + "/proxy.log"));
  TALARIA_ASSIGN_OR_RETURN(proxy_, reader.Await("listening at ", " for ", *proxy_process_));
  return OkStatus();
}

}  // namespace talaria::bench
