// Three signed 16-bit digits: the arithmetic of the kernels without an exact u8 x s8 instruction.
// A multiply-add of 16-bit pairs is exact where the 8-bit one saturates (2 * 255 * 127 > 2^15), and
// three digits are half of six. With
//
//   x = a + b 2^16 + c 2^32,  a' = a - 2^15, b' = b - 2^15, c' = c - 2^15 (they fit int16),
//
// a kernel sums A = Sum_k w_k a'_k and so on, and
//
//   Sum_k w_k x_k = A + B 2^16 + C 2^32 + 2^15 (1 + 2^16 + 2^32) Sum_k w_k.
//
// Bounds: 512 products are at most 512 * 2^15 * 127 = 2,130,706,432 < 2^31, so s32 sums run over at
// most 512 inputs and are then added in s64; over 65,536 inputs |A| < 2^38.
//
// Included by kernel files only: everything is in an unnamed namespace (see product_kernels.h).
#ifndef TALARIA_GEMM_PRODUCT_DIGITS_H_
#define TALARIA_GEMM_PRODUCT_DIGITS_H_

#include <cstddef>
#include <cstdint>

#include "talaria/gemm/product_kernels.h"

namespace talaria::gemm {
namespace {

constexpr size_t kDigits = 3;
constexpr size_t kMaxRun = 512;  // inputs per s32 sum
constexpr uint64_t kModulus = (uint64_t{1} << 48) - 16383;
constexpr uint64_t kLow48 = (uint64_t{1} << 48) - 1;

// What a column adds to its sum: 2^15 (1 + 2^16 + 2^32) Sum w, less the constants 2^55 and 2^39
// 2^32 that Recombine adds to stay positive. Canonical.
[[maybe_unused]] uint64_t ColumnCorrection(int64_t weight_sum) {
  const __int128 offset = (__int128{1} << 15) + (__int128{1} << 31) + (__int128{1} << 47);
  __int128 value = offset * weight_sum - (__int128{1} << 55) - (__int128{1} << 71);
  value %= static_cast<__int128>(kModulus);
  if (value < 0) value += kModulus;
  return static_cast<uint64_t>(value);
}

// The three sums of a column -> its residue in [0, q). No branch, so that loops over it vectorise.
[[maybe_unused]] inline __attribute__((always_inline)) uint64_t Recombine(int64_t a, int64_t b,
                                                                          int64_t c,
                                                                          uint64_t correction) {
  const uint64_t low = static_cast<uint64_t>(a) + (static_cast<uint64_t>(b) << 16) +
                       (uint64_t{1} << 55);                              // [0, 2^56)
  const uint64_t high = static_cast<uint64_t>(c) + (uint64_t{1} << 39);  // [0, 2^40)
  const uint64_t carry = (low >> 48) + (high >> 16);  // < 2^25, worth 2^48 = 16383 each
  uint64_t sum =
      (low & kLow48) + ((high & 0xffff) << 32) + correction + ((carry << 14) - carry);  // < 2^50
  const uint64_t again = sum >> 48;
  sum = (sum & kLow48) + ((again << 14) - again);  // < 2^48 + 2^16 < 2 q
  sum -= kModulus;
  return sum + (kModulus & (uint64_t{0} - (sum >> 63)));
}

// `count` residues of six bytes, and not a byte more: the neighbouring panel may be another
// thread's.
[[maybe_unused]] inline __attribute__((always_inline)) void StoreResidues(const uint64_t* values,
                                                                          size_t count,
                                                                          uint8_t* out) {
  for (size_t i = 0; i + 1 < count; ++i)
    __builtin_memcpy(out + 6 * i, values + i, 8);  // two bytes over, overwritten next
  __builtin_memcpy(out + 6 * (count - 1), values + count - 1, 6);
}

}  // namespace
}  // namespace talaria::gemm

#endif  // TALARIA_GEMM_PRODUCT_DIGITS_H_
