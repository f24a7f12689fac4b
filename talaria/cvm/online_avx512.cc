// Compiled for AVX-512 F, BW, DQ, VL, VBMI and IFMA. Nothing here may instantiate an inline
// function that other files share.
//
// Eight residues to a vector. Products of residues go through the 52-bit multiply-add, whose low
// and high halves are summed apart and without carries for kFoldColumns columns.
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own AVX-512 headers (PR 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "talaria/cvm/online_kernels.h"

namespace talaria::cvm::internal {
namespace {

#define TALARIA_INLINE [[gnu::always_inline]] inline

TALARIA_INLINE __m512i Broadcast(uint64_t x) {
  return _mm512_set1_epi64(static_cast<long long>(x));
}

// The bits of the first min(columns, 16) or min(columns, 8) lanes. `columns` is public.
TALARIA_INLINE __mmask16 First16(size_t columns) {
  return static_cast<__mmask16>((1u << (columns < 16 ? columns : 16)) - 1);
}
TALARIA_INLINE __mmask8 First8(size_t columns) {
  return static_cast<__mmask8>((1u << (columns < 8 ? columns : 8)) - 1);
}

// Byte indices that spread six-byte residues over quadwords; the upper two bytes of each are
// cleared by a mask.
alignas(64) constexpr uint8_t kSpread[64] = {
    0,  1,  2,  3,  4,  5,  0,  0,  6,  7,  8,  9,  10, 11, 0,  0,  12, 13, 14, 15, 16, 17,
    0,  0,  18, 19, 20, 21, 22, 23, 0,  0,  24, 25, 26, 27, 28, 29, 0,  0,  30, 31, 32, 33,
    34, 35, 0,  0,  36, 37, 38, 39, 40, 41, 0,  0,  42, 43, 44, 45, 46, 47, 0,  0};

// The four vectors of a panel. The last one is taken from the last 64 bytes, so nothing past the
// panel is read.
class PanelLoader {
 public:
  TALARIA_INLINE PanelLoader()
      : spread_(_mm512_load_si512(kSpread)),
        spread_last_(_mm512_add_epi8(spread_, _mm512_set1_epi8(16))) {}
  TALARIA_INLINE __m512i Load(const uint8_t* panel, int vector) const {
    constexpr __mmask64 kResidueBytesOfLane = 0x3f3f3f3f3f3f3f3f;
    return vector < 3 ? _mm512_maskz_permutexvar_epi8(kResidueBytesOfLane, spread_,
                                                      _mm512_loadu_si512(panel + 48 * vector))
                      : _mm512_maskz_permutexvar_epi8(kResidueBytesOfLane, spread_last_,
                                                      _mm512_loadu_si512(panel + 128));
  }

 private:
  __m512i spread_, spread_last_;
};

// (-q, 2q) -> [0, q): of x, x + q and x - q, as unsigned numbers, the right one is the least.
TALARIA_INLINE __m512i Canonical(__m512i x, __m512i q) {
  x = _mm512_min_epu64(x, _mm512_add_epi64(x, q));
  return _mm512_min_epu64(x, _mm512_sub_epi64(x, q));
}

// Two chains of sums, so that their latency does not count.
struct DotLanes {
  __m512i low[2], high[2];
  TALARIA_INLINE void Clear() { low[0] = low[1] = high[0] = high[1] = _mm512_setzero_si512(); }
  TALARIA_INLINE void Add(int chain, __m512i x, __m512i y) {
    low[chain] = _mm512_madd52lo_epu64(low[chain], x, y);
    high[chain] = _mm512_madd52hi_epu64(high[chain], x, y);
  }
  // Carried first, so that the sums of all lanes fit 64 bits.
  TALARIA_INLINE void FoldInto(WideSum& sum) {
    const __m512i mask52 = Broadcast((uint64_t{1} << 52) - 1);
    const __m512i carries =
        _mm512_add_epi64(_mm512_srli_epi64(low[0], 52), _mm512_srli_epi64(low[1], 52));
    const __m512i lows =
        _mm512_add_epi64(_mm512_and_si512(low[0], mask52), _mm512_and_si512(low[1], mask52));
    const __m512i highs = _mm512_add_epi64(_mm512_add_epi64(high[0], high[1]), carries);
    sum += static_cast<uint64_t>(_mm512_reduce_add_epi64(lows));
    sum += WideSum{static_cast<uint64_t>(_mm512_reduce_add_epi64(highs))} << 52;
    Clear();
  }
};

TALARIA_INLINE uint64_t SumOf32(__m512i lanes) {
  return static_cast<uint64_t>(_mm512_reduce_add_epi64(_mm512_add_epi64(
      _mm512_and_si512(lanes, Broadcast(0xffffffff)), _mm512_srli_epi64(lanes, 32))));
}

// Norms of the integers h, 32 columns at a time.
struct QuantisedLanes {
  __m512i max, sum, squares;  // 32, 32 and 64 bits
  TALARIA_INLINE void Add(__m512i h0, __m512i h1) {
    h0 = _mm512_abs_epi32(h0);
    h1 = _mm512_abs_epi32(h1);
    max = _mm512_max_epu32(max, _mm512_max_epu32(h0, h1));
    sum = _mm512_add_epi32(sum, _mm512_add_epi32(h0, h1));
    const __m512i packed = _mm512_packs_epi32(h0, h1);        // <= 32767; the order does not matter
    const __m512i pairs = _mm512_madd_epi16(packed, packed);  // < 2^31
    squares = _mm512_add_epi64(squares, _mm512_and_si512(pairs, Broadcast(0xffffffff)));
    squares = _mm512_add_epi64(squares, _mm512_srli_epi64(pairs, 32));
  }
};

struct LaneSums {
  __m512i max = _mm512_setzero_si512();
  __m512d sum[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()},
          squares[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
  TALARIA_INLINE void Add(__m512 x) {
    __m512i bits = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
    bits = _mm512_maskz_mov_epi32(_mm512_cmpge_epu32_mask(bits, _mm512_set1_epi32(0x00800000)),
                                  bits);  // no denormals
    max = _mm512_max_epu32(max, bits);
    const __m512d value[2] = {
        _mm512_cvtps_pd(_mm256_castsi256_ps(_mm512_castsi512_si256(bits))),
        _mm512_cvtps_pd(_mm256_castsi256_ps(_mm512_extracti64x4_epi64(bits, 1)))};
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      sum[half] = _mm512_add_pd(sum[half], value[half]);
      squares[half] = _mm512_add_pd(squares[half], _mm512_mul_pd(value[half], value[half]));
    }
  }
};

void Norms(const float* x, size_t d, NormLanes& out) {
  LaneSums lanes;
  const size_t full = d / 16 * 16;
  for (size_t c = 0; c < full; c += 16) lanes.Add(_mm512_loadu_ps(x + c));
  lanes.Add(_mm512_maskz_loadu_ps(First16(d - full), x + full));
  out.max_bits = _mm512_reduce_max_epu32(lanes.max);
  for (int half = 0; half < 2; ++half) {
    _mm512_storeu_pd(out.sum_abs + 8 * half, lanes.sum[half]);
    _mm512_storeu_pd(out.sum_squares + 8 * half, lanes.squares[half]);
  }
}

// 64 residues -> 64 bytes of each of the six planes: bytes of one plane together within each
// vector, then a transposition of 8 x 8 quadwords.
TALARIA_INLINE void StorePlanes(__m512i (&r)[8], uint8_t* planes, size_t stride) {
  const __m512i gather = _mm512_setr_epi64(
      0x3830282018100800, 0x3931292119110901, 0x3a322a221a120a02, 0x3b332b231b130b03,
      0x3c342c241c140c04, 0x3d352d251d150d05, 0x3e362e261e160e06, 0x3f372f271f170f07);
  for (__m512i& vector : r) vector = _mm512_permutexvar_epi8(gather, vector);
  // pair[parity][i]: planes parity, 2 + parity, 4 + parity of vectors 2i and 2i + 1.
  __m512i pair[2][4];
  for (int i = 0; i < 4; ++i) {
    pair[0][i] = _mm512_unpacklo_epi64(r[2 * i], r[2 * i + 1]);
    pair[1][i] = _mm512_unpackhi_epi64(r[2 * i], r[2 * i + 1]);
  }
  for (int parity = 0; parity < 2; ++parity) {
    const __m512i* p = pair[parity];
    const __m512i a = _mm512_shuffle_i64x2(p[0], p[1], 0x44),
                  b = _mm512_shuffle_i64x2(p[2], p[3], 0x44);
    const __m512i c = _mm512_shuffle_i64x2(p[0], p[1], 0xee),
                  d = _mm512_shuffle_i64x2(p[2], p[3], 0xee);
    _mm512_storeu_si512(planes + parity * stride, _mm512_shuffle_i64x2(a, b, 0x88));
    _mm512_storeu_si512(planes + (2 + parity) * stride, _mm512_shuffle_i64x2(a, b, 0xdd));
    _mm512_storeu_si512(planes + (4 + parity) * stride, _mm512_shuffle_i64x2(c, d, 0x88));
  }
}

TALARIA_INLINE void WipePanel(uint8_t* panel) {
  for (int k = 0; k < 192; k += 64) _mm512_storeu_si512(panel + k, _mm512_setzero_si512());
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
        finite_(_mm512_set1_epi32(static_cast<int>(a.finite_mask))),
        inverse_(_mm512_set1_ps(a.inverse)),
        shift_(_mm_cvtsi32_si128(a.delta_log2)),
        norms_{_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()} {
    for (DotLanes& dot : dot_) dot.Clear();
  }

  // Columns [c, c + 64), of which `columns` exist.
  template <bool kTail>
  TALARIA_INLINE void Block(size_t c, size_t columns) {
    __m512i r[8];
    Panel<kTail>(c, columns, r);
    if (!kTail || columns > kPanelColumns) {
      Panel<kTail>(c + kPanelColumns, columns - (kTail ? kPanelColumns : 0), r + 4);
    } else {
      r[4] = r[5] = r[6] = r[7] = _mm512_setzero_si512();
    }
    StorePlanes(r, a_.planes + c, a_.d_padded);
  }

  TALARIA_INLINE void Fold(RawMasked& out) {
    for (int i = 0; i < kVectors; ++i) dot_[i].FoldInto(out.dot[i]);
    out.norms.sum_abs += SumOf32(norms_.sum);
    norms_.sum = _mm512_setzero_si512();
  }
  TALARIA_INLINE void Finish(RawMasked& out) {
    out.norms.max_abs = _mm512_reduce_max_epu32(norms_.max);
    out.norms.sum_squares = static_cast<uint64_t>(_mm512_reduce_add_epi64(norms_.squares));
  }

 private:
  template <bool kTail>
  TALARIA_INLINE void Panel(size_t c, size_t columns, __m512i* r) {
    uint8_t* mask = a_.mask + c / kPanelColumns * a_.panel_stride;
    PrefetchPanel(mask + 8 * a_.panel_stride);
    __m512i h[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const size_t begin = 16 * static_cast<size_t>(i);
      const size_t left = columns > begin ? columns - begin : 0;
      __m512 x = kTail ? _mm512_maskz_loadu_ps(First16(left), a_.x + c + begin)
                       : _mm512_loadu_ps(a_.x + c + begin);
      x = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), finite_));
      h[i] = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse_));  // to nearest, ties to even
#pragma GCC unroll 2
      for (int k = 0; k < 2; ++k) {
        const int vector = 2 * i + k;
        const __m256i part =
            k == 0 ? _mm512_castsi512_si256(h[i]) : _mm512_extracti64x4_epi64(h[i], 1);
        const __m512i scaled = _mm512_sll_epi64(_mm512_cvtepi32_epi64(part), shift_);
        __m512i residue = Canonical(_mm512_add_epi64(scaled, load_.Load(mask, vector)), q_);
        if (kTail) {
          const size_t first = 8 * static_cast<size_t>(vector);
          residue = _mm512_maskz_mov_epi64(First8(columns > first ? columns - first : 0), residue);
        }
        for (int j = 0; j < kVectors; ++j) {
          dot_[j].Add(k, residue,
                      _mm512_loadu_si512(a_.u[j] + c + 8 * static_cast<size_t>(vector)));
        }
        r[vector] = residue;
      }
    }
    norms_.Add(h[0], h[1]);
    if (kWipe) WipePanel(mask);
  }

  const MaskArguments a_;
  const PanelLoader load_;
  const __m512i q_, finite_;
  const __m512 inverse_;
  const __m128i shift_;
  QuantisedLanes norms_;
  DotLanes dot_[kVectors == 0 ? 1 : kVectors];
};

template <int kVectors, bool kWipe>
void MaskWith(const MaskArguments& a, RawMasked& out) {
  constexpr size_t kBlock = 2 * kPanelColumns;
  Masker<kVectors, kWipe> masker(a);
  const size_t full = a.d / kBlock * kBlock;
  for (size_t begin = 0; begin < full; begin += kFoldColumns) {
    const size_t end = full - begin < kFoldColumns ? full : begin + kFoldColumns;
    for (size_t c = begin; c < end; c += kBlock) masker.template Block<false>(c, kBlock);
    masker.Fold(out);
  }
  if (full != a.d) {
    masker.template Block<true>(full, a.d - full);
    masker.Fold(out);
  }
  masker.Finish(out);
  for (size_t c = full == a.d ? full : full + kBlock; c < a.d_padded; c += kBlock) {
    for (int plane = 0; plane < 6; ++plane) {
      _mm512_storeu_si512(a.planes + static_cast<size_t>(plane) * a.d_padded + c,
                          _mm512_setzero_si512());
    }
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
  const PanelLoader load;
  __m512i max[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  DotLanes dot[kVectors == 0 ? 1 : kVectors];
  for (DotLanes& lanes : dot) lanes.Clear();
  for (size_t begin = 0; begin < a.o; begin += kFoldColumns) {
    const size_t end = a.o - begin < kFoldColumns ? a.o : begin + kFoldColumns;
    for (size_t c = begin; c < end; c += kPanelColumns) {
      const uint8_t* panel = a.residues + c / kPanelColumns * kPanelBytes;
#pragma GCC unroll 4
      for (int vector = 0; vector < 4; ++vector) {
        const __m512i y = load.Load(panel, vector);
        max[vector & 1] = _mm512_max_epu64(max[vector & 1], y);
        for (int j = 0; j < kVectors; ++j) {
          dot[j].Add(vector & 1, y,
                     _mm512_loadu_si512(a.v[j] + c + 8 * static_cast<size_t>(vector)));
        }
      }
    }
    for (int j = 0; j < kVectors; ++j) dot[j].FoldInto(out.dot[j]);
  }
  const uint64_t largest = _mm512_reduce_max_epu64(_mm512_max_epu64(max[0], max[1]));
  out.canonical_mask = uint64_t{0} - ((largest - kQ) >> 63);
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
        round_(Broadcast(((uint64_t{1} << a.delta_log2) >> 1) - kHalf)),
        sigma_(_mm512_set1_ps(a.sigma)),
        shift_(_mm_cvtsi32_si128(a.delta_log2)) {}

  // Columns [c, c + 32), of which `columns` exist.
  template <bool kTail>
  TALARIA_INLINE void Panel(size_t c, size_t columns) {
    uint8_t* unmask = a_.unmask + c / kPanelColumns * a_.panel_stride;
    const uint8_t* residues = a_.residues + c / kPanelColumns * kPanelBytes;
    PrefetchPanel(unmask + 16 * a_.panel_stride);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const __m256 low = Integers(residues, unmask, 2 * i),
                   high = Integers(residues, unmask, 2 * i + 1);
      const __m512 y = _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
      const size_t begin = 16 * static_cast<size_t>(i);
      const float* scales = a_.scales + c + begin;
      float* out = a_.out + c + begin;
      if (kTail) {
        const __mmask16 exists = First16(columns > begin ? columns - begin : 0);
        _mm512_mask_storeu_ps(
            out, exists,
            _mm512_mul_ps(y, _mm512_mul_ps(sigma_, _mm512_maskz_loadu_ps(exists, scales))));
      } else {
        _mm512_storeu_ps(out, _mm512_mul_ps(y, _mm512_mul_ps(sigma_, _mm512_loadu_ps(scales))));
      }
    }
    if (kWipe) WipePanel(unmask);
  }

 private:
  static constexpr uint64_t kHalf = (kQ - 1) / 2;

  // Y~ - U + (q - 1) / 2 in [0, q) is the centred difference, moved up; back down, plus Delta / 2,
  // and the floor of the quotient. One rounding to float.
  TALARIA_INLINE __m256 Integers(const uint8_t* residues, const uint8_t* unmask, int vector) const {
    const __m512i difference =
        _mm512_sub_epi64(load_.Load(residues, vector), load_.Load(unmask, vector));
    const __m512i moved = Canonical(_mm512_add_epi64(difference, half_), q_);
    return _mm512_cvtepi64_ps(_mm512_sra_epi64(_mm512_add_epi64(moved, round_), shift_));
  }

  const UnmaskArguments a_;
  const PanelLoader load_;
  const __m512i q_, half_, round_;
  const __m512 sigma_;
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

const Kernels kAvx512Kernels = {Norms, Mask, Check, Unmask};

}  // namespace talaria::cvm::internal
