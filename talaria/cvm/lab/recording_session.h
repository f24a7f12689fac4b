// LABORATORY ONLY: keeps how the first rows of the first calls begin, in the clear, to show them
// beside what the cloud saw of them. Never linked into talaria-cvm.
#ifndef TALARIA_CVM_LAB_RECORDING_SESSION_H_
#define TALARIA_CVM_LAB_RECORDING_SESSION_H_

#include <algorithm>
#include <vector>

#include "talaria/cvm/session.h"

namespace talaria::cvm::lab {

struct RecordedCall {
  uint32_t group = 0, rows = 0;
  std::vector<float> first_row;  // its first values
};

class RecordingSession final : public Session {
 public:
  RecordingSession(MaskedModel& model, CloudLink& link, MaskSource& masks,
                   const SessionOptions& options, size_t calls, size_t values,
                   std::vector<RecordedCall>& recorded)
      : Session(model, link, masks, options),
        model_(model),
        calls_(calls),
        values_(values),
        recorded_(recorded) {}

  Result<MultiplyResult> Multiply(uint32_t group, uint32_t rows, const float* x, size_t x_stride,
                                  std::span<float* const> outputs) override {
    if (recorded_.size() < calls_) {
      const size_t count = std::min<size_t>(values_, model_.groups[group].d);
      recorded_.push_back({group, rows, {x, x + count}});
    }
    return Session::Multiply(group, rows, x, x_stride, outputs);
  }

 private:
  const MaskedModel& model_;
  const size_t calls_, values_;
  std::vector<RecordedCall>& recorded_;  // the caller's; complete after the last call
};

}  // namespace talaria::cvm::lab

#endif  // TALARIA_CVM_LAB_RECORDING_SESSION_H_
