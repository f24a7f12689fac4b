// Compiled for AVX-512. Nothing here may instantiate an inline function that other files share.
#include <immintrin.h>

#include "talaria/ring/sampler_kernels.h"

namespace talaria::ring::internal {
namespace {

// Eight six-byte words into the lanes; the two upper bytes of a lane are masked off afterwards.
alignas(64) constexpr uint8_t kUnpack[64] = {
    0,  1,  2,  3,  4,  5,  0,  0,  6,  7,  8,  9,  10, 11, 0,  0,  12, 13, 14, 15, 16, 17,
    0,  0,  18, 19, 20, 21, 22, 23, 0,  0,  24, 25, 26, 27, 28, 29, 0,  0,  30, 31, 32, 33,
    34, 35, 0,  0,  36, 37, 38, 39, 40, 41, 0,  0,  42, 43, 44, 45, 46, 47, 0,  0};

}  // namespace

void CountErrorsAvx512(const uint8_t* stream, size_t groups, int8_t* out) {
  const __m512i unpack = _mm512_load_si512(kUnpack);
  const __m512i mask = _mm512_set1_epi64(static_cast<long long>(kErrorMask));
  const __m512i eta = _mm512_set1_epi8(21);
  for (; groups != 0; --groups, stream += kErrorGroupBytes, out += kErrorGroup) {
    __m512i counts = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (unsigned j = 0; j < 8; ++j) {
      const __m512i words = _mm512_permutexvar_epi8(unpack, _mm512_loadu_si512(stream + 48 * j));
      const __m512i ones = _mm512_popcnt_epi64(_mm512_and_si512(words, mask));
      counts = _mm512_or_si512(counts, _mm512_slli_epi64(ones, 8 * j));
    }
    _mm512_storeu_si512(out, _mm512_sub_epi8(counts, eta));
  }
}

}  // namespace talaria::ring::internal
