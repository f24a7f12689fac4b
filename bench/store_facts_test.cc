#include "bench/store_facts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace talaria::bench {
namespace {

using ::testing::HasSubstr;

model::Matrix Outputs(uint32_t o) {
  model::Matrix matrix;
  matrix.o = o;
  return matrix;
}

// SmolLM2-135M: 30 layers of four groups, and the head.
model::Manifest SmolLm2() {
  model::Manifest manifest;
  for (int layer = 0; layer < 30; ++layer) {
    manifest.groups.push_back({576, {Outputs(576), Outputs(192), Outputs(192)}});
    manifest.groups.push_back({576, {Outputs(576)}});
    manifest.groups.push_back({576, {Outputs(1536), Outputs(1536)}});
    manifest.groups.push_back({1536, {Outputs(576)}});
  }
  manifest.groups.push_back({576, {Outputs(49152)}});
  return manifest;
}

// By hand: a layer masks 576 + 576 + 576 + 1536 and unmasks 960 + 576 + 3072 + 576, 8,448; the head
// has 576 + 49,152.
TEST(StoreFacts, ElementsOfAToken) {
  EXPECT_EQ(ElementsPerToken(SmolLm2()), 30 * 8448 + 49728);
  model::Manifest odd;
  odd.groups.push_back({100, {Outputs(33), Outputs(1)}});
  EXPECT_EQ(ElementsPerToken(odd), 134);  // values, not what padding makes of them
}

TEST(StoreFacts, OnlineNanosecondsAreOfWholeTokens) {
  const model::Manifest manifest = SmolLm2();
  const auto ns = OnlineNs(manifest, 10 * 303168 * 2.5e-9, 1210, 1210);
  ASSERT_TRUE(ns.ok()) << ns.status().ToString();
  EXPECT_NEAR(*ns, 2.5, 1e-9);
  for (const auto& [calls, rows] : {std::pair{1211.0, 1211.0}, {1210.0, 1331.0}, {0.0, 0.0}}) {
    const auto refused = OnlineNs(manifest, 1, calls, rows);
    ASSERT_FALSE(refused.ok()) << calls;
    EXPECT_EQ(refused.status().code(), Code::kInternal);
    EXPECT_THAT(refused.status().message(), HasSubstr("not whole tokens of one row a call"));
  }
}

// Hints are 12,288 bytes a column and weights one byte each; the rest is smaller.
TEST(StoreFacts, MemoryGrowsWithHintsWeightsAndPools) {
  const model::Manifest manifest = SmolLm2();
  const uint64_t columns = 30 * 5184 + 49152, weights = 30 * 3538944 + 576 * 49152;
  const uint64_t one = NeededMemory(manifest, 1), two = NeededMemory(manifest, 2);
  EXPECT_GT(one, columns * 12288 + weights + (uint64_t{1} << 30));
  EXPECT_LT(one, columns * 12288 + weights + (uint64_t{2} << 30));
  EXPECT_GE(two - one, uint64_t{303168} * 6 * 256);  // a batch has 256 rows
}

TEST(StoreFacts, TooLittleMemorySaysHowMuch) {
  EXPECT_TRUE(CheckMemory(1'000'000'000, 1'000'000'000).ok());
  const Status status = CheckMemory(4'500'000'000, 1'200'000'000);
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_EQ(status.message(),
            "too little memory: CVM and cloud need 4.5 GB, and 1.2 GB are available");
}

TEST(StoreFacts, AFolderWithoutAManifestIsNoStore) {
  const auto manifest = ReadManifest("/nonexistent");
  ASSERT_FALSE(manifest.ok());
  EXPECT_THAT(manifest.status().message(), HasSubstr("/nonexistent/manifest.json"));
}

}  // namespace
}  // namespace talaria::bench
