#include "talaria/cvm/service.h"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "talaria/base/log.h"
#include "talaria/cvm/mask_pool.h"

namespace talaria::cvm {
namespace {

constexpr int kPollMs = 50;

// The folder of this program; read once, before HardenProcess() closes /proc/self.
const std::string& ProgramFolder() {
  static const std::string folder = [] {
    char path[4096];
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path);
    std::string text(path, n > 0 ? static_cast<size_t>(n) : 0);
    return text.substr(0, text.rfind('/'));
  }();
  return folder;
}

bool IsFile(const std::string& path, int mode) { return access(path.c_str(), mode) == 0; }

// One alias: the comma separates aliases in llama-server's syntax, and an empty one is none.
std::string Alias(const std::string& name) {
  std::string alias;
  for (const char c : name)
    alias += std::isalnum(static_cast<unsigned char>(c)) || std::strchr("._-/:+ ", c) ? c : '_';
  const size_t first = alias.find_first_not_of(" -");
  if (first == std::string::npos) return "model";
  return alias.substr(first);
}

}  // namespace

Status HardenProcess(const Platform& platform) {
  (void)ProgramFolder();
  const rlimit none{0, 0};
  if (setrlimit(RLIMIT_CORE, &none) != 0)
    return Status(Code::kIo, std::string("RLIMIT_CORE: ") + std::strerror(errno));
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
    return Status(Code::kIo, std::string("PR_SET_DUMPABLE: ") + std::strerror(errno));
  return CheckNoSwap(platform.lock());
}

Result<MaskSupply> MakeMaskPool(const MaskedModel& model, const Config& config,
                                const Platform& platform) {
  MaskPoolOptions options;
  options.memory_budget =
      config.pool_bytes ? config.pool_bytes : PlanMemory(model.manifest).Pools();
  options.fill_threads = config.fill_threads;
  options.isa = platform.isa;
  options.lock = platform.lock();
  TALARIA_ASSIGN_OR_RETURN(std::unique_ptr<MaskPool> pool,
                           MaskPool::Create(model, std::move(options)));
  MaskPool* const raw = pool.get();
  return MaskSupply{.source = std::move(pool),
                    .fill = [raw] { return raw->WaitUntilFull(); },
                    .stop = [raw] { raw->Stop(); }};
}

std::vector<std::string> LlamaServerArguments(const Config& config, const model::Manifest& manifest,
                                              const std::string& socket) {
  const std::string threads = std::to_string(config.threads);
  std::vector<std::string> arguments = {
      // The model: from the sealed memfd, read instead of mapped (mapping would touch the holes),
      // nothing guessed or fetched.
      "-m", "/proc/self/fd/" + std::to_string(engine::kSkeletonFd), "--alias",
      Alias(manifest.model_name), "-lm", "none", "-lzm", "off", "-fit", "off", "-dev", "none",
      "-ngl", "0", "--offline", "--no-mmproj", "--no-warmup",
      // What it computes with.
      "-c", std::to_string(config.context), "-np", std::to_string(config.slots), "-t", threads,
      "-tb", threads, "-b", "512", "-ub", "512",
      // Its only door, and what must not be behind it.
      "--host", socket, "--no-ui", "--no-slots", "--cors-origins", "none",
      // Nothing of a request is kept or told.
      "--cache-ram", "0", "--ctx-checkpoints", "0", "--log-disable", "-lv", "0"};
  if (config.prompt_cache_user.empty()) {
    for (const char* argument : {"--no-cache-prompt", "--slot-prompt-similarity", "0"})
      arguments.push_back(argument);
  }
  return arguments;
}

Result<std::string> FindEngineProgram(const std::string& configured, const std::string& name) {
  const std::string path = !configured.empty()                   ? configured
                           : name.find('/') != std::string::npos ? name
                           : IsFile(ProgramFolder() + "/" + name, X_OK)
                               ? ProgramFolder() + "/" + name
                               : TALARIA_LLAMA_DIR "/bin/" + name;
  if (!IsFile(path, X_OK)) return Status(Code::kNotFound, path + " is not a program");
  return path;
}

Result<std::string> FindPlugin(const std::string& configured) {
  constexpr const char* kName = "/libggml-talaria.so";
  const std::string beside = ProgramFolder() + kName, in_lib = ProgramFolder() + "/../lib" + kName;
  const std::string path = !configured.empty()    ? configured
                           : IsFile(beside, R_OK) ? beside
                                                  : in_lib;
  if (!IsFile(path, R_OK)) return Status(Code::kNotFound, path + " (the plug-in) is not there");
  return path;
}

std::shared_ptr<const CloudSecurity> MakeCloudSecurity(const Config& config,
                                                       BootIdentity& identity) {
  Digest provider_key{};
  TALARIA_CHECK(FromHex(config.provider_key, provider_key));
  return std::make_shared<CloudSecurity>(
      CloudSecurity{identity.key, provider_key, *identity.attester, identity.context});
}

Service::Service(ServiceOptions options, std::unique_ptr<Launcher> launcher, RunFolder run_folder)
    : options_(std::move(options)),
      launcher_(std::move(launcher)),
      run_folder_(std::move(run_folder)) {}

Result<std::unique_ptr<Service>> Service::Create(ServiceOptions options,
                                                 std::unique_ptr<Launcher> launcher) {
  TALARIA_ASSIGN_OR_RETURN(options.config.plugin, FindPlugin(options.config.plugin));
  TALARIA_ASSIGN_OR_RETURN(RunFolder folder, RunFolder::Create(options.config.run_dir));
  TALARIA_CHECK((options.identity == nullptr) == options.config.cloud_plaintext);
  CloudLinkOptions link;
  link.endpoint = options.config.cloud_endpoint;
  if (options.identity != nullptr)
    link.security = MakeCloudSecurity(options.config, *options.identity);
  link.idle_timeout_ms = options.config.idle_timeout_ms;
  link.max_retries = options.config.max_retries;
  TALARIA_ASSIGN_OR_RETURN(std::unique_ptr<CloudLink> created, CloudLink::Create(link));
  std::unique_ptr<Service> service(
      new Service(std::move(options), std::move(launcher), std::move(folder)));
  service->link_ = std::move(created);
  return service;
}

Service::~Service() {
  Stop();
  host_.reset();
  launcher_.reset();
}

Status Service::SetUp() {
  SetupOptions setup;
  if (options_.config.identity != "any") {
    setup.identity.emplace();
    TALARIA_CHECK(FromHex(options_.config.identity, *setup.identity));
  }
  setup.check_vectors = options_.config.check_vectors;
  setup.threads = std::max(2, options_.config.fill_threads);
  setup.isa = options_.platform.isa;
  setup.lock = options_.platform.lock();
  setup.on_progress = options_.on_progress;
  Result<MaskedModel> model = SetUpModel(*link_, setup);
  if (!model.ok()) return Verdict(model.status());
  model_ = std::make_unique<MaskedModel>(std::move(*model));

  if (options_.on_progress) options_.on_progress("masks", 0, 1);
  Result<MaskSupply> masks = options_.masks(*model_, options_.config, options_.platform);
  if (!masks.ok()) return Verdict(masks.status());
  {
    const std::lock_guard lock(stop_mutex_);
    masks_ = std::move(*masks);
  }
  // Stop() may have come between the two; it does not know what it does not see.
  if (stopping_) return Verdict(Status(Code::kCancelled, "stopped"));
  if (masks_.fill) {
    if (Status status = masks_.fill(); !status.ok()) return Verdict(std::move(status));
  }
  const SessionOptions session{.isa = options_.platform.isa};
  if (options_.session) {
    TALARIA_ASSIGN_OR_RETURN(session_, options_.session(*model_, *link_, *masks_.source, session));
  } else {
    session_ = std::make_unique<Session>(*model_, *link_, *masks_.source, session);
  }
  if (options_.on_progress) options_.on_progress("masks", 1, 1);
  return Verdict(OkStatus());
}

Status Service::StartEngine() {
  {
    const std::lock_guard lock(stop_mutex_);
    host_.reset();  // the laboratory runs one program after the other; the old one ends first
  }
  EngineOptions engine = options_.engine(model_->manifest, run_folder_);
  engine.plugin = options_.config.plugin;
  engine.sandbox_policy = options_.platform.sandbox();
  Result<std::unique_ptr<EngineHost>> host =
      EngineHost::Start(*model_, *session_, *launcher_, std::move(engine));
  if (!host.ok()) return Verdict(host.status());
  const std::lock_guard lock(stop_mutex_);
  host_ = std::move(*host);
  return Verdict(OkStatus());
}

Status Service::Verdict(Status status) const {
  if (session_ && session_->poisoned()) return Status(Code::kSessionEnded, "the session ended");
  if (status.code() == Code::kSessionEnded) return status;
  if (stopping_) return Status(Code::kCancelled, "stopped");
  return status;
}

Status Service::Alive() {
  TALARIA_RETURN_IF_ERROR(Verdict(OkStatus()));
  const Result<int> exit = host_->Wait(0);
  if (!exit.ok())
    return exit.status().code() == Code::kUnavailable ? OkStatus() : Verdict(exit.status());
  return Verdict(Status(Code::kUnavailable, "the engine ended with code " + std::to_string(*exit)));
}

Status Service::WaitForEnd(int* exit_code) {
  for (;;) {
    TALARIA_RETURN_IF_ERROR(Verdict(OkStatus()));
    const Result<int> exit = host_->Wait(kPollMs);
    if (exit.ok()) {
      *exit_code = *exit;
      return Verdict(OkStatus());
    }
    if (exit.status().code() != Code::kUnavailable) return Verdict(exit.status());
  }
}

bool Service::all_matrices_landed() const { return host_ && host_->all_matrices_landed(); }
const model::Manifest& Service::manifest() const { return model_->manifest; }

void Service::Stop() {
  stopping_ = true;
  link_->Shutdown();
  const std::lock_guard lock(stop_mutex_);
  if (masks_.stop) masks_.stop();
  if (host_) host_->Kill();
}

}  // namespace talaria::cvm
