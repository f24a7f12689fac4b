// One masked session: from rows of floats to rows of floats through an untrusted cloud. This is the
// one path of the data:
//   rows -> scale, mask (online.h, mask_source.h) -> CloudLink::Multiply -> check all rows ->
//   unmask -> rows.
// The first failed check poisons the session for good: pools and keys are wiped, every later call
// fails with kSessionEnded.
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
  double mask_seconds = 0, wire_seconds = 0, check_seconds = 0, unmask_seconds = 0,
         draw_seconds = 0;
};

// Outcome of a call that was carried out.
struct MultiplyResult {
  bool finite = true;  // false: some row was not finite, its outputs are zeros; the evaluation must
                       // fail at its end
};

// One call at a time (a mutex inside).
class Session {
 public:
  // All three must outlive the session.
  Session(MaskedModel& model, CloudLink& link, MaskSource& masks, SessionOptions options);
  virtual ~Session();

  // x: `rows` rows of d floats, `x_stride` floats apart; outputs[m]: for each member of the group a
  // [rows][o_m] array of floats. Larger calls go out in pieces of min(max_rows_per_message, what
  // the frames hold, 256) rows, each checked before it is unmasked. kUnavailable: the cloud was
  // lost, the rows are burnt, the session lives. kCancelled: link or pool were stopped.
  // kSessionEnded: final. kInvalidArgument: no such group, other members, no such row width. On an
  // error the outputs of the failed piece and of those after it are untouched, and the caller uses
  // none of them.
  virtual Result<MultiplyResult> Multiply(
      uint32_t group, uint32_t rows, const float* x, size_t x_stride,
      std::span<float* const> outputs);  // virtual for the laboratory's comparison

  // Also when the masks have ended on their own (a failed self-test), before a call has noticed.
  bool poisoned() const { return poisoned_.load(std::memory_order_acquire) || masks_.ended(); }
  // Ends the session for good: nothing more is sent, rows, u, v and hints are wiped. Any thread;
  // returns when all is wiped.
  void Poison();
  SessionStats stats() const;

 private:
  struct Scratch;
  struct Piece;
  Status MultiplyPiece(const MaskedGroup& group, const Piece& piece,
                       std::vector<RowTicket>& tickets, bool* finite);
  Status MaskPiece(const MaskedGroup& group, const Piece& piece, std::vector<RowTicket>& tickets,
                   bool* finite);
  void PrefetchUnmask(const MaskedGroup& group, size_t rows) const;
  bool CheckPiece(const MaskedGroup& group, size_t rows) const;
  void UnmaskPiece(const MaskedGroup& group, const Piece& piece, std::vector<RowTicket>& tickets);
  void Reserve(const MaskedGroup& group, size_t rows);
  void WipeRows();
  Status PoisonLocked(std::string_view reason);

  MaskedModel& model_;
  CloudLink& link_;
  MaskSource& masks_;
  const SessionOptions options_;
  std::atomic<bool> poisoned_{false};
  std::mutex
      mutex_;  // one call at a time; guards the scratch and, after start, the model's secrets
  std::unique_ptr<Scratch> scratch_;
  bool wiped_ = false;
  mutable std::mutex stats_mutex_;
  SessionStats stats_;
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_SESSION_H_
