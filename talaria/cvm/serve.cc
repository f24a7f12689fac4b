#include "talaria/cvm/serve.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <thread>
#include <utility>

#include "talaria/base/bytes.h"
#include "talaria/base/log.h"
#include "talaria/base/memory.h"
#include "talaria/cvm/front.h"
#include "talaria/cvm/gateway.h"
#include "talaria/cvm/setup.h"
#include "talaria/cvm/users.h"

namespace talaria::cvm {
namespace {

constexpr int kPollMs = 50;
constexpr int kHealthTimeoutMs = 2'000;
constexpr int kLastAnswersMs = 10'000;  // a session that ends wipes gigabytes of hints first
constexpr int kProbeTimeoutMs = 120'000;

class ServerImpl final : public Server {
 public:
  ServerImpl(std::function<void(const std::string&, const model::Manifest&)> on_ready)
      : on_ready_(std::move(on_ready)) {}

  ~ServerImpl() override {
    if (front_) front_->Stop();
    if (gateway_) gateway_->Stop();
    if (gateway_thread_.joinable()) gateway_thread_.join();
  }

  // `identity` is null for plaintext on both sides.
  Status Open(const Config& config, std::unique_ptr<Service> service,
              std::shared_ptr<BootIdentity> identity) {
    service_ = std::move(service);
    identity_ = std::move(identity);
    GatewayOptions gateway;
    if (config.server_plaintext) {
      gateway.listen = config.listen;
    } else {
      TALARIA_ASSIGN_OR_RETURN(users_, Users::Create({.tenant = identity_->context.tenant_key,
                                                      .now_ms = UnixMilliseconds}));
      gateway.users = users_.get();
    }
    gateway.upstream_socket = service_->run_folder().engine_socket();
    gateway.max_body_bytes = config.max_body_bytes;
    gateway.prompt_cache_user = config.prompt_cache_user;
    // A poisoned session takes readiness down at once, before this process has noticed in its own
    // thread.
    gateway.ready = [this] {
      return ready_.load(std::memory_order_acquire) && !service_->session().poisoned();
    };
    gateway.stage = [this] { return std::string(stage_.load(std::memory_order_relaxed)); };
    TALARIA_ASSIGN_OR_RETURN(gateway_, Gateway::Create(std::move(gateway)));
    gateway_thread_ = std::thread([this] {
      const Status status = gateway_->Run();
      if (!status.ok()) LogError(status.ToString());
    });
    if (!config.server_plaintext) {
      FrontOptions front;
      front.listen = config.listen;
      front.gateway = gateway_.get();
      front.key = &identity_->key;
      front.attester = identity_->attester.get();
      // Asked for only when the set-up has succeeded: the model is the one that was checked.
      front.context = [this] { return identity_->context; };
      TALARIA_ASSIGN_OR_RETURN(front_, Front::Create(std::move(front)));
      LogInfo("clients see this key: " + ToHex(identity_->key.spki_sha256()));
    }
    LogInfo("listening at " + address() + "; requests get 503 until the model is ready");
    return OkStatus();
  }

  Status Run() override {
    stage_ = "model";
    TALARIA_RETURN_IF_ERROR(service_->SetUp());
    stage_ = "engine";
    TALARIA_RETURN_IF_ERROR(service_->StartEngine());
    TALARIA_RETURN_IF_ERROR(AwaitEngine());
    ready_ = true;
    on_ready_(address(), service_->manifest());
    int exit_code = 0;
    Status status = service_->WaitForEnd(&exit_code);
    ready_ = false;
    stage_ = "ended";
    // Every request that ran gets its error (llama-server's, or 502 without one) instead of a cut.
    gateway_->AwaitAnswers(kLastAnswersMs);
    if (front_) front_->AwaitAnswers(kLastAnswersMs);
    if (status.ok())
      status =
          Status(Code::kUnavailable, "llama-server ended with code " + std::to_string(exit_code));
    return status;
  }

  void Stop() override { service_->Stop(); }

 private:
  static int64_t UnixMilliseconds() {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
  std::string address() const { return front_ ? front_->address() : gateway_->address(); }

  // llama-server answers, the plug-in holds every matrix, and a token came through all of it.
  Status AwaitEngine() {
    const std::string socket = service_->run_folder().engine_socket();
    while (!ProbeHealth(socket, kHealthTimeoutMs).ok()) {
      TALARIA_RETURN_IF_ERROR(service_->Alive());
      std::this_thread::sleep_for(std::chrono::milliseconds(kPollMs));
    }
    stage_ = "probe";
    const Status probe = ProbeCompletion(socket, kProbeTimeoutMs);
    TALARIA_RETURN_IF_ERROR(service_->Alive());
    TALARIA_RETURN_IF_ERROR(probe);
    if (!service_->all_matrices_landed()) {
      return Status(
          Code::kInternal,
          "the plug-in did not take every matrix of the manifest: its answers would be nonsense");
    }
    return OkStatus();
  }

  const std::function<void(const std::string&, const model::Manifest&)> on_ready_;
  std::atomic<bool> ready_{false};
  std::atomic<const char*> stage_{"start"};
  std::unique_ptr<Service> service_;
  std::shared_ptr<BootIdentity> identity_;
  std::unique_ptr<Users> users_;      // null for plaintext
  std::unique_ptr<Gateway> gateway_;  // refers to the service and the users
  std::unique_ptr<Front> front_;      // refers to the identity and the gateway; null for plaintext
  std::thread gateway_thread_;
};

std::string Mib(uint64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%10.1f MiB", static_cast<double>(bytes) / (1 << 20));
  return text;
}

}  // namespace

Result<std::unique_ptr<Server>> Server::Create(ServeOptions options,
                                               std::unique_ptr<Launcher> launcher) {
  const Config config = options.config;
  TALARIA_ASSIGN_OR_RETURN(const std::string program,
                           FindEngineProgram(config.llama_server, "llama-server"));
  ServiceOptions service;
  service.config = config;
  service.platform = options.platform;
  std::shared_ptr<BootIdentity> identity;
  if (!config.cloud_plaintext || !config.server_plaintext) {
    TALARIA_ASSIGN_OR_RETURN(identity, MakeBootIdentity(config, options.platform.simulated_tee));
  }
  if (!config.cloud_plaintext) service.identity = identity;
  service.on_progress = std::move(options.on_progress);
  service.engine = [config, program](const model::Manifest& manifest, const RunFolder& folder) {
    EngineOptions engine;
    engine.program = program;
    engine.arguments = LlamaServerArguments(config, manifest, folder.engine_socket());
    engine.socket_folder = folder.path();
    return engine;
  };
  TALARIA_ASSIGN_OR_RETURN(std::unique_ptr<Service> created,
                           Service::Create(std::move(service), std::move(launcher)));
  auto server = std::make_unique<ServerImpl>(std::move(options.on_ready));
  TALARIA_RETURN_IF_ERROR(server->Open(config, std::move(created), std::move(identity)));
  return std::unique_ptr<Server>(std::move(server));
}

Result<ServePlan> PlanServe(const Config& config, bool simulated_tee) {
  CloudLinkOptions link;
  link.endpoint = config.cloud_endpoint;
  std::shared_ptr<BootIdentity> identity_of_boot;
  if (!config.cloud_plaintext) {
    TALARIA_ASSIGN_OR_RETURN(identity_of_boot, MakeBootIdentity(config, simulated_tee));
    link.security = MakeCloudSecurity(config, *identity_of_boot);
  }
  link.idle_timeout_ms = config.idle_timeout_ms;
  TALARIA_ASSIGN_OR_RETURN(const std::unique_ptr<CloudLink> cloud, CloudLink::Create(link));
  Digest identity{};
  if (config.identity == "any") {
    TALARIA_ASSIGN_OR_RETURN(identity, cloud->Identity());
  } else {
    TALARIA_CHECK(FromHex(config.identity, identity));
  }
  TALARIA_ASSIGN_OR_RETURN(const std::string text,
                           cloud->FetchManifest(identity, model::kMaxManifestBytes));
  TALARIA_ASSIGN_OR_RETURN(const model::Manifest manifest, model::DecodeManifest(text));
  const MemoryPlan plan = PlanMemory(manifest);
  const uint64_t pools = config.pool_bytes ? config.pool_bytes : plan.Pools();
  // The skeleton is kept in memory and read into llama.cpp's own buffers.
  const uint64_t skeleton = 2 * plan.skeleton_data;
  const uint64_t needed = plan.hints + plan.public_matrices + pools + skeleton;
  const uint64_t available = AvailableMemory();
  ServePlan out;
  out.text = "model                " + manifest.model_name + "\nidentity             " +
             ToHex(identity) + "\n";
  for (const auto& [what, bytes] :
       {std::pair{"hints            ", plan.hints},
        std::pair{"public matrices  ", plan.public_matrices}, std::pair{"mask pools       ", pools},
        std::pair{"skeleton, twice  ", skeleton}, std::pair{"together         ", needed},
        std::pair{"available        ", available}}) {
    out.text += what + Mib(bytes) + "\n";
  }
  out.text += "(without llama.cpp's KV cache of " + std::to_string(config.context) +
              " tokens and its compute buffers)\n";
  if (pools < plan.pool_batch) {
    out.fits = Status(Code::kResourceExhausted, "masks.pool_bytes is " + std::to_string(pools) +
                                                    ", one batch of every group takes " +
                                                    std::to_string(plan.pool_batch));
  } else if (needed > available) {
    out.fits = Status(Code::kResourceExhausted, "the model needs " + std::to_string(needed) +
                                                    " bytes of memory, " +
                                                    std::to_string(available) + " are available");
  }
  return out;
}

}  // namespace talaria::cvm
