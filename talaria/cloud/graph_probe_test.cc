#include "talaria/cloud/graph_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

namespace talaria::cloud {
namespace {

using ::testing::HasSubstr;

std::string BackendDir() {
  const char* dir = std::getenv("TALARIA_LLAMA_DIR");
  return dir == nullptr ? "" : std::string(dir) + "/bin";
}

GraphUses Sample() {
  GraphUses uses;
  uses.chooses_experts = true;
  uses.weights["a.weight"] = {{"MUL_MAT", 0, false, true, 3, 9}, {"VIEW", 1, true, false, 0, 10}};
  uses.weights["b"] = {};
  return uses;
}

TEST(GraphUsesTest, ReportsRoundTrip) {
  const std::vector<uint8_t> bytes = EncodeGraphUses(Sample());
  const auto back = DecodeGraphUses(bytes);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(EncodeGraphUses(*back), bytes);
  EXPECT_TRUE(back->chooses_experts);
  const WeightUse& use = back->weights.at("a.weight")[1];
  EXPECT_EQ(use.operation, "VIEW");
  EXPECT_TRUE(use.view);
  const auto error = DecodeGraphUses(EncodeGraphUses(Status(Code::kCorrupt, "because")));
  EXPECT_EQ(error.status().code(), Code::kCorrupt);
  EXPECT_EQ(error.status().message(), "because");
}

TEST(GraphUsesTest, DamagedReportsAreRefused) {
  std::vector<uint8_t> bytes = EncodeGraphUses(Sample());
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_FALSE(DecodeGraphUses(Bytes(bytes).first(size)).ok()) << size;
  bytes.push_back(0);
  EXPECT_EQ(DecodeGraphUses(bytes).status().code(), Code::kInternal);
  bytes.assign(6, 0xff);
  EXPECT_EQ(DecodeGraphUses(bytes).status().code(), Code::kInternal);
  // A huge count costs nothing.
  bytes = {0, 0, 0xff, 0xff, 0xff, 0xff};
  EXPECT_FALSE(DecodeGraphUses(bytes).ok());
}

TEST(GraphProbeTest, RefusesWhatIsNoModelAndSaysWhy) {
  const std::string path = "/tmp/talaria-probe-" + std::to_string(getpid()) + ".gguf";
  std::ofstream(path) << "GGUF, but only in the beginning";
  const auto uses = ProbeGraph({path, BackendDir()});
  ASSERT_FALSE(uses.ok());
  EXPECT_EQ(uses.status().code(), Code::kUnsupported);
  EXPECT_THAT(uses.status().message(), HasSubstr("llama.cpp"));
  unlink(path.c_str());
}

TEST(GraphProbeTest, NeedsABackend) {
  const auto uses = ProbeGraph({"model.gguf", "/nowhere"});
  ASSERT_FALSE(uses.ok());
  EXPECT_EQ(uses.status().code(), Code::kNotFound);
  EXPECT_THAT(uses.status().message(), HasSubstr("--llama-backend-dir"));
}

TEST(GraphProbeTest, StopsWhenAsked) {
  const std::atomic<bool> cancel{true};
  EXPECT_EQ(ProbeGraph({"model.gguf", BackendDir(), 1, &cancel}).status().code(), Code::kCancelled);
}

}  // namespace
}  // namespace talaria::cloud
