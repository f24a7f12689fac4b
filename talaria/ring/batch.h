// The one heavy kernel of masking: 256 rows at a time,
//   rows[., column] = InverseNtt( sum_i s_i * matrix[i, column] ) (+ error[., column]),   all mod
//   q,
// which gives the mask rows M when `matrix` is A_d (with errors) and the unmask rows U when it is
// the hints (without).
#ifndef TALARIA_RING_BATCH_H_
#define TALARIA_RING_BATCH_H_

#include <cstdint>
#include <span>

#include "talaria/base/cpu.h"
#include "talaria/ring/layout.h"
#include "talaria/ring/ntt.h"

namespace talaria::ring {

// A module secret in the NTT domain, natural slot order. Lives in secret memory; the owner wipes
// it.
struct NttSecret {
  Polynomial s[kRank];
};

inline constexpr size_t kMaxBatchesPerPass = 4;

// Where the rows of one batch go.
struct BatchOutput {
  // int8 [256][error_stride] or null: error[r * error_stride + c] is added to row r, column c.
  // Readable to the padded width (multiple of 8 columns).
  const int8_t* error;
  // RowPanels of the padded width (multiple of 32 columns), plus kSlack.
  uint8_t* rows;
};

// Makes the rows of 1..4 batches, each from its own secret, for one matrix after another. One
// thread; threads may work on different columns of the same rows, each with a generator of its own.
class RowGenerator {
 public:
  // Secrets must outlive the generator. `scratch`: ScratchBytes() of secret memory, 64-byte
  // aligned, wiped by the caller; the secrets are kept there in the order in which this path reads
  // them.
  RowGenerator(Isa isa, std::span<const NttSecret> secrets, std::span<uint8_t> scratch);
  static size_t ScratchBytes();

  // Columns [0, columns) of `matrix` (a ModuleMatrix, plus kSlack readable) in one pass over it:
  // the pass is bound by reading the matrix from memory, so batches share it. An output for each
  // secret. Whole panels are written: columns past `columns` come out as zeros, whatever matrix and
  // error hold there. Matrix residues may be any 48-bit values; rows come out canonical and the
  // same on every path. Constant time in secrets and errors.
  void Generate(const uint8_t* matrix, size_t columns, size_t error_stride,
                std::span<const BatchOutput> outputs) const;

 private:
  const Isa isa_;
  const std::span<const NttSecret> secrets_;
  const std::span<uint8_t> scratch_;
};

}  // namespace talaria::ring

#endif  // TALARIA_RING_BATCH_H_
