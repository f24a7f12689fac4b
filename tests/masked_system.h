// The real system around one model, for tests in one process: a talaria-cloud process, and in this
// process set-up, mask pool and sessions of the CVM side, joined to the plug-in by ModelRunner.
#ifndef TALARIA_TESTS_MASKED_SYSTEM_H_
#define TALARIA_TESTS_MASKED_SYSTEM_H_

#include <memory>
#include <string>

#include "bench/process.h"
#include "talaria/base/result.h"
#include "talaria/cvm/cloud_link.h"
#include "talaria/cvm/lab/zero_mask_source.h"
#include "talaria/cvm/mask_pool.h"
#include "talaria/cvm/masked_model.h"
#include "talaria/cvm/session.h"
#include "talaria/engine/channel.h"

namespace talaria::tests {

class MaskedSystem {
 public:
  // Starts `bin`/talaria-cloud on the store and sets the model up. `work` takes the socket and the
  // log. kUnavailable and whatever set-up says.
  static Result<std::unique_ptr<MaskedSystem>> Start(const std::string& bin,
                                                     const std::string& store,
                                                     const std::string& work, int pool_batches);
  ~MaskedSystem();

  cvm::MaskedModel& model() { return *model_; }
  cvm::MaskPool& masks() { return *masks_; }
  // What ModelRunner's channel calls: the masked path, or the same integers unmasked.
  engine::ChannelServer::Handler Masked();
  engine::ChannelServer::Handler Unmasked();

 private:
  MaskedSystem() = default;
  engine::ChannelServer::Handler HandlerOf(cvm::Session& session);
  std::unique_ptr<bench::Background> cloud_;
  std::unique_ptr<cvm::CloudLink> link_, plain_link_;
  std::unique_ptr<cvm::MaskedModel> model_;
  std::unique_ptr<cvm::MaskPool> masks_;
  cvm::lab::ZeroMaskSource zeros_;
  std::unique_ptr<cvm::Session> session_, plain_session_;
};

}  // namespace talaria::tests

#endif  // TALARIA_TESTS_MASKED_SYSTEM_H_
