// A masked session with a talaria-cloud process, as the CVM has it: every byte of the model comes
// over the wire and is checked, pools of real masks, one link. For the in-process engine of
// talaria/engine/testing/model_runner.h.
#ifndef TALARIA_TESTS_MODEL_CHECK_SESSION_H_
#define TALARIA_TESTS_MODEL_CHECK_SESSION_H_

#include <memory>
#include <string>

#include "talaria/base/digest.h"
#include "talaria/base/result.h"
#include "talaria/cvm/cloud_link.h"
#include "talaria/cvm/mask_pool.h"
#include "talaria/cvm/masked_model.h"
#include "talaria/cvm/session.h"
#include "talaria/engine/channel.h"

namespace talaria::tests {

class CheckSession {
 public:
  // The errors of SetUpModel and MaskPool::Create.
  static Result<std::unique_ptr<CheckSession>> Create(const std::string& endpoint,
                                                      const Digest& identity);
  ~CheckSession();

  const cvm::MaskedModel& model() const { return model_; }
  const cvm::Session& session() const { return *session_; }
  // Where llama.cpp reads the skeleton that came over the wire.
  std::string SkeletonPath() const;
  // One call of the channel through the session. The serving thread's.
  engine::CallStatus Multiply(const engine::CallView& call);

 private:
  CheckSession() = default;
  std::unique_ptr<cvm::CloudLink> link_;
  cvm::MaskedModel model_;
  std::unique_ptr<cvm::MaskPool> masks_;
  std::unique_ptr<cvm::Session> session_;
};

}  // namespace talaria::tests

#endif  // TALARIA_TESTS_MODEL_CHECK_SESSION_H_
