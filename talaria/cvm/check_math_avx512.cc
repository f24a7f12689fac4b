// The sums of check_math.h with 52-bit multiply-add: eight residues at a time, low and high halves
// of the products in lanes of their own. Nothing inline from shared headers is used here (see
// cmake/helpers.cmake, talaria_kernel_flags).
#include <immintrin.h>

#include "talaria/cvm/check_math.h"

namespace talaria::cvm::internal {
namespace {

constexpr size_t kRows = 2048;      // ring::kSecretSize
constexpr size_t kGroupBytes = 48;  // eight residues
constexpr size_t kBlockBytes = kRows * kGroupBytes;
constexpr size_t kPanelRowBytes = 192;
constexpr size_t kPanelBytes = 256 * kPanelRowBytes;
// Eight residues per step and lane sums of low halves < 2^52: 64 steps of 8 lanes stay below 2^61.
constexpr size_t kBlocksPerFold = 16;
constexpr size_t kPanelsPerFold = 16;

#define TALARIA_INLINE static inline __attribute__((always_inline))

// Six-byte residues -> 64-bit lanes. Reads 48 bytes and none beyond: what follows may be arriving
// from the cloud.
TALARIA_INLINE __m512i Load(const uint8_t* from) {
  const __m512i order = _mm512_set_epi8(
      63, 63, 47, 46, 45, 44, 43, 42, 63, 63, 41, 40, 39, 38, 37, 36, 63, 63, 35, 34, 33, 32, 31,
      30, 63, 63, 29, 28, 27, 26, 25, 24, 63, 63, 23, 22, 21, 20, 19, 18, 63, 63, 17, 16, 15, 14,
      13, 12, 63, 63, 11, 10, 9, 8, 7, 6, 63, 63, 5, 4, 3, 2, 1, 0);
  return _mm512_maskz_permutexvar_epi8(0x3f3f3f3f3f3f3f3full, order,
                                       _mm512_maskz_loadu_epi8(0xffff'ffff'ffffull, from));
}

struct Lanes {
  __m512i low, high;
};
TALARIA_INLINE Lanes Zero() { return {_mm512_setzero_si512(), _mm512_setzero_si512()}; }
TALARIA_INLINE void MultiplyAdd(Lanes& sum, __m512i a, __m512i b) {
  sum.low = _mm512_madd52lo_epu64(sum.low, a, b);
  sum.high = _mm512_madd52hi_epu64(sum.high, a, b);
}
TALARIA_INLINE WideSum Fold(const Lanes& sum) {
  const WideSum low = static_cast<uint64_t>(_mm512_reduce_add_epi64(sum.low));
  const WideSum high = static_cast<uint64_t>(_mm512_reduce_add_epi64(sum.high));
  return low + (high << 52);
}

template <size_t V>
void ModuleProducts(const uint8_t* blocks, size_t count, const uint64_t* const* x,
                    WideSum* const* sums) {
  for (size_t first = 0; first < count; first += kBlocksPerFold) {
    const size_t n = count - first < kBlocksPerFold ? count - first : kBlocksPerFold;
    const uint8_t* const tile = blocks + first * kBlockBytes;
    for (size_t row = 0; row < kRows; ++row) {
      Lanes sum[V];
      for (size_t k = 0; k < V; ++k) sum[k] = Zero();
      for (size_t b = 0; b < n; ++b) {
        const __m512i value = Load(tile + b * kBlockBytes + row * kGroupBytes);
        for (size_t k = 0; k < V; ++k)
          MultiplyAdd(sum[k], value, _mm512_loadu_si512(x[k] + (first + b) * 8));
      }
      for (size_t k = 0; k < V; ++k) sums[k][row] += Fold(sum[k]);
    }
  }
}

}  // namespace

void AddModuleProductsAvx512(const uint8_t* blocks, size_t columns, const uint64_t* const* x,
                             size_t vectors, WideSum* const* sums) {
  if (vectors == 1) {
    ModuleProducts<1>(blocks, columns / 8, x, sums);
  } else {
    ModuleProducts<2>(blocks, columns / 8, x, sums);
  }
}

void AddPanelProductsAvx512(const uint8_t* panels, size_t columns, const uint64_t* x,
                            WideSum* sums) {
  const size_t count = columns / 32;
  for (size_t first = 0; first < count; first += kPanelsPerFold) {
    const size_t n = count - first < kPanelsPerFold ? count - first : kPanelsPerFold;
    for (size_t row = 0; row < 256; ++row) {
      const uint8_t* from = panels + first * kPanelBytes + row * kPanelRowBytes;
      Lanes even = Zero(), odd = Zero();
      for (size_t p = 0; p < n; ++p, from += kPanelBytes) {
        const uint64_t* const factor = x + (first + p) * 32;
        MultiplyAdd(even, Load(from), _mm512_loadu_si512(factor));
        MultiplyAdd(odd, Load(from + 48), _mm512_loadu_si512(factor + 8));
        MultiplyAdd(even, Load(from + 96), _mm512_loadu_si512(factor + 16));
        MultiplyAdd(odd, Load(from + 144), _mm512_loadu_si512(factor + 24));
      }
      sums[row] += Fold(even) + Fold(odd);
    }
  }
}

// A product is below 2^54, a lane's sum of high parts below 2^12 for any width.
void AddErrorProductsAvx512(const int8_t* errors, size_t stride, size_t columns, const uint64_t* x,
                            WideSum* sums) {
  const __m512i offset = _mm512_set1_epi64(kErrorOffset);
  constexpr size_t kColumnsPerFold = 8 * 512;  // 512 low halves in a lane: below 2^61
  for (size_t row = 0; row < 256; ++row) {
    const int8_t* const e = errors + row * stride;
    for (size_t first = 0; first < columns; first += kColumnsPerFold) {
      const size_t end = columns - first < kColumnsPerFold ? columns : first + kColumnsPerFold;
      Lanes sum = Zero();
      for (size_t c = first; c < end; c += 8) {
        const size_t left = end - c;
        const __mmask8 exists = left < 8 ? static_cast<__mmask8>((1u << left) - 1) : 0xff;
        const __m512i error = _mm512_cvtepi8_epi64(
            _mm_maskz_loadu_epi8(exists, reinterpret_cast<const __m128i*>(e + c)));
        MultiplyAdd(sum, _mm512_add_epi64(error, offset), _mm512_maskz_loadu_epi64(exists, x + c));
      }
      sums[row] += Fold(sum);
    }
  }
}

uint64_t SumOfSquaresAvx512(const int8_t* errors, size_t count) {
  __m512i sums = _mm512_setzero_si512();  // 2^15 times two squares: below 2^31
  for (size_t i = 0; i < count; i += 32) {
    const size_t left = count - i;
    const __mmask32 exists =
        left < 32 ? static_cast<__mmask32>((uint32_t{1} << left) - 1) : ~__mmask32{0};
    const __m512i words = _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(exists, errors + i));
    sums = _mm512_add_epi32(sums, _mm512_madd_epi16(words, words));
  }
  const __m512i low = _mm512_and_si512(sums, _mm512_set1_epi64(0xffffffff));
  return static_cast<uint64_t>(
      _mm512_reduce_add_epi64(_mm512_add_epi64(low, _mm512_srli_epi64(sums, 32))));
}

}  // namespace talaria::cvm::internal
