// Compiled with -mavx2, which includes POPCNT: one count a cycle is faster than any vector form of
// AVX2. Nothing here may instantiate an inline function that other files share.
#include <cstring>

#include "talaria/ring/sampler_kernels.h"

namespace talaria::ring::internal {

void CountErrorsAvx2(const uint8_t* stream, size_t groups, int8_t* out) {
  for (; groups != 0; --groups, stream += kErrorGroupBytes, out += kErrorGroup) {
    for (size_t lane = 0; lane < 8; ++lane) {
      for (size_t j = 0; j < 8; ++j) {
        uint64_t word;
        std::memcpy(&word, stream + 6 * (8 * j + lane), 8);  // two bytes of slack
        out[8 * lane + j] = static_cast<int8_t>(__builtin_popcountll(word & kErrorMask) - 21);
      }
    }
  }
}

}  // namespace talaria::ring::internal
