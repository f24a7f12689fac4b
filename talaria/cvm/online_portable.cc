// The oracle: plain C++, one element at a time, exact sums. Constant time like the vector paths.
#include <bit>

#include "talaria/base/secret.h"
#include "talaria/cvm/online_kernels.h"
#include "talaria/ring/modq.h"

namespace talaria::cvm::internal {
namespace {

using ring::LoadResidue;

void Norms(const float* x, size_t d, NormLanes& out) {
  out = {};
  for (size_t i = 0; i < d; ++i) {
    uint32_t bits = std::bit_cast<uint32_t>(x[i]) & 0x7fffffff;
    // A denormal counts as zero whatever the thread's MXCSR says: the exponent is zero, so bits -
    // 2^23 is negative.
    bits &= ~(uint32_t{0} - ((bits - 0x00800000) >> 31));
    const uint32_t less = uint32_t{0} - ((out.max_bits - bits) >> 31);
    out.max_bits = (bits & less) | (out.max_bits & ~less);
    const double value = static_cast<double>(std::bit_cast<float>(bits));
    out.sum_abs[i % 16] += value;
    out.sum_squares[i % 16] += value * value;
  }
}

// Round to nearest even for |v| < 2^22: the sum with 1.5 x 2^23 has the integer in its low mantissa
// bits.
int32_t Round(float v) {
  constexpr float kShift = 12582912.0f;
  return static_cast<int32_t>(std::bit_cast<uint32_t>(v + kShift) -
                              std::bit_cast<uint32_t>(kShift));
}

void Mask(const MaskArguments& a, RawMasked& out) {
  out = {};
  const int64_t delta = int64_t{1} << a.delta_log2;
  for (size_t c = 0; c < a.d_padded; ++c) {
    uint64_t residue = 0;
    if (c < a.d) {
      const float x = std::bit_cast<float>(std::bit_cast<uint32_t>(a.x[c]) & a.finite_mask);
      const int64_t h = Round(x * a.inverse);
      const uint64_t magnitude = static_cast<uint64_t>((h ^ (h >> 63)) - (h >> 63));
      const uint64_t less = uint64_t{0} - ((out.norms.max_abs - magnitude) >> 63);
      out.norms.max_abs = (magnitude & less) | (out.norms.max_abs & ~less);
      out.norms.sum_abs += magnitude;
      out.norms.sum_squares += magnitude * magnitude;
      const uint8_t* mask =
          a.mask + c / kPanelColumns * a.panel_stride + c % kPanelColumns * ring::kResidueBytes;
      residue = ring::AddMod(ring::FromSigned(delta * h), LoadResidue(mask));
    }
    for (size_t i = 0; i < a.check_vectors; ++i)
      out.dot[i] += static_cast<WideSum>(residue) * a.u[i][c];
    for (size_t plane = 0; plane < 6; ++plane)
      a.planes[plane * a.d_padded + c] = static_cast<uint8_t>(residue >> (8 * plane));
  }
  if (a.wipe) {
    for (size_t c = 0; c < a.d; c += kPanelColumns)
      Wipe(a.mask + c / kPanelColumns * a.panel_stride, kPanelBytes);
  }
}

void Check(const CheckArguments& a, RawChecked& out) {
  out = {};
  uint64_t above = 0;
  for (size_t c = 0; c < a.o; ++c) {
    const uint64_t y = LoadResidue(a.residues + c * ring::kResidueBytes);
    above |= (kQ - 1 - y) >> 63;
    for (size_t i = 0; i < a.check_vectors; ++i) out.dot[i] += static_cast<WideSum>(y) * a.v[i][c];
  }
  out.canonical_mask = above - 1;
}

void Unmask(const UnmaskArguments& a) {
  const int64_t half_delta = (int64_t{1} << a.delta_log2) >> 1;
  for (size_t c = 0; c < a.o; ++c) {
    const uint8_t* unmask =
        a.unmask + c / kPanelColumns * a.panel_stride + c % kPanelColumns * ring::kResidueBytes;
    const uint64_t difference =
        ring::SubMod(LoadResidue(a.residues + c * ring::kResidueBytes), LoadResidue(unmask));
    const int64_t y = (ring::Centred(difference) + half_delta) >> a.delta_log2;
    a.out[c] = static_cast<float>(y) * (a.sigma * a.scales[c]);
  }
  if (a.wipe) {
    for (size_t c = 0; c < a.o; c += kPanelColumns)
      Wipe(a.unmask + c / kPanelColumns * a.panel_stride, kPanelBytes);
  }
}

}  // namespace

const Kernels kPortableKernels = {Norms, Mask, Check, Unmask};

}  // namespace talaria::cvm::internal
