// In which order requests are judged; front_users_test.cc and gateway_test.cc have the rest, over
// sockets.
#include "talaria/cvm/gateway_admission.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "talaria/tenant/tenant_key.h"

namespace talaria::cvm {
namespace {

class Channel final : public ClientChannel {
 public:
  Result<attest::Claim> Attest(const std::array<uint8_t, attest::kNonceBytes>&) override {
    return Status(Code::kInternal, "made by the connection, not here");
  }
  Result<std::vector<uint8_t>> MakeReceipt(const attest::Exchange& exchange) override {
    last = exchange;
    return std::vector<uint8_t>{1};
  }
  std::optional<attest::Exchange> last;
  const Digest& client_key() const override { return key_; }

 private:
  const Digest key_{};
};

// The status of a refusal, else 0.
unsigned Refused(const Verdict& verdict) {
  const auto* problem = std::get_if<Problem>(&verdict);
  return problem ? static_cast<unsigned>(problem->status) : 0;
}

uint64_t MaxBody(const Verdict& verdict) { return std::get<ReadBody>(verdict).max_bytes; }

class GatewayAdmissionTest : public testing::Test {
 protected:
  GatewayAdmissionTest() {
    users_ = Users::Create({.tenant = tenant_.public_key(), .now_ms = [] { return 50'000'000; }})
                 .value();
    options_.users = users_.get();
    options_.max_body_bytes = 1000;
    options_.ready = [this] { return ready_; };
  }
  // A user who may ask once a minute.
  std::string Bearer(const std::string& user = "ada") const {
    return "Bearer " + tenant::MakeToken({.user = user,
                                          .id = {1},
                                          .not_before = 1000,
                                          .expires = 100'000,
                                          .requests_per_minute = 1,
                                          .tokens_per_day = tenant::kUnlimitedTokens,
                                          .concurrent_requests = 1,
                                          .client_key = {}},
                                         tenant_)
                           .value();
  }

  const tenant::TenantKey tenant_ = tenant::TenantKey::Generate().value();
  std::unique_ptr<Users> users_;
  GatewayOptions options_;
  bool ready_ = false;
};

TEST_F(GatewayAdmissionTest, TheFirstThingThatIsWrongIsAnswered) {
  RequestAdmission admission(options_, std::make_shared<Channel>());
  const std::string bearer = Bearer(), salt(64, 'a');
  // Everything is wrong with it, and is put right one after another.
  RequestHead head{.method = "PUT",
                   .target = "/v1/secrets",
                   .content_type = "text/plain",
                   .authorization = {},
                   .salt = {.count = 2, .value = "no salt"},
                   .has_body = true,
                   .content_length = 1001};
  EXPECT_EQ(Refused(admission.OnHeader(head)), 401u);
  head.authorization = {.count = 2, .value = bearer};
  EXPECT_EQ(Refused(admission.OnHeader(head)), 401u);
  EXPECT_TRUE(admission.is_stranger());
  head.authorization.count = 1;
  EXPECT_EQ(Refused(admission.OnHeader(head)), 404u);
  EXPECT_FALSE(admission.is_stranger());
  head.target = "/v1/chat/completions";
  EXPECT_EQ(Refused(admission.OnHeader(head)), 405u);
  head.method = "POST";
  EXPECT_EQ(Refused(admission.OnHeader(head)), 503u);
  ready_ = true;
  EXPECT_EQ(Refused(admission.OnHeader(head)), 400u);
  head.salt = {.count = 1, .value = salt};
  // None of these was a request of the user's, and this one is, although its body is refused.
  EXPECT_EQ(Refused(admission.OnHeader(head)), 415u);
  admission.EndRequest();
  EXPECT_EQ(Refused(admission.OnHeader(head)), 429u);
}

// What is reused of a prompt is its user's own: nobody else's is ever computed.
TEST_F(GatewayAdmissionTest, WithAPromptCacheOneUserIsServed) {
  ready_ = true;
  options_.prompt_cache_user = "ada";
  RequestAdmission admission(options_, std::make_shared<Channel>());
  const std::string ada = Bearer(), bob = Bearer("bob");
  RequestHead head{.method = "POST",
                   .target = "/v1/chat/completions",
                   .content_type = "application/json",
                   .authorization = {.count = 1, .value = bob},
                   .salt = {},
                   .has_body = true,
                   .content_length = 10};
  EXPECT_EQ(Refused(admission.OnHeader(head)), 403u);
  for (const char* target : {"/v1/nothing", "/readyz", "/v1/models"}) {
    head.target = target;
    EXPECT_EQ(Refused(admission.OnHeader(head)), 403u) << target;
  }
  EXPECT_TRUE(admission.is_stranger());  // keeps its deadline
  head.target = "/v1/chat/completions";
  head.authorization.value = ada;
  EXPECT_EQ(MaxBody(admission.OnHeader(head)), 1000u);
  const Verdict passed = admission.OnBody(R"({"cache_prompt":true})");
  ASSERT_TRUE(std::holds_alternative<PassOn>(passed));
  EXPECT_EQ(std::get<PassOn>(passed).body, R"({"cache_prompt":true})");
}

TEST_F(GatewayAdmissionTest, ABodyIsJudgedByTypeSizeAndFields) {
  ready_ = true;
  RequestAdmission admission(options_, nullptr);  // plain HTTP: everybody is let in
  EXPECT_FALSE(admission.is_stranger());
  RequestHead head{.method = "POST",
                   .target = "/v1/chat/completions",
                   .content_type = "text/plain",
                   .authorization = {},
                   .salt = {},
                   .has_body = true,
                   .content_length = 1001};
  EXPECT_EQ(Refused(admission.OnHeader(head)), 415u);
  head.content_type = "application/json";
  EXPECT_EQ(Refused(admission.OnHeader(head)), 413u);
  head.content_length = 1000;
  EXPECT_EQ(MaxBody(admission.OnHeader(head)), 1000u);
  EXPECT_EQ(Refused(admission.OnBody("[]")), 400u);
  const Verdict passed = admission.OnBody(R"({"id_slot":1,"max_tokens":2})");
  ASSERT_TRUE(std::holds_alternative<PassOn>(passed));
  EXPECT_EQ(std::get<PassOn>(passed).route->path, "/v1/chat/completions");
  EXPECT_EQ(std::get<PassOn>(passed).body, R"({"max_tokens":2,"cache_prompt":false})");
  // There is nobody whom a receipt could be for.
  head.salt = {.count = 1, .value = "00"};
  EXPECT_EQ(Refused(admission.OnHeader(head)), 400u);
}

// What comes between an answer and its receipt is not in it.
TEST_F(GatewayAdmissionTest, AReceiptIsOfItsRequestWhateverCameAfter) {
  ready_ = true;
  const auto channel = std::make_shared<Channel>();
  RequestAdmission admission(options_, channel);
  const std::string bearer = Bearer(), salt(64, 'a'), body = R"({"max_tokens":2})";
  const RequestHead request{.method = "POST",
                            .target = "/v1/chat/completions",
                            .content_type = "application/json",
                            .authorization = {.count = 1, .value = bearer},
                            .salt = {.count = 1, .value = salt},
                            .has_body = true,
                            .content_length = body.size()};
  ASSERT_EQ(MaxBody(admission.OnHeader(request)), 1000u);
  ASSERT_TRUE(std::holds_alternative<PassOn>(admission.OnBody(body)));
  admission.OnPiece("an answer");
  admission.OnAnswerEnd(200);
  admission.EndRequest();

  RequestHead other = request;
  other.target = kAttestationPath;
  ASSERT_EQ(MaxBody(admission.OnHeader(other)), kMaxChallengeBytes);
  ASSERT_TRUE(std::holds_alternative<MakeEvidence>(
      admission.OnBody(R"({"nonce":")" + std::string(64, '1') + R"("})")));
  other.target = kRevocationsPath;
  ASSERT_EQ(MaxBody(admission.OnHeader(other)), kMaxRevocationsBodyBytes);
  ASSERT_EQ(Refused(admission.OnBody("{}")), 400u);

  other = request;
  other.method = "GET";
  other.target = kReceiptPath;
  other.has_body = false;
  ASSERT_TRUE(std::holds_alternative<OwnAnswer>(admission.OnHeader(other)));
  attest::Salt bytes;
  ASSERT_TRUE(FromHex(salt, bytes));
  Sha256 expected = attest::RequestHash(bytes), answer = attest::ResponseHash(bytes);
  expected.Update(AsBytes(body));
  answer.Update(AsBytes("an answer"));
  ASSERT_TRUE(channel->last);
  EXPECT_EQ(channel->last->request, expected.Finish());
  EXPECT_EQ(channel->last->response, answer.Finish());
  EXPECT_EQ(channel->last->status, 200);
}

TEST_F(GatewayAdmissionTest, EvidenceNeedsNoTokenAndHasItsOwnOrder) {
  RequestAdmission admission(options_, std::make_shared<Channel>());
  RequestHead head{.method = "GET",
                   .target = kAttestationPath,
                   .content_type = "text/plain",
                   .authorization = {},
                   .salt = {},
                   .has_body = true,
                   .content_length = kMaxChallengeBytes + 1};
  EXPECT_EQ(Refused(admission.OnHeader(head)), 405u);
  head.method = "POST";
  EXPECT_EQ(Refused(admission.OnHeader(head)), 503u);
  ready_ = true;
  EXPECT_EQ(Refused(admission.OnHeader(head)), 415u);
  head.content_type = "application/json";
  EXPECT_EQ(Refused(admission.OnHeader(head)), 413u);
  head.content_length = kMaxChallengeBytes;
  EXPECT_EQ(MaxBody(admission.OnHeader(head)), kMaxChallengeBytes);
  EXPECT_EQ(Refused(admission.OnBody("{}")), 400u);
  const std::string challenge = R"({"nonce":")" + std::string(64, '1') + R"("})";
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(MaxBody(admission.OnHeader(head)), kMaxChallengeBytes);
    const Verdict verdict = admission.OnBody(challenge);
    ASSERT_TRUE(std::holds_alternative<MakeEvidence>(verdict));
    EXPECT_EQ(std::get<MakeEvidence>(verdict).nonce[0], 0x11);
  }
  head.content_type = "text/plain";
  EXPECT_EQ(Refused(admission.OnHeader(head)), 429u);
  EXPECT_TRUE(admission.is_stranger());
  const Verdict failed = admission.OnClaim(Status(Code::kIo, "the TEE is broken"));
  EXPECT_EQ(Refused(failed), 503u);
  EXPECT_TRUE(std::get<Problem>(failed).ends_connection);
  // Revocations are taken before set-up has succeeded, too.
  ready_ = false;
  head = {.method = "POST",
          .target = kRevocationsPath,
          .content_type = "application/json",
          .authorization = {},
          .salt = {},
          .has_body = true,
          .content_length = kMaxRevocationsBodyBytes};
  EXPECT_EQ(MaxBody(admission.OnHeader(head)), kMaxRevocationsBodyBytes);
  EXPECT_EQ(Refused(admission.OnBody(R"({"list":"00"})")), 403u);
}

}  // namespace
}  // namespace talaria::cvm
