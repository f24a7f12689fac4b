#include "talaria/cvm/certificate.h"

#include <gtest/gtest.h>
#include <xmmintrin.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "talaria/ring/modq.h"

namespace talaria::cvm {
namespace {

using Random = std::mt19937_64;

std::vector<int8_t> SomeWeights(Random& random, size_t count, int largest) {
  std::vector<int8_t> w(count);
  for (int8_t& weight : w)
    weight = static_cast<int8_t>(static_cast<int>(random() % (2 * largest + 1)) - largest);
  return w;
}

TEST(WeightNorms, AreTheMaximaOverAllColumns) {
  Random random(1);
  for (const size_t d : {1, 3, 16, 100, 576, 32768, 70000}) {
    const size_t columns = d > 1000 ? 3 : 20;
    std::vector<int8_t> w = SomeWeights(random, d * columns, 127);
    for (size_t i = 0; i < d; ++i) w[d + i] = i % 2 ? 127 : -127;  // the largest column there is
    WeightNorms want, got;
    for (size_t j = 0; j < columns; ++j) {
      uint64_t l1 = 0, l2 = 0;
      for (size_t i = 0; i < d; ++i) {
        const int64_t x = w[j * d + i];
        want.max_abs = std::max(want.max_abs, static_cast<uint64_t>(std::abs(x)));
        l1 += static_cast<uint64_t>(std::abs(x));
        l2 += static_cast<uint64_t>(x * x);
      }
      want.max_l1 = std::max(want.max_l1, l1);
      want.max_l2_squared = std::max(want.max_l2_squared, l2);
    }
    // In two pieces: Add folds in.
    ASSERT_TRUE(got.Add(std::span<const int8_t>(w).first(2 * d), d).ok());
    ASSERT_TRUE(got.Add(std::span<const int8_t>(w).subspan(2 * d), d).ok());
    EXPECT_EQ(got.max_abs, want.max_abs);
    EXPECT_EQ(got.max_l1, want.max_l1);
    EXPECT_EQ(got.max_l2_squared, want.max_l2_squared);
  }
}

TEST(WeightNorms, RefuseMinus128) {
  Random random(2);
  for (int i = 0; i < 100; ++i) {
    std::vector<int8_t> w = SomeWeights(random, 1000, 127);
    w[random() % w.size()] = -128;
    WeightNorms norms;
    EXPECT_EQ(norms.Add(w, 100).code(), Code::kSessionEnded);
  }
}

TEST(Certificate, DeltaIsTheSmallestAndTheBoundExact) {
  for (const uint64_t l2 : {uint64_t{0}, uint64_t{1}, uint64_t{2}, uint64_t{1} << 20,
                            (uint64_t{1} << 23) + 12345, uint64_t{127} * 127 * 576}) {
    const auto certificate = Certificate::Compute({1, 1, l2}, 576);
    ASSERT_TRUE(certificate.ok());
    const auto delta = static_cast<__int128>(1) << certificate->delta_log2;
    EXPECT_GE(delta * delta, static_cast<__int128>(7512) * l2);
    if (certificate->delta_log2 > 0) {
      EXPECT_LT(delta * delta / 4, static_cast<__int128>(7512) * l2);
    }
    EXPECT_EQ(certificate->bound,
              static_cast<uint64_t>((static_cast<__int128>(ring::kQ) - delta) / (2 * delta)));
    // Centring has room for Delta B and an error below Delta / 2 on top.
    EXPECT_LE(2 * delta * certificate->bound + delta, static_cast<__int128>(ring::kQ));
  }
}

TEST(Certificate, RefusesWeightsThatLeaveLessThan8Bits) {
  EXPECT_EQ(Certificate::Compute({127, 1 << 23, uint64_t{1} << 30}, 65536).status().code(),
            Code::kUnsupported);
  EXPECT_EQ(
      Certificate::Compute({127, 127 * 65536, uint64_t{127} * 127 * 65536}, 65536).status().code(),
      Code::kUnsupported);
  EXPECT_EQ(Certificate::Compute({1, 1, 1}, 0).status().code(), Code::kUnsupported);
  EXPECT_EQ(Certificate::Compute({~uint64_t{0}, ~uint64_t{0}, ~uint64_t{0}}, 1).status().code(),
            Code::kUnsupported);
  const auto largest = Certificate::Compute({127, 127 * 4096, uint64_t{127} * 127 * 4096}, 4096);
  ASSERT_TRUE(largest.ok());
  EXPECT_GE(largest->bound / largest->norms.max_l1, 127u);
}

std::vector<float> SomeRow(Random& random, size_t d, int kind) {
  std::normal_distribution<float> normal;
  std::vector<float> x(d);
  const float scale = std::ldexp(1.0f + static_cast<float>(random() % 1000) / 1000.0f,
                                 static_cast<int>(random() % 40) - 20);
  for (size_t i = 0; i < d; ++i) {
    switch (kind) {
      case 0:
        x[i] = normal(random) * scale;
        break;
      case 1:
        x[i] = random() % 2 ? scale : -scale;
        break;  // flat
      case 2:
        x[i] = i == d / 2 ? scale : 0.0f;
        break;  // one entry
      case 3:
        x[i] = i == 0 ? 1000 * scale : normal(random) * scale;
        break;  // an outlier
      case 4:
        x[i] = std::numeric_limits<float>::max() * (random() % 2 ? 1.0f : -1.0f);
        break;  // the largest
      case 5:
        x[i] = std::numeric_limits<float>::min() * static_cast<float>(random() % 3);
        break;  // the smallest normal
      case 6:
        x[i] = std::bit_cast<float>(static_cast<uint32_t>(random() & 0x807fffff));
        break;  // denormal
      case 7:
        x[i] = std::ldexp(normal(random), static_cast<int>(random() % 250) - 125);
        break;  // all magnitudes
      case 8:
        x[i] = scale * static_cast<float>(static_cast<int>(random() % 9) - 4) / 8;
        break;  // many ties
      case 9:
        x[i] = std::ldexp(normal(random), -126);
        break;  // around the border
      default:
        x[i] = random() % 2 ? 0.0f : -0.0f;
        break;
    }
  }
  return x;
}
constexpr int kRowKinds = 11;

QuantisedNorms Quantise(const std::vector<float>& x, float inverse) {
  QuantisedNorms norms;
  for (const float value : x) {
    const auto magnitude = static_cast<uint64_t>(std::fabs(std::nearbyint(value * inverse)));
    norms = {std::max(norms.max_abs, magnitude), norms.sum_abs + magnitude,
             norms.sum_squares + magnitude * magnitude};
  }
  return norms;
}

// By the wording of the header, in 128 bits.
bool Safe(const Certificate& c, const QuantisedNorms& h) {
  using Wide = unsigned __int128;
  const Wide b = c.bound;
  return h.max_abs <= 32767 &&
         (static_cast<Wide>(h.max_abs) * c.norms.max_l1 <= b ||
          static_cast<Wide>(h.sum_squares) * c.norms.max_l2_squared <= b * b ||
          static_cast<Wide>(h.sum_abs) * c.norms.max_abs <= b);
}

// Groups whose binding inequality differs: none (16 bits fit), and each of the three.
std::vector<Certificate> SomeCertificates(uint32_t d) {
  std::vector<Certificate> all;
  const uint64_t l2 = uint64_t{127} * 127 * d;
  for (const WeightNorms& norms :
       {WeightNorms{0, 0, 0}, WeightNorms{1, 1, 1}, WeightNorms{127, 40ull * d, 2000ull * d},
        WeightNorms{127, 127ull * d, l2},
        // Not a matrix of int8, but what the integers allow: tight bounds.
        WeightNorms{127, 100000000 / 1270, l2 * 2000},
        WeightNorms{100000, 100000, uint64_t{1} << 36},
        WeightNorms{300, 400000, uint64_t{1} << 32}}) {
    const auto c = Certificate::Compute(norms, d);
    if (c.ok()) all.push_back(*c);
  }
  return all;
}

TEST(Certificate, EveryScaledRowIsSafeOnEveryPath) {
  Random random(3);
  size_t rows = 0;
  for (const bool flush : {false, true}) {
    const unsigned before = _mm_getcsr();
    _mm_setcsr(flush ? before | 0x8040 : before & ~0x8040u);
    for (const uint32_t d : {1, 2, 17, 64, 576, 3000}) {
      for (const Certificate& c : SomeCertificates(d)) {
        for (int kind = 0; kind < kRowKinds; ++kind) {
          for (int repeat = 0; repeat < (d > 1000 ? 3 : 20); ++repeat, ++rows) {
            const std::vector<float> x = SomeRow(random, d, kind);
            const RowScale scale = c.ScaleFor(NormsOf(DetectIsa(), x.data(), d));
            ASSERT_TRUE(std::isnormal(scale.sigma) && scale.sigma > 0 &&
                        std::isnormal(scale.inverse))
                << kind;
            const QuantisedNorms h = Quantise(x, scale.inverse);
            EXPECT_TRUE(Safe(c, h)) << "kind " << kind << " d " << d << " max " << h.max_abs
                                    << " sigma " << scale.sigma;
            EXPECT_TRUE(c.Holds(h));
          }
        }
      }
    }
    _mm_setcsr(before);
  }
  EXPECT_GT(rows, 5000u);
}

TEST(Certificate, SigmaIsNearlyTheSmallest) {
  Random random(4);
  int smaller_still_safe = 0, rows = 0;
  for (const uint32_t d : {64, 576, 3000}) {
    for (const Certificate& c : SomeCertificates(d)) {
      for (const int kind : {0, 1, 2, 3, 4, 8}) {
        const std::vector<float> x = SomeRow(random, d, kind);
        const RowNorms norms = NormsOf(Isa::kPortable, x.data(), d);
        const RowScale scale = c.ScaleFor(norms);
        // What the closed form promises, in long doubles and without slack.
        const long double b = static_cast<long double>(c.bound);
        auto at_least_one = [](uint64_t n) {
          return static_cast<long double>(std::max<uint64_t>(1, n));
        };
        const long double by_inf =
            norms.max_abs /
            (std::floor(std::min(32767.0L, b / at_least_one(c.norms.max_l1))) + 0.5L);
        const long double room_2 = b / std::sqrt(at_least_one(c.norms.max_l2_squared)) -
                                   std::sqrt(static_cast<long double>(d)) / 2;
        const long double room_1 =
            b / at_least_one(c.norms.max_abs) - static_cast<long double>(d) / 2;
        long double smallest = by_inf;
        if (room_2 > 0)
          smallest =
              std::min(smallest, std::sqrt(static_cast<long double>(norms.sum_squares)) / room_2);
        if (room_1 > 0) smallest = std::min(smallest, norms.sum_abs / room_1);
        smallest = std::max(smallest, norms.max_abs / 32767.5L);
        EXPECT_GE(scale.sigma, smallest * (1 + 0x1p-22L)) << kind;
        EXPECT_LE(scale.sigma, smallest * (1 + 0x1p-19L)) << kind;
        // And really: 2^-10 smaller, then rows break an inequality, but for those that the
        // worst-case rounding term cost more.
        ++rows;
        const float smaller = scale.sigma * (1 - 0x1p-10f);
        smaller_still_safe += Safe(c, Quantise(x, 1.0f / smaller));
      }
    }
  }
  EXPECT_LE(smaller_still_safe * 3, rows) << smaller_still_safe << " of " << rows;
}

TEST(Certificate, ZeroRowsHaveScaleOne) {
  const Certificate c = SomeCertificates(576)[2];
  for (const RowNorms& zero : {RowNorms{}, RowNorms{0, 0, 0, 0xffffffff}}) {
    EXPECT_EQ(c.ScaleFor(zero).sigma, 1.0f);
    EXPECT_EQ(c.ScaleFor(zero).inverse, 1.0f);
  }
}

TEST(Certificate, ScalesAreTheSameOnEveryPath) {
  Random random(5);
  for (const uint32_t d : {33, 576, 1500}) {
    for (const Certificate& c : SomeCertificates(d)) {
      for (int kind = 0; kind < kRowKinds; ++kind) {
        const std::vector<float> x = SomeRow(random, d, kind);
        const RowScale want = c.ScaleFor(NormsOf(Isa::kPortable, x.data(), d));
        for (const Isa isa : SupportedIsas()) {
          const RowScale got = c.ScaleFor(NormsOf(isa, x.data(), d));
          EXPECT_EQ(std::bit_cast<uint32_t>(got.sigma), std::bit_cast<uint32_t>(want.sigma))
              << IsaName(isa);
          EXPECT_EQ(std::bit_cast<uint32_t>(got.inverse), std::bit_cast<uint32_t>(want.inverse))
              << IsaName(isa);
        }
      }
    }
  }
}

TEST(Certificate, HoldsIsExactAtItsBorders) {
  const auto c = Certificate::Compute({127, 50000, 5000000}, 1000);
  ASSERT_TRUE(c.ok());
  const uint64_t by_inf = c->bound / 50000, by_l1 = c->bound / 127;
  const auto by_l2 =
      static_cast<uint64_t>(static_cast<unsigned __int128>(c->bound) * c->bound / 5000000);
  constexpr uint64_t kFar = uint64_t{1} << 50;
  EXPECT_TRUE(c->Holds({by_inf, kFar, kFar}));
  EXPECT_FALSE(c->Holds({by_inf + 1, kFar, kFar}));
  EXPECT_TRUE(c->Holds({by_inf + 1, kFar, by_l2}));
  EXPECT_FALSE(c->Holds({by_inf + 1, kFar, by_l2 + 1}));
  EXPECT_TRUE(c->Holds({by_inf + 1, by_l1, by_l2 + 1}));
  EXPECT_FALSE(c->Holds({by_inf + 1, by_l1 + 1, by_l2 + 1}));
  EXPECT_FALSE(c->Holds({32768, 0, 0}));
  EXPECT_TRUE(SomeCertificates(1)[0].Holds({32767, kFar, kFar}));
}

}  // namespace
}  // namespace talaria::cvm
