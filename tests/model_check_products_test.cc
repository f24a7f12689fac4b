// The checker itself: what it accepts, and the smallest things that it must not.
#include "tests/model_check_products.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace talaria::tests {
namespace {

constexpr uint32_t kInputs = 96, kOutputs = 20, kRows = 3;

// A matrix as provisioning makes it: step max|W| / 127 per row, integers rounded to nearest.
CheckedMatrix Matrix(const std::string& name, const std::vector<float>& source) {
  CheckedMatrix out{.name = name,
                    .d = kInputs,
                    .o = kOutputs,
                    .weights = {},
                    .scales = {},
                    .source_type = "f32",
                    .source = source};
  for (size_t row = 0; row < kOutputs; ++row) {
    float largest = 0;
    for (size_t j = 0; j < kInputs; ++j)
      largest = std::max(largest, std::fabs(source[row * kInputs + j]));
    out.scales.push_back(largest / 127.0f);
    for (size_t j = 0; j < kInputs; ++j) {
      out.weights.push_back(
          static_cast<int8_t>(std::nearbyintf(source[row * kInputs + j] / out.scales.back())));
    }
  }
  return out;
}

std::vector<float> Normals(uint64_t seed, size_t count) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, 0.1f);
  std::vector<float> out(count);
  for (float& x : out) x = normal(random);
  return out;
}

class ModelCheckProductsTest : public ::testing::Test {
 protected:
  ModelCheckProductsTest() {
    model_.matrices = {Matrix("a", Normals(1, kInputs * kOutputs)),
                       Matrix("b", Normals(2, kInputs * kOutputs))};
    cvm::WeightNorms norms;
    for (const CheckedMatrix& matrix : model_.matrices)
      EXPECT_TRUE(norms.Add(matrix.weights, kInputs).ok());
    model_.certificates = {*cvm::Certificate::Compute(norms, kInputs)};
  }
  const CheckedMatrix& matrix() const { return model_.matrices[0]; }
  const cvm::Certificate& certificate() const { return model_.certificates[0]; }
  std::vector<float> Right() const {
    return ExactProduct(certificate(), matrix().weights, matrix().scales, kRows, input_);
  }
  ProductVerdict Check(const std::vector<float>& output) const {
    return CheckProduct(matrix(), certificate(), kRows, input_, output);
  }

  CheckedModel model_;
  std::vector<float> input_ = Normals(3, kRows* kInputs);
};

TEST_F(ModelCheckProductsTest, AcceptsTheExactProduct) {
  const ProductVerdict verdict = Check(Right());
  EXPECT_EQ(verdict.values, kRows * kOutputs);
  EXPECT_TRUE(verdict.exact());
  EXPECT_TRUE(verdict.within_bound());
  EXPECT_GT(verdict.worst, 0.01);
  EXPECT_LT(verdict.worst, 0.7) << "errors of random signs mostly cancel";
}

TEST_F(ModelCheckProductsTest, SeesOneBit) {
  std::vector<float> output = Right();
  output[7] = std::nextafter(output[7], 100.0f);
  const ProductVerdict verdict = Check(output);
  EXPECT_EQ(verdict.inexact, 1u);
  EXPECT_TRUE(verdict.within_bound());
  EXPECT_FALSE(verdict.exact());
}

// Every weight half a step off, in the direction of the input's sign: what the bound is for, and
// nearly all of it.
TEST_F(ModelCheckProductsTest, TheBoundIsReached) {
  std::vector<float> source(kInputs * kOutputs);
  for (size_t row = 0; row < kOutputs; ++row) {
    for (size_t j = 0; j < kInputs; ++j) source[row * kInputs + j] = j == 0 ? 127.0f : 10.4999f;
  }
  const CheckedMatrix extreme = Matrix("extreme", source);
  ASSERT_EQ(extreme.weights[1], 10);
  const std::vector<float> ones(kInputs, 1.0f);
  const auto output = ExactProduct(certificate(), extreme.weights, extreme.scales, 1, ones);
  const ProductVerdict verdict = CheckProduct(extreme, certificate(), 1, ones, output);
  EXPECT_TRUE(verdict.exact());
  EXPECT_TRUE(verdict.within_bound());
  EXPECT_GT(verdict.worst, 0.9);
}

TEST_F(ModelCheckProductsTest, RejectsWhatIsNoProduct) {
  std::vector<float> output = Right();
  output[0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(Check(output).out_of_bound, 1u);
  output = Right();
  output.pop_back();
  EXPECT_FALSE(Check(output).exact());
  EXPECT_FALSE(Check(output).within_bound());
  output = Right();
  input_[5] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(Check(output).exact());
  EXPECT_FALSE(Check(output).within_bound());
  EXPECT_FALSE(ProductVerdict().exact()) << "nothing compared is nothing shown";
}

TEST_F(ModelCheckProductsTest, RejectsEveryMutationTwice) {
  for (const size_t matrices : {2u, 1u}) {
    model_.matrices.resize(matrices);
    const auto mutations = MutationsOf(model_, 0);
    ASSERT_EQ(mutations.size(), 3u);
    EXPECT_EQ(mutations[2].what, matrices == 2 ? "swapped with b" : "rows rotated");
    for (const Mutation& mutation : mutations) {
      const ProductVerdict verdict =
          Check(ExactProduct(certificate(), mutation.weights, mutation.scales, kRows, input_));
      EXPECT_GT(verdict.inexact, 0u) << mutation.what;
      EXPECT_GT(verdict.out_of_bound, 0u) << mutation.what;
    }
  }
}

// A row of zeros has scale 1: the bound must not be that of a step of 1 / 127.
TEST_F(ModelCheckProductsTest, ARowOfZerosHasNoSlack) {
  CheckedMatrix& zeros = model_.matrices[0];
  std::fill(zeros.source.begin(), zeros.source.end(), 0.0f);
  std::fill(zeros.weights.begin(), zeros.weights.end(), int8_t{0});
  std::fill(zeros.scales.begin(), zeros.scales.end(), 1.0f);
  EXPECT_TRUE(Check(Right()).exact());
  EXPECT_TRUE(Check(Right()).within_bound());
  std::vector<float> output = Right();
  output[1] = 1e-6f;
  EXPECT_EQ(Check(output).out_of_bound, 1u);
}

}  // namespace
}  // namespace talaria::tests
