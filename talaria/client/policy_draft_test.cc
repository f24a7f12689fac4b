#include "talaria/client/policy_draft.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "talaria/attest/refusal.h"
#include "talaria/client/testing/fake_cvm.h"

namespace talaria::client {
namespace {

using ::testing::HasSubstr;
using testing::kTestNow;

// The claim of a good CVM, and what it is bound to.
struct Sample {
  attest::Claim claim;
  attest::ReportData report_data{};
};
Sample MakeSample() {
  Sample sample{{testing::GoodContext(), {}}, {}};
  sample.report_data.fill(7);
  sample.claim.evidence = attest::SimulatedAttester::Create(testing::GoodTee())
                              .value()
                              ->Attest(sample.report_data, {})
                              .value();
  return sample;
}

TEST(PolicyDraftTest, ADraftIsRefusedUntilItIsConfirmedAndThenAcceptsItsEvidence) {
  const Sample sample = MakeSample();
  PolicyDraft draft = DraftFromClaim(sample.claim).value();
  const auto refused = attest::ParsePolicy(draft.Text(), "p.toml");
  EXPECT_EQ(refused.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(refused.status().message(), HasSubstr("unconfirmed"));
  EXPECT_THAT(refused.status().message(), HasSubstr("simulated.measurements"));
  draft.remarks.unconfirmed.clear();
  auto policy = attest::ParsePolicy(draft.Text(), "p.toml");
  ASSERT_TRUE(policy.ok()) << policy.status().ToString();
  const auto verdict = testing::MakeVerifier(std::move(*policy))
                           .VerifyReportData(sample.claim, sample.report_data, kTestNow);
  EXPECT_TRUE(verdict.ok()) << verdict.status().ToString();

  PolicyDraft again = DraftFromClaim(sample.claim).value();
  again.remarks.unconfirmed.clear();
  Sample other = MakeSample();
  other.claim.context.model_identity[0] ^= 1;
  auto same = attest::ParsePolicy(again.Text(), "p.toml");
  EXPECT_EQ(attest::ReasonOf(testing::MakeVerifier(std::move(*same))
                                 .VerifyReportData(other.claim, other.report_data, kTestNow)
                                 .status()),
            "model-identity");
}

TEST(PolicyDraftTest, EvidenceOfARealTeeAllowsNoDevelopment) {
  Sample sample = MakeSample();
  sample.claim.evidence.type = attest::EvidenceType::kSevSnp;
  PolicyDraft draft = DraftFromClaim(sample.claim).value();
  EXPECT_FALSE(*draft.policy.context->allow_development);
  EXPECT_FALSE(draft.policy.simulated.has_value());
  ASSERT_TRUE(draft.policy.sev_snp.has_value());
  EXPECT_EQ(draft.policy.sev_snp->measurements->at(0), testing::GoodTee().measurement);
  draft.remarks.unconfirmed.clear();
  EXPECT_TRUE(attest::ParsePolicy(draft.Text(), "p.toml").ok());
}

TEST(PolicyDraftTest, WhatIsNoReportIsNoDraft) {
  Sample sample = MakeSample();
  sample.claim.evidence.report.resize(100);
  EXPECT_EQ(attest::ReasonOf(DraftFromClaim(sample.claim).status()), "snp-length");
  sample.claim.evidence.type = attest::EvidenceType::kTdx;
  EXPECT_EQ(DraftFromClaim(sample.claim).status().code(), Code::kUntrusted);
}

TEST(PolicyDraftTest, KnownValuesMakeAFile) {
  KnownValues known{.type = attest::EvidenceType::kSimulated,
                    .measurement = testing::GoodTee().measurement,
                    .model_identity = testing::GoodContext().model_identity,
                    .configuration = testing::GoodContext().configuration,
                    .tenant_key = testing::GoodContext().tenant_key};
  const auto policy = attest::ParsePolicy(DraftFromValues(known).Text(), "p.toml");
  ASSERT_TRUE(policy.ok()) << policy.status().ToString();
  EXPECT_EQ(*policy->context->min_check_vectors, 2) << "one is for who writes so";
  EXPECT_EQ(policy->simulated->measurements->at(0), known.measurement);
  for (const auto type : {attest::EvidenceType::kSevSnp, attest::EvidenceType::kTdx}) {
    known.type = type;
    PolicyDraft draft = DraftFromValues(known);
    EXPECT_THAT(attest::ParsePolicy(draft.Text(), "p.toml").status().message(),
                HasSubstr("unconfirmed"));
    draft.remarks.unconfirmed.clear();
    const auto confirmed = attest::ParsePolicy(draft.Text(), "p.toml");
    EXPECT_TRUE(confirmed.ok()) << confirmed.status().ToString();
  }
}

TEST(PolicyDraftTest, ClaimsAreReadAsBytesOrDigits) {
  const testing::SocketFolder folder;
  const Sample sample = MakeSample();
  const auto bytes = attest::Encode(sample.claim);
  const std::string path = folder.path() + "/claim";
  for (const std::string& text :
       {std::string(bytes.begin(), bytes.end()), ToHex(Bytes(bytes)) + "\n"}) {
    std::ofstream(path) << text;
    const auto claim = ReadClaim(path);
    ASSERT_TRUE(claim.ok()) << claim.status().ToString();
    EXPECT_EQ(claim->evidence, sample.claim.evidence);
  }
  std::ofstream(path) << "hello";
  EXPECT_EQ(ReadClaim(path).status().code(), Code::kUntrusted);
  EXPECT_EQ(ReadClaim(folder.path() + "/none").status().code(), Code::kNotFound);
}

}  // namespace
}  // namespace talaria::client
