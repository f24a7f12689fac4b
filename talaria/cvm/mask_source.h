// Where rows of masks come from. The product has one source, MaskPool; the laboratory has others
// behind this interface.
#ifndef TALARIA_CVM_MASK_SOURCE_H_
#define TALARIA_CVM_MASK_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "talaria/base/result.h"

namespace talaria::cvm {

inline constexpr uint32_t kBatchRows = 256;  // of one batch: the degree of the ring

// One row of a batch: its mask and unmask rows in RowPanels layout (ring/layout.h). The stride is 0
// for a row of one repeated panel (laboratory).
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
  // Marks the row as used; aborts the process when it already was: a mask is never used for two
  // inputs.
  virtual MaskRowView Spend(uint32_t row) = 0;
  // A row that will not be used (again): it is wiped.
  virtual void Burn(uint32_t row) = 0;
};

// The right to use one row once. Move-only. Spend() consumes it before the first byte of H~ is
// written and aborts on a second call; a ticket that dies without Finish() burns its row, whether
// it was spent or not.
class RowTicket {
 public:
  RowTicket() = default;
  RowTicket(std::shared_ptr<RowOwner> owner, uint32_t row) : owner_(std::move(owner)), row_(row) {}
  ~RowTicket() {
    if (owner_) owner_->Burn(row_);
  }
  RowTicket(RowTicket&& other) noexcept
      : owner_(std::move(other.owner_)), row_(other.row_), spent_(other.spent_) {}
  RowTicket& operator=(RowTicket&&) = delete;
  RowTicket(const RowTicket&) = delete;
  RowTicket& operator=(const RowTicket&) = delete;
  // The view is valid until Finish() or the ticket's end.
  MaskRowView Spend() {
    TALARIA_CHECK(owner_ != nullptr && !spent_);
    spent_ = true;
    return owner_->Spend(row_);
  }
  // The call came through: the kernels have wiped both halves of the row, and nothing is left to
  // burn.
  void Finish() {
    TALARIA_CHECK(owner_ != nullptr && spent_);
    owner_.reset();
  }

 private:
  friend struct RowTicketPeer;  // tests forge a second ticket with it
  std::shared_ptr<RowOwner> owner_;
  uint32_t row_ = 0;
  bool spent_ = false;
};

// rows_drawn = rows_spent + rows_burnt once no ticket lives: burnt rows are those that were never
// spent.
struct MaskStats {
  uint64_t rows_generated = 0, rows_drawn = 0, rows_spent = 0, rows_burnt = 0, batches = 0;
  uint64_t passes = 0;                // over the hints of a group, one for 1 to 4 batches
  double generation_cpu_seconds = 0;  // self-tests included
  double self_test_cpu_seconds = 0;
  uint64_t rows_ready = 0, rows_capacity = 0;
};

class MaskSource {
 public:
  virtual ~MaskSource() = default;
  // Appends between 1 and `rows` tickets for `group` to `out`; blocks while there is none. Callers
  // draw in pieces, and hold no ticket of the same group while they draw, so the smallest pool
  // cannot dead-lock. kCancelled after Stop(), kSessionEnded after Poison().
  virtual Status Draw(uint32_t group, uint32_t rows, std::vector<RowTicket>& out) = 0;
  virtual MaskStats stats() const = 0;
  // True after Poison(), and once the source has found a fault of its own: no row comes any more.
  virtual bool ended() const { return false; }
  // Wipes all rows and keys that nobody holds and refuses every later draw. When it returns, the
  // source no longer reads the model, so the caller may wipe that too. Any thread; more than once
  // is fine.
  virtual void Poison() = 0;
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_MASK_SOURCE_H_
