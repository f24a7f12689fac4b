#include "talaria/cvm/lab/comparing_session.h"

#include <bit>
#include <utility>

namespace talaria::cvm::lab {

ComparingSession::ComparingSession(MaskedModel& model, CloudLink& link, MaskSource& masks,
                                   const SessionOptions& options,
                                   std::unique_ptr<CloudLink> plain_link,
                                   std::unique_ptr<MaskSource> plain_masks)
    : Session(model, link, masks, options),
      model_(model),
      plain_link_(std::move(plain_link)),
      plain_masks_(std::move(plain_masks)),
      plain_(model, *plain_link_, *plain_masks_, options) {}

Result<MultiplyResult> ComparingSession::Multiply(uint32_t group, uint32_t rows, const float* x,
                                                  size_t x_stride,
                                                  std::span<float* const> outputs) {
  TALARIA_ASSIGN_OR_RETURN(const MultiplyResult masked,
                           Session::Multiply(group, rows, x, x_stride, outputs));
  const std::vector<uint32_t>& widths = model_.groups[group].member_outputs;
  scratch_.resize(std::max(scratch_.size(), widths.size()));
  std::vector<float*> plain_outputs;
  for (size_t m = 0; m < widths.size(); ++m) {
    scratch_[m].resize(std::max(scratch_[m].size(), size_t{rows} * widths[m]));
    plain_outputs.push_back(scratch_[m].data());
  }
  TALARIA_ASSIGN_OR_RETURN(const MultiplyResult plain,
                           plain_.Multiply(group, rows, x, x_stride, plain_outputs));
  uint64_t differing = plain.finite != masked.finite;
  for (size_t m = 0; m < widths.size(); ++m) {
    const size_t count = size_t{rows} * widths[m];
    for (size_t i = 0; i < count; ++i)
      differing +=
          std::bit_cast<uint32_t>(outputs[m][i]) != std::bit_cast<uint32_t>(scratch_[m][i]);
    values_ += count;
  }
  differing_ += differing;
  ++calls_;
  return masked;
}

Comparison ComparingSession::comparison() const {
  return {.calls = calls_, .values = values_, .differing_values = differing_};
}

}  // namespace talaria::cvm::lab
