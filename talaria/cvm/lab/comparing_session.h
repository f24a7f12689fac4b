// LABORATORY ONLY: every product twice in one run, masked and unmasked, compared bit for bit. Not
// in talaria-cvm.
#ifndef TALARIA_CVM_LAB_COMPARING_SESSION_H_
#define TALARIA_CVM_LAB_COMPARING_SESSION_H_

#include <atomic>
#include <memory>
#include <vector>

#include "talaria/cvm/session.h"

namespace talaria::cvm::lab {

struct Comparison {
  uint64_t calls = 0, values = 0, differing_values = 0;
};

// A masked session that also asks `plain_masks` (a ZeroMaskSource) for each product, over a link of
// its own. Returns the masked product; what differs is counted.
class ComparingSession final : public Session {
 public:
  ComparingSession(MaskedModel& model, CloudLink& link, MaskSource& masks,
                   const SessionOptions& options, std::unique_ptr<CloudLink> plain_link,
                   std::unique_ptr<MaskSource> plain_masks);
  Result<MultiplyResult> Multiply(uint32_t group, uint32_t rows, const float* x, size_t x_stride,
                                  std::span<float* const> outputs) override;
  Comparison comparison() const;

 private:
  const MaskedModel& model_;
  const std::unique_ptr<CloudLink> plain_link_;
  const std::unique_ptr<MaskSource> plain_masks_;
  Session plain_;
  std::vector<std::vector<float>> scratch_;  // per member: [rows][o]
  std::atomic<uint64_t> calls_{0}, values_{0}, differing_{0};
};

}  // namespace talaria::cvm::lab

#endif  // TALARIA_CVM_LAB_COMPARING_SESSION_H_
