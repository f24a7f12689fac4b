#include "talaria/ring/ntt.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace talaria::ring {
namespace {

Polynomial RandomPolynomial(std::mt19937_64& random) {
  Polynomial a;
  for (uint64_t& coefficient : a) coefficient = random() % kQ;
  return a;
}

Polynomial Constant(uint64_t value) {
  Polynomial a;
  a.fill(value);
  return a;
}

uint64_t Evaluate(const Polynomial& a, uint64_t x) {
  uint64_t y = 0;
  for (size_t j = kDegree; j-- > 0;) y = AddMod(MulMod(y, x), a[j]);
  return y;
}

// Schoolbook product modulo X^256 + 1.
Polynomial Product(const Polynomial& a, const Polynomial& b) {
  Polynomial c{};
  for (size_t i = 0; i < kDegree; ++i) {
    for (size_t j = 0; j < kDegree; ++j) {
      const uint64_t term = MulMod(a[i], b[j]);
      uint64_t& sum = c[(i + j) % kDegree];
      sum = i + j < kDegree ? AddMod(sum, term) : SubMod(sum, term);
    }
  }
  return c;
}

// The primitive 512th roots are the odd powers of any one of them.
TEST(Ntt, PsiIsTheSmallestPrimitiveRoot) {
  EXPECT_EQ(PowMod(Psi(), kDegree), kQ - 1);
  uint64_t smallest = kQ;
  for (uint64_t e = 1; e < 2 * kDegree; e += 2) smallest = std::min(smallest, PowMod(Psi(), e));
  EXPECT_EQ(Psi(), smallest);
}

TEST(Ntt, ForwardEqualsItsDefinition) {
  std::mt19937_64 random(2);
  for (const Polynomial& a : {RandomPolynomial(random), Constant(kQ - 1), Constant(1)}) {
    Polynomial values = a;
    ForwardNtt(values);
    for (size_t s = 0; s < kDegree; ++s) {
      ASSERT_EQ(values[s], Evaluate(a, PowMod(Psi(), 2 * s + 1))) << s;
    }
  }
}

TEST(Ntt, InverseEqualsItsDefinition) {
  std::mt19937_64 random(3);
  for (const Polynomial& values : {RandomPolynomial(random), Constant(kQ - 1)}) {
    Polynomial a = values;
    InverseNtt(a);
    // a_j = 1/256 sum_s values_s psi^-(2s + 1)j
    for (size_t j = 0; j < kDegree; ++j) {
      uint64_t sum = 0;
      for (size_t s = 0; s < kDegree; ++s) {
        const uint64_t root = PowMod(Psi(), (512 - (2 * s + 1) * j % 512) % 512);
        sum = AddMod(sum, MulMod(values[s], root));
      }
      ASSERT_EQ(MulMod(sum, InvMod(kDegree)), a[j]) << j;
    }
  }
}

TEST(Ntt, RoundTrips) {
  std::mt19937_64 random(4);
  for (int repeat = 0; repeat < 100; ++repeat) {
    const Polynomial a = RandomPolynomial(random);
    Polynomial b = a;
    ForwardNtt(b);
    InverseNtt(b);
    ASSERT_EQ(a, b);
  }
}

TEST(Ntt, ProductsOfValuesAreNegacyclicConvolutions) {
  std::mt19937_64 random(5);
  Polynomial ternary;
  for (uint64_t& c : ternary) c = FromSigned(static_cast<int64_t>(random() % 3) - 1);
  const Polynomial uniform = RandomPolynomial(random);
  for (const Polynomial& other : {RandomPolynomial(random), ternary, Constant(kQ - 1)}) {
    Polynomial a = uniform;
    Polynomial b = other;
    ForwardNtt(a);
    ForwardNtt(b);
    for (size_t s = 0; s < kDegree; ++s) a[s] = MulMod(a[s], b[s]);
    InverseNtt(a);
    EXPECT_EQ(a, Product(uniform, other));
  }
}

// X^255 * X = -1.
TEST(Ntt, WrapsWithAMinusSign) {
  Polynomial a{};
  Polynomial b{};
  a[255] = 1;
  b[1] = 1;
  ForwardNtt(a);
  ForwardNtt(b);
  for (size_t s = 0; s < kDegree; ++s) a[s] = MulMod(a[s], b[s]);
  InverseNtt(a);
  Polynomial minus_one{};
  minus_one[0] = kQ - 1;
  EXPECT_EQ(a, minus_one);
}

}  // namespace
}  // namespace talaria::ring
