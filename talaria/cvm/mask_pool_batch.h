// One batch of a mask pool: its memory, and which of its rows are used. Internal to the pool.
#ifndef TALARIA_CVM_MASK_POOL_BATCH_H_
#define TALARIA_CVM_MASK_POOL_BATCH_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "talaria/base/secret.h"
#include "talaria/cvm/mask_batch.h"
#include "talaria/cvm/mask_source.h"
#include "talaria/ring/layout.h"

namespace talaria::cvm {

struct PoolCounters {
  std::atomic<uint64_t> generated{0}, drawn{0}, spent{0}, burnt{0}, batches{0}, passes{0};
  std::atomic<double> generation_seconds{0}, self_test_seconds{0};  // CPU
};

// One batch's share of the arena, and which of its rows are used.
// Tickets are spent and burnt by any thread; the rest is the pool's.
class PoolBatch final : public RowOwner {
 public:
  PoolBatch(BatchRows rows, size_t mask_bytes, size_t unmask_bytes, PoolCounters& counters)
      : rows_(rows), mask_bytes_(mask_bytes), unmask_bytes_(unmask_bytes), counters_(counters) {}

  MaskRowView Spend(uint32_t row) override {
    TALARIA_CHECK(MarkUsed(row));
    counters_.spent.fetch_add(1, std::memory_order_relaxed);
    return {rows_.mask + ring::RowPanelsOffset(row, 0),
            rows_.unmask + ring::RowPanelsOffset(row, 0), ring::kPanelBytes, true};
  }

  void Burn(uint32_t row) override {
    if (MarkUsed(row)) counters_.burnt.fetch_add(1, std::memory_order_relaxed);
    WipeRow(row);
  }
  // A row that was never drawn.
  void Drop(uint32_t row) {
    (void)MarkUsed(row);
    WipeRow(row);
  }

  void WipeRow(uint32_t row) {
    for (size_t at = ring::RowPanelsOffset(row, 0); at < mask_bytes_; at += ring::kPanelBytes) {
      Wipe(rows_.mask + at, ring::kPanelRowBytes);
    }
    for (size_t at = ring::RowPanelsOffset(row, 0); at < unmask_bytes_; at += ring::kPanelBytes) {
      Wipe(rows_.unmask + at, ring::kPanelRowBytes);
    }
  }

  void WipeRows() {
    Wipe(rows_.mask, mask_bytes_);
    Wipe(rows_.unmask, unmask_bytes_);
  }
  // Fresh rows are in: nothing of it is used. The pool's mutex orders this before every ticket.
  void Renew() {
    for (auto& word : used_) word.store(0, std::memory_order_relaxed);
    next_row = 0;
  }

  const BatchRows& rows() const { return rows_; }
  // Guarded by the pool's mutex.
  uint32_t group = 0;     // that has it
  uint32_t next_row = 0;  // to be drawn

 private:
  static constexpr size_t kWordBits = 64;
  // False when it already was.
  bool MarkUsed(uint32_t row) {
    TALARIA_CHECK(row < kBatchRows);
    const uint64_t bit = uint64_t{1} << row % kWordBits;
    return (used_[row / kWordBits].fetch_or(bit, std::memory_order_acq_rel) & bit) == 0;
  }

  const BatchRows rows_;
  const size_t mask_bytes_, unmask_bytes_;
  PoolCounters& counters_;
  std::array<std::atomic<uint64_t>, kBatchRows / kWordBits> used_{};
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_MASK_POOL_BATCH_H_
