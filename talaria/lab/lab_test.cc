#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "talaria/base/testing/temp_folder.h"
#include "talaria/lab/published_matrix.h"
#include "talaria/lab/residue_matrix.h"
#include "talaria/lab/row_files.h"
#include "talaria/ring/modq.h"

namespace talaria::lab {
namespace {

class RowFilesTest : public ::testing::Test {
 protected:
  const TempFolder temp_;
  const std::string& folder_ = temp_.path();
};

TEST_F(RowFilesTest, KeepsTheRowsOfTheGroupsThatAreNamed) {
  const auto files = RowFiles::Create(folder_, "f32", 3, {2, 0, 2});
  ASSERT_TRUE(files.ok()) << files.status().ToString();
  EXPECT_TRUE(files->Keeps(0) && files->Keeps(2));
  EXPECT_FALSE(files->Keeps(1) || files->Keeps(3));
  ASSERT_TRUE(files->AppendRows(2, AsBytes("ab")).ok());
  ASSERT_TRUE(files->AppendRows(2, AsBytes("c")).ok());
  ASSERT_TRUE(files->Flush().ok());
  std::ifstream file(folder_ + "/group-2.f32");
  std::string text;
  file >> text;
  EXPECT_EQ(text, "abc");
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/group-1.f32"));
}

TEST_F(RowFilesTest, RefusesGroupsThatAreNotThereAndFoldersThatAreUsed) {
  const auto files = RowFiles::Create(folder_, "f32", 3, {3});
  ASSERT_FALSE(files.ok());
  EXPECT_EQ(files.status().code(), Code::kInvalidArgument);
  EXPECT_EQ(files.status().message(), "there is no group 3: the model has 3");
  EXPECT_TRUE(MakeRecordingFolder(folder_ + "/a/b").ok());
  EXPECT_TRUE(MakeRecordingFolder(folder_ + "/a/b").ok());  // still empty
  const Status used = MakeRecordingFolder(folder_);
  EXPECT_EQ(used.code(), Code::kInvalidArgument);
  EXPECT_NE(used.message().find("is not empty"), std::string::npos) << used.message();
}

TEST(PublicRowsTest, ReadsSharesNumbersAndDifferences) {
  const auto of = [](std::string_view text, uint32_t d) {
    const auto m = PublicRows::Parse(text);
    EXPECT_TRUE(m.ok()) << text;
    return m.ok() ? m->Of(d) : 0;
  };
  EXPECT_EQ(PublicRows().Of(576), 288u);
  EXPECT_EQ(of("1/4", 576), 144u);
  EXPECT_EQ(of("3/4", 1536), 1152u);
  EXPECT_EQ(of("100", 576), 100u);
  EXPECT_EQ(of("9999", 576), 575u);  // m < d
  EXPECT_EQ(of("d-1", 576), 575u);
  EXPECT_EQ(of("d-8", 1536), 1528u);
  for (const char* bad : {"", "0", "1/0", "2/2", "-1", "d", "d-", "d-0", "1/2x", "half", "0/2"}) {
    const auto m = PublicRows::Parse(bad);
    ASSERT_FALSE(m.ok()) << bad;
    EXPECT_EQ(m.status().code(), Code::kInvalidArgument);
    EXPECT_NE(m.status().message().find("give a share of the width such as 1/2"),
              std::string::npos);
  }
}

TEST(PublishedMatrixTest, IsCanonicalUniformAndBoundToItsInputs) {
  const Digest core{1};
  const std::vector<uint8_t> a = PublishedMatrix(core, 40, 20);
  ASSERT_EQ(a.size(), 20u * 40 * 6);
  EXPECT_EQ(a, PublishedMatrix(core, 40, 20));
  EXPECT_NE(a, PublishedMatrix(Digest{2}, 40, 20));
  const std::vector<uint8_t> other = PublishedMatrix(core, 40, 21);
  EXPECT_FALSE(std::equal(a.begin(), a.end(), other.begin()));
  std::set<uint64_t> seen;
  for (size_t i = 0; i < a.size(); i += 6) {
    EXPECT_LT(ring::LoadResidue(a.data() + i), ring::kQ);
    seen.insert(ring::LoadResidue(a.data() + i));
  }
  EXPECT_EQ(seen.size(), 800u);  // two equal: probability 2^-29
}

TEST(ResidueMatrixTest, EqualsTheReferenceAtTheEdgesToo) {
  std::mt19937_64 random(3);
  const uint64_t edges[] = {
      0, 1, 63, 64, 65, ring::kQ - 1, ring::kQ / 2, ring::kQ / 2 + 1, ring::kQ - 64, 1ull << 47};
  const auto value = [&] {
    return random() % 3 == 0 ? edges[random() % std::size(edges)] : random() % ring::kQ;
  };
  for (const Isa isa : SupportedIsas()) {
    for (const auto& [rows, columns] : {std::pair<size_t, size_t>{1, 1}, {70, 300}, {64, 32}}) {
      SCOPED_TRACE(std::string(IsaName(isa)) + " " + std::to_string(rows));
      constexpr size_t kN = 5;
      std::vector<uint64_t> x(kN * rows);
      std::vector<uint8_t> r(rows * columns * 6);
      for (uint64_t& residue : x) residue = value();
      for (size_t i = 0; i < r.size(); i += 6) ring::StoreResidue(r.data() + i, value());
      const auto matrix = ResidueMatrix::Create(isa, rows, columns, r);
      ASSERT_TRUE(matrix.ok()) << matrix.status().ToString();
      ResidueMatrix::Scratch scratch;
      gemm::ThreadTeam team(2);
      std::vector<uint64_t> out;
      matrix->Multiply(DigitPlanes(x, kN, rows), kN, out, scratch, team);
      const std::vector<uint64_t> expected = ReferenceResidueProduct(x, kN, r, rows, columns);
      const size_t stride = matrix->padded_columns();
      ASSERT_EQ(out.size(), kN * stride);
      for (size_t i = 0; i < kN; ++i) {
        for (size_t c = 0; c < stride; ++c)
          ASSERT_EQ(out[i * stride + c], c < columns ? expected[i * columns + c] : 0) << c;
      }
    }
  }
  EXPECT_EQ(ResidueMatrix::Create(Isa::kPortable, 0, 4, {}).status().code(),
            Code::kInvalidArgument);
}

}  // namespace
}  // namespace talaria::lab
