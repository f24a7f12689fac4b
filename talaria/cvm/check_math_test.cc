#include "talaria/cvm/check_math.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "talaria/ring/layout.h"
#include "talaria/ring/modq.h"

namespace talaria::cvm {
namespace {

using ring::kQ;

// Residues with the edges among them.
std::vector<uint64_t> Residues(std::mt19937_64& random, size_t n) {
  std::vector<uint64_t> out(n);
  for (uint64_t& x : out) {
    const uint64_t kind = random() % 8;
    x = kind == 0 ? kQ - 1 : kind == 1 ? 0 : random() % kQ;
  }
  return out;
}

// 48-bit words: matrices that a provider sends need not be canonical.
void FillWords(std::mt19937_64& random, uint8_t* out, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i)
    out[i] = random() % 4 == 0 ? 0xff : static_cast<uint8_t>(random());
}

TEST(CheckMathTest, WeightProducts) {
  std::mt19937_64 random(1);
  for (const size_t vectors : {1u, 2u, 3u, 4u}) {
    for (const auto& [d, columns] :
         {std::pair<size_t, size_t>{7, 1}, {64, 255}, {33, 256}, {5, 1000}}) {
      std::vector<int8_t> weights(d * columns);
      for (int8_t& w : weights)
        w = random() % 3 == 0 ? int8_t{-127}
                              : static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
      std::vector<std::vector<uint64_t>> v, sums, expected;
      std::vector<const uint64_t*> v_pointers;
      std::vector<uint64_t*> sum_pointers;
      for (size_t k = 0; k < vectors; ++k) {
        v.push_back(Residues(random, columns));
        sums.push_back(Residues(random, d));
      }
      expected = sums;
      for (size_t k = 0; k < vectors; ++k) {
        v_pointers.push_back(v[k].data());
        sum_pointers.push_back(sums[k].data());
        for (size_t c = 0; c < columns; ++c) {
          for (size_t j = 0; j < d; ++j) {
            expected[k][j] = ring::AddMod(
                expected[k][j], ring::MulMod(ring::FromSigned(weights[c * d + j]), v[k][c]));
          }
        }
      }
      std::vector<int64_t> scratch(vectors * d, -1);
      AddWeightProducts(weights, d, v_pointers.data(), vectors, sum_pointers.data(),
                        scratch.data());
      EXPECT_EQ(sums, expected);
    }
  }
}

// The largest sums that the lazy reduction meets.
TEST(CheckMathTest, WeightProductsAtTheEdge) {
  for (const int8_t w : {int8_t{127}, int8_t{-127}}) {
    const size_t columns = 512;
    const std::vector<int8_t> weights(columns, w);
    const std::vector<uint64_t> v(columns, kQ - 1);
    const uint64_t* const from[] = {v.data()};
    uint64_t sum = 0;
    uint64_t* const to[] = {&sum};
    int64_t scratch;
    AddWeightProducts(weights, 1, from, 1, to, &scratch);
    EXPECT_EQ(sum, ring::MulMod(ring::FromSigned(w), kQ - columns));  // (q - 1) columns = -columns
  }
}

TEST(CheckMathTest, ModuleProducts) {
  std::mt19937_64 random(2);
  for (const Isa isa : SupportedIsas()) {
    for (const size_t columns : {8u, 24u, 128u, 136u, 328u}) {
      for (const size_t vectors : {1u, 2u}) {
        std::vector<uint8_t> matrix(ring::ModuleMatrixBytes(columns) + ring::kSlack);
        FillWords(random, matrix.data(), matrix.size());
        std::vector<std::vector<uint64_t>> x;
        std::vector<std::vector<WideSum>> sums(vectors, std::vector<WideSum>(ring::kSecretSize, 5));
        std::vector<const uint64_t*> from;
        std::vector<WideSum*> to;
        for (size_t k = 0; k < vectors; ++k) x.push_back(Residues(random, columns));
        for (size_t k = 0; k < vectors; ++k) {
          from.push_back(x[k].data());
          to.push_back(sums[k].data());
        }
        AddModuleProducts(isa, matrix.data(), columns, from.data(), vectors, to.data());
        for (size_t k = 0; k < vectors; ++k) {
          for (size_t slot = 0; slot < ring::kDegree; slot += 5) {
            for (size_t i = 0; i < ring::kRank; ++i) {
              WideSum expected = 5;
              for (size_t c = 0; c < columns; ++c) {
                expected += static_cast<WideSum>(ring::LoadResidue(
                                matrix.data() + ring::ModuleMatrixOffset(c, slot, i))) *
                            x[k][c];
              }
              ASSERT_TRUE(sums[k][slot * ring::kRank + i] == expected)
                  << IsaName(isa) << " " << columns;
            }
          }
        }
      }
    }
  }
}

TEST(CheckMathTest, PanelProducts) {
  std::mt19937_64 random(3);
  for (const Isa isa : SupportedIsas()) {
    for (const size_t columns : {32u, 96u, 512u, 544u, 1088u}) {
      std::vector<uint8_t> panels(ring::RowPanelsBytes(columns) + ring::kSlack);
      FillWords(random, panels.data(), panels.size());
      const std::vector<uint64_t> x = Residues(random, columns);
      std::vector<WideSum> sums(ring::kDegree, 9);
      AddPanelProducts(isa, panels.data(), columns, x.data(), sums.data());
      for (size_t row = 0; row < ring::kDegree; ++row) {
        WideSum expected = 9;
        for (size_t c = 0; c < columns; ++c) {
          expected += static_cast<WideSum>(
                          ring::LoadResidue(panels.data() + ring::RowPanelsOffset(row, c))) *
                      x[c];
        }
        ASSERT_TRUE(sums[row] == expected) << IsaName(isa) << " " << columns;
      }
    }
  }
}

TEST(CheckMathTest, ErrorProducts) {
  std::mt19937_64 random(4);
  for (const size_t d : {1u, 64u, 1024u, 1500u, 2049u}) {
    const size_t stride = ring::RoundUp(d, 32);
    std::vector<int8_t> errors(ring::kDegree * stride);
    for (int8_t& e : errors)
      e = random() % 2 == 0 ? int8_t{-21}
                            : static_cast<int8_t>(static_cast<int>(random() % 43) - 21);
    const std::vector<uint64_t> x = Residues(random, d);
    // The last error of the last row ends the memory.
    std::vector<WideSum> expected(ring::kDegree, kQ - 3);
    for (size_t row = 0; row < ring::kDegree; ++row) {
      for (size_t j = 0; j < d; ++j) {
        expected[row] += static_cast<WideSum>(errors[row * stride + j] + kErrorOffset) * x[j];
      }
    }
    for (const Isa isa : SupportedIsas()) {
      std::vector<WideSum> sums(ring::kDegree, kQ - 3);
      AddErrorProducts(isa, errors.data(), stride, d, x.data(), sums.data());
      EXPECT_TRUE(sums == expected) << IsaName(isa) << ", " << d;
    }
  }
}

TEST(CheckMathTest, SumOfSquares) {
  std::mt19937_64 random(5);
  for (const size_t count : {0u, 1u, 31u, 32u, 33u, 4096u, 1u << 20}) {
    std::vector<int8_t> errors(count);
    for (int8_t& e : errors) e = static_cast<int8_t>(random());
    if (count == 1u << 20) std::fill(errors.begin(), errors.end(), int8_t{-128});
    uint64_t expected = 0;
    for (const int8_t e : errors) expected += static_cast<uint64_t>(int{e} * int{e});
    for (const Isa isa : SupportedIsas())
      EXPECT_EQ(SumOfSquares(isa, errors), expected) << IsaName(isa) << ", " << count;
  }
}

}  // namespace
}  // namespace talaria::cvm
