#include "talaria/tenant/revocations.h"

#include <gtest/gtest.h>

#include "talaria/attest/refusal.h"
#include "talaria/tenant/testing/tenant_testing.h"

namespace talaria::tenant {
namespace {

using attest::ReasonOf;

TokenId Id(uint8_t n) {
  TokenId id{};
  id.back() = n;
  return id;
}

class RevocationsTest : public ::testing::Test {
 protected:
  std::string ReasonFor(Bytes bytes) const {
    return std::string(ReasonOf(VerifyRevocations(bytes, key_.public_key()).status()));
  }
  std::string ReasonForSigned(std::vector<uint8_t> body) const {
    const Signature signature = key_.Sign({}, body).value();
    body.insert(body.end(), signature.begin(), signature.end());
    return ReasonFor(body);
  }
  // All but the signature.
  std::vector<uint8_t> Body(std::vector<TokenId> ids, uint32_t count) const {
    std::vector<uint8_t> bytes;
    ByteWriter writer(bytes);
    writer.Raw(AsBytes({"talaria-revocations-v1\0", 23}));
    writer.U64(7);
    writer.U64(1000);
    writer.U32(count);
    for (const TokenId& id : ids) writer.Raw(id);
    return bytes;
  }
  const TenantKey key_ = testing::FixedKey();
};

TEST_F(RevocationsTest, WhatWasSignedComesBackInOrder) {
  const std::vector<uint8_t> bytes =
      MakeRevocations({.version = 7, .issued = 1000, .ids = {Id(3), Id(1), Id(3)}}, key_).value();
  std::vector<uint8_t> expected = Body({Id(1), Id(3)}, 2);
  EXPECT_EQ(std::vector<uint8_t>(bytes.begin(), bytes.end() - 64), expected);
  const Revocations list = VerifyRevocations(bytes, key_.public_key()).value();
  EXPECT_EQ(list.version, 7u);
  EXPECT_EQ(list.issued, 1000);
  EXPECT_TRUE(list.Contains(Id(1)));
  EXPECT_FALSE(list.Contains(Id(2)));
  EXPECT_TRUE(list.Contains(Id(3)));
}

TEST_F(RevocationsTest, AListMayBeEmptyOrFull) {
  EXPECT_EQ(ReasonForSigned(Body({}, 0)), "");
  Revocations list{.version = 1, .issued = 0, .ids = {}};
  for (uint32_t i = 0; i <= kMaxRevocations; ++i) {
    TokenId id{};
    std::memcpy(id.data(), &i, sizeof i);
    list.ids.push_back(id);
  }
  EXPECT_EQ(MakeRevocations(list, key_).status().code(), Code::kInvalidArgument);
  list.ids.pop_back();
  const std::vector<uint8_t> bytes = MakeRevocations(list, key_).value();
  EXPECT_EQ(bytes.size(), kMaxRevocationListBytes);
  EXPECT_EQ(ReasonFor(bytes), "");
}

TEST_F(RevocationsTest, ForgeriesAreRefused) {
  const std::vector<uint8_t> bytes =
      MakeRevocations({.version = 7, .issued = 1000, .ids = {Id(1)}}, key_).value();
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::vector<uint8_t> changed = bytes;
    changed[i] ^= 1;
    EXPECT_EQ(ReasonFor(changed), i < 23 ? "revocations-format" : "revocations-signature") << i;
  }
  const TenantKey other = TenantKey::Generate().value();
  EXPECT_EQ(ReasonOf(VerifyRevocations(bytes, other.public_key()).status()),
            "revocations-signature");
}

TEST_F(RevocationsTest, TheFormIsCheckedBehindTheSignature) {
  EXPECT_EQ(ReasonForSigned(Body({Id(1), Id(2)}, 2)), "");
  EXPECT_EQ(ReasonForSigned(Body({Id(2), Id(1)}, 2)), "revocations-format");
  EXPECT_EQ(ReasonForSigned(Body({Id(1), Id(1)}, 2)), "revocations-format");
  EXPECT_EQ(ReasonForSigned(Body({Id(1)}, 2)), "revocations-format");
  EXPECT_EQ(ReasonForSigned(Body({Id(1)}, 0)), "revocations-format");
  EXPECT_EQ(ReasonForSigned(Body({}, 0xffffffff)), "revocations-format");
  std::vector<uint8_t> cut = Body({}, 0);
  cut.pop_back();
  EXPECT_EQ(ReasonForSigned(cut), "revocations-format");
  EXPECT_EQ(ReasonFor({}), "revocations-format");
  EXPECT_EQ(ReasonFor(std::vector<uint8_t>(kMaxRevocationListBytes + 1)), "revocations-format");
}

}  // namespace
}  // namespace talaria::tenant
