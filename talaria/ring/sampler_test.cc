#include "talaria/ring/sampler.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

namespace talaria::ring {
namespace {

// Keys are fixed, so nothing here can fail by chance: "6 standard deviations" only says how far
// from the law a sampler may be before we call it wrong.
constexpr double kDeviations = 6;

AesCtrStream Stream(uint8_t seed) {
  std::array<uint8_t, 32> key{};
  key.fill(seed);
  return AesCtrStream(key, 0);
}

std::vector<uint8_t> StreamBytes(uint8_t seed, size_t size) {
  std::vector<uint8_t> bytes(size);
  Stream(seed).Next(bytes);
  return bytes;
}

// Cells with an expectation below 5 are put together.
void ExpectChiSquareFits(const std::vector<double>& observed, const std::vector<double>& expected) {
  double statistic = 0;
  double cells = 0;
  double rare_observed = 0;
  double rare_expected = 0;
  const auto add = [&](double o, double e) {
    statistic += (o - e) * (o - e) / e;
    cells += 1;
  };
  for (size_t i = 0; i < observed.size(); ++i) {
    if (expected[i] >= 5) {
      add(observed[i], expected[i]);
    } else {
      rare_observed += observed[i];
      rare_expected += expected[i];
    }
  }
  if (rare_expected > 0.01) add(rare_observed, rare_expected);
  const double freedom = cells - 1;
  EXPECT_LT(statistic, freedom + kDeviations * std::sqrt(2 * freedom));
}

TEST(SampleTernary, EqualsItsDefinition) {
  AesCtrStream stream = Stream(1);
  const std::vector<uint8_t> bytes = StreamBytes(1, 3 * 8 * kDegree);
  for (size_t polynomial = 0; polynomial < 3; ++polynomial) {
    Polynomial sampled;
    SampleTernary(stream, sampled);
    for (size_t j = 0; j < kDegree; ++j) {
      const uint64_t word = LoadLe<uint64_t>(bytes.data() + 8 * (polynomial * kDegree + j));
      // floor(3 w / 2^64) is 0 up to 2^64 / 3, 1 up to twice that, else 2.
      const uint64_t expected = word <= UINT64_MAX / 3       ? kQ - 1
                                : word <= UINT64_MAX / 3 * 2 ? 0
                                                             : 1;
      ASSERT_EQ(sampled[j], expected);
    }
  }
}

TEST(SampleTernary, IsUniform) {
  AesCtrStream stream = Stream(2);
  constexpr size_t kPolynomials = 1000;
  std::vector<double> counts(3);
  for (size_t i = 0; i < kPolynomials; ++i) {
    Polynomial sampled;
    SampleTernary(stream, sampled);
    for (const uint64_t c : sampled) counts[static_cast<size_t>(Centred(c) + 1)] += 1;
  }
  ExpectChiSquareFits(counts, std::vector<double>(3, kPolynomials * kDegree / 3.0));
}

// Every path, at sizes below, at and past its chunk.
TEST(SampleError, EqualsItsDefinitionOnEveryPath) {
  for (const size_t size :
       {size_t{64}, size_t{128}, size_t{1280}, size_t{1344}, size_t{64 * 999}}) {
    const std::vector<uint8_t> bytes = StreamBytes(3, 6 * size);
    std::vector<int8_t> expected(size);
    for (size_t word = 0; word < size; ++word) {
      const uint64_t bits = LoadResidue(bytes.data() + 6 * word) & ((uint64_t{1} << 42) - 1);
      expected[word / 64 * 64 + word % 8 * 8 + word % 64 / 8] =
          static_cast<int8_t>(std::popcount(bits) - kEta);
    }
    for (const Isa isa : SupportedIsas()) {
      AesCtrStream stream = Stream(3);
      std::vector<int8_t> sampled(size + 1, 99);
      SampleError(isa, stream, std::span(sampled).first(size));
      EXPECT_EQ(sampled.back(), 99);
      sampled.pop_back();
      EXPECT_EQ(sampled, expected) << IsaName(isa) << " " << size;
    }
  }
}

TEST(SampleError, TakesTheStreamUpWhereItLeftIt) {
  for (const Isa isa : SupportedIsas()) {
    AesCtrStream whole_stream = Stream(4);
    std::vector<int8_t> whole(6400);
    SampleError(isa, whole_stream, whole);
    AesCtrStream stream = Stream(4);
    std::vector<int8_t> parts(6400);
    SampleError(isa, stream, std::span(parts).first(1920));
    SampleError(isa, stream, std::span(parts).subspan(1920));
    EXPECT_EQ(parts, whole) << IsaName(isa);
  }
}

// 42 tosses of a coin, less 21: mean 0, variance 10.5, fourth moment 10.5 (1 + 3 * 40 / 4).
TEST(SampleError, IsCentredBinomial) {
  constexpr size_t kSamples = 1 << 21;
  constexpr double kVariance = kEta / 2.0;
  constexpr double kFourthMoment = kVariance * 31;
  AesCtrStream stream = Stream(5);
  std::vector<int8_t> sampled(kSamples);
  SampleError(DetectIsa(), stream, sampled);
  double sum = 0;
  double squares = 0;
  std::vector<double> counts(2 * kEta + 1);
  for (const int8_t e : sampled) {
    sum += e;
    squares += e * e;
    ASSERT_LE(std::abs(e), kEta);
    counts[static_cast<size_t>(e + kEta)] += 1;
  }
  EXPECT_LT(std::abs(sum / kSamples), kDeviations * std::sqrt(kVariance / kSamples));
  EXPECT_LT(std::abs(squares / kSamples - kVariance),
            kDeviations * std::sqrt((kFourthMoment - kVariance * kVariance) / kSamples));
  std::vector<double> expected(counts.size());
  double binomial = std::pow(2.0, -2 * kEta);  // C(42, i) / 2^42
  for (int i = 0; i <= 2 * kEta; ++i) {
    expected[static_cast<size_t>(i)] = kSamples * binomial;
    binomial *= static_cast<double>(2 * kEta - i) / (i + 1);
  }
  ExpectChiSquareFits(counts, expected);
}

TEST(SampleResidues, EqualsItsDefinition) {
  constexpr size_t kCount = 1000;
  const std::vector<uint8_t> bytes = StreamBytes(6, 16 * kCount);
  AesCtrStream stream = Stream(6);
  std::vector<uint64_t> sampled(kCount);
  SampleResidues(stream, sampled);
  for (size_t i = 0; i < kCount; ++i) {
    const auto word = LoadLe<unsigned __int128>(bytes.data() + 16 * i);
    ASSERT_EQ(sampled[i], static_cast<uint64_t>(word % kQ));
  }
}

TEST(SampleResidues, IsUniform) {
  constexpr size_t kCount = 1 << 18;
  constexpr size_t kCells = 64;
  AesCtrStream stream = Stream(7);
  std::vector<uint64_t> sampled(kCount);
  SampleResidues(stream, sampled);
  std::vector<double> upper(kCells);
  std::vector<double> lower(kCells);
  for (const uint64_t x : sampled) {
    ASSERT_LT(x, kQ);
    upper[x >> 42] += 1;  // 64 cells, all but the last equal and that one nearly
    lower[x % kCells] += 1;
  }
  ExpectChiSquareFits(upper, std::vector<double>(kCells, double{kCount} / kCells));
  ExpectChiSquareFits(lower, std::vector<double>(kCells, double{kCount} / kCells));
}

}  // namespace
}  // namespace talaria::ring
