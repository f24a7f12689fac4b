// One masked session: from rows of floats to rows of floats through an untrusted cloud. This is the one path of the data:
//   rows -> scale, mask (online.h, mask_source.h) -> CloudLink::Multiply -> check all rows -> unmask -> rows.
// The first failed check poisons the session for good: pools and keys are wiped, every later call fails with kSessionEnded.
#ifndef TALARIA_CVM_SESSION_H_
#define TALARIA_CVM_SESSION_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "talaria/base/cpu.h"
#include "talaria/base/result.h"
#include "talaria/cvm/cloud_link.h"
#include "talaria/cvm/mask_source.h"
#include "talaria/cvm/masked_model.h"

namespace talaria::cvm {

struct SessionOptions {
  Isa isa = Isa::kPortable;
  uint32_t max_rows_per_message = 128;  // larger calls go out in pieces; a function of shapes only
};

struct SessionStats {
  uint64_t calls = 0, rows = 0, rejected_rows = 0 /* not finite */;
  double mask_seconds = 0, wire_seconds = 0, check_seconds = 0, unmask_seconds = 0, draw_seconds = 0;
};

// Outcome of a call that was carried out.
struct MultiplyResult {
  bool finite = true;  // false: some row was not finite, its outputs are zeros; the evaluation must fail at its end
};

// One call at a time (a mutex inside).
class Session {
 public:
  // All three must outlive the session.
  Session(MaskedModel& model, CloudLink& link, MaskSource& masks, SessionOptions options);
  ~Session();

  // x: `rows` rows of d floats, `x_stride` floats apart; outputs[m]: for each member of the group a [rows][o_m] array of floats.
  // kUnavailable: the cloud was lost, the rows are burnt, the session lives. kSessionEnded: final.
  Result<MultiplyResult> Multiply(uint32_t group, uint32_t rows, const float* x, size_t x_stride, std::span<float* const> outputs);

  bool poisoned() const { return poisoned_.load(std::memory_order_acquire); }
  // Ends the session for good; wipes. Any thread.
  void Poison();
  SessionStats stats() const;

 private:
  Status MultiplyPiece(uint32_t group, std::vector<RowTicket>& tickets, const float* x, size_t x_stride,
                       std::span<float* const> outputs, size_t first_row, bool* finite);
  MaskedModel& model_;
  CloudLink& link_;
  MaskSource& masks_;
  const SessionOptions options_;
  std::atomic<bool> poisoned_{false};
  mutable std::mutex mutex_;
  SessionStats stats_;
  struct Scratch;
  std::unique_ptr<Scratch> scratch_;
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_SESSION_H_
