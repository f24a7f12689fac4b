// The positive control of constant_time_scan.py: three kernels as they must not be. Never linked.
#include <immintrin.h>

#include <cstdint>

namespace talaria::cvm {

// A secret address per lane.
__m512i ControlGather(const uint64_t* table, __m512i secret) {
  return _mm512_i64gather_epi64(secret, table, 8);
}

// A branch on secret lanes.
int ControlFlags(__m512i secret) {
  const __m256i half = _mm512_castsi512_si256(secret);
  if (_mm256_testz_si256(half, half) != 0) return 3;
  asm volatile("");
  return 5;
}

// A secret that moves to a general register, and a branch on it there.
uint64_t ControlMove(__m512i secret, uint64_t* out) {
  const auto value = static_cast<uint64_t>(_mm_cvtsi128_si64(_mm512_castsi512_si128(secret)));
  if ((value & 4) != 0) {
    asm volatile("" ::: "memory");
    *out = 1;
  }
  return value;
}

}  // namespace talaria::cvm
