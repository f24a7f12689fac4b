#include "talaria/model/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

namespace talaria::model {
namespace {

using ::testing::HasSubstr;

Digest Filled(uint8_t byte) {
  Digest digest;
  digest.fill(byte);
  return digest;
}

// The worked example of doc/store.md.
Manifest Example() {
  Manifest m;
  m.model_name = "Example \"1B\"";
  m.tool_version = "0.1.0";
  m.source = Filled(0x11);
  m.skeleton_bytes = 8192;
  m.skeleton = Filled(0x22);
  m.holes = {{1024, 2048}, {4096, 512}};
  m.groups = {
      {64,
       {{"blk.0.attn_q.weight", Role::kLinear, 32, Filled(0x33), Filled(0x44), Filled(0x55)},
        {"blk.0.attn_k.weight", Role::kLinear, 8, Filled(0x66), Filled(0x77), Filled(0x88)}}},
      {64,
       {{"token_embd.weight", Role::kTiedHead, 100, Filled(0x99), Filled(0xaa), Filled(0xbb)}}}};
  return m;
}

std::string Hex(uint8_t byte) { return ToHex(Filled(byte)); }

std::string ExampleText() {
  return "{\n  \"format_version\": 1,\n  \"model_name\": \"Example \\\"1B\\\"\",\n  "
         "\"tool_version\": \"0.1.0\",\n  \"source\": \"" +
         Hex(0x11) + "\",\n  \"profile\": 1,\n  \"skeleton_bytes\": 8192,\n  \"skeleton\": \"" +
         Hex(0x22) +
         "\",\n  \"holes\": [\n    [1024, 2048],\n    [4096, 512]\n  ],\n  \"groups\": [\n    {\n  "
         "    \"d\": 64,\n      \"matrices\": [\n"
         "        {\"name\": \"blk.0.attn_q.weight\", \"role\": \"linear\", \"o\": 32, "
         "\"weights\": \"" +
         Hex(0x33) + "\", \"scales\": \"" + Hex(0x44) + "\", \"hints\": \"" + Hex(0x55) +
         "\"},\n"
         "        {\"name\": \"blk.0.attn_k.weight\", \"role\": \"linear\", \"o\": 8, \"weights\": "
         "\"" +
         Hex(0x66) + "\", \"scales\": \"" + Hex(0x77) + "\", \"hints\": \"" + Hex(0x88) +
         "\"}\n      ]\n    },\n    {\n      \"d\": 64,\n      \"matrices\": [\n"
         "        {\"name\": \"token_embd.weight\", \"role\": \"tied_head\", \"o\": 100, "
         "\"weights\": \"" +
         Hex(0x99) + "\", \"scales\": \"" + Hex(0xaa) + "\", \"hints\": \"" + Hex(0xbb) +
         "\"}\n      ]\n    }\n  ]\n}\n";
}

std::string Replaced(std::string text, std::string_view from, std::string_view to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(ManifestTest, TextIsTheWorkedExample) {
  EXPECT_EQ(EncodeManifest(Example()), ExampleText());
  EXPECT_EQ(ToHex(ModelIdentity(ExampleText())),
            "c4c60badefe1a98cb77dc0d5f1e178bb8103455ef034020d2aa57a810545e11b");
}

// Computed by a separate program from doc/store.md.
TEST(ManifestTest, CoreDigestIsTheWorkedExample) {
  EXPECT_EQ(ToHex(CoreDigest(Example())),
            "885834e39dbf3935aa870b537ff44c27c0b0c2d01b5767950352f7ecb130fc0e");
}

TEST(ManifestTest, CoreIgnoresEverythingThatDoesNotSeedTheMask) {
  const Digest core = CoreDigest(Example());
  Manifest m = Example();
  m.model_name = "other";
  m.tool_version = "9";
  m.source = m.skeleton = Filled(0);
  m.holes.clear();
  m.groups[0].matrices[0].hints = m.groups[0].matrices[0].scales = Filled(1);
  std::swap(m.groups[0].matrices[0], m.groups[0].matrices[1]);
  std::swap(m.groups[0], m.groups[1]);
  EXPECT_EQ(CoreDigest(m), core);
}

TEST(ManifestTest, CoreDependsOnEveryMatrix) {
  const Digest core = CoreDigest(Example());
  Manifest m = Example();
  m.groups[0].matrices[1].weights[31] ^= 1;
  EXPECT_NE(CoreDigest(m), core);
  m = Example();
  m.groups[0].matrices[1].name += "x";
  EXPECT_NE(CoreDigest(m), core);
  m = Example();
  m.groups[0].d = 65;
  EXPECT_NE(CoreDigest(m), core);
  m = Example();
  m.groups[1].matrices[0].o = 101;
  EXPECT_NE(CoreDigest(m), core);
  m = Example();
  m.groups[1].matrices[0].role = Role::kLinear;
  EXPECT_NE(CoreDigest(m), core);
}

TEST(ManifestTest, DecodesWhatItEncodes) {
  const auto decoded = DecodeManifest(ExampleText());
  ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
  EXPECT_EQ(decoded->model_name, "Example \"1B\"");
  EXPECT_EQ(decoded->holes.size(), 2u);
  EXPECT_EQ(decoded->groups[1].matrices[0].role, Role::kTiedHead);
  EXPECT_EQ(decoded->groups[0].matrices[1].hints, Filled(0x88));
  EXPECT_EQ(EncodeManifest(*decoded), ExampleText());
  Manifest without_holes = Example();
  without_holes.holes.clear();
  EXPECT_TRUE(DecodeManifest(EncodeManifest(without_holes)).ok());
}

TEST(ManifestTest, TextIsJson) {
  const auto json = nlohmann::json::parse(ExampleText());
  EXPECT_EQ(json["model_name"], "Example \"1B\"");
  EXPECT_EQ(json["holes"][1][0], 4096);
  EXPECT_EQ(json["groups"][0]["matrices"][1]["o"], 8);
}

TEST(ManifestTest, RefusesEveryOtherText) {
  const std::string good = ExampleText();
  const std::pair<const char*, const char*> changes[] = {
      {"\"profile\": 1,", "\"profile\": 01,"},  // another number form
      {"\"profile\": 1,", "\"profile\": 1.0,"},
      {"\"profile\": 1,", "\"profile\": +1,"},
      {"\"profile\": 1,", "\"profile\":1,"},                             // another spacing
      {"\"profile\": 1,\n", "\"profile\": 1,\n  \"profile\": 1,\n"},     // a key twice
      {"\"profile\": 1,\n", "\"profile\": 1,\n  \"comment\": \"\",\n"},  // an unknown key
      {"  \"profile\": 1,\n", ""},                                       // a missing key
      {"Example", "Ex\\u0061mple"},  // another spelling of a string
      {"Example", "Ex\\/ample"},
      {"Example", "Ex\tample"},
      {"Example", "Ex\xc3\xa4mple"},
      {"3333", "333G"},  // not hex
      {"aaaa", "AAAA"},
      {"3333", "33"},
      {"\"linear\"", "\"Linear\""},
      {"\"o\": 8", "\"o\": 0"},
      {"\"o\": 8", "\"o\": 4194305"},
      {"\"o\": 8", "\"o\": -8"},
      {"\"o\": 8", "\"o\": 18446744073709551624"},  // 2^64 + 8
      {"\"d\": 64", "\"d\": 65537"},
      {"\"d\": 64", "\"d\": 0"},
      {"attn_k", "attn_q"},            // a name twice
      {"[4096, 512]", "[3071, 512]"},  // overlapping
      {"[4096, 512]", "[4096, 0]"},
      {"[4096, 512]", "[4096, 4097]"},  // past the end
      {"[4096, 512]", "[281474976710656, 1]"},
      {"token_embd", "token_embx"},  // a tied head of another name
      {"  ]\n}\n", "  ]\n}"},
      {"  ]\n}\n", "  ]\n}\n\n"},
      {"{\n", "\xef\xbb\xbf{\n"},
  };
  for (const auto& [from, to] : changes) {
    const auto decoded = DecodeManifest(Replaced(good, from, to));
    ASSERT_FALSE(decoded.ok()) << from << " -> " << to;
    EXPECT_EQ(decoded.status().code(), Code::kCorrupt) << from << " -> " << to;
    EXPECT_THAT(decoded.status().message(), HasSubstr("manifest"));
  }
}

TEST(ManifestTest, RefusesOtherVersionsAndProfilesByName) {
  for (const auto& [from, to] : {std::pair("\"format_version\": 1", "\"format_version\": 2"),
                                 std::pair("\"profile\": 1", "\"profile\": 2"),
                                 std::pair("\"profile\": 1", "\"profile\": 9")}) {
    const auto decoded = DecodeManifest(Replaced(ExampleText(), from, to));
    ASSERT_FALSE(decoded.ok());
    EXPECT_EQ(decoded.status().code(), Code::kUnsupported) << to;
  }
}

TEST(ManifestTest, RefusesEveryTruncation) {
  const std::string good = ExampleText();
  for (size_t size = 0; size < good.size(); ++size)
    EXPECT_FALSE(DecodeManifest(std::string_view(good).substr(0, size)).ok()) << size;
}

TEST(ManifestTest, WhateverDecodesIsCanonical) {
  const std::string good = ExampleText();
  std::mt19937_64 random(20240601);
  int accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string text = good;
    for (uint64_t edits = 1 + random() % 2; edits > 0; --edits)
      text[random() % text.size()] = static_cast<char>(random() % 96 + 32);
    const auto decoded = DecodeManifest(text);
    if (!decoded.ok()) continue;
    ++accepted;
    ASSERT_EQ(EncodeManifest(*decoded), text);
  }
  EXPECT_GT(accepted, 100);  // digits of digests and numbers
}

TEST(ManifestTest, ManyGroupsStayFast) {
  Manifest m = Example();
  m.groups.clear();
  for (int i = 0; i < 20000; ++i)
    m.groups.push_back({64, {{"w" + std::to_string(i), Role::kLinear, 64, {}, {}, {}}}});
  EXPECT_TRUE(DecodeManifest(EncodeManifest(m)).ok());
  m.groups.resize(kMaxMatrices + 1, {64, {{"w", Role::kLinear, 64, {}, {}, {}}}});
  EXPECT_EQ(ValidateManifest(m).code(), Code::kInvalidArgument);
}

TEST(ManifestTest, GroupColumnsStartAtMultiplesOf32) {
  const Manifest m = Example();
  EXPECT_EQ(PaddedOutputs(32), 32u);
  EXPECT_EQ(PaddedOutputs(33), 64u);
  EXPECT_EQ(ColumnOffset(m.groups[0], 0), 0u);
  EXPECT_EQ(ColumnOffset(m.groups[0], 1), 32u);
  EXPECT_EQ(GroupOutputs(m.groups[0]), 64u);
  EXPECT_EQ(GroupOutputs(m.groups[1]), 128u);
  const auto all = AllMatrices(m);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[1].member, 1u);
  EXPECT_EQ(all[2].group_index, 1u);
}

}  // namespace
}  // namespace talaria::model
