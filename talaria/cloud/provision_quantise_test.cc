#include "talaria/cloud/provision_quantise.h"

#include <gtest/gtest.h>

#include <cfloat>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace talaria::cloud {
namespace {

std::vector<int8_t> Quantise(const std::vector<float>& row, RowQuantisation& result) {
  std::vector<int8_t> out(row.size(), 99);
  EXPECT_TRUE(QuantiseRow(row, out, result));
  return out;
}

TEST(QuantiseTest, LargestValueIs127AndTiesGoToEven) {
  RowQuantisation r;
  // scale is exactly 2, so 5 / 2 and 3 / 2 are ties.
  EXPECT_EQ(Quantise({254, -254, 5, 3, -5, -3, 2, 0.9f, 1.1f, 0}, r),
            (std::vector<int8_t>{127, -127, 2, 2, -2, -2, 1, 0, 1, 0}));
  EXPECT_EQ(r.scale, 2.0f);
  // 5, 3, -5 and -3 are off by one, 0.9 becomes 0 and 1.1 becomes 2.
  EXPECT_DOUBLE_EQ(r.error, 4 + double{0.9f} * 0.9f + (2 - double{1.1f}) * (2 - double{1.1f}));
}

TEST(QuantiseTest, ErrorIsAtMostHalfAStep) {
  std::mt19937_64 random(11);
  std::normal_distribution<float> normal;
  for (int trial = 0; trial < 2000; ++trial) {
    std::vector<float> row(1 + random() % 200);
    const float magnitude = std::ldexp(1.0f, static_cast<int>(random() % 200) - 100);
    for (float& x : row) x = normal(random) * magnitude;
    RowQuantisation r;
    const std::vector<int8_t> q = Quantise(row, r);
    ASSERT_TRUE(std::isnormal(r.scale) && r.scale > 0);
    double error = 0, norm = 0;
    int largest = 0;
    for (size_t i = 0; i < row.size(); ++i) {
      ASSERT_NE(q[i], -128);
      largest = std::max(largest, std::abs(q[i]));
      const double e = double{row[i]} - q[i] * double{r.scale};
      // Half a step, plus the rounding of the quotient (127 * 2^-24 steps) and of the scale (the
      // same).
      ASSERT_LE(std::fabs(e), double{r.scale} * (0.5 + 127 * 2.0 / (1 << 24)));
      error += e * e;
      norm += double{row[i]} * row[i];
    }
    ASSERT_EQ(largest, 127);
    ASSERT_DOUBLE_EQ(r.error, error);
    ASSERT_DOUBLE_EQ(r.norm, norm);
  }
}

TEST(QuantiseTest, RowsWithoutAUsableScaleAreZero) {
  RowQuantisation r;
  for (const float tiny : {0.0f, FLT_TRUE_MIN, FLT_MIN, 126 * FLT_MIN}) {
    EXPECT_EQ(Quantise({tiny, -tiny, 0}, r), (std::vector<int8_t>{0, 0, 0})) << tiny;
    EXPECT_EQ(r.scale, 1.0f);
  }
  EXPECT_EQ(Quantise({127 * FLT_MIN}, r), (std::vector<int8_t>{127}));
  EXPECT_EQ(r.scale, FLT_MIN);
  EXPECT_EQ(Quantise({-FLT_MAX, FLT_MAX * 0.7f}, r), (std::vector<int8_t>{-127, 89}));
  EXPECT_TRUE(std::isfinite(r.scale));
}

TEST(QuantiseTest, RefusesWhatIsNotFinite) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  for (const float bad : {inf, -inf, nan, -nan}) {
    for (size_t at = 0; at < 40; ++at) {
      std::vector<float> row(40, 1.0f);
      row[at] = bad;
      std::vector<int8_t> out(40);
      RowQuantisation r;
      EXPECT_FALSE(QuantiseRow(row, out, r));
    }
  }
}

// Fixed for good: the bytes are part of a model's identity.
TEST(QuantiseTest, Golden) {
  RowQuantisation r;
  EXPECT_EQ(Quantise({0.1f, -0.25f, 0.37f, 1e-3f, -0.0146f, 0.2f}, r),
            (std::vector<int8_t>{34, -86, 127, 0, -5, 69}));
  EXPECT_EQ(r.scale, 0.37f / 127.0f);
}

}  // namespace
}  // namespace talaria::cloud
