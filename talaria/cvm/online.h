// What happens to every activation between the engine and the wire, and back:
//   mask   h = round(x / sigma), H~ = Delta h + M mod q, as six digit planes, with H~ . u for the
//   check, in one pass check  every value of Y~ canonical and Y~ . v mod q, in one pass, before
//   anything is unmasked unmask y = round(centred(Y~ - U mod q) / Delta), then float(y) * (sigma *
//   scale)
// Every path equals the portable one bit for bit. No branch and no address depends on x, M, U, u, v
// or Y~.
#ifndef TALARIA_CVM_ONLINE_H_
#define TALARIA_CVM_ONLINE_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "talaria/base/cpu.h"

namespace talaria::cvm {

inline constexpr size_t kMaxCheckVectors = 2;

// Sums run in 16 fixed lanes (element i goes to lane i mod 16) in double, then a fixed tree: lane l
// += lane l + 8, + 4, + 2, + 1.
struct RowNorms {
  double max_abs = 0, sum_abs = 0, sum_squares = 0;
  // All ones when every element is finite, else zero (and the three sums are those of a zero row).
  uint32_t finite_mask = 0;
};

struct RowScale {
  float sigma = 1, inverse = 1;
};

// Of the integers h.
struct QuantisedNorms {
  uint64_t max_abs = 0, sum_abs = 0, sum_squares = 0;
};

struct MaskedRow {
  std::array<uint64_t, kMaxCheckVectors> dot{};  // H~ . u_i mod q
  QuantisedNorms norms;
};

struct CheckedRow {
  std::array<uint64_t, kMaxCheckVectors> dot{};  // Y~ . v_i mod q
  uint64_t canonical_mask = 0;                   // all ones when every residue is < q
};

// x [d].
RowNorms NormsOf(Isa isa, const float* x, size_t d);

// `mask`: the row's first panel in RowPanels (ring/layout.h), panels `panel_stride` bytes apart;
// wiped as it is read when `wipe`. `u`: check_vectors arrays [d_padded] of canonical residues, zero
// in the padding. `planes`: [6][d_padded]; the padding digits are set to zero. d_padded is a
// multiple of 64. A row that is not finite is taken as zeros (finite_mask). Residues are canonical,
// |round(x * inverse)| <= 32767 and 2^delta_log2 times that is below q / 2 (Certificate::ScaleFor).
MaskedRow MaskRow(Isa isa, const float* x, size_t d, size_t d_padded, uint32_t finite_mask,
                  float inverse, int delta_log2, uint8_t* mask, size_t panel_stride, bool wipe,
                  const uint64_t* const* u, size_t check_vectors, uint8_t* planes);

// residues [o] x 6 bytes, o a multiple of 32; v: check_vectors arrays [o].
CheckedRow CheckRow(Isa isa, const uint8_t* residues, size_t o, const uint64_t* const* v,
                    size_t check_vectors);

// residues [o] x 6 bytes with o any size (the caller's buffer has the padding to 32 columns),
// `unmask` as `mask` above for the same columns; scales [o]; out [o].
void UnmaskRow(Isa isa, const uint8_t* residues, size_t o, uint8_t* unmask, size_t panel_stride,
               bool wipe, int delta_log2, float sigma, const float* scales, float* out);

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_ONLINE_H_
