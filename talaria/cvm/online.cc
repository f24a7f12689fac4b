#include "talaria/cvm/online.h"

#include <bit>

#include "talaria/cvm/online_kernels.h"
#include "talaria/ring/layout.h"

namespace talaria::cvm {
namespace {

static_assert(internal::kQ == ring::kQ && internal::kPanelColumns == ring::kPanelColumns &&
              internal::kPanelBytes == ring::kPanelRowBytes);

const internal::Kernels& KernelsOf(Isa isa) {
  switch (isa) {
    case Isa::kAmx:
    case Isa::kAvx512:
      return internal::kAvx512Kernels;
    case Isa::kAvx2:
      return internal::kAvx2Kernels;
    case Isa::kPortable:
      break;
  }
  return internal::kPortableKernels;
}

// The fixed tree: lane l takes lane l + 8, then + 4, + 2, + 1.
double SumLanes(double (&lanes)[16]) {
  for (size_t half = 8; half != 0; half /= 2) {
    for (size_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  }
  return lanes[0];
}

double KeepIf(uint64_t mask, double value) {
  return std::bit_cast<double>(std::bit_cast<uint64_t>(value) & mask);
}

}  // namespace

RowNorms NormsOf(Isa isa, const float* x, size_t d) {
  internal::NormLanes lanes;
  KernelsOf(isa).norms(x, d, lanes);
  constexpr uint32_t kInfinity = 0x7f800000;
  RowNorms norms;
  norms.finite_mask =
      uint32_t{0} - ((lanes.max_bits - kInfinity) >> 31);  // bits below kInfinity wrap around
  const uint64_t keep = uint64_t{0} - (norms.finite_mask & 1);
  norms.max_abs = static_cast<double>(std::bit_cast<float>(lanes.max_bits & norms.finite_mask));
  norms.sum_abs = KeepIf(keep, SumLanes(lanes.sum_abs));
  norms.sum_squares = KeepIf(keep, SumLanes(lanes.sum_squares));
  return norms;
}

MaskedRow MaskRow(Isa isa, const float* x, size_t d, size_t d_padded, uint32_t finite_mask,
                  float inverse, int delta_log2, uint8_t* mask, size_t panel_stride, bool wipe,
                  const uint64_t* const* u, size_t check_vectors, uint8_t* planes) {
  internal::RawMasked raw;
  KernelsOf(isa).mask({x, d, d_padded, finite_mask, inverse, delta_log2, mask, panel_stride, wipe,
                       u, check_vectors, planes},
                      raw);
  MaskedRow row;
  for (size_t i = 0; i < kMaxCheckVectors; ++i) row.dot[i] = ring::Reduce128(raw.dot[i]);
  row.norms = raw.norms;
  return row;
}

CheckedRow CheckRow(Isa isa, const uint8_t* residues, size_t o, const uint64_t* const* v,
                    size_t check_vectors) {
  internal::RawChecked raw;
  KernelsOf(isa).check({residues, o, v, check_vectors}, raw);
  CheckedRow row;
  for (size_t i = 0; i < kMaxCheckVectors; ++i) row.dot[i] = ring::Reduce128(raw.dot[i]);
  row.canonical_mask = raw.canonical_mask;
  return row;
}

void UnmaskRow(Isa isa, const uint8_t* residues, size_t o, uint8_t* unmask, size_t panel_stride,
               bool wipe, int delta_log2, float sigma, const float* scales, float* out) {
  KernelsOf(isa).unmask({residues, o, unmask, panel_stride, wipe, delta_log2, sigma, scales, out});
}

}  // namespace talaria::cvm
