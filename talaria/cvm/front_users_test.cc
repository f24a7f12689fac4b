// Who gets in, over real connections: evidence, tokens, revocations and limits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "talaria/cvm/front_testing.h"

namespace talaria::cvm {
namespace {

using testing::AnswerOk;
using testing::FrontTest;
using testing::GetText;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::PostText;
using testing::RawStream;
using ::testing::SizeIs;
using ::testing::StartsWith;
using testing::TlsClient;
using testing::WithLength;

std::string Challenge(const std::string& nonce) {
  return PostText("/v1/talaria/attestation", R"({"nonce":")" + nonce + R"("})");
}

const std::string kNonce(64, 'a');

attest::Claim ClaimOf(const std::string& answer) {
  const size_t at = answer.find(R"({"claim":")");
  if (at == std::string::npos) return {};
  const std::string hex = answer.substr(at + 10, answer.size() - at - 12);
  std::vector<uint8_t> bytes(hex.size() / 2);
  EXPECT_TRUE(FromHex(hex, bytes));
  return attest::DecodeClaim(bytes).value();
}

class FrontUsersTest : public FrontTest {
 protected:
  std::string RevocationsRequest(uint64_t version, std::vector<tenant::TokenId> ids,
                                 const tenant::TenantKey& key) {
    const auto list = tenant::MakeRevocations({version, 0, std::move(ids)}, key).value();
    return PostText("/v1/talaria/revocations", R"({"list":")" + ToHex(list) + R"("})");
  }
  // What a client that speaks over `tls` must find in the evidence.
  attest::ReportData Expected(wire::TlsTransport& tls, const Digest& client_key) {
    attest::Binding binding{.role = attest::Role::kServerToClient,
                            .type = attest::EvidenceType::kSimulated,
                            .nonce = {},
                            .exporter = {},
                            .cvm_key = tls.peer_key(),
                            .peer_key = client_key,
                            .context = attest::DigestOf(context_)};
    binding.nonce.fill(0xaa);
    binding.exporter = tls.Export(attest::kExporterLabel, binding.nonce).value();
    return attest::ReportDataFor(binding);
  }
};

TEST_F(FrontUsersTest, EvidenceIsForEverybodyAndBoundToTheConnection) {
  Start(AnswerOk);
  std::vector<std::vector<uint8_t>> reports;
  for (int i = 0; i < 2; ++i) {
    TlsClient client = Connect();
    const std::string answer = client.Exchange(Challenge(kNonce));
    ASSERT_THAT(answer, StartsWith("HTTP/1.1 200 "));
    const attest::Claim claim = ClaimOf(answer);
    EXPECT_EQ(claim.context, context_);
    const attest::ReportData expected = Expected(client.tls(), client_key_.spki_sha256());
    EXPECT_EQ(claim.evidence.report, std::vector<uint8_t>(expected.begin(), expected.end()));
    reports.push_back(claim.evidence.report);
    const std::string other = client.Exchange(Challenge(std::string(64, 'b')));
    EXPECT_NE(ClaimOf(other).evidence.report, claim.evidence.report) << "the nonce";
  }
  EXPECT_NE(reports[0], reports[1]) << "the connection";
  EXPECT_THAT(upstream_->requests(), SizeIs(0));
}

TEST_F(FrontUsersTest, NoEvidenceBeforeSetUpHasSucceeded) {
  ready_ = false;
  Start(AnswerOk);
  const std::string answer = Exchange(Challenge(kNonce));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(answer, HasSubstr("Retry-After: 1\r\n"));
  EXPECT_EQ(attester_.calls, 0);
  ready_ = true;
  EXPECT_THAT(Exchange(Challenge(kNonce)), StartsWith("HTTP/1.1 200 "));
}

TEST_F(FrontUsersTest, MalformedChallengesAreRefused) {
  Start(AnswerOk);
  for (const std::string& body :
       {std::string(""), std::string("{}"), std::string("[]"), std::string(R"({"nonce":""})"),
        R"({"nonce":")" + std::string(64, '0') + R"("})",
        R"({"nonce":")" + std::string(63, 'a') + R"("})",
        R"({"nonce":")" + std::string(65, 'a') + R"("})",
        R"({"nonce":")" + std::string(64, 'A') + R"("})", R"({"nonce":")" + kNonce + R"("}x)",
        R"({"nonce":")" + kNonce + R"(","a":1})", R"({"nonce":")" + kNonce + '"',
        R"({"Nonce":")" + kNonce + R"("})"}) {
    EXPECT_THAT(Exchange(PostText("/v1/talaria/attestation", body)), StartsWith("HTTP/1.1 400 "))
        << body;
  }
  EXPECT_THAT(Exchange(PostText("/v1/talaria/attestation", std::string(257, ' '))),
              StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(Exchange(GetText("/v1/talaria/attestation")), StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(Exchange(WithLength("POST /v1/talaria/attestation HTTP/1.1\r\nHost: x", "{}")),
              StartsWith("HTTP/1.1 415 "));
  EXPECT_EQ(attester_.calls, 0);
  EXPECT_THAT(
      Exchange(PostText("/v1/talaria/attestation", " {\n\"nonce\" : \"" + kNonce + "\"\t}\r\n")),
      StartsWith("HTTP/1.1 200 "));
}

TEST_F(FrontUsersTest, AConnectionIsAttestedEightTimesAtMost) {
  Start(AnswerOk);
  TlsClient client = Connect();
  for (int i = 0; i < 8; ++i)
    EXPECT_THAT(client.Exchange(Challenge(kNonce)), StartsWith("HTTP/1.1 200 ")) << i;
  const std::string answer = client.Exchange(Challenge(kNonce));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 429 "));
  EXPECT_THAT(answer, HasSubstr("Retry-After: "));
  EXPECT_EQ(attester_.calls, 8);
  EXPECT_THAT(Exchange(Challenge(kNonce)), StartsWith("HTTP/1.1 200 ")) << "another one is";
}

// While two wait for their evidence, which is all the workers, the others are served.
TEST_F(FrontUsersTest, ASlowTeeHoldsUpNobodyElse) {
  Start(AnswerOk);
  attester_.blocked = true;
  TlsClient first = Connect(), second = Connect();
  ASSERT_TRUE(first.Write(Challenge(kNonce)));
  ASSERT_TRUE(second.Write(Challenge(kNonce)));
  while (attester_.calls < 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_THAT(Exchange(PostText("/v1/completions", "{}", Bearer())), HasSubstr("42"));
  second.Close();  // its claim is thrown away
  attester_.blocked = false;
  EXPECT_THAT(first.ReadMessage(), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Exchange(Challenge(kNonce)), StartsWith("HTTP/1.1 200 "));
}

TEST_F(FrontUsersTest, WithoutEvidenceTheConnectionEnds) {
  attester_.broken = true;
  Start(AnswerOk);
  TlsClient client = Connect();
  EXPECT_THAT(client.Exchange(Challenge(kNonce)), StartsWith("HTTP/1.1 503 "));
  client.ReadToEnd();
  EXPECT_EQ(client.end().code(), Code::kUnavailable);
  EXPECT_THAT(client.end().message(), HasSubstr("close_notify")) << "not a cut";
}

// Nothing exists for who has no token, whatever it asks for, and nothing reaches the engine.
TEST_F(FrontUsersTest, EverythingElseNeedsAToken) {
  Start(AnswerOk);
  for (const std::string& request :
       {GetText("/healthz"), GetText("/readyz"), GetText("/v1/models"), GetText("/nothing"),
        GetText("/"), GetText("/v1/talaria/attestation?x"), GetText("/v1/talaria"),
        PostText("/v1/chat/completions", "{}"), PostText("/v1/completions", "nonsense"),
        PostText("/slots", "{}"), WithLength("PUT /healthz HTTP/1.1\r\nHost: x", "x"),
        PostText("/v1/completions", "{}", "\r\nAuthorization: Bearer x"),
        PostText("/v1/completions", "{}", "\r\nAuthorization: Basic eDp5"),
        PostText("/v1/completions", "{}", "\r\nX-Api-Key: x"),
        PostText("/v1/completions", "{}", Bearer() + Bearer())}) {
    const std::string answer = Exchange(request);
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 401 ")) << request;
    EXPECT_THAT(answer, HasSubstr("WWW-Authenticate: Bearer\r\n"));
    EXPECT_THAT(answer, HasSubstr(R"("error":{"code":401,"message":"A valid token is needed.")"));
  }
  EXPECT_THAT(upstream_->requests(), SizeIs(0));
}

// Before the body: of one that never comes, and of one that is too large.
TEST_F(FrontUsersTest, A401DoesNotWaitForTheBody) {
  Start(AnswerOk, {}, {.max_body_bytes = 1000});
  EXPECT_THAT(Exchange("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: "
                       "application/json\r\nContent-Length: 900\r\n\r\n"),
              StartsWith("HTTP/1.1 401 "));
  EXPECT_THAT(Exchange("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: "
                       "application/json\r\nContent-Length: 99999999999\r\n\r\n"),
              StartsWith("HTTP/1.1 401 "));
  // The client goes on writing, and gets its answer nevertheless.
  TlsClient client = Connect();
  EXPECT_THAT(client.Exchange(PostText("/v1/completions", std::string(500'000, ' '))),
              StartsWith("HTTP/1.1 401 "));
}

TEST_F(FrontUsersTest, ATokenLetsAUserIn) {
  Start(AnswerOk);
  TlsClient client = Connect();
  EXPECT_THAT(client.Exchange(PostText("/v1/completions", "{}", Bearer())), HasSubstr("42"));
  EXPECT_THAT(client.Exchange(GetText("/v1/models", Bearer())), HasSubstr("42"));
  EXPECT_THAT(client.Exchange(GetText("/healthz", Bearer())), HasSubstr(R"("status":"ok")"));
  EXPECT_THAT(client.Exchange(GetText("/nothing", Bearer())), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(client.Exchange(GetText("/v1/models")), StartsWith("HTTP/1.1 401 "))
      << "each request needs it";
  for (const std::string& request : upstream_->requests())
    EXPECT_THAT(request, Not(HasSubstr("tlr1_"))) << "the engine sees no token";
  EXPECT_THAT(upstream_->requests(), SizeIs(2));
}

TEST_F(FrontUsersTest, TokensThatAreNotGoodHereAndNowAreRefused) {
  Start(AnswerOk);
  const auto expect = [&](const std::string& header, const char* status) {
    EXPECT_THAT(Exchange(PostText("/v1/completions", "{}", header)), StartsWith(status)) << header;
  };
  expect(Bearer(), "HTTP/1.1 200 ");
  std::string forged = Bearer();
  forged.back() = forged.back() == 'A' ? 'Q' : 'A';
  expect(forged, "HTTP/1.1 401 ");
  const tenant::TenantKey other = tenant::TenantKey::Generate().value();
  expect("\r\nAuthorization: Bearer " + tenant::MakeToken(Ada(), other).value(), "HTTP/1.1 401 ");
  now_ms_ = 999'999;
  expect(Bearer(), "HTTP/1.1 401 ");
  now_ms_ = 1'000'000;
  expect(Bearer(), "HTTP/1.1 200 ");
  now_ms_ = 100'000'000;
  expect(Bearer(), "HTTP/1.1 401 ");
  EXPECT_THAT(upstream_->requests(), SizeIs(2));
}

TEST_F(FrontUsersTest, ATokenMayBeBoundToAClientsKey) {
  Start(AnswerOk);
  tenant::Token token = Ada();
  token.client_key = client_key_.spki_sha256();
  const std::string request = PostText("/v1/completions", "{}", Bearer(token));
  EXPECT_THAT(Exchange(request), StartsWith("HTTP/1.1 200 "));
  const wire::TlsKey thief = wire::TlsKey::Generate().value();
  EXPECT_THAT(ConnectAs(thief).Exchange(request), StartsWith("HTTP/1.1 401 "));
  EXPECT_THAT(ConnectAs(thief).Exchange(PostText("/v1/completions", "{}", Bearer())),
              StartsWith("HTTP/1.1 200 "));
}

TEST_F(FrontUsersTest, AnybodyMayBringTheTenantsRevocations) {
  ready_ = false;  // also before set-up has succeeded
  Start(AnswerOk);
  const tenant::TenantKey other = tenant::TenantKey::Generate().value();
  EXPECT_THAT(Exchange(RevocationsRequest(9, {Ada().id}, other)), StartsWith("HTTP/1.1 403 "));
  ready_ = true;
  const std::string request = PostText("/v1/completions", "{}", Bearer());
  TlsClient client = Connect();
  EXPECT_THAT(client.Exchange(request), StartsWith("HTTP/1.1 200 "));
  ready_ = false;
  EXPECT_THAT(Exchange(RevocationsRequest(5, {Ada().id}, tenant_)), StartsWith("HTTP/1.1 200 "));
  ready_ = true;
  EXPECT_THAT(client.Exchange(request), StartsWith("HTTP/1.1 401 ")) << "on an old connection too";
  EXPECT_THAT(Exchange(request), StartsWith("HTTP/1.1 401 "));
  EXPECT_THAT(Exchange(RevocationsRequest(5, {}, tenant_)), StartsWith("HTTP/1.1 409 "));
  EXPECT_THAT(Exchange(RevocationsRequest(4, {}, tenant_)), StartsWith("HTTP/1.1 409 "));
  EXPECT_THAT(Exchange(request), StartsWith("HTTP/1.1 401 "));
  for (const char* body : {"", "{}", R"({"list":""})", R"({"list":"a"})", R"({"list":"AA"})"})
    EXPECT_THAT(Exchange(PostText("/v1/talaria/revocations", body)), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Exchange(PostText("/v1/talaria/revocations", R"({"list":"aa"})")),
              StartsWith("HTTP/1.1 403 "));
  EXPECT_THAT(Exchange("POST /v1/talaria/revocations HTTP/1.1\r\nHost: x\r\nContent-Type: "
                       "application/json\r\nContent-Length: 600000\r\n\r\n"),
              StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(Exchange(WithLength("POST /v1/talaria/revocations HTTP/1.1\r\nHost: x\r\n"
                                  "Content-Type: application/octet-stream",
                                  "x")),
              StartsWith("HTTP/1.1 415 "));
  EXPECT_THAT(Exchange(RevocationsRequest(6, {}, tenant_)), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Exchange(request), StartsWith("HTTP/1.1 200 "));
}

TEST_F(FrontUsersTest, TheLargestListIsTaken) {
  Start(AnswerOk);
  std::vector<tenant::TokenId> ids(tenant::kMaxRevocations);
  for (uint32_t i = 0; i < ids.size(); ++i) std::memcpy(ids[i].data(), &i, sizeof i);
  EXPECT_THAT(Exchange(RevocationsRequest(1, ids, tenant_)), StartsWith("HTTP/1.1 200 "));
}

TEST_F(FrontUsersTest, RequestsOfAMinuteAreLimited) {
  Start(AnswerOk);
  tenant::Token token = Ada();
  token.requests_per_minute = 3;
  const std::string request = PostText("/v1/completions", "{}", Bearer(token));
  for (int i = 0; i < 3; ++i) EXPECT_THAT(Exchange(request), StartsWith("HTTP/1.1 200 "));
  const std::string answer = Exchange(request);
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 429 "));
  EXPECT_THAT(answer, HasSubstr("Retry-After: "));
  EXPECT_THAT(answer, HasSubstr(R"("type":"rate_limit_error")"));
  EXPECT_THAT(Exchange(GetText("/healthz", Bearer(token))), StartsWith("HTTP/1.1 200 "));
  now_ms_ += 120'000;
  EXPECT_THAT(Exchange(request), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(upstream_->requests(), SizeIs(4));
}

TEST_F(FrontUsersTest, RequestsAtOnceAreLimited) {
  std::atomic<bool> go_on{false};
  Start([&](RawStream& stream, const std::string& request) {
    while (!go_on) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    AnswerOk(stream, request);
  });
  tenant::Token token = Ada();
  token.concurrent_requests = 1;
  const std::string request = PostText("/v1/completions", "{}", Bearer(token));
  TlsClient first = Connect();
  ASSERT_TRUE(first.Write(request));
  while (upstream_->requests().empty()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_THAT(Exchange(request), StartsWith("HTTP/1.1 429 "));
  go_on = true;
  EXPECT_THAT(first.ReadMessage(), HasSubstr("42"));
  EXPECT_THAT(Exchange(request), HasSubstr("42"));
}

// A client that leaves frees its place.
TEST_F(FrontUsersTest, WhoLeavesDoesNotCount) {
  Start([](RawStream& stream, const std::string& request) {
    if (request.find("wait") != std::string::npos)
      stream.ReadToEnd();
    else
      AnswerOk(stream, request);
  });
  tenant::Token token = Ada();
  token.concurrent_requests = 1;
  TlsClient first = Connect();
  ASSERT_TRUE(first.Write(PostText("/v1/completions", R"({"prompt":"wait"})", Bearer(token))));
  while (upstream_->requests().empty()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  first.Close();
  const auto deadline = testing::Clock::now() + std::chrono::seconds(20);
  std::string answer;
  do answer = Exchange(PostText("/v1/completions", "{}", Bearer(token)));
  while (answer.starts_with("HTTP/1.1 429 ") && testing::Clock::now() < deadline);
  EXPECT_THAT(answer, HasSubstr("42"));
}

TEST_F(FrontUsersTest, TokensOfADayAreLimited) {
  Start([](RawStream& stream, const std::string&) {
    (void)stream.Write(WithLength("HTTP/1.1 200 OK\r\nContent-Type: application/json",
                                  R"({"usage":{"completion_tokens":60}})"));
  });
  tenant::Token token = Ada();
  token.tokens_per_day = 100;
  const auto answer = [&](const char* path, const char* body) {
    return Exchange(PostText(path, body, Bearer(token)));
  };
  EXPECT_THAT(answer("/tokenize", "{}"), HasSubstr("60")) << "makes no tokens";
  EXPECT_THAT(answer("/v1/completions", "{}"), HasSubstr("60"));
  EXPECT_THAT(answer("/v1/chat/completions", "{}"), HasSubstr("60"));
  EXPECT_THAT(answer("/v1/completions", "{}"), StartsWith("HTTP/1.1 429 "));
  EXPECT_THAT(answer("/v1/messages", "{}"), StartsWith("HTTP/1.1 429 "));
  EXPECT_THAT(answer("/tokenize", "{}"), StartsWith("HTTP/1.1 200 "));
  now_ms_ = 86'400'000;
  EXPECT_THAT(answer("/v1/completions", "{}"), StartsWith("HTTP/1.1 200 "));
}

// A connection has one deadline until its first good token, whatever it does meanwhile.
TEST_F(FrontUsersTest, StrangersHaveOneDeadline) {
  Start(AnswerOk, {}, {.stranger_timeout_ms = 400});
  const auto began = testing::Clock::now();
  const auto expect_cut = [](TlsClient& client) {
    EXPECT_EQ(client.ReadToEnd(), "");
    EXPECT_THAT(client.end().message(), Not(HasSubstr("no progress"))) << "still open";
  };
  TlsClient silent = Connect();
  expect_cut(silent);
  // What needs no token keeps nobody in: each of these was 75 s more.
  TlsClient knocking = Connect();
  int answers = 0;
  while (knocking.Exchange(GetText("/healthz")).starts_with("HTTP/1.1 401")) ++answers;
  EXPECT_GE(answers, 1);
  TlsClient attested = Connect();
  EXPECT_THAT(attested.Exchange(Challenge(kNonce)), StartsWith("HTTP/1.1 200"));
  expect_cut(attested);
  // A header of 400 bytes, one every 20 ms.
  TlsClient dripping = Connect();
  for (const char byte : GetText("/v1/models", Bearer())) {
    if (!dripping.Write(std::string(1, byte))) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  expect_cut(dripping);
  EXPECT_LT(testing::Clock::now() - began, std::chrono::seconds(60));
  EXPECT_THAT(upstream_->requests(), ::testing::IsEmpty());
}

TEST_F(FrontUsersTest, AUserHasNoDeadline) {
  Start(AnswerOk, {}, {.stranger_timeout_ms = 3'000});
  TlsClient client = Connect();
  EXPECT_THAT(client.Exchange(GetText("/healthz", Bearer())), StartsWith("HTTP/1.1 200"));
  std::this_thread::sleep_for(std::chrono::milliseconds(3'200));
  EXPECT_THAT(client.Exchange(PostText("/v1/completions", "{}", Bearer())), HasSubstr("42"));
  // Nor does one request without a token make a stranger of the connection.
  EXPECT_THAT(client.Exchange(GetText("/healthz")), StartsWith("HTTP/1.1 401"));
  EXPECT_THAT(client.Exchange(GetText("/healthz", Bearer())), StartsWith("HTTP/1.1 200"));
}

// Neither a token nor a name is printed, and no error quotes one.
TEST_F(FrontUsersTest, TheCanaryStaysInside) {
  ::testing::internal::CaptureStderr();
  ::testing::internal::CaptureStdout();
  Start(AnswerOk);
  tenant::Token token = Ada();
  token.user = "CANARY";
  const std::string good = Bearer(token), bad = "\r\nAuthorization: Bearer CANARY";
  attester_.broken = true;
  const std::string answers =
      Exchange(PostText("/v1/completions", "{}", good)) +
      Exchange(PostText("/v1/completions", "{}", bad)) +
      Exchange(PostText("/v1/talaria/attestation", "CANARY")) +
      Exchange(PostText("/v1/talaria/revocations", R"({"list":"CANARY"})")) +
      Exchange(Challenge(kNonce));
  const std::string printed =
      ::testing::internal::GetCapturedStderr() + ::testing::internal::GetCapturedStdout();
  for (const std::string& text : {std::string("CANARY"), kNonce, std::string("tlr1_")}) {
    EXPECT_THAT(printed, Not(HasSubstr(text)));
    EXPECT_THAT(answers, Not(HasSubstr(text)));
  }
}

}  // namespace
}  // namespace talaria::cvm
