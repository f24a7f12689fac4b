// The kernels behind online.h, once per instruction set. Not for use outside online*.cc.
//
// The vector files are compiled with -m flags of their own, so they must not emit a function that
// other files share (the linker would keep one copy, perhaps the one that this processor cannot
// run). Hence plain structs here, nothing inline, and the reduction mod q of the check sums happens
// in online.cc.
#ifndef TALARIA_CVM_ONLINE_KERNELS_H_
#define TALARIA_CVM_ONLINE_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "talaria/cvm/online.h"

namespace talaria::cvm::internal {

inline constexpr uint64_t kQ = (uint64_t{1} << 48) - 16383;  // ring/modq.h, checked in online.cc
inline constexpr size_t kPanelColumns = 32;
inline constexpr size_t kPanelBytes = 192;  // of one row
// Columns after which the kernels fold their lanes into 128-bit sums. What fits a lane in so many
// columns:
//   AVX-512  8 lanes x 2: 2^11 terms, low halves < 2^52: 2^63; high halves < 2^44: 2^55
//   AVX2     4 lanes: 2^13 terms, sums of two 24 x 24 bit products < 2^49: 2^62
//   norms    16 lanes of 32 bits: 2^11 terms |h| <= 2^15: 2^26
inline constexpr size_t kFoldColumns = size_t{1} << 15;

using WideSum = unsigned __int128;  // of up to 2^32 products of two 48-bit values, not reduced

struct MaskArguments {
  const float* x;  // [d]
  size_t d, d_padded;
  uint32_t finite_mask;
  float inverse;
  int delta_log2;
  uint8_t* mask;
  size_t panel_stride;
  bool wipe;
  const uint64_t* const* u;  // [check_vectors][d_padded]
  size_t check_vectors;
  uint8_t* planes;  // [6][d_padded]
};
struct RawMasked {
  WideSum dot[kMaxCheckVectors];
  QuantisedNorms norms;
};

struct CheckArguments {
  const uint8_t* residues;  // [o] x 6
  size_t o;
  const uint64_t* const* v;  // [check_vectors][o]
  size_t check_vectors;
};
struct RawChecked {
  WideSum dot[kMaxCheckVectors];
  uint64_t canonical_mask;
};

struct UnmaskArguments {
  const uint8_t* residues;  // [o] x 6, readable to the padding
  size_t o;
  uint8_t* unmask;
  size_t panel_stride;
  bool wipe;
  int delta_log2;
  float sigma;
  const float* scales;  // [o]
  float* out;           // [o]
};

// What the lanes of RowNorms hold before the tree.
struct NormLanes {
  uint32_t max_bits;  // of |x|, denormals taken as zeros; as integers these order like the floats,
                      // and non-finite ones on top
  double sum_abs[16];
  double sum_squares[16];
};

struct Kernels {
  void (*norms)(const float* x, size_t d, NormLanes& out);
  void (*mask)(const MaskArguments& arguments, RawMasked& out);
  void (*check)(const CheckArguments& arguments, RawChecked& out);
  void (*unmask)(const UnmaskArguments& arguments);
};
extern const Kernels kPortableKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;

}  // namespace talaria::cvm::internal

#endif  // TALARIA_CVM_ONLINE_KERNELS_H_
