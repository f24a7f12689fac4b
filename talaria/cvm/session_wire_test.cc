// What the wire shows: masked rows against uniform residues, with negative controls that these
// tests must catch. The tests are no proof (that is Module-LWE); they find a mask that is missing,
// small, repeated or of low rank.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>

#include "talaria/cvm/lab/zero_mask_source.h"
#include "talaria/cvm/online.h"
#include "talaria/cvm/testing/rig.h"
#include "talaria/ring/modq.h"

namespace talaria::cvm {
namespace {

using namespace testing;
using ring::kQ;
using Rows = std::vector<std::vector<uint64_t>>;

constexpr uint32_t kGroup = 2;  // d = 128
constexpr size_t kWidth = 128;

// The same mask row for every input: what must never happen.
class ReusedMaskSource final : public MaskSource {
 public:
  explicit ReusedMaskSource(MaskSource& source) {
    std::vector<RowTicket> tickets;
    TALARIA_CHECK(source.Draw(kGroup, 1, tickets).ok());
    const MaskRowView view = tickets[0].Spend();
    for (size_t p = 0; p < 4; ++p) {
      std::copy_n(view.mask + p * view.panel_stride, 192, owner_->mask.data() + p * 192);
      std::copy_n(view.unmask + p * view.panel_stride, 192, owner_->unmask.data() + p * 192);
    }
  }
  Status Draw(uint32_t, uint32_t rows, std::vector<RowTicket>& out) override {
    for (uint32_t i = 0; i < rows; ++i) out.emplace_back(owner_, i);
    return OkStatus();
  }
  MaskStats stats() const override { return {}; }
  void Poison() override {}

 private:
  struct Owner : RowOwner {
    MaskRowView Spend(uint32_t) override { return {mask.data(), unmask.data(), 192, false}; }
    void Burn(uint32_t) override {}
    std::array<uint8_t, 4 * 192 + 64> mask{}, unmask{};
  };
  std::shared_ptr<Owner> owner_ = std::make_shared<Owner>();
};

// Residues of all Multiply messages so far.
Rows OnTheWire(const FakeCloud& cloud) {
  Rows out;
  for (const Request& request : cloud.Requests(wire::Type::kMultiply)) {
    Bytes planes;
    const uint32_t rows = wire::DecodeMultiply(request.body, &planes)->rows;
    for (size_t r = 0; r < rows; ++r) {
      std::vector<uint64_t> row(kWidth, 0);
      for (size_t j = 0; j < kWidth; ++j) {
        for (size_t p = 0; p < 6; ++p)
          row[j] |= uint64_t{planes[(r * 6 + p) * kWidth + j]} << (8 * p);
      }
      out.push_back(std::move(row));
    }
  }
  return out;
}

// Sends `x` and returns what the cloud saw.
Rows Send(Rig& rig, MaskSource& source, const std::vector<float>& x) {
  Session session(rig.masked, *rig.link, source, {.isa = DetectIsa()});
  const uint32_t rows = static_cast<uint32_t>(x.size() / kWidth);
  const size_t before = OnTheWire(rig.cloud).size();
  Outputs out(rig.masked.groups[kGroup], rows);
  EXPECT_TRUE(Multiply(session, kGroup, rows, x, out).ok());
  Rows all = OnTheWire(rig.cloud);
  return {all.begin() + static_cast<ptrdiff_t>(before), all.end()};
}

// Chi-square of the bytes of each digit plane, the largest of six; 255 degrees of freedom: mean
// 255, deviation 22.6.
double WorstChiSquare(const Rows& rows) {
  double worst = 0;
  for (int plane = 0; plane < 6; ++plane) {
    std::array<double, 256> count{};
    for (const auto& row : rows) {
      for (const uint64_t x : row) count[x >> (8 * plane) & 0xff] += 1;
    }
    const double expected = static_cast<double>(rows.size() * kWidth) / 256;
    double sum = 0;
    for (const double c : count) sum += (c - expected) * (c - expected) / expected;
    worst = std::max(worst, sum);
  }
  return worst;
}
constexpr double kChiSquareLimit =
    255 + 7 * 22.6;  // seeds are fixed: no flakiness, only a wide margin

size_t Rank(Rows rows) {
  size_t rank = 0;
  for (size_t column = 0; column < kWidth && rank < rows.size(); ++column) {
    size_t pivot = rank;
    while (pivot < rows.size() && rows[pivot][column] == 0) ++pivot;
    if (pivot == rows.size()) continue;
    std::swap(rows[pivot], rows[rank]);
    const uint64_t inverse = ring::InvMod(rows[rank][column]);
    for (size_t r = rank + 1; r < rows.size(); ++r) {
      const uint64_t factor = ring::MulMod(rows[r][column], inverse);
      for (size_t j = column; j < kWidth && factor != 0; ++j) {
        rows[r][j] = ring::SubMod(rows[r][j], ring::MulMod(factor, rows[rank][j]));
      }
    }
    ++rank;
  }
  return rank;
}

struct Differences {
  size_t pairs = 0;
  size_t small = 0;  // elements below 2^16 Delta, the largest that two activations can differ by
  size_t multiples = 0;  // of Delta
};
Differences PairwiseDifferences(const Rows& rows, int delta_log2) {
  Differences out;
  for (size_t a = 0; a < rows.size(); ++a) {
    for (size_t b = a + 1; b < rows.size(); ++b) {
      for (size_t j = 0; j < kWidth; ++j) {
        const int64_t difference = ring::Centred(ring::SubMod(rows[a][j], rows[b][j]));
        ++out.pairs;
        out.small += std::abs(difference) < (int64_t{1} << (delta_log2 + 16)) ? 1 : 0;
        out.multiples += difference % (int64_t{1} << delta_log2) == 0 ? 1 : 0;
      }
    }
  }
  return out;
}

class SessionWireTest : public ::testing::Test {
 protected:
  Rig rig_;
  const int delta_log2_ = rig_.masked.groups[kGroup].certificate.delta_log2;
  // What two uniform residues do by chance, with head-room.
  double Chance(size_t pairs, double probability) const {
    const double mean = static_cast<double>(pairs) * probability;
    return mean + 7 * std::sqrt(mean) + 3;
  }
  double SmallProbability() const { return std::ldexp(2.0, delta_log2_ + 16 - 48); }
  double MultipleProbability() const { return std::ldexp(1.0, -delta_log2_); }
};

TEST_F(SessionWireTest, BytesAreUniform) {
  std::vector<float> same = RandomRows(31, 1, kWidth);
  std::vector<float> repeated;
  for (int i = 0; i < 256; ++i) repeated.insert(repeated.end(), same.begin(), same.end());
  EXPECT_LT(WorstChiSquare(Send(rig_, *rig_.source, repeated)), kChiSquareLimit);
  EXPECT_LT(WorstChiSquare(Send(rig_, *rig_.source, std::vector<float>(256 * kWidth, 0.0f))),
            kChiSquareLimit);
  EXPECT_LT(WorstChiSquare(Send(rig_, *rig_.source, RandomRows(32, 256, kWidth))), kChiSquareLimit);

  lab::ZeroMaskSource zero;
  EXPECT_GT(WorstChiSquare(Send(rig_, zero, RandomRows(32, 256, kWidth))), 100 * kChiSquareLimit);
  ReusedMaskSource reused(*rig_.source);
  EXPECT_GT(WorstChiSquare(Send(rig_, reused, repeated)), 2 * kChiSquareLimit);
}

TEST_F(SessionWireTest, RowsHaveFullRank) {
  std::vector<float> same = RandomRows(33, 1, kWidth);
  std::vector<float> repeated;
  for (size_t i = 0; i < kWidth; ++i) repeated.insert(repeated.end(), same.begin(), same.end());
  EXPECT_EQ(Rank(Send(rig_, *rig_.source, repeated)), kWidth);

  lab::ZeroMaskSource zero;
  EXPECT_EQ(Rank(Send(rig_, zero, repeated)), 1u);
  ReusedMaskSource reused(*rig_.source);
  EXPECT_EQ(Rank(Send(rig_, reused, repeated)), 1u);
}

TEST_F(SessionWireTest, DifferencesAreNeitherSmallNorMultiplesOfDelta) {
  const std::vector<float> x = RandomRows(34, 100, kWidth);
  const Differences masked = PairwiseDifferences(Send(rig_, *rig_.source, x), delta_log2_);
  EXPECT_LT(static_cast<double>(masked.small), Chance(masked.pairs, SmallProbability()));
  EXPECT_LT(static_cast<double>(masked.multiples), Chance(masked.pairs, MultipleProbability()));

  lab::ZeroMaskSource zero;
  const Differences plain = PairwiseDifferences(Send(rig_, zero, x), delta_log2_);
  EXPECT_EQ(plain.small, plain.pairs);
  EXPECT_EQ(plain.multiples, plain.pairs);
  ReusedMaskSource reused(*rig_.source);
  const Differences again = PairwiseDifferences(Send(rig_, reused, x), delta_log2_);
  EXPECT_EQ(again.small, again.pairs);
  EXPECT_EQ(again.multiples, again.pairs);
}

}  // namespace
}  // namespace talaria::cvm
