#include "talaria/cvm/lab/zero_mask_source.h"

#include <algorithm>

#include "talaria/ring/layout.h"

namespace talaria::cvm::lab {

// One panel of zeros that every row of every group points at; never written.
class ZeroMaskSource::Owner final : public RowOwner {
 public:
  MaskRowView Spend(uint32_t /*row*/) override {
    spent.fetch_add(1, std::memory_order_relaxed);
    return {zeros_, zeros_, /*panel_stride=*/0, /*wipe=*/false};
  }
  void Burn(uint32_t /*row*/) override { burnt.fetch_add(1, std::memory_order_relaxed); }
  std::atomic<uint64_t> spent{0}, burnt{0};

 private:
  alignas(64) uint8_t zeros_[ring::kPanelRowBytes + ring::kSlack] = {};
};

ZeroMaskSource::ZeroMaskSource() : owner_(std::make_shared<Owner>()) {}

Status ZeroMaskSource::Draw(uint32_t /*group*/, uint32_t rows, std::vector<RowTicket>& out) {
  if (poisoned_) return Status(Code::kSessionEnded, "the session has ended");
  for (uint32_t i = 0; i < rows; ++i) out.emplace_back(owner_, i);
  drawn_ += rows;
  return OkStatus();
}

MaskStats ZeroMaskSource::stats() const {
  MaskStats out;
  out.rows_drawn = drawn_;
  out.rows_spent = owner_->spent;
  out.rows_burnt = owner_->burnt;
  return out;
}

}  // namespace talaria::cvm::lab
