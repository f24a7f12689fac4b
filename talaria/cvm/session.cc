#include "talaria/cvm/session.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <string>

#include "talaria/base/denormals.h"
#include "talaria/base/log.h"
#include "talaria/base/secret.h"
#include "talaria/cvm/online.h"
#include "talaria/ring/layout.h"

namespace talaria::cvm {
namespace {

using ring::kPanelColumns;
using ring::kResidueBytes;

constexpr size_t kCacheLine = 64;
constexpr size_t kPrefetchRows = 4;

class Stopwatch {
 public:
  // Adds what passed since the last lap.
  void Lap(double& seconds) {
    const auto now = std::chrono::steady_clock::now();
    seconds += std::chrono::duration<double>(now - start_).count();
    start_ = now;
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

Status Ended() { return Status(Code::kSessionEnded, "the session has ended"); }

// The check vectors of `memory`, [check_vectors][width].
std::array<const uint64_t*, kMaxCheckVectors> Vectors(const SecretMemory& memory, size_t width,
                                                      int check_vectors) {
  std::array<const uint64_t*, kMaxCheckVectors> out{};
  for (size_t k = 0; k < static_cast<size_t>(check_vectors); ++k)
    out[k] = memory.Expose<uint64_t>().data() + k * width;
  return out;
}

}  // namespace

// Kept from call to call and grown on demand, so that decoding does not allocate.
struct Session::Scratch {
  std::vector<RowTicket> tickets;
  std::vector<uint8_t> planes;    // [rows][6][d_padded]: what the cloud sees
  std::vector<uint8_t> residues;  // [rows][o_padded] x 6, private; checked before use
  struct Row {
    MaskRowView view;
    float sigma = 0;
    std::array<uint64_t, kMaxCheckVectors> expected{};  // H~ . u: what Y~ . v must be
  };
  std::vector<Row> rows;
  SessionStats lap;  // of the call that runs
};

struct Session::Piece {
  uint32_t group;
  size_t first_row;  // in the caller's arrays
  const float* x;    // of the first row
  size_t x_stride;
  std::span<float* const> outputs;
};

Session::Session(MaskedModel& model, CloudLink& link, MaskSource& masks, SessionOptions options)
    : model_(model),
      link_(link),
      masks_(masks),
      options_(options),
      scratch_(std::make_unique<Scratch>()) {
  scratch_->rows.reserve(kBatchRows);  // never moved: nothing of a row stays elsewhere
}
Session::~Session() { WipeRows(); }

Result<MultiplyResult> Session::Multiply(uint32_t group_index, uint32_t rows, const float* x,
                                         size_t x_stride, std::span<float* const> outputs) {
  std::lock_guard lock(mutex_);
  if (poisoned()) return PoisonLocked("");
  if (group_index >= model_.groups.size() ||
      outputs.size() != model_.groups[group_index].member_outputs.size() ||
      (rows > 1 && x_stride < model_.groups[group_index].d)) {
    return Status(Code::kInvalidArgument, "multiply: no such group, members or row width");
  }
  const ScopedFlushDenormals flush;
  const MaskedGroup& group = model_.groups[group_index];
  const uint32_t piece_rows = std::min(
      {options_.max_rows_per_message, link_.MaxRows(group.d_padded, group.o_padded), kBatchRows});
  if (piece_rows == 0) return PoisonLocked("the cloud's frames do not hold one row");

  MultiplyResult result;
  Scratch& scratch = *scratch_;
  scratch.lap = {.calls = 1, .rows = rows};
  Status status;
  for (uint32_t done = 0; done < rows && status.ok();) {
    Stopwatch watch;
    scratch.tickets.clear();
    // No ticket is held here, so waiting for more cannot dead-lock, however small the pool.
    status = masks_.Draw(group_index, std::min(piece_rows, rows - done), scratch.tickets);
    watch.Lap(scratch.lap.draw_seconds);
    if (!status.ok()) break;
    const Piece piece{group_index, done, x + done * x_stride, x_stride, outputs};
    status = MultiplyPiece(group, piece, scratch.tickets, &result.finite);
    done += static_cast<uint32_t>(scratch.tickets.size());
    scratch.tickets.clear();  // burns what was not finished
  }
  {
    std::lock_guard stats_lock(stats_mutex_);
    stats_.calls += scratch.lap.calls;
    stats_.rows += scratch.lap.rows;
    stats_.rejected_rows += scratch.lap.rejected_rows;
    stats_.mask_seconds += scratch.lap.mask_seconds;
    stats_.wire_seconds += scratch.lap.wire_seconds;
    stats_.check_seconds += scratch.lap.check_seconds;
    stats_.unmask_seconds += scratch.lap.unmask_seconds;
    stats_.draw_seconds += scratch.lap.draw_seconds;
  }
  if (status.ok()) return result;
  if (status.code() == Code::kSessionEnded)
    return PoisonLocked(poisoned_ ? "" : "masks or cloud failed for good");
  if (poisoned_) return Ended();  // by another thread, which also cancelled this call
  return status;
}

Status Session::MultiplyPiece(const MaskedGroup& group, const Piece& piece,
                              std::vector<RowTicket>& tickets, bool* finite) {
  Scratch& scratch = *scratch_;
  const size_t rows = tickets.size();
  Reserve(group, rows);
  Stopwatch watch;
  TALARIA_RETURN_IF_ERROR(MaskPiece(group, piece, tickets, finite));
  watch.Lap(scratch.lap.mask_seconds);

  const Bytes planes = Bytes(scratch.planes).first(rows * 6 * group.d_padded);
  const MutableBytes residues =
      MutableBytes(scratch.residues).first(rows * group.o_padded * kResidueBytes);
  const auto prefetch = [&] { PrefetchUnmask(group, rows); };
  const Status sent = link_.Multiply(piece.group, static_cast<uint32_t>(rows), planes, residues,
                                     std::cref(prefetch));
  watch.Lap(scratch.lap.wire_seconds);
  TALARIA_RETURN_IF_ERROR(sent);

  const bool right = CheckPiece(group, rows);
  watch.Lap(scratch.lap.check_seconds);
  if (!right) return PoisonLocked("the cloud returned a wrong product");

  UnmaskPiece(group, piece, tickets);
  watch.Lap(scratch.lap.unmask_seconds);
  return OkStatus();
}

Status Session::MaskPiece(const MaskedGroup& group, const Piece& piece,
                          std::vector<RowTicket>& tickets, bool* finite) {
  Scratch& scratch = *scratch_;
  const size_t vectors = static_cast<size_t>(model_.check_vectors);
  const auto u = Vectors(group.u, group.d_padded, model_.check_vectors);
  bool holds = true;
  uint32_t all_finite = ~uint32_t{0};
  for (size_t r = 0; r < tickets.size(); ++r) {
    const float* const x = piece.x + r * piece.x_stride;
    Scratch::Row& row = scratch.rows[r];
    const RowNorms norms = NormsOf(options_.isa, x, group.d);
    const RowScale scale = group.certificate.ScaleFor(norms);
    row.sigma = scale.sigma;
    row.view = tickets[r].Spend();  // consumed before the first byte of H~ exists
    const MaskedRow masked =
        MaskRow(options_.isa, x, group.d, group.d_padded, norms.finite_mask, scale.inverse,
                group.certificate.delta_log2, row.view.mask, row.view.panel_stride, row.view.wipe,
                u.data(), vectors, scratch.planes.data() + r * 6 * group.d_padded);
    row.expected = masked.dot;
    holds &= group.certificate.Holds(masked.norms);
    all_finite &= norms.finite_mask;
    scratch.lap.rejected_rows += 1 - (norms.finite_mask & 1);
  }
  *finite = *finite && all_finite != 0;
  // ScaleFor() promises that it holds. Without it the result would be wrong and would say so to
  // nobody.
  if (!holds) return PoisonLocked("internal error: a row broke the exactness certificate");
  return OkStatus();
}

// While the cloud computes, what the reply will meet comes from memory: of a few rows, which a
// cache holds. All of it, whatever the values.
void Session::PrefetchUnmask(const MaskedGroup& group, size_t rows) const {
  const auto fetch = [](const void* data, size_t bytes) {
    for (size_t i = 0; i < bytes; i += kCacheLine)
      __builtin_prefetch(static_cast<const uint8_t*>(data) + i, 0, 2);
  };
  for (size_t r = 0; r < std::min(rows, kPrefetchRows); ++r) {
    const MaskRowView& view = scratch_->rows[r].view;
    for (size_t column = 0; column < group.o_padded; column += kPanelColumns)
      fetch(view.unmask + column / kPanelColumns * view.panel_stride, ring::kPanelRowBytes);
  }
  for (const uint64_t* v : Vectors(group.v, group.o_padded, model_.check_vectors))
    if (v != nullptr) fetch(v, group.o_padded * sizeof(uint64_t));
  fetch(group.scales.data(), group.o_padded * sizeof(float));
}

// All rows, every one to its end; one verdict.
bool Session::CheckPiece(const MaskedGroup& group, size_t rows) const {
  const Scratch& scratch = *scratch_;
  const size_t vectors = static_cast<size_t>(model_.check_vectors);
  const auto v = Vectors(group.v, group.o_padded, model_.check_vectors);
  uint64_t wrong = 0;
  for (size_t r = 0; r < rows; ++r) {
    const CheckedRow checked =
        CheckRow(options_.isa, scratch.residues.data() + r * group.o_padded * kResidueBytes,
                 group.o_padded, v.data(), vectors);
    wrong |= ~checked.canonical_mask;
    for (size_t k = 0; k < vectors; ++k) wrong |= checked.dot[k] ^ scratch.rows[r].expected[k];
  }
  return wrong == 0;
}

void Session::UnmaskPiece(const MaskedGroup& group, const Piece& piece,
                          std::vector<RowTicket>& tickets) {
  const Scratch& scratch = *scratch_;
  for (size_t r = 0; r < tickets.size(); ++r) {
    const Scratch::Row& row = scratch.rows[r];
    for (size_t m = 0; m < group.member_outputs.size(); ++m) {
      const size_t offset = group.member_offsets[m], o = group.member_outputs[m];
      UnmaskRow(options_.isa,
                scratch.residues.data() + (r * group.o_padded + offset) * kResidueBytes, o,
                row.view.unmask + offset / kPanelColumns * row.view.panel_stride,
                row.view.panel_stride, row.view.wipe, group.certificate.delta_log2, row.sigma,
                group.scales.data() + offset, piece.outputs[m] + (piece.first_row + r) * o);
    }
    tickets[r].Finish();
  }
}

void Session::Reserve(const MaskedGroup& group, size_t rows) {
  Scratch& scratch = *scratch_;
  const auto grow = [](auto& vector, size_t size) {
    if (vector.size() < size) vector.resize(size);
  };
  grow(scratch.planes, rows * 6 * group.d_padded);
  grow(scratch.residues,
       rows * group.o_padded * kResidueBytes + ring::kSlack);  // kernels read whole vectors
  grow(scratch.rows, rows);
}

// mutex_ is held, by this thread.
Status Session::PoisonLocked(std::string_view reason) {
  if (!reason.empty()) LogError("the session has ended: " + std::string(reason));
  if (wiped_) return Ended();
  wiped_ = true;
  poisoned_.store(true, std::memory_order_release);
  link_.End();
  scratch_->tickets.clear();
  masks_.Poison();  // from here on nothing else reads the model's secrets
  for (MaskedGroup& group : model_.groups) {
    group.u.Clear();
    group.v.Clear();
    for (SecretMemory& hints : group.hints) hints.Clear();
  }
  WipeRows();
  return Ended();
}

void Session::WipeRows() {
  Wipe(scratch_->rows.data(), scratch_->rows.size() * sizeof(Scratch::Row));
}

void Session::Poison() {
  // Unblocks a call that waits for the cloud or for masks, so that its mutex comes free.
  poisoned_.store(true, std::memory_order_release);
  link_.End();
  masks_.Poison();
  std::lock_guard lock(mutex_);
  (void)PoisonLocked("");
}

SessionStats Session::stats() const {
  std::lock_guard lock(stats_mutex_);
  return stats_;
}

}  // namespace talaria::cvm
