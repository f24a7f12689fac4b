// LABORATORY ONLY: M = U = 0, so the cloud sees the quantised activations themselves. For the test
// that masked and unmasked runs give the same bits, and as negative control of the tests on what
// the wire shows. Never linked into talaria-cvm.
#ifndef TALARIA_CVM_LAB_ZERO_MASK_SOURCE_H_
#define TALARIA_CVM_LAB_ZERO_MASK_SOURCE_H_

#include <atomic>
#include <memory>

#include "talaria/cvm/mask_source.h"

namespace talaria::cvm::lab {

class ZeroMaskSource final : public MaskSource {
 public:
  ZeroMaskSource();
  Status Draw(uint32_t group, uint32_t rows, std::vector<RowTicket>& out) override;
  MaskStats stats() const override;
  void Poison() override { poisoned_ = true; }

 private:
  class Owner;
  std::shared_ptr<Owner> owner_;
  std::atomic<bool> poisoned_{false};
  std::atomic<uint64_t> drawn_{0};
};

}  // namespace talaria::cvm::lab

#endif  // TALARIA_CVM_LAB_ZERO_MASK_SOURCE_H_
