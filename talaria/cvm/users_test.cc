#include "talaria/cvm/users.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "talaria/attest/refusal.h"

namespace talaria::cvm {
namespace {

using attest::ReasonOf;
using tenant::Token;

class UsersTest : public ::testing::Test {
 protected:
  static tenant::TokenId Id(uint8_t n) {
    tenant::TokenId id{};
    id[0] = n;
    return id;
  }
  static Token Ada() {
    return {.user = "ada",
            .id = Id(1),
            .not_before = 0,
            .expires = 1'000'000'000,
            .requests_per_minute = 6,
            .tokens_per_day = 1000,
            .concurrent_requests = 100,
            .client_key = {}};
  }
  std::string Header(const Token& token) const {
    return "Bearer " + tenant::MakeToken(token, key_).value();
  }
  std::string Reason(std::string_view header, const Digest& client_key = {}) {
    return std::string(ReasonOf(users_->Authenticate(header, client_key).status()));
  }
  Users::Admission Begin(const Token& token, bool generates = true) {
    return users_->Begin(std::make_shared<const Token>(token), generates);
  }
  Status Revoke(uint64_t version, std::vector<tenant::TokenId> ids) {
    return users_->TakeRevocations(
        tenant::MakeRevocations({.version = version, .issued = 0, .ids = std::move(ids)}, key_)
            .value());
  }

  const tenant::TenantKey key_ = tenant::TenantKey::Generate().value();
  int64_t now_ms_ = 86'400'000 * 10;  // the beginning of a day
  std::unique_ptr<Users> users_ =
      Users::Create({.tenant = key_.public_key(), .now_ms = [this] { return now_ms_; }}).value();
};

TEST_F(UsersTest, ATenantKeyOfNobodyIsRefused) {
  EXPECT_EQ(Users::Create({.tenant = {}, .now_ms = [] { return int64_t{0}; }}).status().code(),
            Code::kInvalidArgument);
}

TEST_F(UsersTest, KnowsATokenHoweverTheSchemeIsWritten) {
  const std::string text = tenant::MakeToken(Ada(), key_).value();
  for (const char* scheme : {"Bearer ", "bearer ", "BEARER ", "Bearer  "}) {
    const auto token = users_->Authenticate(scheme + text, {});
    ASSERT_TRUE(token.ok()) << scheme;
    EXPECT_EQ(**token, Ada());
  }
}

TEST_F(UsersTest, RefusesWhatIsNoToken) {
  EXPECT_EQ(Reason(""), "token-missing");
  EXPECT_EQ(Reason("Bearer"), "token-missing");
  EXPECT_EQ(Reason("Bearer "), "token-missing");
  EXPECT_EQ(Reason("Basic YTpi"), "token-missing");
  EXPECT_EQ(Reason("Bearer    "), "token-format");
  EXPECT_EQ(Reason("Bearer x"), "token-format");
  EXPECT_EQ(Reason("Bearer tlr1_" + std::string(10000, 'A')), "token-format");
  EXPECT_EQ(Reason(Header(Ada()) + " "), "token-format");
  EXPECT_THAT(Reason(Header(Ada()) + "A"), ::testing::StartsWith("token-"));
}

// What another tenant signed is refused for its signature whatever else is wrong with it, before
// and after the true one was remembered.
TEST_F(UsersTest, TheSignatureComesFirst) {
  const tenant::TenantKey other = tenant::TenantKey::Generate().value();
  Token token = Ada();
  for (const int64_t expires : {int64_t{1}, int64_t{1'000'000'000}}) {
    token.expires = expires;
    const std::string header = "Bearer " + tenant::MakeToken(token, other).value();
    EXPECT_EQ(Reason(header), "token-signature");
    EXPECT_EQ(Reason(Header(Ada())), "");
    EXPECT_EQ(Reason(header), "token-signature");
  }
}

TEST_F(UsersTest, TimeIsCheckedEveryTime) {
  Token token = Ada();
  token.not_before = now_ms_ / 1000 + 10;
  token.expires = token.not_before + 10;
  const std::string header = Header(token);
  EXPECT_EQ(Reason(header), "token-not-yet-valid");
  now_ms_ += 10'000;
  EXPECT_EQ(Reason(header), "");
  now_ms_ += 9'999;
  EXPECT_EQ(Reason(header), "");
  now_ms_ += 1;
  EXPECT_EQ(Reason(header), "token-expired");
}

TEST_F(UsersTest, TheClientsKeyIsCheckedEveryTime) {
  Token token = Ada();
  token.client_key.fill(3);
  Digest other{};
  other.fill(4);
  const std::string header = Header(token);
  EXPECT_EQ(Reason(header, token.client_key), "");
  EXPECT_EQ(Reason(header, other), "token-client-key");
  EXPECT_EQ(Reason(header, Digest{}), "token-client-key");
  EXPECT_EQ(Reason(header, token.client_key), "");
}

TEST_F(UsersTest, ANewerListOfRevocationsReplacesTheOldOne) {
  Token other = Ada();
  other.id = Id(2);
  EXPECT_EQ(Reason(Header(Ada())), "");
  ASSERT_TRUE(Revoke(5, {Id(1)}).ok());
  EXPECT_EQ(Reason(Header(Ada())), "token-revoked");
  EXPECT_EQ(Reason(Header(other)), "");
  EXPECT_EQ(Revoke(5, {}).code(), Code::kInvalidArgument);
  EXPECT_EQ(Revoke(4, {}).code(), Code::kInvalidArgument);
  EXPECT_EQ(Reason(Header(Ada())), "token-revoked");
  ASSERT_TRUE(Revoke(6, {Id(2)}).ok());
  EXPECT_EQ(Reason(Header(Ada())), "");
  EXPECT_EQ(Reason(Header(other)), "token-revoked");
}

TEST_F(UsersTest, ListsOfOthersAreRefused) {
  const tenant::TenantKey other = tenant::TenantKey::Generate().value();
  const auto list = tenant::MakeRevocations({.version = 9, .issued = 0, .ids = {Id(1)}}, other);
  EXPECT_EQ(ReasonOf(users_->TakeRevocations(*list)), "revocations-signature");
  EXPECT_EQ(ReasonOf(users_->TakeRevocations({})), "revocations-format");
  EXPECT_EQ(Reason(Header(Ada())), "");
}

TEST_F(UsersTest, MoreTokensThanAreRememberedAreKnownNevertheless) {
  Token token = Ada();
  const std::string first = Header(token);
  EXPECT_EQ(Reason(first), "");
  for (int i = 0; i < 5000; ++i) {
    token.user = std::to_string(i);
    ASSERT_EQ(Reason(Header(token)), "");
  }
  EXPECT_EQ(Reason(first), "");
}

TEST_F(UsersTest, RequestsOfAMinuteAreLimited) {
  for (int i = 0; i < 6; ++i) EXPECT_TRUE(Begin(Ada()).request) << i;
  const Users::Admission refused = Begin(Ada());
  EXPECT_FALSE(refused.request);
  // The next minute, and then until the six of this one count for five: 10 s.
  EXPECT_EQ(refused.retry_after_s, 70);
  now_ms_ += 69'999;
  EXPECT_EQ(Begin(Ada()).retry_after_s, 1);
  now_ms_ += 1;
  EXPECT_TRUE(Begin(Ada()).request);
  EXPECT_EQ(Begin(Ada()).retry_after_s, 10);
  now_ms_ += 10'000;
  EXPECT_TRUE(Begin(Ada()).request);
  now_ms_ += 120'000;
  for (int i = 0; i < 6; ++i) EXPECT_TRUE(Begin(Ada()).request) << i;
}

TEST_F(UsersTest, AClientThatWaitsAsToldGetsIn) {
  for (const uint32_t limit : {1u, 2u, 7u, 60u}) {
    Token token = Ada();
    token.user = std::to_string(limit);
    token.requests_per_minute = limit;
    uint32_t admitted = 0;
    const int64_t end = now_ms_ + 600'000;
    for (; now_ms_ < end; now_ms_ += 137) {
      const Users::Admission admission = Begin(token);
      if (admission.request) {
        ++admitted;
        continue;
      }
      ASSERT_GE(admission.retry_after_s, 1);
      ASSERT_LE(admission.retry_after_s, 120);
      now_ms_ += admission.retry_after_s * 1000;
      ASSERT_TRUE(Begin(token).request) << limit << " a minute, after " << admission.retry_after_s;
      ++admitted;
    }
    EXPECT_LE(admitted, limit * 10 + 1);
    EXPECT_GE(admitted, limit * 4);
  }
}

TEST_F(UsersTest, LimitsCountPerUserAndNotPerToken) {
  Token second = Ada(), other = Ada();
  second.id = Id(2);
  other.user = "eve";
  for (int i = 0; i < 6; ++i) EXPECT_TRUE(Begin(i % 2 ? second : Ada()).request);
  EXPECT_FALSE(Begin(second).request);
  EXPECT_TRUE(Begin(other).request);
}

TEST_F(UsersTest, ZeroIsNone) {
  Token token = Ada();
  token.requests_per_minute = 0;
  EXPECT_EQ(Begin(token).retry_after_s, 60);
  token = Ada();
  token.concurrent_requests = 0;
  EXPECT_EQ(Begin(token).retry_after_s, 1);
  token = Ada();
  token.tokens_per_day = 0;
  EXPECT_EQ(Begin(token).retry_after_s, 86'400);
  EXPECT_TRUE(Begin(token, /*generates=*/false).request);
}

TEST_F(UsersTest, RequestsAtOnceAreLimited) {
  Token token = Ada();
  token.concurrent_requests = 2;
  Users::Admission first = Begin(token), second = Begin(token);
  EXPECT_TRUE(first.request);
  EXPECT_TRUE(second.request);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Begin(token).retry_after_s, 1);
  first.request = nullptr;
  EXPECT_TRUE(Begin(token).request) << "what was refused does not count";
}

TEST_F(UsersTest, TokensOfADayAreLimited) {
  const Users::Admission running = Begin(Ada());
  running.request->Charge(999);
  EXPECT_TRUE(Begin(Ada()).request) << "one is left";
  running.request->Charge(1);
  now_ms_ += 3'600'000;
  EXPECT_EQ(Begin(Ada()).retry_after_s, 23 * 3600);
  EXPECT_TRUE(Begin(Ada(), /*generates=*/false).request);
  Token unlimited = Ada();
  unlimited.tokens_per_day = tenant::kUnlimitedTokens;
  EXPECT_TRUE(Begin(unlimited).request);
  now_ms_ += 23 * 3'600'000;
  EXPECT_TRUE(Begin(Ada()).request);
  running.request->Charge(1000);
  EXPECT_FALSE(Begin(Ada()).request) << "charged to the day on which the answer ended";
}

// A clock that is turned back must not lock anybody out.
TEST_F(UsersTest, AClockThatGoesBackBeginsAnew) {
  for (int i = 0; i < 6; ++i) Begin(Ada());
  EXPECT_FALSE(Begin(Ada()).request);
  now_ms_ -= 7'200'000;
  EXPECT_TRUE(Begin(Ada()).request);
}

TEST_F(UsersTest, UsersThatUseNothingMakeRoom) {
  Token token = Ada();
  for (int i = 0; i < 65536; ++i) {
    token.user = std::to_string(i);
    ASSERT_TRUE(Begin(token).request) << i;
  }
  token.user = "one more";
  EXPECT_EQ(Begin(token).retry_after_s, 60);
  now_ms_ += 120'000;
  EXPECT_TRUE(Begin(token).request);
}

}  // namespace
}  // namespace talaria::cvm
