#include "tests/model_check_session.h"

#include <utility>
#include <vector>

#include "talaria/base/cpu.h"
#include "talaria/cvm/setup.h"

namespace talaria::tests {
namespace {

constexpr int kIdleTimeoutMs = 60000;  // sanitized builds on busy machines

}  // namespace

Result<std::unique_ptr<CheckSession>> CheckSession::Create(const std::string& endpoint,
                                                           const Digest& identity) {
  std::unique_ptr<CheckSession> out(new CheckSession);
  cvm::CloudLinkOptions link;
  link.endpoint = endpoint;
  link.idle_timeout_ms = kIdleTimeoutMs;
  TALARIA_ASSIGN_OR_RETURN(out->link_, cvm::CloudLink::Create(link));

  cvm::SetupOptions setup;
  setup.identity = identity;
  setup.isa = DetectIsa();
  setup.lock = LockPolicy::kWarnIfImpossible;
  TALARIA_ASSIGN_OR_RETURN(out->model_, cvm::SetUpModel(*out->link_, setup));

  cvm::MaskPoolOptions pool;
  pool.memory_budget = 2 * cvm::PlanMemory(out->model_.manifest).pool_batch;
  pool.isa = setup.isa;
  pool.lock = setup.lock;
  TALARIA_ASSIGN_OR_RETURN(out->masks_, cvm::MaskPool::Create(out->model_, std::move(pool)));
  out->session_ = std::make_unique<cvm::Session>(out->model_, *out->link_, *out->masks_,
                                                 cvm::SessionOptions{.isa = setup.isa});
  return out;
}

CheckSession::~CheckSession() {
  if (masks_) masks_->Stop();
}

std::string CheckSession::SkeletonPath() const {
  return "/proc/self/fd/" + std::to_string(model_.skeleton.get());
}

engine::CallStatus CheckSession::Multiply(const engine::CallView& call) {
  const cvm::MaskedGroup& group = model_.groups[call.group];
  const std::vector<float> x(call.input, call.input + size_t{call.rows} * group.d);
  std::vector<float*> outputs;
  float* out = call.output;
  for (const uint32_t o : group.member_outputs) {
    outputs.push_back(out);
    out += size_t{call.rows} * o;
  }
  const Result<cvm::MultiplyResult> result =
      session_->Multiply(call.group, call.rows, x.data(), group.d, outputs);
  if (result.ok()) return result->finite ? engine::CallStatus::kOk : engine::CallStatus::kNotFinite;
  return result.status().code() == Code::kUnavailable ? engine::CallStatus::kFailed
                                                      : engine::CallStatus::kEnded;
}

}  // namespace talaria::tests
