#include "talaria/ring/modq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace talaria::ring {
namespace {

using Wide = unsigned __int128;

// Values at which carries, folds and comparisons turn over, and random ones between.
std::vector<uint64_t> Words() {
  std::vector<uint64_t> words;
  for (const uint64_t base : {uint64_t{0}, kFold, kQ / 2, kQ, kMask48 + 1, 2 * kQ,
                              uint64_t{1} << 52, uint64_t{1} << 62, uint64_t{1} << 63}) {
    for (uint64_t offset = 0; offset < 4; ++offset) {
      words.push_back(base + offset);
      words.push_back(base - offset);  // below zero too: the largest 64-bit values
    }
  }
  std::mt19937_64 random(1);
  for (int bits = 1; bits <= 64; ++bits) {
    for (int i = 0; i < 4; ++i) words.push_back(random() >> (64 - bits));
  }
  return words;
}

std::vector<uint64_t> Residues() {
  std::vector<uint64_t> residues;
  for (const uint64_t word : Words()) residues.push_back(word % kQ);
  return residues;
}

TEST(ModQ, ModulusIsPrimeOfTheRightForm) {
  EXPECT_EQ(kQ % (1 << 14), 1u);
  EXPECT_EQ((kMask48 + 1) % kQ, kFold);
  // Deterministic Miller-Rabin: these bases decide every number below 2^64.
  uint64_t odd = kQ - 1;
  int twos = 0;
  for (; odd % 2 == 0; odd /= 2) ++twos;
  for (const uint64_t base : {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37}) {
    uint64_t x = PowMod(base, odd);
    bool passed = x == 1;
    for (int i = 0; i < twos; ++i, x = MulMod(x, x)) passed |= x == kQ - 1;
    EXPECT_TRUE(passed) << base;
  }
}

TEST(ModQ, ReductionsEqualDivision) {
  const std::vector<uint64_t> words = Words();
  for (const uint64_t x : words) {
    if (x < 2 * kQ) {
      EXPECT_EQ(ReduceOnce(x), x % kQ) << x;
    }
    EXPECT_EQ(Reduce64(x), x % kQ) << x;
    for (const uint64_t high : words) {
      const Wide wide = static_cast<Wide>(high) << 64 | x;
      ASSERT_EQ(Reduce128(wide), static_cast<uint64_t>(wide % kQ)) << high << " " << x;
    }
  }
}

TEST(ModQ, SumsDifferencesAndProductsEqualDivision) {
  const std::vector<uint64_t> residues = Residues();
  for (const uint64_t a : residues) {
    for (const uint64_t b : residues) {
      ASSERT_EQ(AddMod(a, b), (a + b) % kQ);
      ASSERT_EQ(SubMod(a, b), (a + kQ - b) % kQ);
      ASSERT_EQ(MulMod(a, b), static_cast<uint64_t>(static_cast<Wide>(a) * b % kQ));
    }
  }
}

TEST(ModQ, InverseAndPowers) {
  for (const uint64_t a : Residues()) {
    if (a != 0) {
      EXPECT_EQ(MulMod(a, InvMod(a)), 1u);
    }
  }
  EXPECT_EQ(PowMod(5, 0), 1u);
  EXPECT_EQ(PowMod(5, 3), 125u);
  EXPECT_EQ(PowMod(2, 48), kFold);
}

TEST(ModQ, SignedValuesRoundTrip) {
  const int64_t half = static_cast<int64_t>(kQ / 2);
  for (const int64_t x : {int64_t{0}, int64_t{1}, int64_t{-1}, int64_t{21}, int64_t{-128}, half,
                          -half, half - 1, 1 - half}) {
    EXPECT_EQ(Centred(FromSigned(x)), x);
  }
  EXPECT_EQ(FromSigned(-1), kQ - 1);
  EXPECT_EQ(FromSigned(1 - static_cast<int64_t>(kQ)), 1u);
  EXPECT_EQ(Centred(kQ / 2), half);
  EXPECT_EQ(Centred(kQ / 2 + 1), -half);
}

TEST(ModQ, ResiduesRestAsSixBytesLittleEndian) {
  uint8_t bytes[8] = {0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee};
  StoreResidue(bytes, 0x060504030201);
  const uint8_t expected[8] = {1, 2, 3, 4, 5, 6, 0xee, 0xee};
  EXPECT_TRUE(std::equal(bytes, bytes + 8, expected));
  for (const uint64_t a : Residues()) {
    StoreResidue(bytes, a);
    EXPECT_EQ(LoadResidue(bytes), a);
  }
  StoreResidue(bytes, kMask48);
  EXPECT_EQ(LoadResidue(bytes), kMask48);
}

}  // namespace
}  // namespace talaria::ring
