// Six unsigned digit planes against int8 weights, exact in s32 (product.h): what the kernels with
// such an instruction share, AVX-512 VNNI and AMX.
//
//   panel: [padded_inputs / 4][32 columns][4] int8, one linear stream
//
// Included by kernel files only: everything is in an unnamed namespace (see product_kernels.h).
#ifndef TALARIA_GEMM_PRODUCT_PLANES_H_
#define TALARIA_GEMM_PRODUCT_PLANES_H_

// GCC 12 warns about its own "undefined" vectors inside this header (GCC bug 105593).
#pragma GCC diagnostic push
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop

#include "talaria/gemm/product_kernels.h"

namespace talaria::gemm {
namespace {

constexpr size_t kPlaneCount = 6;
constexpr int64_t kModulus = (int64_t{1} << 48) - 16383;

size_t PanelBytes(size_t padded_inputs) { return kPanelColumns * padded_inputs; }
size_t PackedRowBytes(size_t padded_inputs) { return kPlaneCount * padded_inputs; }

void PackPanel(const int8_t* columns, size_t d, size_t count, int8_t* panel) {
  const size_t padded = (d + 63) / 64 * 64;
  for (size_t k = 0; k < padded; k += 4) {
    int8_t* to = panel + k * kPanelColumns;
    __builtin_memset(to, 0, 4 * kPanelColumns);
    if (k + 4 <= d) {
      for (size_t c = 0; c < count; ++c) __builtin_memcpy(to + 4 * c, columns + c * d + k, 4);
    } else if (k < d) {
      for (size_t c = 0; c < count; ++c) __builtin_memcpy(to + 4 * c, columns + c * d + k, d - k);
    }
  }
}

// The low s32 of each 64-bit lane of six sums -> canonical residues.
inline __attribute__((always_inline)) __m512i Recombine(__m512i a0, __m512i a1, __m512i a2,
                                                        __m512i a3, __m512i a4, __m512i a5) {
  const __m512i one = _mm512_set1_epi64(1), byte1 = _mm512_set1_epi64(256),
                byte2 = _mm512_set1_epi64(65536);
  const __m512i low =
      _mm512_add_epi64(_mm512_mul_epi32(a0, one),  // |low|, |high| < 2^47.01
                       _mm512_add_epi64(_mm512_mul_epi32(a1, byte1), _mm512_mul_epi32(a2, byte2)));
  const __m512i high =
      _mm512_add_epi64(_mm512_mul_epi32(a3, one),
                       _mm512_add_epi64(_mm512_mul_epi32(a4, byte1), _mm512_mul_epi32(a5, byte2)));
  // 2^24 high = carry 2^48 + rest, and 2^48 = 2^14 - 1.
  const __m512i carry = _mm512_srai_epi64(high, 24);
  const __m512i rest = _mm512_slli_epi64(_mm512_and_si512(high, _mm512_set1_epi64(0xffffff)), 24);
  const __m512i folded = _mm512_sub_epi64(_mm512_slli_epi64(carry, 14), carry);
  __m512i sum = _mm512_add_epi64(_mm512_add_epi64(low, rest), folded);  // in (-q, 2 q)
  const __m512i q = _mm512_set1_epi64(kModulus);
  sum = _mm512_min_epu64(sum, _mm512_add_epi64(sum, q));   // a negative one is huge as unsigned
  return _mm512_min_epu64(sum, _mm512_sub_epi64(sum, q));  // and so is sum - q below q
}

// sums: plane p of 16 columns at sums[2 p]. Writes 96 bytes.
inline __attribute__((always_inline)) void Store16(const __m512i* sums, uint8_t* out) {
  const __m512i even = Recombine(sums[0], sums[2], sums[4], sums[6], sums[8], sums[10]);
  const __m512i odd = Recombine(_mm512_srli_epi64(sums[0], 32), _mm512_srli_epi64(sums[2], 32),
                                _mm512_srli_epi64(sums[4], 32), _mm512_srli_epi64(sums[6], 32),
                                _mm512_srli_epi64(sums[8], 32), _mm512_srli_epi64(sums[10], 32));
  const __m512i first8 = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
  const __m512i last8 = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
  alignas(64) static constexpr uint8_t kSixOfEight[64] = {
      0,  1,  2,  3,  4,  5,  8,  9,  10, 11, 12, 13, 16, 17, 18, 19,
      20, 21, 24, 25, 26, 27, 28, 29, 32, 33, 34, 35, 36, 37, 40, 41,
      42, 43, 44, 45, 48, 49, 50, 51, 52, 53, 56, 57, 58, 59, 60, 61};
  constexpr __mmask64 k48 = (uint64_t{1} << 48) - 1;
  const __m512i pack = _mm512_load_si512(kSixOfEight);
  const __m512i low = _mm512_permutexvar_epi8(pack, _mm512_permutex2var_epi64(even, first8, odd));
  const __m512i high = _mm512_permutexvar_epi8(pack, _mm512_permutex2var_epi64(even, last8, odd));
  _mm512_mask_storeu_epi8(out, k48, low);
  _mm512_mask_storeu_epi8(out + 48, k48, high);
}

// sums [6 planes][32 columns] of one row -> its residues in one panel.
inline void Finish(const __m512i* sums, uint8_t* out) {
  Store16(sums, out);
  Store16(sums + 1, out + 96);
}

}  // namespace
}  // namespace talaria::gemm

#endif  // TALARIA_GEMM_PRODUCT_PLANES_H_
