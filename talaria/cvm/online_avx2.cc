// Compiled for AVX2. Nothing here may instantiate an inline function that other files share.
//
// Four residues to a vector. There is no wide multiplication, so residues are split into digits of
// 24 bits, whose products are summed apart and without carries for kFoldColumns columns.
#include <immintrin.h>

#include "talaria/cvm/online_kernels.h"

namespace talaria::cvm::internal {
namespace {

#define TALARIA_INLINE [[gnu::always_inline]] inline

TALARIA_INLINE __m256i Broadcast(uint64_t x) {
  return _mm256_set1_epi64x(static_cast<long long>(x));
}
TALARIA_INLINE __m256i Load256(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
TALARIA_INLINE void Store256(void* to, __m256i x) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), x);
}

// All ones in the first min(columns, 8) lanes of 32 bits. `columns` is public.
TALARIA_INLINE __m256i First8(size_t columns) {
  const int count = static_cast<int>(columns < 8 ? columns : 8);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// Two residues at `low` and two at `high`. The upper half is loaded from four bytes before, which
// are bytes of the same panel, so nothing past the panel is read.
TALARIA_INLINE __m256i LoadResidues(const uint8_t* low, const uint8_t* high) {
  const __m256i spread = _mm256_setr_epi8(0, 1, 2, 3, 4, 5, -1, -1, 6, 7, 8, 9, 10, 11, -1, -1,  //
                                          4, 5, 6, 7, 8, 9, -1, -1, 10, 11, 12, 13, 14, 15, -1, -1);
  const __m128i below = _mm_loadu_si128(reinterpret_cast<const __m128i*>(low));
  const __m128i above = _mm_loadu_si128(reinterpret_cast<const __m128i*>(high - 4));
  return _mm256_shuffle_epi8(_mm256_inserti128_si256(_mm256_castsi128_si256(below), above, 1),
                             spread);
}
// Residues 4 vector .. 4 vector + 3 of a panel, in order.
TALARIA_INLINE __m256i LoadInOrder(const uint8_t* panel, size_t vector) {
  return LoadResidues(panel + 24 * vector, panel + 24 * vector + 12);
}

// By the sign of each lane of 64 bits.
TALARIA_INLINE __m256i IfNegative(__m256i x, __m256i then, __m256i otherwise) {
  return _mm256_castpd_si256(_mm256_blendv_pd(_mm256_castsi256_pd(otherwise),
                                              _mm256_castsi256_pd(then), _mm256_castsi256_pd(x)));
}
// (-q, 2q) -> [0, q).
TALARIA_INLINE __m256i Canonical(__m256i x, __m256i q) {
  x = IfNegative(x, _mm256_add_epi64(x, q), x);
  const __m256i y = _mm256_sub_epi64(x, q);
  return IfNegative(y, x, y);
}

struct DotLanes {
  __m256i sum[3];  // weights 1, 2^24, 2^48
  TALARIA_INLINE void Clear() { sum[0] = sum[1] = sum[2] = _mm256_setzero_si256(); }
  // x as digits x0, x1.
  TALARIA_INLINE void Add(__m256i x0, __m256i x1, __m256i y) {
    const __m256i y0 = _mm256_and_si256(y, Broadcast(0xffffff)), y1 = _mm256_srli_epi64(y, 24);
    sum[0] = _mm256_add_epi64(sum[0], _mm256_mul_epu32(x0, y0));
    sum[1] = _mm256_add_epi64(sum[1],
                              _mm256_add_epi64(_mm256_mul_epu32(x0, y1), _mm256_mul_epu32(x1, y0)));
    sum[2] = _mm256_add_epi64(sum[2], _mm256_mul_epu32(x1, y1));
  }
  TALARIA_INLINE void FoldInto(WideSum& total) {
    for (int digit = 0; digit < 3; ++digit) {
      alignas(32) uint64_t lanes[4];
      Store256(lanes, sum[digit]);
      total += (WideSum{lanes[0]} + lanes[1] + lanes[2] + lanes[3]) << (24 * digit);
    }
    Clear();
  }
};

TALARIA_INLINE uint64_t SumOf64(__m256i x) {
  alignas(32) uint64_t lanes[4];
  Store256(lanes, x);
  return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}
TALARIA_INLINE uint64_t SumOf32(__m256i x) {
  return SumOf64(
      _mm256_add_epi64(_mm256_and_si256(x, Broadcast(0xffffffff)), _mm256_srli_epi64(x, 32)));
}
TALARIA_INLINE uint32_t MaxOf32(__m256i x) {
  __m128i m = _mm_max_epu32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(m));
}

// Norms of the integers h, 16 columns at a time.
struct QuantisedLanes {
  __m256i max, sum, squares;  // 32, 32 and 64 bits
  TALARIA_INLINE void Add(__m256i h0, __m256i h1) {
    h0 = _mm256_abs_epi32(h0);
    h1 = _mm256_abs_epi32(h1);
    max = _mm256_max_epu32(max, _mm256_max_epu32(h0, h1));
    sum = _mm256_add_epi32(sum, _mm256_add_epi32(h0, h1));
    const __m256i packed = _mm256_packs_epi32(h0, h1);        // <= 32767; the order does not matter
    const __m256i pairs = _mm256_madd_epi16(packed, packed);  // < 2^31
    squares = _mm256_add_epi64(squares, _mm256_and_si256(pairs, Broadcast(0xffffffff)));
    squares = _mm256_add_epi64(squares, _mm256_srli_epi64(pairs, 32));
  }
};

struct LaneSums {
  __m256i max;
  __m256d sum[4], squares[4];
  // Half 0: lanes 0..7 of the sixteen; half 1: 8..15.
  TALARIA_INLINE void Add(size_t half, __m256 x) {
    __m256i bits = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
    bits = _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(0x00800000), bits),
                               bits);  // no denormals
    max = _mm256_max_epu32(max, bits);
    const __m256 values = _mm256_castsi256_ps(bits);
    const __m256d value[2] = {_mm256_cvtps_pd(_mm256_castps256_ps128(values)),
                              _mm256_cvtps_pd(_mm256_extractf128_ps(values, 1))};
#pragma GCC unroll 2
    for (size_t k = 0; k < 2; ++k) {
      const size_t lanes = 2 * half + k;
      sum[lanes] = _mm256_add_pd(sum[lanes], value[k]);
      squares[lanes] = _mm256_add_pd(squares[lanes], _mm256_mul_pd(value[k], value[k]));
    }
  }
};

void Norms(const float* x, size_t d, NormLanes& out) {
  LaneSums lanes;
  lanes.max = _mm256_setzero_si256();
  for (int i = 0; i < 4; ++i) lanes.sum[i] = lanes.squares[i] = _mm256_setzero_pd();
  const size_t full = d / 16 * 16, left = d - full;
  for (size_t c = 0; c < full; c += 16) {
    lanes.Add(0, _mm256_loadu_ps(x + c));
    lanes.Add(1, _mm256_loadu_ps(x + c + 8));
  }
  if (left != 0) lanes.Add(0, _mm256_maskload_ps(x + full, First8(left)));
  if (left > 8) lanes.Add(1, _mm256_maskload_ps(x + full + 8, First8(left - 8)));
  out.max_bits = MaxOf32(lanes.max);
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_pd(out.sum_abs + 4 * i, lanes.sum[i]);
    _mm256_storeu_pd(out.sum_squares + 4 * i, lanes.squares[i]);
  }
}

// 32 residues -> 32 bytes of each of the six planes. Vector j holds residues 2j, 2j + 1 | 16 + 2j,
// 17 + 2j, so that bytes of one plane paired within each half, then a transposition of 8 x 8 words
// in either half, give the natural order.
TALARIA_INLINE void StorePlanes(__m256i (&r)[8], uint8_t* planes, size_t stride) {
  const __m256i pair = _mm256_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15,  //
                                        0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
  for (__m256i& vector : r) vector = _mm256_shuffle_epi8(vector, pair);
  __m256i p01[2], p23[2], p45[2];  // planes of vectors 0..3 and of 4..7
  for (int i = 0; i < 2; ++i) {
    const __m256i low_a = _mm256_unpacklo_epi16(r[4 * i], r[4 * i + 1]),
                  low_b = _mm256_unpacklo_epi16(r[4 * i + 2], r[4 * i + 3]);
    const __m256i high_a = _mm256_unpackhi_epi16(r[4 * i], r[4 * i + 1]);
    const __m256i high_b = _mm256_unpackhi_epi16(r[4 * i + 2], r[4 * i + 3]);
    p01[i] = _mm256_unpacklo_epi32(low_a, low_b);
    p23[i] = _mm256_unpackhi_epi32(low_a, low_b);
    p45[i] = _mm256_unpacklo_epi32(high_a, high_b);
  }
  Store256(planes, _mm256_unpacklo_epi64(p01[0], p01[1]));
  Store256(planes + stride, _mm256_unpackhi_epi64(p01[0], p01[1]));
  Store256(planes + 2 * stride, _mm256_unpacklo_epi64(p23[0], p23[1]));
  Store256(planes + 3 * stride, _mm256_unpackhi_epi64(p23[0], p23[1]));
  Store256(planes + 4 * stride, _mm256_unpacklo_epi64(p45[0], p45[1]));
  Store256(planes + 5 * stride, _mm256_unpackhi_epi64(p45[0], p45[1]));
}

TALARIA_INLINE void WipePanel(uint8_t* panel) {
  for (int k = 0; k < 192; k += 32) Store256(panel + k, _mm256_setzero_si256());
}

// The pools are read with a stride that no hardware prefetcher follows.
TALARIA_INLINE void PrefetchPanel(const uint8_t* panel) {
  for (int k = 0; k < 192; k += 64)
    _mm_prefetch(reinterpret_cast<const char*>(panel + k), _MM_HINT_T0);
}

template <int kVectors, bool kWipe>
class Masker {
 public:
  TALARIA_INLINE explicit Masker(const MaskArguments& a)
      : a_(a),
        q_(Broadcast(kQ)),
        finite_(_mm256_set1_epi32(static_cast<int>(a.finite_mask))),
        inverse_(_mm256_set1_ps(a.inverse)),
        shift_(_mm_cvtsi32_si128(a.delta_log2)),
        norms_{_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()} {
    for (DotLanes& dot : dot_) dot.Clear();
  }

  // Columns [c, c + 32), of which `columns` exist.
  template <bool kTail>
  TALARIA_INLINE void Panel(size_t c, size_t columns) {
    uint8_t* mask = a_.mask + c / kPanelColumns * a_.panel_stride;
    PrefetchPanel(mask + 8 * a_.panel_stride);
    __m256i h[4], r[8];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {
      __m256 x;
      if (kTail) {
        const size_t left = columns > 8 * i ? columns - 8 * i : 0;
        x = _mm256_maskload_ps(a_.x + c + (left != 0 ? 8 * i : 0), First8(left));
      } else {
        x = _mm256_loadu_ps(a_.x + c + 8 * i);
      }
      x = _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(x), finite_));
      h[i] = _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse_));  // to nearest, ties to even
    }
    norms_.Add(h[0], h[1]);
    norms_.Add(h[2], h[3]);
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {
      // Columns 4i .. 4i + 3 | 16 + 4i .. 19 + 4i.
      const __m256i four = i % 2 == 0 ? _mm256_permute2x128_si256(h[i / 2], h[i / 2 + 2], 0x20)
                                      : _mm256_permute2x128_si256(h[i / 2], h[i / 2 + 2], 0x31);
      const __m256i sign = _mm256_srai_epi32(four, 31);
#pragma GCC unroll 2
      for (size_t k = 0; k < 2; ++k) {
        const size_t j = 2 * i + k;
        const __m256i wide =
            k == 0 ? _mm256_unpacklo_epi32(four, sign) : _mm256_unpackhi_epi32(four, sign);
        const __m256i scaled = _mm256_sll_epi64(wide, shift_);
        __m256i residue = Canonical(
            _mm256_add_epi64(scaled, LoadResidues(mask + 12 * j, mask + 96 + 12 * j)), q_);
        if (kTail) {
          const long long first = static_cast<long long>(2 * j);
          const __m256i index = _mm256_setr_epi64x(first, first + 1, first + 16, first + 17);
          residue = _mm256_and_si256(residue, _mm256_cmpgt_epi64(Broadcast(columns), index));
        }
        if (kVectors != 0) {
          const __m256i r0 = _mm256_and_si256(residue, Broadcast(0xffffff)),
                        r1 = _mm256_srli_epi64(residue, 24);
          for (int vector = 0; vector < kVectors; ++vector) {
            const uint64_t* u = a_.u[vector] + c + 2 * j;
            const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(u));
            const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(u + 16));
            dot_[vector].Add(r0, r1, _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1));
          }
        }
        r[j] = residue;
      }
    }
    StorePlanes(r, a_.planes + c, a_.d_padded);
    if (kWipe) WipePanel(mask);
  }

  TALARIA_INLINE void Fold(RawMasked& out) {
    for (int i = 0; i < kVectors; ++i) dot_[i].FoldInto(out.dot[i]);
    out.norms.sum_abs += SumOf32(norms_.sum);
    norms_.sum = _mm256_setzero_si256();
  }
  TALARIA_INLINE void Finish(RawMasked& out) {
    out.norms.max_abs = MaxOf32(norms_.max);
    out.norms.sum_squares = SumOf64(norms_.squares);
  }

 private:
  const MaskArguments a_;
  const __m256i q_, finite_;
  const __m256 inverse_;
  const __m128i shift_;
  QuantisedLanes norms_;
  DotLanes dot_[kVectors == 0 ? 1 : kVectors];
};

template <int kVectors, bool kWipe>
void MaskWith(const MaskArguments& a, RawMasked& out) {
  Masker<kVectors, kWipe> masker(a);
  const size_t full = a.d / kPanelColumns * kPanelColumns;
  for (size_t begin = 0; begin < full; begin += kFoldColumns) {
    const size_t end = full - begin < kFoldColumns ? full : begin + kFoldColumns;
    for (size_t c = begin; c < end; c += kPanelColumns)
      masker.template Panel<false>(c, kPanelColumns);
    masker.Fold(out);
  }
  if (full != a.d) {
    masker.template Panel<true>(full, a.d - full);
    masker.Fold(out);
  }
  masker.Finish(out);
  for (size_t c = full == a.d ? full : full + kPanelColumns; c < a.d_padded; c += kPanelColumns) {
    for (size_t plane = 0; plane < 6; ++plane)
      Store256(a.planes + plane * a.d_padded + c, _mm256_setzero_si256());
  }
}

void Mask(const MaskArguments& a, RawMasked& out) {
  out = {};
  if (a.wipe) {
    a.check_vectors == 0   ? MaskWith<0, true>(a, out)
    : a.check_vectors == 1 ? MaskWith<1, true>(a, out)
                           : MaskWith<2, true>(a, out);
  } else {
    a.check_vectors == 0   ? MaskWith<0, false>(a, out)
    : a.check_vectors == 1 ? MaskWith<1, false>(a, out)
                           : MaskWith<2, false>(a, out);
  }
  asm volatile("" ::: "memory");  // the wiping stays
}

template <int kVectors>
void CheckWith(const CheckArguments& a, RawChecked& out) {
  const __m256i largest = Broadcast(kQ - 1);
  __m256i above = _mm256_setzero_si256();  // its signs
  DotLanes dot[kVectors == 0 ? 1 : kVectors];
  for (DotLanes& lanes : dot) lanes.Clear();
  for (size_t begin = 0; begin < a.o; begin += kFoldColumns) {
    const size_t end = a.o - begin < kFoldColumns ? a.o : begin + kFoldColumns;
    for (size_t c = begin; c < end; c += kPanelColumns) {
      const uint8_t* panel = a.residues + c / kPanelColumns * kPanelBytes;
#pragma GCC unroll 8
      for (size_t vector = 0; vector < 8; ++vector) {
        const __m256i y = LoadInOrder(panel, vector);
        above = _mm256_or_si256(above, _mm256_sub_epi64(largest, y));
        if (kVectors != 0) {
          const __m256i y0 = _mm256_and_si256(y, Broadcast(0xffffff)),
                        y1 = _mm256_srli_epi64(y, 24);
          for (int j = 0; j < kVectors; ++j) dot[j].Add(y0, y1, Load256(a.v[j] + c + 4 * vector));
        }
      }
    }
    for (int j = 0; j < kVectors; ++j) dot[j].FoldInto(out.dot[j]);
  }
  alignas(32) uint64_t lanes[4];
  Store256(lanes, above);
  out.canonical_mask = ((lanes[0] | lanes[1] | lanes[2] | lanes[3]) >> 63) - 1;
}

void Check(const CheckArguments& a, RawChecked& out) {
  out = {};
  a.check_vectors == 0   ? CheckWith<0>(a, out)
  : a.check_vectors == 1 ? CheckWith<1>(a, out)
                         : CheckWith<2>(a, out);
}

template <bool kWipe>
class Unmasker {
 public:
  TALARIA_INLINE explicit Unmasker(const UnmaskArguments& a)
      : a_(a),
        q_(Broadcast(kQ)),
        half_(Broadcast(kHalf)),
        round_(Broadcast(((uint64_t{1} << a.delta_log2) >> 1) + (uint64_t{1} << 47) - kHalf)),
        two52_(Broadcast(kTwo52Bits)),
        offset_(_mm256_set1_pd(
            static_cast<double>((uint64_t{1} << 52) + (uint64_t{1} << (47 - a.delta_log2))))),
        sigma_(_mm256_set1_ps(a.sigma)),
        shift_(_mm_cvtsi32_si128(a.delta_log2)) {}

  // Columns [c, c + 32), of which `columns` exist.
  template <bool kTail>
  TALARIA_INLINE void Panel(size_t c, size_t columns) {
    uint8_t* unmask = a_.unmask + c / kPanelColumns * a_.panel_stride;
    const uint8_t* residues = a_.residues + c / kPanelColumns * kPanelBytes;
    PrefetchPanel(unmask + 16 * a_.panel_stride);
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {
      const __m128 low = Integers(residues, unmask, 2 * i),
                   high = Integers(residues, unmask, 2 * i + 1);
      const __m256 y = _mm256_insertf128_ps(_mm256_castps128_ps256(low), high, 1);
      if (kTail) {
        const size_t left = columns > 8 * i ? columns - 8 * i : 0;
        const __m256i exists = First8(left);
        const size_t at = c + (left != 0 ? 8 * i : 0);
        _mm256_maskstore_ps(
            a_.out + at, exists,
            _mm256_mul_ps(y, _mm256_mul_ps(sigma_, _mm256_maskload_ps(a_.scales + at, exists))));
      } else {
        const size_t at = c + 8 * i;
        _mm256_storeu_ps(a_.out + at,
                         _mm256_mul_ps(y, _mm256_mul_ps(sigma_, _mm256_loadu_ps(a_.scales + at))));
      }
    }
    if (kWipe) WipePanel(unmask);
  }

 private:
  static constexpr uint64_t kHalf = (kQ - 1) / 2;
  static constexpr uint64_t kTwo52Bits = 0x4330000000000000;

  // Y~ - U + (q - 1) / 2 in [0, q) is the centred difference, moved up. Plus Delta / 2, and with
  // 2^47 instead of (q - 1) / 2 so that the shift need not know a sign, it gives y + 2^47 / Delta,
  // exact as a double; then one rounding to float.
  TALARIA_INLINE __m128 Integers(const uint8_t* residues, const uint8_t* unmask,
                                 size_t vector) const {
    const __m256i difference =
        _mm256_sub_epi64(LoadInOrder(residues, vector), LoadInOrder(unmask, vector));
    const __m256i moved = Canonical(_mm256_add_epi64(difference, half_), q_);
    const __m256i quotient = _mm256_srl_epi64(_mm256_add_epi64(moved, round_), shift_);
    return _mm256_cvtpd_ps(
        _mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(quotient, two52_)), offset_));
  }

  const UnmaskArguments a_;
  const __m256i q_, half_, round_, two52_;
  const __m256d offset_;
  const __m256 sigma_;
  const __m128i shift_;
};

template <bool kWipe>
void UnmaskWith(const UnmaskArguments& a) {
  Unmasker<kWipe> unmasker(a);
  const size_t full = a.o / kPanelColumns * kPanelColumns;
  for (size_t c = 0; c < full; c += kPanelColumns) unmasker.template Panel<false>(c, kPanelColumns);
  if (full != a.o) unmasker.template Panel<true>(full, a.o - full);
}

void Unmask(const UnmaskArguments& a) {
  a.wipe ? UnmaskWith<true>(a) : UnmaskWith<false>(a);
  asm volatile("" ::: "memory");  // the wiping stays
}

#undef TALARIA_INLINE

}  // namespace

const Kernels kAvx2Kernels = {Norms, Mask, Check, Unmask};

}  // namespace talaria::cvm::internal
