// RowGenerator with AVX2 and FMA: residues are exact integers in doubles, four columns in the lanes
// of a vector, so a block of eight columns is two halves.
//
//  * x w mod q, up to a multiple: b = rint(x w / q), then x w - b q exactly by two FMAs.
//  * The inner product splits residues in unsigned 24-bit halves: 4 FMAs a term, sums below 2^52.
//  * The inverse NTT is a decimation in time; values are signed and grow by 2/3 q a level, so eight
//    levels need one reduction, of the values that have met no product yet.
//  * 1/256 sits in the secrets, the twist psi^-j comes last.
//  * While half of a block is done, three of the six lines of each slot of the next block are
//    prefetched.
// Bounds in the comments are in units of q; 2^53 = 32 q, up to where integers are exact. Rounding
// is to nearest; no denormal occurs. Compiled for AVX2: nothing here may instantiate an inline
// function that other files share.
#include <immintrin.h>

#include <cstring>

#include "talaria/ring/batch_kernels.h"

namespace talaria::ring::internal {
namespace {

#define TALARIA_INLINE [[gnu::always_inline]] inline

using Vector = __m256d;

constexpr unsigned kPositions = 256;
constexpr unsigned kInner = 8;                       // k
constexpr size_t kGroupBytes = 48;                   // 8 residues
constexpr size_t kHalfBytes = 24;                    // 4 residues
constexpr size_t kSlotBytes = kInner * kGroupBytes;  // 384
constexpr size_t kBlockSize = kPositions * kSlotBytes;
constexpr size_t kPanelRow = 192;  // 32 residues
constexpr size_t kPanelSize = kPositions * kPanelRow;
constexpr double kModulus = 281474976694273.0;  // 2^48 - 16383
constexpr double kInverse = 1.0 / kModulus;
constexpr FmaRoot k2To24 = {16777216.0, 16777216.0 * kInverse};
constexpr FmaRoot k2To48 = {16383.0, 16383.0 * kInverse};

constexpr unsigned kReverse3[8] = {0, 4, 2, 6, 1, 5, 3, 7};
constexpr unsigned kReverse5[32] = {0, 16, 8, 24, 4, 20, 12, 28, 2, 18, 10, 26, 6, 22, 14, 30,
                                    1, 17, 9, 25, 5, 21, 13, 29, 3, 19, 11, 27, 7, 23, 15, 31};

TALARIA_INLINE Vector Set1(double x) { return _mm256_set1_pd(x); }

// The nearest integer, |x| < 2^51: adding 1.5 * 2^52 leaves no bits for a fraction.
TALARIA_INLINE Vector AddAndRound(Vector x_plus_magic) {
  return _mm256_sub_pd(x_plus_magic, Set1(6755399441055744.0));
}
TALARIA_INLINE Vector RoundedQuotient(Vector x, Vector w_over_q) {
  return AddAndRound(_mm256_fmadd_pd(x, w_over_q, Set1(6755399441055744.0)));
}
// |x| < 12 -> x w in [-2/3, 2/3]: x w / q is off by less than 1/6, because w / q < 1/2 is off by
// 2^-54. Every step is exact: the product's lower half is an integer, and so is the difference.
TALARIA_INLINE Vector Multiply(Vector x, const FmaRoot& root, Vector q) {
  const Vector w = Set1(root.w);
  const Vector multiple = RoundedQuotient(x, Set1(root.w_over_q));
  const Vector high = _mm256_mul_pd(x, w);
  const Vector low = _mm256_fmsub_pd(x, w, high);
  return _mm256_add_pd(_mm256_fnmadd_pd(multiple, q, high), low);
}
// |x| < 32 -> [-1/2, 1/2], nearly.
TALARIA_INLINE Vector Reduce(Vector x, Vector q) {
  return _mm256_fnmadd_pd(RoundedQuotient(x, Set1(kInverse)), q, x);
}
TALARIA_INLINE void Butterfly(Vector& u, Vector& v, const FmaRoot& root, Vector q) {
  const Vector r = Multiply(v, root, q);
  v = _mm256_sub_pd(u, r);
  u = _mm256_add_pd(u, r);
}
TALARIA_INLINE void Butterfly1(Vector& u, Vector& v) {  // root 1
  const Vector sum = _mm256_add_pd(u, v);
  v = _mm256_sub_pd(u, v);
  u = sum;
}

// Four six-byte residues (reads 28 bytes) -> their 24-bit halves.
TALARIA_INLINE void LoadHalves(const uint8_t* from, Vector* low, Vector* high) {
  const __m256i select = _mm256_setr_epi8(0, 1, 2, -1, 6, 7, 8, -1, 3, 4, 5, -1, 9, 10, 11, -1,  //
                                          0, 1, 2, -1, 6, 7, 8, -1, 3, 4, 5, -1, 9, 10, 11, -1);
  const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 12));
  __m256i v = _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
  v = _mm256_shuffle_epi8(v, select);           // l0 l1 h0 h1 | l2 l3 h2 h3
  v = _mm256_permute4x64_epi64(v, 0b11011000);  // l0 l1 l2 l3 | h0 h1 h2 h3
  *low = _mm256_cvtepi32_pd(_mm256_castsi256_si128(v));
  *high = _mm256_cvtepi32_pd(_mm256_extracti128_si256(v, 1));
}

// One position of all batches: sum_i s_i h_i in [-1.6, 1.6]. `secrets`: [i][batch][low, high].
template <unsigned kBatches>
TALARIA_INLINE void InnerProduct(const uint8_t* slot, const double* secrets, Vector* out) {
  const Vector q = Set1(kModulus);
  Vector sum0[kBatches];
  Vector sum24[kBatches];
  Vector sum48[kBatches];
#pragma GCC unroll 4
  for (unsigned b = 0; b < kBatches; ++b) sum0[b] = sum24[b] = sum48[b] = _mm256_setzero_pd();
#pragma GCC unroll 8
  for (unsigned i = 0; i < kInner; ++i) {
    Vector low;
    Vector high;
    LoadHalves(slot + i * kGroupBytes, &low, &high);
#pragma GCC unroll 4
    for (unsigned b = 0; b < kBatches; ++b) {
      const Vector s0 = Set1(secrets[(i * kBatches + b) * 2]);
      const Vector s24 = Set1(secrets[(i * kBatches + b) * 2 + 1]);
      sum0[b] = _mm256_fmadd_pd(low, s0, sum0[b]);
      sum24[b] = _mm256_fmadd_pd(low, s24, sum24[b]);
      sum48[b] = _mm256_fmadd_pd(high, s24, sum48[b]);
      sum24[b] = _mm256_fmadd_pd(high, s0, sum24[b]);
    }
  }
#pragma GCC unroll 4
  for (unsigned b = 0; b < kBatches; ++b) {
    const Vector upper =
        _mm256_add_pd(Multiply(sum24[b], k2To24, q), Multiply(sum48[b], k2To48, q));
    out[b * kPositions] = _mm256_add_pd(Reduce(sum0[b], q), upper);
  }
}

// kLevels levels, from kFirst on, of values whose positions differ by 2^kFirst; j is the position
// of the first one modulo that.
template <unsigned kFirst, unsigned kLevels>
TALARIA_INLINE void Levels(Vector* x, unsigned j, const FmaRoot* root, Vector q) {
#pragma GCC unroll 3
  for (unsigned l = 0; l < kLevels; ++l) {
    const unsigned half = 1u << l;
#pragma GCC unroll 4
    for (unsigned i = 0; i < (1u << kLevels); i += 2 * half) {
#pragma GCC unroll 4
      for (unsigned k = 0; k < half; ++k) {
        if (kFirst == 0 && k == 0) {
          Butterfly1(x[i], x[i + half]);
        } else {
          const unsigned power = (j + (k << kFirst)) << (8 - kFirst - l);
          Butterfly(x[i + k], x[i + k + half], root[power], q);
        }
      }
    }
  }
}

// Levels 0..2 on 8 neighbouring positions. Only sums lead to x[0] and x[4], up to 13; the others
// stay below 8 and gain 2/3 in each of the five levels to come: below 12.
TALARIA_INLINE void FirstLevels(Vector* values, const FmaRoot* root) {
  const Vector q = Set1(kModulus);
  Vector x[8];
#pragma GCC unroll 8
  for (unsigned i = 0; i < 8; ++i) x[i] = values[i];
  Levels<0, 3>(x, 0, root, q);
  x[0] = Reduce(x[0], q);
  x[4] = Reduce(x[4], q);
#pragma GCC unroll 8
  for (unsigned i = 0; i < 8; ++i) values[i] = x[i];
}

struct Destination {
  uint8_t* rows;        // row 0 of these four columns
  const int8_t* error;  // likewise; unused without errors
  size_t error_stride;
  __m256i pack;  // doubles' low six bytes together, for the columns that exist
  bool last_of_panel;
};

// The twist, the error, canonical form, and out.
template <bool kError>
TALARIA_INLINE void Emit(Vector x, unsigned row, const FmaRoot& twist, const Destination& to) {
  const Vector q = Set1(kModulus);
  Vector r = Multiply(x, twist, q);
  if constexpr (kError) {
    int32_t four;
    std::memcpy(&four, to.error + row * to.error_stride, 4);
    r = _mm256_add_pd(r, _mm256_cvtepi32_pd(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(four))));
  }
  // Now in (-1, 1). Comparing with zero, unlike looking at the sign, takes -0.0 for zero.
  r = _mm256_add_pd(r, _mm256_and_pd(q, _mm256_cmp_pd(r, _mm256_setzero_pd(), _CMP_LT_OQ)));
  // Adding 2^52 brings the integer to the low bits.
  __m256i v = _mm256_castpd_si256(_mm256_add_pd(r, Set1(4503599627370496.0)));
  v = _mm256_shuffle_epi8(v, to.pack);
  const __m128i a = _mm256_castsi256_si128(v);
  const __m128i b = _mm256_extracti128_si256(v, 1);
  uint8_t* const out = to.rows + row * kPanelRow;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), a);
  if (!to.last_of_panel) {  // the four bytes too many are overwritten by the next four columns
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 12), b);
  } else {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out + 12), b);
    const int32_t end = _mm_extract_epi32(b, 2);
    std::memcpy(out + 20, &end, 4);
  }
}

// Levels 3..5 in place, then levels 6 and 7, and out.
template <bool kError>
void LastLevels(Vector* values, const FmaRoot* root, const Destination& to) {
  const Vector q = Set1(kModulus);
  for (unsigned first = 0; first < kPositions; first += 64) {
    for (unsigned j = 0; j < 8; ++j) {
      Vector* const at = values + first + j;
      Vector x[8];
#pragma GCC unroll 8
      for (unsigned i = 0; i < 8; ++i) x[i] = at[8 * i];
      Levels<3, 3>(x, j, root, q);
#pragma GCC unroll 8
      for (unsigned i = 0; i < 8; ++i) at[8 * i] = x[i];
    }
  }
  for (unsigned j = 0; j < 64; ++j) {
    Vector x[4] = {values[j], values[j + 64], values[j + 128], values[j + 192]};
    Levels<6, 2>(x, j, root, q);
#pragma GCC unroll 4
    for (unsigned i = 0; i < 4; ++i) Emit<kError>(x[i], j + 64 * i, root[j + 64 * i], to);
  }
}

// The shuffle that packs the first `present` (0..4) of four columns and zeroes the others.
__m256i PackOf(size_t present) {
  alignas(32) int8_t pack[32];
  for (size_t lane = 0; lane < 2; ++lane) {
    for (size_t i = 0; i < 16; ++i) {
      const bool keep = i < 12 && 2 * lane + i / 6 < present;
      pack[16 * lane + i] = static_cast<int8_t>(keep ? i / 6 * 8 + i % 6 : 0x80);
    }
  }
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(pack));
}

template <unsigned kBatches>
void Generate(const Pass& pass) {
  const FmaRoot* const root = GetFmaRoots().root;
  Vector* const values = static_cast<Vector*>(pass.values);
  const size_t halves = (pass.columns + 7) / 8 * 2;
  for (size_t half = 0; half < halves; ++half) {
    const uint8_t* const matrix = pass.matrix + half / 2 * kBlockSize + half % 2 * kHalfBytes;
    for (unsigned group = 0; group < 32; ++group) {
      const uint8_t* const slots = matrix + kReverse5[group] * kSlotBytes;
      const double* const secrets = pass.halves + group * 8 * kInner * kBatches * 2;
      for (unsigned p = 0; p < 8; ++p) {
        const uint8_t* const slot = slots + 32 * kReverse3[p] * kSlotBytes;
        const uint8_t* const next = slot + kBlockSize + half % 2 * (3 * 64 - kHalfBytes);
        for (unsigned i = 0; i < 3; ++i) _mm_prefetch(next + 64 * i, _MM_HINT_T1);
        InnerProduct<kBatches>(slot, secrets + p * kInner * kBatches * 2, values + 8 * group + p);
      }
      for (unsigned b = 0; b < kBatches; ++b)
        FirstLevels(values + b * kPositions + 8 * group, root);
    }
    Destination to;
    to.error_stride = pass.error_stride;
    to.pack = PackOf(pass.columns <= 4 * half      ? 0
                     : pass.columns - 4 * half < 4 ? pass.columns - 4 * half
                                                   : 4);
    to.last_of_panel = half % 8 == 7;
    for (unsigned b = 0; b < kBatches; ++b) {
      to.rows = pass.rows[b] + half / 8 * kPanelSize + half % 8 * kHalfBytes;
      if (pass.error[b] != nullptr) {
        to.error = pass.error[b] + 4 * half;
        LastLevels<true>(values + b * kPositions, root, to);
      } else {
        to.error = nullptr;
        LastLevels<false>(values + b * kPositions, root, to);
      }
    }
  }
}

}  // namespace

void GenerateAvx2(const Pass& pass) {
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
