#include "tests/masked_system.h"

#include <unistd.h>

#include <filesystem>
#include <vector>

#include "talaria/cvm/setup.h"

namespace talaria::tests {

Result<std::unique_ptr<MaskedSystem>> MaskedSystem::Start(const std::string& bin,
                                                          const std::string& store,
                                                          const std::string& work,
                                                          int pool_batches) {
  auto system = std::unique_ptr<MaskedSystem>(new MaskedSystem);
  const std::string socket = work + "/cloud.sock";
  TALARIA_ASSIGN_OR_RETURN(
      auto cloud, bench::Background::Start(
                      {bin + "/talaria-cloud", "serve", store, "--listen", "unix:" + socket,
                       "--insecure-simulated-tee", "--insecure-plaintext"},
                      work + "/cloud.log"));
  system->cloud_ = std::make_unique<bench::Background>(std::move(cloud));
  for (int i = 0; i < 3000 && !std::filesystem::exists(socket); ++i) usleep(20000);
  cvm::CloudLinkOptions link;
  link.endpoint = "unix:" + socket;
  link.idle_timeout_ms = 60000;  // a sanitized build on a busy machine
  TALARIA_ASSIGN_OR_RETURN(system->link_, cvm::CloudLink::Create(link));
  cvm::SetupOptions setup;
  setup.isa = DetectIsa();
  setup.lock = LockPolicy::kWarnIfImpossible;
  TALARIA_ASSIGN_OR_RETURN(cvm::MaskedModel model, cvm::SetUpModel(*system->link_, setup));
  system->model_ = std::make_unique<cvm::MaskedModel>(std::move(model));
  cvm::MaskPoolOptions pool;
  pool.memory_budget =
      static_cast<uint64_t>(pool_batches) * cvm::PlanMemory(system->model_->manifest).pool_batch;
  pool.isa = setup.isa;
  pool.lock = setup.lock;
  TALARIA_ASSIGN_OR_RETURN(system->masks_, cvm::MaskPool::Create(*system->model_, pool));
  link.identity = system->model_->identity;
  TALARIA_ASSIGN_OR_RETURN(system->plain_link_, cvm::CloudLink::Create(link));
  const cvm::SessionOptions session{.isa = setup.isa};
  system->session_ =
      std::make_unique<cvm::Session>(*system->model_, *system->link_, *system->masks_, session);
  system->plain_session_ = std::make_unique<cvm::Session>(*system->model_, *system->plain_link_,
                                                          system->zeros_, session);
  return system;
}

MaskedSystem::~MaskedSystem() {
  if (masks_) masks_->Stop();
}

engine::ChannelServer::Handler MaskedSystem::HandlerOf(cvm::Session& session) {
  return [this, &session](const engine::CallView& call) {
    const cvm::MaskedGroup& group = model_->groups[call.group];
    const std::vector<float> x(call.input, call.input + size_t{call.rows} * group.d);
    std::vector<float*> outputs;
    float* out = call.output;
    for (const uint32_t o : group.member_outputs) {
      outputs.push_back(out);
      out += size_t{call.rows} * o;
    }
    const auto result = session.Multiply(call.group, call.rows, x.data(), group.d, outputs);
    if (result.ok())
      return result->finite ? engine::CallStatus::kOk : engine::CallStatus::kNotFinite;
    return result.status().code() == Code::kUnavailable ? engine::CallStatus::kFailed
                                                        : engine::CallStatus::kEnded;
  };
}

engine::ChannelServer::Handler MaskedSystem::Masked() { return HandlerOf(*session_); }
engine::ChannelServer::Handler MaskedSystem::Unmasked() { return HandlerOf(*plain_session_); }

}  // namespace talaria::tests
