#include "talaria/tenant/token.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "talaria/attest/refusal.h"
#include "talaria/tenant/testing/tenant_testing.h"

namespace talaria::tenant {
namespace {

using attest::ReasonOf;

Token Ada() {
  Token token{.user = "ada",
              .id = {1, 2, 3},
              .not_before = 1000,
              .expires = 2000,
              .requests_per_minute = 60,
              .tokens_per_day = 100'000,
              .concurrent_requests = 4,
              .client_key = {}};
  token.client_key.fill(9);
  return token;
}

class TokenTest : public ::testing::Test {
 protected:
  std::string ReasonFor(std::string_view text) const {
    return std::string(ReasonOf(VerifyToken(text, key_.public_key()).status()));
  }
  // The text of signed bytes that MakeToken would not write.
  std::string Signed(std::vector<uint8_t> bytes) const;
  const TenantKey key_ = testing::FixedKey();
};

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

// An encoder of the test's own.
std::string Base64Url(const std::vector<uint8_t>& bytes) {
  std::string out, bits;
  for (const uint8_t byte : bytes)
    for (int i = 7; i >= 0; --i) bits += (byte >> i & 1) ? '1' : '0';
  while (bits.size() % 6) bits += '0';
  for (size_t i = 0; i < bits.size(); i += 6)
    out += kAlphabet[std::stoul(bits.substr(i, 6), nullptr, 2)];
  return out;
}

std::string TokenTest::Signed(std::vector<uint8_t> bytes) const {
  const Signature signature = key_.Sign({"talaria-token-v1\0", 17}, bytes).value();
  bytes.insert(bytes.end(), signature.begin(), signature.end());
  return "tlr1_" + Base64Url(bytes);
}

std::vector<uint8_t> AdaBytes() {
  std::vector<uint8_t> bytes;
  ByteWriter writer(bytes);
  writer.U8(1);
  writer.U8(3);
  writer.Raw(AsBytes("ada"));
  writer.Raw(Ada().id);
  writer.U64(1000);
  writer.U64(2000);
  writer.U32(60);
  writer.U32(100'000);
  writer.U16(4);
  writer.Raw(Ada().client_key);
  return bytes;
}

TEST_F(TokenTest, TheLayoutIsWhatTheHeaderSays) {
  EXPECT_EQ(MakeToken(Ada(), key_).value(), Signed(AdaBytes()));
  EXPECT_EQ(MakeToken(Ada(), key_).value(),
            "tlr1_AQNhZGEBAgMAAAAAAAAAAAAAAAAA6AMAAAAAAADQBwAAAAAAADwAAACghgEABAAJCQkJCQkJCQk"
            "JCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQYQSunaLa96TjbnZOAUhGOHeZ35gy1u9SlzCKIkF0MQUYYXt3r"
            "4E7tDKfghqDx2b9f2zsRBk1Q9iC02hbbh8gw");
}

TEST_F(TokenTest, WhatWasSignedComesBack) {
  Token token = Ada();
  EXPECT_EQ(VerifyToken(MakeToken(token, key_).value(), key_.public_key()).value(), token);
  token = {.user = std::string(kMaxUserBytes, '~'),
           .id = {},
           .not_before = -5,
           .expires = std::numeric_limits<int64_t>::max(),
           .requests_per_minute = 0,
           .tokens_per_day = kUnlimitedTokens,
           .concurrent_requests = 0,
           .client_key = {}};
  const std::string text = MakeToken(token, key_).value();
  EXPECT_EQ(text.size(), kMaxTokenChars);
  EXPECT_EQ(VerifyToken(text, key_.public_key()).value(), token);
}

TEST_F(TokenTest, RefusesToMakeNonsense) {
  const auto code = [&](auto change) {
    Token token = Ada();
    change(token);
    return MakeToken(token, key_).status().code();
  };
  EXPECT_EQ(code([](Token& t) { t.user = ""; }), Code::kInvalidArgument);
  EXPECT_EQ(code([](Token& t) { t.user = "a\n"; }), Code::kInvalidArgument);
  EXPECT_EQ(code([](Token& t) { t.user = "\xc3\xa4"; }), Code::kInvalidArgument);
  EXPECT_EQ(code([](Token& t) { t.user = std::string(65, 'a'); }), Code::kInvalidArgument);
  EXPECT_EQ(code([](Token& t) { t.expires = t.not_before; }), Code::kInvalidArgument);
}

TEST_F(TokenTest, ForgeriesAreRefused) {
  const std::string text = MakeToken(Ada(), key_).value();
  const TenantKey other = TenantKey::Generate().value();
  EXPECT_EQ(ReasonFor(MakeToken(Ada(), other).value()), "token-signature");
  // Any character changed: another token, or no token at all, and never a good one.
  for (size_t i = 5; i < text.size(); ++i) {
    std::string changed = text;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    EXPECT_THAT(ReasonFor(changed), ::testing::StartsWith("token-")) << i;
  }
  std::string richer = text;
  richer[8] = richer[8] == 'a' ? 'b' : 'a';  // in the user's name
  EXPECT_EQ(ReasonFor(richer), "token-signature");
}

TEST_F(TokenTest, WhatIsNotATokenIsRefused) {
  const std::string text = MakeToken(Ada(), key_).value();
  EXPECT_EQ(ReasonFor(""), "token-format");
  EXPECT_EQ(ReasonFor("tlr1_"), "token-format");
  EXPECT_EQ(ReasonFor("tlr2_" + text.substr(5)), "token-format");
  EXPECT_EQ(ReasonFor(text + "="), "token-format");
  EXPECT_EQ(ReasonFor(text + "\n"), "token-format");
  EXPECT_EQ(ReasonFor(" " + text), "token-format");
  EXPECT_EQ(ReasonFor(text.substr(0, 60)), "token-format") << "shorter than a signature";
  EXPECT_EQ(ReasonFor("tlr1_" + std::string(kMaxTokenChars, 'A')), "token-format");
  for (size_t size = 100; size < text.size(); ++size)
    EXPECT_THAT(ReasonFor(text.substr(0, size)), ::testing::StartsWith("token-")) << size;
}

// Bits that belong to no byte would give one token several texts.
TEST_F(TokenTest, OnlyOneTextIsAToken) {
  Token token = Ada();
  token.user = "adam";  // 144 bytes
  for (const std::string& user : {std::string("ada"), std::string("adam"), std::string("adamo")}) {
    token.user = user;
    std::string text = MakeToken(token, key_).value();
    const size_t chars = text.size() - 5;
    if (chars % 4 == 0) continue;
    text.back() = kAlphabet[kAlphabet.find(text.back()) | 1];
    EXPECT_EQ(ReasonFor(text), "token-format") << user;
  }
  EXPECT_EQ(ReasonFor("tlr1_" + std::string(125, 'A')), "token-format") << "4 * 31 + 1 characters";
}

// Signed by the tenant, and still not a token.
TEST_F(TokenTest, TheFormIsCheckedBehindTheSignature) {
  const auto reason = [&](auto change) {
    std::vector<uint8_t> bytes = AdaBytes();
    change(bytes);
    return ReasonFor(Signed(bytes));
  };
  using Vector = std::vector<uint8_t>;
  EXPECT_EQ(reason([](Vector&) {}), "");
  EXPECT_EQ(reason([](Vector& b) { b[0] = 2; }), "token-format");
  EXPECT_EQ(reason([](Vector& b) { b[1] = 0; }), "token-format");
  EXPECT_EQ(reason([](Vector& b) { b[1] = 4; }), "token-format");
  EXPECT_EQ(reason([](Vector& b) { b[1] = 255; }), "token-format");
  EXPECT_EQ(reason([](Vector& b) { b[2] = '\n'; }), "token-format");
  EXPECT_EQ(reason([](Vector& b) { b.push_back(0); }), "token-format");
  EXPECT_EQ(reason([](Vector& b) { b.pop_back(); }), "token-format");
  EXPECT_EQ(reason([](Vector& b) { b.resize(1); }), "token-format");
  EXPECT_EQ(reason([](Vector& b) { b[36] = 0x80; }), "token-format") << "expires before it begins";
}

TEST_F(TokenTest, IsGoodFromItsBeginningToBeforeItsEnd) {
  const Token token = Ada();
  const auto reason = [&](int64_t now) {
    return std::string(ReasonOf(CheckToken(token, now, token.client_key)));
  };
  EXPECT_EQ(reason(999), "token-not-yet-valid");
  EXPECT_EQ(reason(1000), "");
  EXPECT_EQ(reason(1999), "");
  EXPECT_EQ(reason(2000), "token-expired");
  EXPECT_EQ(reason(std::numeric_limits<int64_t>::max()), "token-expired");
  EXPECT_EQ(reason(std::numeric_limits<int64_t>::min()), "token-not-yet-valid");
}

TEST_F(TokenTest, ABoundTokenIsForItsClientAlone) {
  Token token = Ada();
  Digest other{};
  other.fill(8);
  EXPECT_EQ(ReasonOf(CheckToken(token, 1500, other)), "token-client-key");
  EXPECT_EQ(ReasonOf(CheckToken(token, 1500, Digest{})), "token-client-key");
  token.client_key = {};
  EXPECT_TRUE(CheckToken(token, 1500, other).ok());
  EXPECT_TRUE(CheckToken(token, 1500, Digest{}).ok());
}

}  // namespace
}  // namespace talaria::tenant
