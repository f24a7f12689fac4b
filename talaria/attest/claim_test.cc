#include "talaria/attest/claim.h"

#include <gtest/gtest.h>

#include "talaria/attest/refusal.h"

namespace talaria::attest {
namespace {

Claim Sample() {
  Claim claim{.context = {.version = kAttestationVersion,
                          .model_identity = {},
                          .profile = 0x0201,
                          .check_vectors = 2,
                          .configuration = {},
                          .tenant_key = {},
                          .development = true},
              .evidence = {}};
  claim.context.model_identity.fill(0x11);
  claim.context.configuration.fill(0x22);
  claim.context.tenant_key.fill(0x33);
  claim.evidence.type = EvidenceType::kTdx;
  claim.evidence.report = {0xaa, 0xbb, 0xcc};
  claim.evidence.certificates = {0xdd};
  return claim;
}

std::string Repeated(const char* byte, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += byte;
  return out;
}

TEST(Claim, EncodesAsWritten) {
  const std::string golden = "0100" + Repeated("11", 32) + "0102" + "02" + Repeated("22", 32) +
                             Repeated("33", 32) + "01" +                        // context
                             "02" + "03000000" + "aabbcc" + "01000000" + "dd";  // evidence
  EXPECT_EQ(ToHex(Encode(Sample())), golden);
}

TEST(Claim, DecodesWhatItEncodes) {
  const std::vector<uint8_t> bytes = Encode(Sample());
  const Result<Claim> claim = DecodeClaim(bytes);
  ASSERT_TRUE(claim.ok()) << claim.status().ToString();
  EXPECT_EQ(claim->context, Sample().context);
  EXPECT_EQ(claim->evidence, Sample().evidence);
  EXPECT_EQ(Encode(*claim), bytes);
}

TEST(Claim, IsRefusedWhereverItEnds) {
  const std::vector<uint8_t> bytes = Encode(Sample());
  for (size_t size = 0; size < bytes.size(); ++size) {
    const Status status = DecodeClaim(Bytes(bytes).first(size)).status();
    EXPECT_EQ(ReasonOf(status), size < kContextBytes ? "context-format" : "evidence-format")
        << size;
  }
}

TEST(Claim, IsRefusedWithMoreBehindIt) {
  std::vector<uint8_t> bytes = Encode(Sample());
  bytes.push_back(0);
  EXPECT_EQ(ReasonOf(DecodeClaim(bytes).status()), "evidence-format");
}

TEST(Claim, IsRefusedForEachOfItsParts) {
  std::vector<uint8_t> bytes = Encode(Sample());
  bytes[0] = 2;  // version
  EXPECT_EQ(ReasonOf(DecodeClaim(bytes).status()), "context-format");
  bytes = Encode(Sample());
  bytes[kContextBytes - 1] = 2;  // flag
  EXPECT_EQ(ReasonOf(DecodeClaim(bytes).status()), "context-format");
  bytes = Encode(Sample());
  bytes[kContextBytes] = 3;  // type
  EXPECT_EQ(ReasonOf(DecodeClaim(bytes).status()), "evidence-format");
}

TEST(Claim, OfTheGreatestSizeFitsItsBound) {
  Claim claim = Sample();
  claim.evidence.report.assign(kMaxReportBytes, 1);
  claim.evidence.certificates.assign(kMaxCertificatesBytes, 2);
  std::vector<uint8_t> bytes = Encode(claim);
  EXPECT_EQ(bytes.size(), kMaxClaimBytes);
  EXPECT_TRUE(DecodeClaim(bytes).ok());
  claim.evidence.report.push_back(1);
  EXPECT_EQ(ReasonOf(DecodeClaim(Encode(claim)).status()), "evidence-format");
}

}  // namespace
}  // namespace talaria::attest
