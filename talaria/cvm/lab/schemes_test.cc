// Every scheme gives the bits of `none`, and its masks are what its name says.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "talaria/cvm/lab/batch_source.h"
#include "talaria/cvm/lab/published_masks.h"
#include "talaria/cvm/lab/zero_mask_source.h"
#include "talaria/cvm/testing/rig.h"
#include "talaria/ring/layout.h"
#include "talaria/wire/messages.h"

namespace talaria::cvm::lab {
namespace {

using testing::Outputs;
using testing::RandomRows;
using testing::Rig;

constexpr uint32_t kRows = 300;  // more than a batch

std::unique_ptr<MaskSource> MakeSource(const std::string& scheme, Rig& rig) {
  const auto source = [&](Result<BatchSource::Fill> fill,
                          BatchSource::Rows rows) -> std::unique_ptr<MaskSource> {
    TALARIA_CHECK(fill.ok());
    return std::make_unique<BatchSource>(rig.masked, std::move(*fill), rows);
  };
  const Isa isa = DetectIsa();
  if (scheme == "none") return std::make_unique<ZeroMaskSource>();
  if (scheme == "lattice-no-error")
    return source(LatticeWithoutError(rig.masked, isa), BatchSource::Rows::kOnce);
  if (scheme == "lattice-reused")
    return source(Lattice(rig.masked, isa), BatchSource::Rows::kReused);
  const auto m = talaria::lab::PublicRows::Parse(scheme.substr(scheme.find(' ') + 1));
  auto link = testing::MakeLink(rig.cloud);
  link->PinIdentity(rig.masked.identity);
  auto made = PublishedMasks::Create(rig.masked, *link, *m, isa, 1);
  TALARIA_CHECK(made.ok());
  const std::shared_ptr<PublishedMasks> masks = std::move(*made);
  return source(BatchSource::Fill([masks](uint32_t group, const BatchRows& rows) {
                  return masks->Fill(group, rows);
                }),
                BatchSource::Rows::kOnce);
}

// The residues of the masked rows that the cloud saw of a group in its last `rows` rows.
std::vector<std::vector<uint64_t>> SeenRows(const Rig& rig, uint32_t group, size_t rows) {
  std::vector<std::vector<uint64_t>> out;
  const MaskedGroup& g = rig.masked.groups[group];
  for (const auto& request : rig.cloud.Requests(wire::Type::kMultiply)) {
    Bytes planes;
    const auto header = wire::DecodeMultiply(request.body, &planes);
    if (!header.ok() || header->group != group) continue;
    for (size_t r = 0; r < header->rows; ++r) {
      std::vector<uint64_t>& row = out.emplace_back(g.d, 0);
      for (size_t p = 0; p < 6; ++p) {
        for (size_t j = 0; j < g.d; ++j)
          row[j] |= uint64_t{planes[(r * 6 + p) * g.d_padded + j]} << (8 * p);
      }
    }
  }
  out.erase(out.begin(), out.end() - static_cast<ptrdiff_t>(rows));
  return out;
}

class SchemesTest : public ::testing::TestWithParam<const char*> {};

TEST_P(SchemesTest, GivesTheBitsOfTheUnmaskedProduct) {
  Rig rig;
  const std::unique_ptr<MaskSource> source = MakeSource(GetParam(), rig);
  Session session(rig.masked, *rig.link, *source, SessionOptions{.isa = DetectIsa()});
  for (uint32_t group = 0; group < rig.masked.groups.size(); ++group) {
    SCOPED_TRACE(group);
    const std::vector<float> x = RandomRows(group + 5, kRows, rig.masked.groups[group].d);
    Outputs out(rig.masked.groups[group], kRows);
    const auto result = Multiply(session, group, kRows, x, out);
    ASSERT_TRUE(result.ok()) << result.status().ToString();
    EXPECT_EQ(out.values, testing::ExactProduct(rig.model, rig.masked, group, kRows, x));
  }
  EXPECT_EQ(source->stats().rows_drawn, kRows * rig.masked.groups.size());
  source->Poison();
  std::vector<RowTicket> tickets;
  EXPECT_EQ(source->Draw(0, 1, tickets).code(), Code::kSessionEnded);
}

INSTANTIATE_TEST_SUITE_P(All, SchemesTest,
                         ::testing::Values("none", "lattice-no-error", "lattice-reused",
                                           "published 1/4", "published 1/2", "published 3/4",
                                           "published d-1", "published 1"));

TEST(SchemesTest, RowsOfOneInputDifferUnlessTheMaskIsReused) {
  for (const char* scheme : {"lattice-no-error", "published 1/2", "lattice-reused"}) {
    SCOPED_TRACE(scheme);
    Rig rig;
    const std::unique_ptr<MaskSource> source = MakeSource(scheme, rig);
    Session session(rig.masked, *rig.link, *source, SessionOptions{.isa = DetectIsa()});
    const size_t d = rig.masked.groups[0].d;
    const std::vector<float> row = RandomRows(1, 1, d);
    std::vector<float> x;
    for (uint32_t r = 0; r < 2 * kBatchRows; ++r) x.insert(x.end(), row.begin(), row.end());
    Outputs out(rig.masked.groups[0], 2 * kBatchRows);
    ASSERT_TRUE(Multiply(session, 0, 2 * kBatchRows, x, out).ok());
    const auto seen = SeenRows(rig, 0, 2 * kBatchRows);
    const std::set<std::vector<uint64_t>> distinct(seen.begin(), seen.end());
    const bool reused = std::string(scheme) == "lattice-reused";
    EXPECT_EQ(distinct.size(), reused ? kBatchRows : 2 * kBatchRows);
    EXPECT_EQ(seen[0] == seen[kBatchRows], reused);
  }
}

// M = M_pvt M_pub and U = M_pvt R_pub with the same M_pvt: U = M W, by the definition.
TEST(SchemesTest, PublishedUnmaskRowsAreTheProductsOfTheMaskRows) {
  Rig rig;
  auto link = testing::MakeLink(rig.cloud);
  link->PinIdentity(rig.masked.identity);
  auto masks = PublishedMasks::Create(rig.masked, *link, {}, DetectIsa(), 1);
  ASSERT_TRUE(masks.ok()) << masks.status().ToString();
  const MaskedGroup& group = rig.masked.groups[0];
  std::vector<uint8_t> mask(ring::RowPanelsBytes(group.d_padded) + ring::kSlack),
      unmask(ring::RowPanelsBytes(group.o_padded) + ring::kSlack);
  ASSERT_TRUE((*masks)->Fill(0, {mask.data(), unmask.data()}).ok());
  const auto at = [](const std::vector<uint8_t>& panels, size_t row, size_t column) {
    return ring::LoadResidue(panels.data() + ring::RowPanelsOffset(row, column));
  };
  for (const size_t row : {size_t{0}, size_t{100}, size_t{255}}) {
    for (uint32_t member = 0; member < group.member_outputs.size(); ++member) {
      const auto& w = rig.model.matrix(0, member);
      for (uint32_t o = 0; o < w.o; ++o) {
        uint64_t y = 0;
        for (uint32_t j = 0; j < group.d; ++j) {
          y = ring::AddMod(y, ring::MulMod(at(mask, row, j),
                                           ring::FromSigned(w.weights[size_t{o} * group.d + j])));
        }
        ASSERT_EQ(at(unmask, row, group.member_offsets[member] + o), y) << row << " " << o;
      }
    }
  }
}

// A row of rank m: with M_pub = one row, every mask row is a multiple of it.
TEST(SchemesTest, PublishedMaskRowsAreInTheRowSpaceOfThePublicMatrix) {
  Rig rig;
  auto link = testing::MakeLink(rig.cloud);
  link->PinIdentity(rig.masked.identity);
  const auto one = talaria::lab::PublicRows::Parse("1");
  auto masks = PublishedMasks::Create(rig.masked, *link, *one, DetectIsa(), 1);
  ASSERT_TRUE(masks.ok());
  const MaskedGroup& group = rig.masked.groups[1];
  std::vector<uint8_t> mask(ring::RowPanelsBytes(group.d_padded) + ring::kSlack),
      unmask(ring::RowPanelsBytes(group.o_padded) + ring::kSlack);
  ASSERT_TRUE((*masks)->Fill(1, {mask.data(), unmask.data()}).ok());
  const std::vector<uint8_t> m_pub =
      talaria::lab::PublishedMatrix(model::CoreDigest(rig.masked.manifest), group.d, 1);
  for (size_t row = 0; row < kBatchRows; ++row) {
    const auto at = [&](size_t j) {
      return ring::LoadResidue(mask.data() + ring::RowPanelsOffset(row, j));
    };
    const uint64_t factor = ring::MulMod(at(0), ring::InvMod(ring::LoadResidue(m_pub.data())));
    for (size_t j = 0; j < group.d; ++j)
      ASSERT_EQ(at(j), ring::MulMod(factor, ring::LoadResidue(m_pub.data() + 6 * j))) << row;
  }
}

}  // namespace
}  // namespace talaria::cvm::lab
