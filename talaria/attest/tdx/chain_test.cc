// From the root to the attestation key. Where the other negative cases are: testing.h.
#include <gtest/gtest.h>

#include "talaria/attest/tdx/signatures.h"
#include "talaria/attest/tdx/testing.h"

namespace talaria::attest {
namespace {

class TdxChainTest : public testing::Test {
 protected:
  std::string ReasonWithPem(const std::string& pem) const {
    TdxWorld world = world_;
    TdxQuote quote = *ParseTdxQuote(world.quote);
    quote.pck_chain_pem = pem;
    world.quote = EncodeTdxQuote(quote);
    return ReasonOfVerify(world);
  }
  // Another platform under the same root and PCK CA.
  TdxPlan OtherPlatform() const {
    TdxPlan other = plan_;
    other.root_der = world_.root_der;
    other.ca_der = world_.ca_der;
    other.pck_key = TdxTestKey::New();
    other.attestation_key = TdxTestKey::New();
    other.platform.ppid.fill(0x51);
    other.pck.serial = 33;
    return other;
  }

  const TdxPlan plan_ = DefaultTdxPlan();
  const TdxWorld world_ = BuildTdxWorld(plan_);
  const std::string pck_ = TdxPem(world_.pck_der);
  const std::string ca_ = TdxPem(world_.ca_der);
  const std::string root_ = TdxPem(world_.root_der);
};

TEST_F(TdxChainTest, TheWorldItselfIsAccepted) {
  EXPECT_EQ(ReasonOfVerify(world_), "accepted");
  EXPECT_EQ(ReasonWithPem(pck_ + ca_ + root_), "accepted");
  EXPECT_EQ(ReasonWithPem(pck_ + ca_ + root_ + std::string(1, '\0')), "accepted");
}

TEST_F(TdxChainTest, TheProcessorCaIsAcceptedToo) {
  TdxPlan plan = plan_;
  plan.ca.common_name = "Intel SGX PCK Processor CA";
  EXPECT_EQ(ReasonOfVerify(plan), "accepted");
}

TEST_F(TdxChainTest, Case33_NumberAndOrderOfCertificates) {
  EXPECT_EQ(ReasonWithPem(""), "tdx-pck-pem");
  EXPECT_EQ(ReasonWithPem(pck_), "tdx-pck-pem");
  EXPECT_EQ(ReasonWithPem(pck_ + ca_), "tdx-pck-pem");
  EXPECT_EQ(ReasonWithPem(pck_ + ca_ + root_ + root_), "tdx-pck-pem");
  EXPECT_EQ(ReasonWithPem(root_ + ca_ + pck_), "tdx-root");
  EXPECT_EQ(ReasonWithPem(ca_ + pck_ + root_), "tdx-pck-chain");
  EXPECT_EQ(ReasonWithPem(pck_ + root_ + root_), "tdx-pck-chain");
  EXPECT_EQ(ReasonWithPem(pck_ + pck_ + root_), "tdx-pck-chain");
}

TEST_F(TdxChainTest, Case33_TextBetweenTheCertificates) {
  EXPECT_EQ(ReasonWithPem("x" + pck_ + ca_ + root_), "tdx-pck-pem");
  EXPECT_EQ(ReasonWithPem(pck_ + "subject=/CN=x\n" + ca_ + root_), "tdx-pck-pem");
  EXPECT_EQ(ReasonWithPem(pck_ + std::string(1, '\0') + ca_ + root_), "tdx-pck-pem");
  EXPECT_EQ(ReasonWithPem(pck_ + ca_ + root_ + std::string(2, '\0')), "tdx-pck-pem");
  EXPECT_EQ(ReasonWithPem(pck_ + ca_ + root_ + "x"), "tdx-pck-pem");
  std::string broken = pck_ + ca_ + root_;
  broken[100] = '!';
  EXPECT_EQ(ReasonWithPem(broken), "tdx-pck-pem");
}

TEST_F(TdxChainTest, Case35_OwnAttestationKeyOverAChangedBody) {
  TdxWorld world = world_;
  TdxQuote quote = *ParseTdxQuote(world.quote);
  const TdxTestKey own = TdxTestKey::New();
  quote.body.report_data.fill(0);
  quote.attestation_key = own.Public();
  quote.signature = own.Sign(EncodeTdxSignedPart(quote));
  world.quote = EncodeTdxQuote(quote);
  EXPECT_EQ(ReasonOfVerify(world), "tdx-key-binding");
  // The old key cannot have signed it.
  quote.attestation_key = plan_.attestation_key.Public();
  world.quote = EncodeTdxQuote(quote);
  EXPECT_EQ(ReasonOfVerify(world), "tdx-quote-signature");
}

TEST_F(TdxChainTest, Case35_TheQeAuthDataIsBoundToo) {
  TdxWorld world = world_;
  TdxQuote quote = *ParseTdxQuote(world.quote);
  quote.qe_auth[0] ^= 1;
  world.quote = EncodeTdxQuote(quote);
  EXPECT_EQ(ReasonOfVerify(world), "tdx-key-binding");
}

TEST_F(TdxChainTest, Case36_AttestationKeysThatAreNoPoints) {
  EcPoint off_curve = plan_.attestation_key.Public();
  off_curve[63] ^= 1;
  EcPoint over_p{};
  over_p.fill(0xff);
  EcPoint infinity{};
  infinity[0] = 0;
  EcPoint x_only = plan_.attestation_key.Public();
  std::fill(x_only.begin() + 32, x_only.end(), uint8_t{0});
  for (const EcPoint& point : {off_curve, over_p, infinity, x_only}) {
    TdxWorld world = world_;
    TdxQuote quote = *ParseTdxQuote(world.quote);
    quote.attestation_key = point;
    EXPECT_EQ(ReasonOfVerify([&] {
                world.quote = EncodeTdxQuote(quote);
                return world;
              }()),
              "tdx-key-binding");
    // The enclave itself vouching for it, so that the inner check is reached.
    Sha256 hash;
    hash.Update(point);
    hash.Update(quote.qe_auth);
    const Digest digest = hash.Finish();
    std::copy(digest.begin(), digest.end(), quote.qe_report_bytes.begin() + 320);
    quote.qe_report_signature = plan_.pck_key.Sign(quote.qe_report_bytes);
    world.quote = EncodeTdxQuote(quote);
    EXPECT_EQ(ReasonOfVerify(world), "tdx-attestation-key") << ToHex(point);
  }
}

TEST_F(TdxChainTest, Case37_PartsOfAnotherPlatform) {
  const TdxWorld other = BuildTdxWorld(OtherPlatform());
  ASSERT_EQ(ReasonOfVerify(other), "accepted");
  const TdxQuote ours = *ParseTdxQuote(world_.quote), theirs = *ParseTdxQuote(other.quote);
  const auto reason = [this](const TdxQuote& quote) {
    TdxWorld world = world_;
    world.quote = EncodeTdxQuote(quote);
    return ReasonOfVerify(world);
  };
  TdxQuote mixed = ours;
  mixed.pck_chain_pem = theirs.pck_chain_pem;
  EXPECT_EQ(reason(mixed), "tdx-qe-signature");
  mixed = ours;  // the whole QE block, consistent in itself
  mixed.pck_chain_pem = theirs.pck_chain_pem;
  mixed.qe_report_bytes = theirs.qe_report_bytes;
  mixed.qe_report_signature = theirs.qe_report_signature;
  mixed.qe_auth = theirs.qe_auth;
  EXPECT_EQ(reason(mixed), "tdx-key-binding");
  mixed = ours;  // the QE report alone
  mixed.qe_report_bytes = theirs.qe_report_bytes;
  mixed.qe_report_signature = theirs.qe_report_signature;
  EXPECT_EQ(reason(mixed), "tdx-qe-signature");
  mixed = ours;  // all but the body
  mixed.attestation_key = theirs.attestation_key;
  mixed.pck_chain_pem = theirs.pck_chain_pem;
  mixed.qe_report_bytes = theirs.qe_report_bytes;
  mixed.qe_report_signature = theirs.qe_report_signature;
  EXPECT_EQ(reason(mixed), "tdx-quote-signature");
}

TEST_F(TdxChainTest, Case38_QeReportDataIsComparedToItsEnd) {
  Sha256 hash;
  hash.Update(plan_.attestation_key.Public());
  hash.Update(plan_.quote.qe_auth);
  const Digest digest = hash.Finish();
  TdxPlan plan = plan_;
  plan.qe_report_data.emplace();
  std::copy(digest.begin(), digest.end(), plan.qe_report_data->begin());
  EXPECT_EQ(ReasonOfVerify(plan), "accepted");
  for (const size_t at : {0, 31, 32, 63}) {
    TdxPlan off = plan;
    (*off.qe_report_data)[at] ^= 1;
    EXPECT_EQ(ReasonOfVerify(off), "tdx-key-binding") << at;
  }
}

TEST_F(TdxChainTest, Case39_Roots) {
  // Another Intel with the same names and serial numbers.
  TdxWorld world = BuildTdxWorld(DefaultTdxPlan());
  world.root = world_.root;
  EXPECT_EQ(ReasonOfVerify(world), "tdx-root");
  // The right root's certificate in the quote does not help a chain that it did not sign.
  world = world_;
  TdxQuote quote = *ParseTdxQuote(BuildTdxWorld(DefaultTdxPlan()).quote);
  std::string& pem = quote.pck_chain_pem;
  pem = pem.substr(0, pem.rfind("-----BEGIN")) + root_;
  world.quote = EncodeTdxQuote(quote);
  EXPECT_EQ(ReasonOfVerify(world), "tdx-pck-chain");
  // The same key in another certificate is another root.
  TdxPlan again = plan_;
  world = BuildTdxWorld(again);
  world.root = world_.root;
  EXPECT_EQ(ReasonOfVerify(world), "tdx-root");
  // Ours under Intel's genuine root.
  world = world_;
  world.root = PinnedIntelRoot();
  EXPECT_EQ(ReasonOfVerify(world), "tdx-root");
}

TEST_F(TdxChainTest, Case39_Names) {
  for (const char* name : {"Intel SGX PCK Certificat", "Intel SGX PCK Certificate ",
                           "intel SGX PCK Certificate", "Intel SGX TCB Signing"}) {
    TdxPlan plan = plan_;
    plan.pck.common_name = name;
    EXPECT_EQ(ReasonOfVerify(plan), "tdx-pck-name") << name;
  }
  TdxPlan plan = plan_;
  plan.ca.common_name = "Intel SGX Other CA";
  EXPECT_EQ(ReasonOfVerify(plan), "tdx-pck-name");
}

TEST_F(TdxChainTest, Case39_CertificatesInTheWrongPlace) {
  // The genuine TCB signer, who stands under the root, as a PCK certificate.
  EXPECT_EQ(ReasonWithPem(TdxPem(world_.signer_der) + ca_ + root_), "tdx-pck-chain");
  // A PCK certificate that the root issued itself.
  TdxPlan plan = plan_;
  plan.root_der = world_.root_der;
  plan.pck.pck_extension = EncodePckExtension(plan.platform);
  plan.pck_der = MakeTdxCertificate(plan.pck, plan.pck_key, plan.root.common_name, plan.root_key);
  EXPECT_EQ(ReasonOfVerify(plan), "tdx-pck-chain");
  // An issuer that is no CA.
  plan = plan_;
  plan.ca.is_ca = false;
  EXPECT_EQ(ReasonOfVerify(plan), "tdx-pck-chain");
}

TEST_F(TdxChainTest, Case39_KeyOfThePckCertificate) {
  TdxPlan plan = plan_;
  const TdxTestKey p384 = TdxTestKey::New(Curve::kP384);
  plan.pck.pck_extension = EncodePckExtension(plan.platform);
  plan.pck_der = MakeTdxCertificate(plan.pck, p384, plan.ca.common_name, plan.ca_key);
  EXPECT_EQ(ReasonOfVerify(plan), "tdx-pck-key");
}

TEST_F(TdxChainTest, ThePckExtensionIsThereOnceAndWhole) {
  TdxPlan plan = plan_;
  plan.pck.pck_extension = EncodePckExtension(plan.platform);
  plan.pck.pck_extensions = 2;
  EXPECT_EQ(ReasonOfVerify(plan), "tdx-pck-extension");
  plan.pck.pck_extensions = 0;
  EXPECT_EQ(ReasonOfVerify(plan), "tdx-pck-extension");
  plan.pck.pck_extensions = 1;
  EXPECT_EQ(ReasonOfVerify(plan), "accepted");
  plan.pck.pck_extension->pop_back();
  EXPECT_EQ(ReasonOfVerify(plan), "tdx-pck-extension");
}

}  // namespace
}  // namespace talaria::attest
