// LABORATORY ONLY: writes the plain rows that it masks to files, so that attacks can be scored
// (doc/recording.md). Never linked into talaria-cvm.
#ifndef TALARIA_CVM_LAB_TRUTH_SESSION_H_
#define TALARIA_CVM_LAB_TRUTH_SESSION_H_

#include "talaria/cvm/session.h"
#include "talaria/lab/row_files.h"

namespace talaria::cvm::lab {

class TruthSession final : public Session {
 public:
  // `truth` has the suffix f32 and outlives the session.
  TruthSession(MaskedModel& model, CloudLink& link, MaskSource& masks,
               const SessionOptions& options, const talaria::lab::RowFiles& truth)
      : Session(model, link, masks, options), model_(model), truth_(truth) {}

  // As Session's; rows are written once the cloud has answered for all of them. kIo.
  Result<MultiplyResult> Multiply(uint32_t group, uint32_t rows, const float* x, size_t x_stride,
                                  std::span<float* const> outputs) override;

 private:
  const MaskedModel& model_;
  const talaria::lab::RowFiles& truth_;
};

}  // namespace talaria::cvm::lab

#endif  // TALARIA_CVM_LAB_TRUTH_SESSION_H_
