// Receipts over the front: who gets one, for what, and what is in it.
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

const std::string kSaltLine = "\r\nTalaria-Receipt-Salt: ";
const std::string kSalt(64, '5');
const std::string kBody = R"({"prompt":"x", "dropped":1})";

std::string Challenge() {
  return PostText("/v1/talaria/attestation", R"({"nonce":")" + std::string(64, 'a') + R"("})");
}

attest::Receipt ReceiptOf(const std::string& answer) {
  const std::string_view key = R"({"receipt":")";
  const size_t at = answer.find(key);
  EXPECT_NE(at, std::string::npos) << answer;
  if (at == std::string::npos) std::abort();
  const std::string hex = answer.substr(at + key.size(), answer.size() - at - key.size() - 2);
  std::vector<uint8_t> bytes(hex.size() / 2);
  EXPECT_TRUE(FromHex(hex, bytes));
  return attest::DecodeReceipt(bytes).value();
}

Digest HashOf(Sha256 hash, std::string_view body) {
  hash.Update(AsBytes(body));
  return hash.Finish();
}

class FrontReceiptTest : public FrontTest {
 protected:
  std::string Ask(const std::string& salt = kSalt) const {
    return PostText("/v1/completions", kBody, Bearer() + kSaltLine + salt);
  }
  std::string Get() const { return GetText("/v1/talaria/receipt", Bearer()); }
  attest::Salt salt_ = [] {
    attest::Salt salt;
    salt.fill(0x55);
    return salt;
  }();
};

TEST_F(FrontReceiptTest, IsOfTheBytesThatTheClientSentAndGot) {
  Start(AnswerOk);
  TlsClient client = Connect();
  ASSERT_THAT(client.Exchange(Challenge()), StartsWith("HTTP/1.1 200 "));
  ASSERT_THAT(client.Exchange(Ask()), HasSubstr("42"));
  const attest::Receipt receipt = ReceiptOf(client.Exchange(Get()));
  EXPECT_EQ(receipt.exchange.path, "/v1/completions");
  EXPECT_EQ(receipt.exchange.status, 200);
  EXPECT_EQ(receipt.exchange.request, HashOf(attest::RequestHash(salt_), kBody));
  EXPECT_EQ(receipt.exchange.response, HashOf(attest::ResponseHash(salt_), R"({"answer":42})"));
  EXPECT_EQ(receipt.claim.context, context_);
  EXPECT_EQ(Sha256Of(receipt.key), key_.spki_sha256());
  EXPECT_EQ(receipt.peer_key, client_key_.spki_sha256());
  // The evidence is of this connection, and the receipt has what it is bound to.
  const attest::ReportData expected =
      attest::ReportDataFor({.role = attest::Role::kServerToClient,
                             .type = attest::EvidenceType::kSimulated,
                             .nonce = receipt.nonce,
                             .exporter = receipt.exporter,
                             .cvm_key = key_.spki_sha256(),
                             .peer_key = client_key_.spki_sha256(),
                             .context = attest::DigestOf(context_)});
  EXPECT_EQ(receipt.claim.evidence.report, std::vector<uint8_t>(expected.begin(), expected.end()));
  EXPECT_EQ(receipt.exporter, client.tls().Export(attest::kExporterLabel, receipt.nonce).value());
  for (const std::string& request : upstream_->requests()) {
    EXPECT_THAT(request, Not(HasSubstr(kSalt))) << "the engine sees no salt";
    EXPECT_THAT(request, Not(HasSubstr("Talaria")));
  }
  EXPECT_THAT(upstream_->requests(), SizeIs(1));
}

TEST_F(FrontReceiptTest, IsOfAStreamWithoutTheFramingOfItsChunks) {
  Start([](RawStream& stream, const std::string&) {
    (void)stream.Write(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        "9\r\ndata: 4\n\n\r\n");
    (void)stream.Write("10\r\ndata: [DONE]\n\n\n\n\r\n0\r\n\r\n");
  });
  TlsClient client = Connect();
  ASSERT_THAT(client.Exchange(Challenge()), StartsWith("HTTP/1.1 200 "));
  ASSERT_TRUE(client.Write(Ask()));
  ASSERT_THAT(client.ReadUntilText("\r\n0\r\n\r\n"), HasSubstr("[DONE]"));
  ASSERT_TRUE(client.Write(Get()));
  const std::string all = client.ReadUntilText(R"("})");
  const attest::Receipt receipt = ReceiptOf(all);
  EXPECT_EQ(receipt.exchange.response,
            HashOf(attest::ResponseHash(salt_), "data: 4\n\ndata: [DONE]\n\n\n\n"));
}

TEST_F(FrontReceiptTest, IsForWhoAskedForItAlone) {
  Start(AnswerOk);
  TlsClient client = Connect();
  ASSERT_THAT(client.Exchange(Challenge()), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(client.Exchange(Get()), StartsWith("HTTP/1.1 404 ")) << "nothing was asked";
  ASSERT_THAT(client.Exchange(PostText("/v1/completions", kBody, Bearer())), HasSubstr("42"));
  EXPECT_THAT(client.Exchange(Get()), StartsWith("HTTP/1.1 404 ")) << "without a salt";
  ASSERT_THAT(client.Exchange(Ask()), HasSubstr("42"));
  tenant::Token eve = Ada();
  eve.user = "eve";
  EXPECT_THAT(client.Exchange(GetText("/v1/talaria/receipt", Bearer(eve))),
              StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(Exchange(Get()), StartsWith("HTTP/1.1 404 ")) << "another connection";
  EXPECT_THAT(client.Exchange(Get()), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(client.Exchange(Get()), StartsWith("HTTP/1.1 200 "));
  ASSERT_THAT(client.Exchange(GetText("/v1/models", Bearer())), HasSubstr("42"));
  EXPECT_THAT(client.Exchange(Get()), StartsWith("HTTP/1.1 404 ")) << "of the last request only";
  EXPECT_THAT(Exchange(GetText("/v1/talaria/receipt")), StartsWith("HTTP/1.1 401 "));
  EXPECT_THAT(Exchange(PostText("/v1/talaria/receipt", "{}", Bearer())),
              StartsWith("HTTP/1.1 405 "));
}

TEST_F(FrontReceiptTest, NeedsEvidenceOnItsConnection) {
  Start(AnswerOk);
  TlsClient client = Connect();
  ASSERT_THAT(client.Exchange(Ask()), HasSubstr("42"));
  EXPECT_THAT(client.Exchange(Get()), StartsWith("HTTP/1.1 409 "));
  ASSERT_THAT(client.Exchange(Challenge()), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(client.Exchange(Get()), StartsWith("HTTP/1.1 200 ")) << "also afterwards";
}

TEST_F(FrontReceiptTest, WhatIsNoSaltIsRefused) {
  Start(AnswerOk);
  for (const std::string& salt : {std::string(), std::string(63, 'a'), std::string(65, 'a'),
                                  std::string(64, 'A'), std::string(64, 'g')})
    EXPECT_THAT(Exchange(Ask(salt)), StartsWith("HTTP/1.1 400 ")) << salt;
  EXPECT_THAT(Exchange(Ask(kSalt + kSaltLine + kSalt)), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Exchange(GetText("/v1/models", Bearer() + kSaltLine + kSalt)),
              StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(upstream_->requests(), SizeIs(0));
}

TEST_F(FrontReceiptTest, AnAnswerThatNeverCameHasNone) {
  Start([](RawStream& stream, const std::string&) { stream.Close(); });
  TlsClient client = Connect();
  ASSERT_THAT(client.Exchange(Challenge()), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(client.Exchange(Ask()), StartsWith("HTTP/1.1 502 "));
  EXPECT_THAT(client.Exchange(Get()), StartsWith("HTTP/1.1 404 "));
}

}  // namespace
}  // namespace talaria::cvm
