// The inner loop of SampleError, once per instruction set. Not for use outside sampler*.cc.
#ifndef TALARIA_RING_SAMPLER_KERNELS_H_
#define TALARIA_RING_SAMPLER_KERNELS_H_

#include <cstddef>
#include <cstdint>

namespace talaria::ring::internal {

inline constexpr size_t kErrorGroup = 64;                        // samples
inline constexpr size_t kErrorGroupBytes = kErrorGroup * 6;      // of the key stream
inline constexpr uint64_t kErrorMask = (uint64_t{1} << 42) - 1;  // 2 eta coin tosses

// `groups` times 384 stream bytes -> 64 samples. May read 64 bytes past the end of `stream`.
using CountErrorsFunction = void (*)(const uint8_t* stream, size_t groups, int8_t* out);
void CountErrorsPortable(const uint8_t* stream, size_t groups, int8_t* out);
void CountErrorsAvx2(const uint8_t* stream, size_t groups, int8_t* out);
void CountErrorsAvx512(const uint8_t* stream, size_t groups, int8_t* out);

}  // namespace talaria::ring::internal

#endif  // TALARIA_RING_SAMPLER_KERNELS_H_
