#include "talaria/cvm/engine_host.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <thread>

#include "talaria/base/denormals.h"
#include "talaria/base/log.h"
#include "talaria/base/secret.h"
#include "talaria/cvm/sandbox.h"

namespace talaria::cvm {
namespace {

// Shared memory for 512 rows of SmolLM2's widest group fits; wider models are served in pieces.
constexpr size_t kMaxChannelBytes = size_t{256} << 20;

engine::CallStatus ToCallStatus(const Result<MultiplyResult>& result) {
  if (result.ok()) return result->finite ? engine::CallStatus::kOk : engine::CallStatus::kNotFinite;
  // A provider that no longer accepts our evidence is as good as lost; nothing was wrong with a
  // reply.
  const Code code = result.status().code();
  return code == Code::kUnavailable || code == Code::kUntrusted ? engine::CallStatus::kFailed
                                                                : engine::CallStatus::kEnded;
}

class Host final : public EngineHost {
 public:
  Host(Session& session, Launcher& launcher, engine::ChannelModel model,
       std::unique_ptr<engine::ChannelServer> channel, SecretMemory input)
      : session_(session),
        launcher_(launcher),
        model_(std::move(model)),
        channel_(std::move(channel)),
        input_(std::move(input)) {}

  ~Host() override {
    launcher_.Kill();
    channel_->Stop();
    if (serving_.joinable()) serving_.join();
    (void)launcher_.Wait(-1).ok();
  }

  void StartServing() {
    channel_->CloseChildSocket();
    serving_ = std::thread([this] { Serve(); });
  }

  bool all_matrices_landed() const override { return landed_.load(std::memory_order_acquire); }
  bool running() const override { return serving_now_.load(std::memory_order_acquire); }
  Result<int> Wait(int timeout_ms) override { return launcher_.Wait(timeout_ms); }
  void Kill() override { launcher_.Kill(); }

 private:
  void Serve() {
    // Sigma and the products are the same bits whatever this thread's mode was.
    const ScopedFlushDenormals flush;
    const Status end =
        channel_->Serve([this](const engine::CallView& call) { return Multiply(call); },
                        [this](engine::ChildEvent event) { OnEvent(event); });
    if (end.code() == Code::kSessionEnded) {
      LogError("the engine broke the channel's protocol; the session has ended");
      session_.Poison();
      launcher_.Kill();
    }
    serving_now_.store(false, std::memory_order_release);
  }

  // The child may change what it wrote at any time, so the rows are copied once and everything
  // reads the copy. The products go straight into the shared memory: by then they are the child's.
  engine::CallStatus Multiply(const engine::CallView& call) {
    const engine::ChannelGroup& group = model_.groups[call.group];
    const size_t floats = size_t{call.rows} * group.d;
    float* x = input_.Expose<float>().data();
    std::memcpy(x, call.input, floats * sizeof(float));
    outputs_.clear();
    float* out = call.output;
    for (const engine::ChannelMember& member : group.members) {
      outputs_.push_back(out);
      out += size_t{call.rows} * member.o;
    }
    const Result<MultiplyResult> result =
        session_.Multiply(call.group, call.rows, x, group.d, outputs_);
    Wipe(x, floats * sizeof(float));
    return ToCallStatus(result);
  }

  void OnEvent(engine::ChildEvent event) {
    switch (event) {
      case engine::ChildEvent::kAllMatricesLanded:
        landed_.store(true, std::memory_order_release);
        break;
      case engine::ChildEvent::kRefused:
        LogError("the engine met something that must never happen; the session has ended");
        session_.Poison();
        launcher_.Kill();
        break;
    }
  }

  Session& session_;
  Launcher& launcher_;
  const engine::ChannelModel model_;
  const std::unique_ptr<engine::ChannelServer> channel_;
  SecretMemory input_;           // [most rows of a call][d], of the serving thread
  std::vector<float*> outputs_;  // of the serving thread
  std::thread serving_;
  std::atomic<bool> landed_{false}, serving_now_{true};
};

// The child runs in another directory than we do.
Result<std::filesystem::path> Absolute(const std::string& path) {
  std::error_code error;
  std::filesystem::path absolute = std::filesystem::absolute(path, error);
  if (error || path.empty())
    return Status(Code::kInvalidArgument, "engine: no such path: '" + path + "'");
  return absolute;
}

}  // namespace

engine::ChannelModel DescribeModel(const model::Manifest& manifest) {
  engine::ChannelModel out;
  for (const model::Group& group : manifest.groups) {
    engine::ChannelGroup& g = out.groups.emplace_back();
    g.d = group.d;
    for (const model::Matrix& matrix : group.matrices)
      g.members.push_back({matrix.name, static_cast<uint8_t>(matrix.role), matrix.o});
  }
  return out;
}

Result<std::unique_ptr<EngineHost>> EngineHost::Start(const MaskedModel& model, Session& session,
                                                      Launcher& launcher, EngineOptions options) {
  const engine::ChannelModel description = DescribeModel(model.manifest);
  const bool strict = options.sandbox_policy == SandboxPolicy::kRequire;
  engine::ChannelOptions channel_options;
  channel_options.harden_child = options.sandbox && (strict || SeccompAvailable());
  TALARIA_ASSIGN_OR_RETURN(
      auto channel, engine::ChannelServer::Create(description, kMaxChannelBytes, channel_options));
  size_t input_bytes = 0;
  for (uint32_t g = 0; g < description.groups.size(); ++g) {
    input_bytes = std::max(input_bytes,
                           size_t{channel->MaxRows(g)} * description.groups[g].d * sizeof(float));
  }
  TALARIA_ASSIGN_OR_RETURN(
      SecretMemory input,
      SecretMemory::Create(input_bytes,
                           strict ? LockPolicy::kRequire : LockPolicy::kWarnIfImpossible));

  TALARIA_ASSIGN_OR_RETURN(const std::filesystem::path path, Absolute(options.program));
  TALARIA_ASSIGN_OR_RETURN(const std::filesystem::path plugin, Absolute(options.plugin));
  ChildProgram program;
  program.path = path;
  program.arguments = std::move(options.arguments);
  program.environment = {{"GGML_BACKEND_PATH", plugin}, {"GGML_NO_BACKTRACE", "1"}};
  for (auto& variable : options.extra_environment)
    program.environment.push_back(std::move(variable));
  program.descriptors = {{channel->shared_memory_fd(), engine::kSharedMemoryFd},
                         {channel->child_socket_fd(), engine::kSocketFd}};
  if (model.skeleton.valid())
    program.descriptors.emplace_back(model.skeleton.get(), engine::kSkeletonFd);
  for (const auto& d : options.extra_descriptors) program.descriptors.push_back(d);
  // llama.cpp looks for back ends in the working directory, so it is the one that the program
  // itself comes from.
  program.working_directory = path.parent_path();
  if (!options.socket_folder.empty()) {
    const std::filesystem::path folder = path.parent_path();
    program.socket_folders = {options.socket_folder};
    program.readable = {folder,
                        folder.parent_path() / "lib",
                        plugin.parent_path(),
                        "/lib",
                        "/lib64",
                        "/usr/lib",
                        "/usr/lib64",
                        "/etc/ld.so.cache",
                        "/proc/self",
                        "/proc/meminfo",
                        "/proc/cpuinfo",
                        "/sys/devices/system",
                        "/dev/urandom",
                        "/etc/localtime",
                        "/usr/share/zoneinfo"};
  }
  program.keep_output = options.keep_output;
  program.sandbox = options.sandbox;
  program.sandbox_policy = options.sandbox_policy;
  TALARIA_ASSIGN_OR_RETURN(const pid_t pid, launcher.Start(program));
  (void)pid;
  auto host =
      std::make_unique<Host>(session, launcher, description, std::move(channel), std::move(input));
  host->StartServing();
  return std::unique_ptr<EngineHost>(std::move(host));
}

}  // namespace talaria::cvm
