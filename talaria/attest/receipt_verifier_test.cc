// Each test changes one thing of a receipt that is accepted.
#include "talaria/attest/receipt_verifier.h"

#include <gtest/gtest.h>

#include "talaria/attest/simulated/simulated_attester.h"
#include "talaria/attest/testing/verifier_case.h"
#include "talaria/wire/tls_key.h"

namespace talaria::attest {
namespace {

using namespace verifier_case;

constexpr UnixTime kNow = 1795000000;  // in 2026
constexpr std::string_view kRequest = R"({"prompt":"What is it?"})", kAnswer = R"({"answer":42})";

class ReceiptVerifierTest : public testing::Test {
 protected:
  static VerifierOptions GoodOptions() {
    VerifierOptions options{.policy = PolicyWithoutEvidence(CrlHandling::kRequired)};
    options.policy.simulated = SimulatedPolicy{.measurements = std::vector{Filled<48>(0x4d)}};
    options.simulated = SimulatedTrust{SimulatedRoots(), SimulatedCrl()};
    return options;
  }
  static Digest HashOf(Sha256 hash, std::string_view body) {
    hash.Update(AsBytes(body));
    return hash.Finish();
  }
  void SetUp() override {
    const std::vector<uint8_t> spki = key_.spki();
    ASSERT_EQ(spki.size(), kSpkiBytes);
    std::copy(spki.begin(), spki.end(), receipt_.key.begin());
    Channel channel = GoodChannel();
    channel.cvm_key = key_.spki_sha256();
    const auto attester = SimulatedAttester::Create(
        {.measurement = Filled<48>(0x4d), .machine = SimulatedMachine::kCurrent, .debug = false});
    ASSERT_TRUE(attester.ok());
    receipt_.claim.evidence =
        (*attester)
            ->Attest(DataOf(channel, (*attester)->type(), GoodContext()), Deadline())
            .value();
    Sign(key_);
  }
  void Sign(const wire::TlsKey& key) {
    receipt_.signature = key.Sign(SignedBytes(receipt_)).value();
  }
  std::string ReasonNow(const VerifierOptions& options = GoodOptions(), UnixTime now = kNow) const {
    const auto verdict = VerifyReceipt(receipt_, {salt_, AsBytes(request_), AsBytes(answer_)},
                                       Verifier::Create(options).value(), now);
    if (verdict.ok()) return "";
    return std::string(ReasonOf(verdict.status()));
  }

  const wire::TlsKey key_ = wire::TlsKey::Generate().value();
  Salt salt_ = Filled<32>(0x5a);
  std::string request_{kRequest}, answer_{kAnswer};
  Receipt receipt_{.time = kNow - 1,
                   .nonce = GoodChannel().nonce,
                   .exporter = GoodChannel().exporter,
                   .peer_key = GoodChannel().peer_key,
                   .key = {},
                   .exchange = {"/v1/completions", 200, HashOf(RequestHash(salt_), kRequest),
                                HashOf(ResponseHash(salt_), kAnswer)},
                   .claim = {GoodContext(), {}},
                   .signature = {}};
};

TEST_F(ReceiptVerifierTest, AcceptsTheGoodOneAndSaysWhoseItIs) {
  const auto verdict = VerifyReceipt(receipt_, {salt_, AsBytes(request_), AsBytes(answer_)},
                                     Verifier::Create(GoodOptions()).value(), kNow);
  ASSERT_TRUE(verdict.ok()) << verdict.status().ToString();
  EXPECT_EQ(verdict->context, GoodContext());
  EXPECT_EQ(verdict->measurement, std::vector<uint8_t>(48, 0x4d));
  EXPECT_EQ(verdict->evidence_digest, DigestOf(receipt_.claim.evidence));
}

TEST_F(ReceiptVerifierTest, RefusesAnotherRequestAnswerOrSalt) {
  request_[3] ^= 1;
  EXPECT_EQ(ReasonNow(), "receipt-request");
  request_ = kRequest;
  answer_ += ' ';
  EXPECT_EQ(ReasonNow(), "receipt-response");
  answer_ = kAnswer;
  salt_[31] ^= 1;
  EXPECT_EQ(ReasonNow(), "receipt-request");
  salt_[31] ^= 1;
  EXPECT_EQ(ReasonNow(), "");
}

// A key that the evidence names has to have signed every field.
TEST_F(ReceiptVerifierTest, RefusesEveryChangeOfWhatWasSigned) {
  const Receipt good = receipt_;
  const auto expect = [&](const char* reason, const auto& change) {
    receipt_ = good;
    change(receipt_);
    EXPECT_EQ(ReasonNow(), reason);
  };
  expect("receipt-signature", [](Receipt& r) { --r.time; });
  expect("receipt-signature", [](Receipt& r) { r.exchange.path = "/v1/responses"; });
  expect("receipt-signature", [](Receipt& r) { r.exchange.status = 201; });
  expect("receipt-signature", [](Receipt& r) { r.exchange.request[0] ^= 1; });
  expect("receipt-signature", [](Receipt& r) { r.exchange.response[0] ^= 1; });
  expect("receipt-signature", [](Receipt& r) { r.signature[0] ^= 1; });
  expect("receipt-signature", [](Receipt& r) { r.signature[63] ^= 1; });
  expect("receipt-signature", [](Receipt& r) { r.signature = {}; });
  expect("snp-report-data", [](Receipt& r) { r.nonce[0] ^= 1; });
  expect("snp-report-data", [](Receipt& r) { r.exporter[0] ^= 1; });
  expect("snp-report-data", [](Receipt& r) { r.peer_key[0] ^= 1; });
  expect("snp-report-data", [](Receipt& r) { r.key[90] ^= 1; });
  expect("snp-report-data", [](Receipt& r) { r.claim.context.model_identity[0] ^= 1; });
  expect("snp-signature", [](Receipt& r) { r.claim.evidence.report[0x90] ^= 1; });
  expect("", [](Receipt&) {});
}

TEST_F(ReceiptVerifierTest, RefusesTheKeyOfAnotherBoot) {
  const wire::TlsKey other = wire::TlsKey::Generate().value();
  Sign(other);
  EXPECT_EQ(ReasonNow(), "receipt-signature");
  const std::vector<uint8_t> spki = other.spki();
  std::copy(spki.begin(), spki.end(), receipt_.key.begin());
  Sign(other);
  EXPECT_EQ(ReasonNow(), "snp-report-data");
}

TEST_F(ReceiptVerifierTest, RefusesASignatureOfAnotherDomain) {
  std::vector<uint8_t> bytes = SignedBytes(receipt_);
  bytes[17] = '2';
  receipt_.signature = key_.Sign(bytes).value();
  EXPECT_EQ(ReasonNow(), "receipt-signature");
}

TEST_F(ReceiptVerifierTest, RefusesAReceiptFromTheFuture) {
  receipt_.time = kNow + kReceiptClockSkewS;
  Sign(key_);
  EXPECT_EQ(ReasonNow(), "");
  ++receipt_.time;
  Sign(key_);
  EXPECT_EQ(ReasonNow(), "receipt-time");
}

TEST_F(ReceiptVerifierTest, ThePolicyDecidesWhoIsBelieved) {
  VerifierOptions options = GoodOptions();
  options.simulated.reset();
  EXPECT_EQ(ReasonNow(options), "simulated-not-accepted");
  options = GoodOptions();
  options.policy.simulated->measurements = std::vector{Filled<48>(0x4e)};
  EXPECT_EQ(ReasonNow(options), "snp-measurement");
  options = GoodOptions();
  options.policy.context->model_identities = {Filled<32>(0x0b)};
  EXPECT_EQ(ReasonNow(options), "model-identity");
}

}  // namespace
}  // namespace talaria::attest
