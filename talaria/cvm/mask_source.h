// Where rows of masks come from. The product has one source, MaskPool; the laboratory has others behind this interface.
#ifndef TALARIA_CVM_MASK_SOURCE_H_
#define TALARIA_CVM_MASK_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "talaria/base/result.h"

namespace talaria::cvm {

// One row of a batch: its mask and unmask rows in RowPanels layout (ring/layout.h). The stride is 0 for a row of one repeated
// panel (laboratory).
struct MaskRowView {
  uint8_t* mask = nullptr;
  uint8_t* unmask = nullptr;
  size_t panel_stride = 0;
  bool wipe = true;  // the kernels wipe what they have read
};

// Keeps a batch alive while tickets point into it, and is told when a row was spent or burnt.
class RowOwner {
 public:
  virtual ~RowOwner() = default;
  // Marks the row as used; aborts the process when it already was: a mask is never used for two inputs.
  virtual MaskRowView Spend(uint32_t row) = 0;
  // A row that will not be used (again): wiped with its batch.
  virtual void Burn(uint32_t row) = 0;
};

// The right to use one row once. Move-only. Spend() consumes it before the first byte of H~ is written and aborts on a second
// call; a ticket that dies unspent burns its row.
class RowTicket {
 public:
  RowTicket() = default;
  RowTicket(std::shared_ptr<RowOwner> owner, uint32_t row) : owner_(std::move(owner)), row_(row) {}
  ~RowTicket() {
    if (owner_ && !spent_) owner_->Burn(row_);
  }
  RowTicket(RowTicket&& other) noexcept : owner_(std::move(other.owner_)), row_(other.row_), spent_(other.spent_) {}
  RowTicket& operator=(RowTicket&&) = delete;
  RowTicket(const RowTicket&) = delete;
  RowTicket& operator=(const RowTicket&) = delete;
  MaskRowView Spend() {
    TALARIA_CHECK(owner_ != nullptr && !spent_);
    spent_ = true;
    return owner_->Spend(row_);
  }

 private:
  std::shared_ptr<RowOwner> owner_;
  uint32_t row_ = 0;
  bool spent_ = false;
};

struct MaskStats {
  uint64_t rows_generated = 0, rows_drawn = 0, rows_spent = 0, rows_burnt = 0, batches = 0;
  double generation_cpu_seconds = 0;
  uint64_t rows_ready = 0, rows_capacity = 0;
};

class MaskSource {
 public:
  virtual ~MaskSource() = default;
  // Appends between 1 and `rows` tickets for `group` to `out`; blocks while there is none. Callers draw in pieces.
  // kCancelled after Stop(), kSessionEnded after Poison().
  virtual Status Draw(uint32_t group, uint32_t rows, std::vector<RowTicket>& out) = 0;
  virtual MaskStats stats() const = 0;
  // Wipes all rows and keys that nobody holds and refuses every later draw.
  virtual void Poison() = 0;
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_MASK_SOURCE_H_
