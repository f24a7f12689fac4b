#include "talaria/ring/ntt.h"

#include <utility>

namespace talaria::ring {
namespace {

// The smallest of the 256 primitive 512th roots of unity; ntt_test.cc looks at all of them.
constexpr uint64_t kPsi = 1428010044725;

using PowerTable = std::array<uint64_t, 2 * kDegree>;
constexpr PowerTable MakePowers() {
  PowerTable powers{};
  uint64_t power = 1;
  for (uint64_t& p : powers) {
    p = power;
    power = MulMod(power, kPsi);
  }
  return powers;
}
constexpr PowerTable kPsiPowers = MakePowers();  // psi^e, e in [0, 512)
constexpr uint64_t kInverseDegree = InvMod(kDegree);

constexpr size_t Reverse8(size_t x) {
  x = (x & 0x0f) << 4 | (x & 0xf0) >> 4;
  x = (x & 0x33) << 2 | (x & 0xcc) >> 2;
  return (x & 0x55) << 1 | (x & 0xaa) >> 1;
}

// The cyclic transform of length 256 with the root psi^exponent, exponent = +-2 mod 512, natural
// order in and out: bit reversal, then decimation in time.
void CyclicTransform(Polynomial& a, size_t exponent) {
  for (size_t i = 0; i < kDegree; ++i) {
    if (i < Reverse8(i)) std::swap(a[i], a[Reverse8(i)]);
  }
  for (size_t half = 1; half < kDegree; half *= 2) {
    const size_t step = exponent * (kDegree / (2 * half));
    for (size_t first = 0; first < kDegree; first += 2 * half) {
      for (size_t k = 0; k < half; ++k) {
        const uint64_t u = a[first + k];
        const uint64_t v = MulMod(a[first + k + half], kPsiPowers[k * step % kPsiPowers.size()]);
        a[first + k] = AddMod(u, v);
        a[first + k + half] = SubMod(u, v);
      }
    }
  }
}

}  // namespace

uint64_t Psi() { return kPsi; }

// a(psi^(2s + 1)) = sum_j (a_j psi^j) (psi^2)^(js): twist, then a cyclic transform.
void ForwardNtt(Polynomial& a) {
  for (size_t j = 0; j < kDegree; ++j) a[j] = MulMod(a[j], kPsiPowers[j]);
  CyclicTransform(a, 2);
}

void InverseNtt(Polynomial& a) {
  CyclicTransform(a, kPsiPowers.size() - 2);
  for (size_t j = 0; j < kDegree; ++j) {
    const uint64_t untwist = kPsiPowers[(kPsiPowers.size() - j) % kPsiPowers.size()];
    a[j] = MulMod(MulMod(a[j], untwist), kInverseDegree);
  }
}

}  // namespace talaria::ring
