#include "talaria/attest/evidence.h"

#include <gtest/gtest.h>

#include "talaria/attest/refusal.h"

namespace talaria::attest {
namespace {

Evidence Small() { return {EvidenceType::kTdx, {1, 2, 3}, {4}}; }

TEST(Evidence, GoldenBytes) {
  EXPECT_EQ(ToHex(Encode(Small())),
            "0203000000010203"
            "0100000004");
}

TEST(Evidence, RoundTrip) {
  const auto decoded = DecodeEvidence(Encode(Small()));
  ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
  EXPECT_EQ(*decoded, Small());
}

TEST(Evidence, EveryTruncationAndAnyTrailingByteIsRefused) {
  std::vector<uint8_t> bytes = Encode(Small());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(ReasonOf(DecodeEvidence(Bytes(bytes).first(size)).status()), "evidence-format");
  }
  bytes.push_back(0);
  EXPECT_EQ(ReasonOf(DecodeEvidence(bytes).status()), "evidence-format");
}

TEST(Evidence, UnknownTypesEmptyReportsAndOversizeAreRefused) {
  for (int type : {0, 3, 127, 129, 255}) {
    std::vector<uint8_t> bytes = Encode(Small());
    bytes[0] = static_cast<uint8_t>(type);
    EXPECT_EQ(ReasonOf(DecodeEvidence(bytes).status()), "evidence-format") << type;
  }
  Evidence empty = Small();
  empty.report.clear();
  EXPECT_EQ(ReasonOf(DecodeEvidence(Encode(empty)).status()), "evidence-format");
  Evidence large = Small();
  large.report.resize(kMaxReportBytes + 1);
  EXPECT_EQ(ReasonOf(DecodeEvidence(Encode(large)).status()), "evidence-format");
  large = Small();
  large.certificates.resize(kMaxCertificatesBytes + 1);
  EXPECT_EQ(ReasonOf(DecodeEvidence(Encode(large)).status()), "evidence-format");
}

TEST(Refusal, NamesReasonFoundAndWanted) {
  EXPECT_EQ(Refuse("snp-vmpl", "1", "0").message(), "snp-vmpl: found 1, wanted 0");
  EXPECT_EQ(Refuse("snp-vmpl", "1").message(), "snp-vmpl: found 1");
  EXPECT_EQ(Refuse("snp-vmpl", "", "0").message(), "snp-vmpl: wanted 0");
  EXPECT_EQ(ReasonOf(Refuse("snp-vmpl", "1", "0")), "snp-vmpl");
  EXPECT_EQ(ReasonOf(Refuse("tcb")), "tcb");
  EXPECT_EQ(ReasonOf(Status(Code::kIo, "tcb: x")), "");
  EXPECT_EQ(Printable("a\nb\x80"), "a?b?");
}

}  // namespace
}  // namespace talaria::attest
