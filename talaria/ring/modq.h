// Arithmetic modulo q = 2^48 - 16383. No branch and no address depends on a value, so all of it may
// be used on secrets.
#ifndef TALARIA_RING_MODQ_H_
#define TALARIA_RING_MODQ_H_

#include <cstdint>
#include <cstring>

namespace talaria::ring {

inline constexpr uint64_t kQ = (uint64_t{1} << 48) - 16383;  // prime, 1 mod 2^14
inline constexpr uint64_t kFold = 16383;                     // 2^48 mod q
inline constexpr uint64_t kMask48 = (uint64_t{1} << 48) - 1;

// x in [0, 2q) -> [0, q).
constexpr uint64_t ReduceOnce(uint64_t x) {
  const uint64_t y = x - kQ;
  return y + (kQ & (uint64_t{0} - (y >> 63)));
}
constexpr uint64_t AddMod(uint64_t a, uint64_t b) { return ReduceOnce(a + b); }
constexpr uint64_t SubMod(uint64_t a, uint64_t b) { return ReduceOnce(a + kQ - b); }
// Any 64-bit value -> [0, q).
constexpr uint64_t Reduce64(uint64_t x) { return ReduceOnce((x & kMask48) + (x >> 48) * kFold); }
// Any 128-bit value -> [0, q).
constexpr uint64_t Reduce128(unsigned __int128 x) {
  // x = a + b 2^48 + c 2^96 with a, b < 2^48 and c < 2^32.
  const uint64_t a = static_cast<uint64_t>(x) & kMask48;
  const uint64_t b = static_cast<uint64_t>(x >> 48) & kMask48;
  const uint64_t c = static_cast<uint64_t>(x >> 96);
  const uint64_t upper = Reduce64(b + c * kFold);  // b + c 2^48 mod q
  return Reduce64(a + upper * kFold);              // < 2^48 + 2^62
}
constexpr uint64_t MulMod(uint64_t a, uint64_t b) {
  return Reduce128(static_cast<unsigned __int128>(a) * b);
}
// A signed value with |x| < q -> [0, q).
constexpr uint64_t FromSigned(int64_t x) {
  return static_cast<uint64_t>(x) + (kQ & (uint64_t{0} - (static_cast<uint64_t>(x) >> 63)));
}
// [0, q) -> the representative in (-q/2, q/2).
constexpr int64_t Centred(uint64_t x) {
  const uint64_t above = uint64_t{0} - (((kQ - 1) / 2 - x) >> 63);
  return static_cast<int64_t>(x - (kQ & above));
}
// Public exponents only.
constexpr uint64_t PowMod(uint64_t a, uint64_t e) {
  uint64_t r = 1;
  for (; e != 0; e >>= 1, a = MulMod(a, a)) {
    if ((e & 1) != 0) r = MulMod(r, a);
  }
  return r;
}
constexpr uint64_t InvMod(uint64_t a) { return PowMod(a, kQ - 2); }

// Residues travel and rest as six bytes, little-endian.
inline constexpr int kResidueBytes = 6;
inline uint64_t LoadResidue(const uint8_t* from) {
  uint32_t low;
  uint16_t high;
  std::memcpy(&low, from, 4);
  std::memcpy(&high, from + 4, 2);
  return low | static_cast<uint64_t>(high) << 32;
}
inline void StoreResidue(uint8_t* to, uint64_t value) {
  const uint32_t low = static_cast<uint32_t>(value);
  const uint16_t high = static_cast<uint16_t>(value >> 32);
  std::memcpy(to, &low, 4);
  std::memcpy(to + 4, &high, 2);
}

}  // namespace talaria::ring

#endif  // TALARIA_RING_MODQ_H_
