// RowGenerator with AVX-512 IFMA. Eight columns in the lanes of a vector; everything is lane-wise.
//
//  * The inner product sums low and high 52-bit halves lazily; one Montgomery reduction for all.
//  * The inverse NTT is a decimation in time, where values grow by q per level and an IFMA operand
//    may be 52 bits = 16 q, so there is no reduction inside a pass over registers. The first four
//    levels need 17 products instead of 32 (roots 1). Multiplier inputs must not be negative: the
//    offsets that see to it enter as start values of the inner product (kStartOffset).
//  * Products are signed Montgomery products with w q^-1 at hand: 3 IFMA and a subtraction.
//  * 1/256 and the Montgomery factor sit in the secrets, the twist psi^-j comes last.
//  * The next block of the matrix is prefetched evenly during all of this, in the order in which it
//    will be read: linearly, one batch a pass would take 3.7 ns an element instead of 3.2.
// Bounds in the comments are in units of q; 16 q < 2^52. Compiled for AVX-512: nothing here may
// instantiate an inline function that other files share.
#include <immintrin.h>

#include "talaria/ring/batch_kernels.h"

namespace talaria::ring::internal {
namespace {

#define TALARIA_INLINE [[gnu::always_inline]] inline

using Vector = __m512i;

constexpr unsigned kPositions = 256;
constexpr unsigned kInner = 8;                          // k
constexpr size_t kGroupBytes = 48;                      // 8 residues
constexpr size_t kSlotBytes = kInner * kGroupBytes;     // 384
constexpr size_t kBlockSize = kPositions * kSlotBytes;  // 98,304
constexpr size_t kPanelRow = 192;                       // 32 residues
constexpr size_t kPanelSize = kPositions * kPanelRow;
constexpr unsigned kLinesPerSlot = kSlotBytes / 64;  // 6
constexpr uint64_t kModulus = (uint64_t{1} << 48) - 16383;

constexpr uint64_t InverseOfModulus() {  // mod 2^52
  uint64_t inverse = 1;
  for (int i = 0; i < 6; ++i) inverse *= 2 - kModulus * inverse;
  return inverse & ((uint64_t{1} << 52) - 1);
}

// Eight six-byte residues to lanes and back. Bytes 6 and 7 of a lane are masked to zero.
constexpr __mmask64 kSixOfEight = 0x3f3f3f3f3f3f3f3f;
alignas(64) constexpr uint8_t kUnpack[64] = {
    0,  1,  2,  3,  4,  5,  0,  0,  6,  7,  8,  9,  10, 11, 0,  0,  12, 13, 14, 15, 16, 17,
    0,  0,  18, 19, 20, 21, 22, 23, 0,  0,  24, 25, 26, 27, 28, 29, 0,  0,  30, 31, 32, 33,
    34, 35, 0,  0,  36, 37, 38, 39, 40, 41, 0,  0,  42, 43, 44, 45, 46, 47, 0,  0};
alignas(64) constexpr uint8_t kPack[64] = {
    0,  1,  2,  3,  4,  5,  8,  9,  10, 11, 12, 13, 16, 17, 18, 19, 20, 21, 24, 25, 26, 27, 28, 29,
    32, 33, 34, 35, 36, 37, 40, 41, 42, 43, 44, 45, 48, 49, 50, 51, 52, 53, 56, 57, 58, 59, 60, 61};

constexpr unsigned kReverse4[16] = {0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15};

// Start offsets of the 16 inputs x_p of the first pass, chosen by the sum and the difference of
// each pair: x_2i + x_2i+1 = kPairSum[i], x_2i - x_2i+1 = 5 or 6. An input is its offset plus
// (-1, 1/2). Then every multiplier input of the four levels is in (1, 14) and every result of the
// pass in (1, 97): level by level, with r in (-1, 1) for every product,
//   pair sums are off by (-2, 1), differences by +-3/2; the products of level 2 take 5..6 +- 3/2,
//   of level 3 also 13 - 8 and 10 - 5 +- 3, of level 4 also (14 + 9) - (10 + 5) = 8 +- 6;
//   the smallest result is x_8 = 51 - 38 +- 12, the largest x_0 = 51 + 38 (-16, +8).
constexpr int kPairSum[8] = {18, 12, 13, 8, 14, 9, 10, 5};
constexpr uint64_t StartOffset(unsigned p) {
  const int sum = kPairSum[p / 2];
  const int difference = sum % 2 != 0 ? 5 : 6;
  return static_cast<uint64_t>(p % 2 != 0 ? (sum - difference) / 2 : (sum + difference) / 2) *
         kModulus;
}

TALARIA_INLINE Vector Set1(uint64_t x) { return _mm512_set1_epi64(static_cast<long long>(x)); }

// x in [0, 16) -> x w in (-1, 1).
TALARIA_INLINE Vector Multiply(Vector x, const IfmaRoot& root, Vector q) {
  const Vector zero = _mm512_setzero_si512();
  const Vector m = _mm512_madd52lo_epu64(zero, x, Set1(root.w_over_q));
  const Vector high = _mm512_madd52hi_epu64(zero, x, Set1(root.w));
  return _mm512_sub_epi64(high, _mm512_madd52hi_epu64(zero, m, q));
}
TALARIA_INLINE void Butterfly(Vector& u, Vector& v, const IfmaRoot& root, Vector q) {
  const Vector r = Multiply(v, root, q);
  v = _mm512_sub_epi64(u, r);
  u = _mm512_add_epi64(u, r);
}
TALARIA_INLINE void Butterfly1(Vector& u, Vector& v) {  // root 1
  const Vector sum = _mm512_add_epi64(u, v);
  v = _mm512_sub_epi64(u, v);
  u = sum;
}

TALARIA_INLINE void Prefetch(const uint8_t* from, unsigned lines) {
  for (unsigned i = 0; i < lines; ++i) _mm_prefetch(from + 64 * i, _MM_HINT_T1);
}

// One position of all batches: sum_i s_i h_i / 2^52 plus the start offset.
template <unsigned kBatches>
TALARIA_INLINE void InnerProduct(const uint8_t* slot, const uint64_t* secrets, uint64_t offset,
                                 Vector* out) {
  const Vector zero = _mm512_setzero_si512();
  const Vector q = Set1(kModulus);
  const Vector inverse = Set1(InverseOfModulus());
  const Vector unpack = _mm512_load_si512(kUnpack);
  Vector low[kBatches];
  Vector high[kBatches];
#pragma GCC unroll 4
  for (unsigned b = 0; b < kBatches; ++b) {
    low[b] = zero;
    high[b] = Set1(offset);
  }
#pragma GCC unroll 8
  for (unsigned i = 0; i < kInner; ++i) {
    const Vector h = _mm512_maskz_permutexvar_epi8(kSixOfEight, unpack,
                                                   _mm512_loadu_si512(slot + i * kGroupBytes));
#pragma GCC unroll 4
    for (unsigned b = 0; b < kBatches; ++b) {
      const Vector s = Set1(secrets[i * kBatches + b]);
      low[b] = _mm512_madd52lo_epu64(low[b], h, s);
      high[b] = _mm512_madd52hi_epu64(high[b], h, s);
    }
  }
#pragma GCC unroll 4
  for (unsigned b = 0; b < kBatches; ++b) {
    const Vector m = _mm512_madd52lo_epu64(zero, low[b], inverse);
    const Vector sum = _mm512_add_epi64(high[b], _mm512_srli_epi64(low[b], 52));
    out[b * kPositions] = _mm512_sub_epi64(sum, _mm512_madd52hi_epu64(zero, m, q));
  }
}

// Levels 1..4 on 16 neighbouring positions; the result is folded to [0, 1 + 2^-27). Level 4 uses
// the powers of psi^-32.
TALARIA_INLINE void FirstLevels(Vector* values, const IfmaRoot* root) {
  const Vector q = Set1(kModulus);
  const Vector mask48 = Set1((uint64_t{1} << 48) - 1);
  const Vector fold = Set1(16383);
  Vector x[16];
#pragma GCC unroll 16
  for (unsigned i = 0; i < 16; ++i) x[i] = values[i];
#pragma GCC unroll 8
  for (unsigned i = 0; i < 16; i += 2) Butterfly1(x[i], x[i + 1]);
#pragma GCC unroll 4
  for (unsigned i = 0; i < 16; i += 4) {
    Butterfly1(x[i], x[i + 2]);
    Butterfly(x[i + 1], x[i + 3], root[4 * 32], q);
  }
#pragma GCC unroll 2
  for (unsigned i = 0; i < 16; i += 8) {
    Butterfly1(x[i], x[i + 4]);
    Butterfly(x[i + 1], x[i + 5], root[2 * 32], q);
    Butterfly(x[i + 2], x[i + 6], root[4 * 32], q);
    Butterfly(x[i + 3], x[i + 7], root[6 * 32], q);
  }
  Butterfly1(x[0], x[8]);
#pragma GCC unroll 8
  for (unsigned i = 1; i < 8; ++i) Butterfly(x[i], x[i + 8], root[i * 32], q);
#pragma GCC unroll 16
  for (unsigned i = 0; i < 16; ++i) {
    values[i] =
        _mm512_madd52lo_epu64(_mm512_and_si512(x[i], mask48), _mm512_srli_epi64(x[i], 48), fold);
  }
}

struct Destination {
  uint8_t* rows;        // row 0 of this block's eight columns
  const int8_t* error;  // likewise; unused without errors
  size_t error_stride;
  __mmask64 keep;  // the bytes of the columns that exist
  bool last_of_panel;
};

// The twist, the error, canonical form, and out. x in [0, 16).
template <bool kError>
TALARIA_INLINE void Emit(Vector x, unsigned row, const IfmaRoot& twist, const Destination& to) {
  const Vector q = Set1(kModulus);
  Vector r = Multiply(x, twist, q);
  r = _mm512_min_epu64(r, _mm512_add_epi64(r, q));  // a negative value is a huge unsigned one
  if constexpr (kError) {
    const Vector e = _mm512_cvtepi8_epi64(
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(to.error + row * to.error_stride)));
    r = _mm512_add_epi64(r, e);
    r = _mm512_min_epu64(r, _mm512_add_epi64(r, q));
    r = _mm512_min_epu64(r, _mm512_sub_epi64(r, q));
  }
  r = _mm512_maskz_permutexvar_epi8(to.keep, _mm512_load_si512(kPack), r);
  uint8_t* const out = to.rows + row * kPanelRow;
  if (!to.last_of_panel) {  // the 16 bytes too many are overwritten by the next block
    _mm512_storeu_si512(out, r);
  } else {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_castsi512_si256(r));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 32), _mm512_extracti32x4_epi32(r, 2));
  }
}

// Levels 5..8 on 16 positions at a time, in [0, 1 + 2^-27), and out.
template <bool kError, unsigned kPrefetchLines>
void LastLevels(const Vector* values, const IfmaRoot* root, const Destination& to,
                const uint8_t* next) {
  const Vector q = Set1(kModulus);
  const Vector offset = Set1(8 * kModulus);
  for (unsigned j = 0; j < 16; ++j) {
    Vector x[16];
#pragma GCC unroll 16
    for (unsigned i = 0; i < 16; ++i) x[i] = values[j + 16 * i];
#pragma GCC unroll 8
    for (unsigned i = 0; i < 16; i += 2) {
      x[i] = _mm512_add_epi64(x[i], offset);
      Butterfly(x[i], x[i + 1], root[8 * 2 * j], q);  // -> (7, 10 + 2^-27)
    }
#pragma GCC unroll 4
    for (unsigned i = 0; i < 16; i += 4) {  // -> (6, 11 + ..)
      Butterfly(x[i], x[i + 2], root[8 * j], q);
      Butterfly(x[i + 1], x[i + 3], root[8 * (j + 16)], q);
    }
#pragma GCC unroll 2
    for (unsigned i = 0; i < 16; i += 8) {  // -> (5, 12 + ..)
#pragma GCC unroll 4
      for (unsigned k = 0; k < 4; ++k) {
        Butterfly(x[i + k], x[i + 4 + k], root[4 * (j + 16 * k)], q);
      }
    }
#pragma GCC unroll 8
    for (unsigned k = 0; k < 8; ++k) {  // -> (4, 13 + ..)
      Butterfly(x[k], x[8 + k], root[2 * (j + 16 * k)], q);
    }
#pragma GCC unroll 16
    for (unsigned i = 0; i < 16; ++i) {
      Prefetch(next + (kReverse4[j] + 16 * kReverse4[i]) * kSlotBytes, kPrefetchLines);
      Emit<kError>(x[i], j + 16 * i, root[j + 16 * i], to);
    }
  }
}

template <unsigned kBatches>
void Generate(const Pass& pass) {
  // Of the six lines of a slot, so many during the output of each batch, the rest during its inner
  // product.
  constexpr unsigned kOutputLines = kBatches == 1 ? 3 : kBatches == 2 ? 2 : 1;
  constexpr unsigned kInnerLines = kLinesPerSlot - kBatches * kOutputLines;
  const IfmaRoot* const root = GetIfmaRoots().root;
  Vector* const values = static_cast<Vector*>(pass.values);
  const size_t blocks = (pass.columns + 7) / 8;
  for (size_t block = 0; block < blocks; ++block) {
    const uint8_t* const matrix = pass.matrix + block * kBlockSize;
    for (unsigned group = 0; group < 16; ++group) {
      const uint8_t* const slots = matrix + kReverse4[group] * kSlotBytes;
      const uint64_t* const secrets = pass.secrets + group * 16 * kInner * kBatches;
#pragma GCC unroll 16
      for (unsigned p = 0; p < 16; ++p) {
        const uint8_t* const slot = slots + 16 * kReverse4[p] * kSlotBytes;
        Prefetch(slot + kBlockSize, kInnerLines);
        InnerProduct<kBatches>(slot, secrets + p * kInner * kBatches, StartOffset(p),
                               values + 16 * group + p);
      }
      for (unsigned b = 0; b < kBatches; ++b) {
        FirstLevels(values + b * kPositions + 16 * group, root);
      }
    }
    const size_t present = pass.columns - 8 * block < 8 ? pass.columns - 8 * block : 8;
    Destination to;
    to.error_stride = pass.error_stride;
    to.keep = (__mmask64{1} << (6 * present)) - 1;
    to.last_of_panel = block % 4 == 3;
    for (unsigned b = 0; b < kBatches; ++b) {
      const uint8_t* const next = matrix + kBlockSize + (kInnerLines + b * kOutputLines) * 64;
      to.rows = pass.rows[b] + block / 4 * kPanelSize + block % 4 * kGroupBytes;
      if (pass.error[b] != nullptr) {
        to.error = pass.error[b] + 8 * block;
        LastLevels<true, kOutputLines>(values + b * kPositions, root, to, next);
      } else {
        to.error = nullptr;
        LastLevels<false, kOutputLines>(values + b * kPositions, root, to, next);
      }
    }
  }
}

}  // namespace

void GenerateAvx512(const Pass& pass) {
  switch (pass.batches) {
    case 1:
      return Generate<1>(pass);
    case 2:
      return Generate<2>(pass);
    case 3:
      return Generate<3>(pass);
    default:
      return Generate<4>(pass);
  }
}

}  // namespace talaria::ring::internal
