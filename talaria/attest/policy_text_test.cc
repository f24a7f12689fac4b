// Policies as text: what WritePolicy writes, ParsePolicy reads; and what ExplainPolicy says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "talaria/attest/policy_file.h"
#include "talaria/attest/testing/policy_sample.h"

namespace talaria::attest {
namespace {

using namespace policy_sample;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// "" when it parses.
std::string ErrorOf(const std::string& text) {
  return ParsePolicy(text, "p.toml").status().message();
}

TEST(PolicyText, WhatIsWrittenIsReadBack) {
  const auto policy = ParsePolicy(Full(), "p.toml");
  ASSERT_TRUE(policy.ok());
  const std::string written = WritePolicy(*policy, {});
  const auto again = ParsePolicy(written, "again.toml");
  ASSERT_TRUE(again.ok()) << again.status().ToString() << "\n" << written;
  EXPECT_EQ(WritePolicy(*again, {}), written);
  // Every line of the full file is there, but for how it breaks lists and writes comments.
  std::string flat;
  for (const char c : written) flat += c == '\n' ? ' ' : c;
  for (const Line& line : LinesOfFull()) {
    if (line.text.find(", ") != std::string::npos) continue;
    EXPECT_THAT(flat, HasSubstr(line.text));
  }
  for (const char* list :
       {"profiles = [   1,   2, ]", "fmc = 2, boot_loader = 3, tee = 4, snp = 5"}) {
    EXPECT_THAT(flat, HasSubstr(list));
  }
  EXPECT_THAT(flat, HasSubstr(Hex("03", 48) + "\",   \"" + Hex("04", 48)));
}

TEST(PolicyText, WrittenPartsAreReadBack) {
  for (const int without : {0, 1, 2}) {
    Policy policy = *ParsePolicy(Full(), "p.toml");
    if (without == 0) policy.sev_snp.reset();
    if (without == 1) policy.tdx.reset();
    if (without == 2) policy.simulated.reset();
    policy.crls = CrlHandling::kAcceptMissing;
    if (policy.sev_snp) {
      policy.sev_snp->chips = SnpChips::Any();
      policy.sev_snp->measurements = std::vector<SnpMeasurement>();
    }
    const auto again = ParsePolicy(WritePolicy(policy, {}), "again.toml");
    ASSERT_TRUE(again.ok()) << again.status().ToString();
    EXPECT_EQ(*again->crls, CrlHandling::kAcceptMissing);
    EXPECT_EQ(again->sev_snp.has_value(), without != 0);
    EXPECT_EQ(again->tdx.has_value(), without != 1);
    EXPECT_EQ(again->simulated.has_value(), without != 2);
    if (again->sev_snp) {
      EXPECT_TRUE(again->sev_snp->chips.any());
    }
    EXPECT_EQ(WritePolicy(*again, {}), WritePolicy(policy, {}));
  }
}

TEST(PolicyText, RemarksStandAboveTheirFieldsAndCannotBreakOut) {
  const Policy policy = *ParsePolicy(Full(), "p.toml");
  const std::string hostile = "x\n[evil]\r\ny = 1\x7f\"]";
  PolicyRemarks remarks{.heading = {"For tenant A", hostile},
                        .of_field = {{"sev_snp.measurements", "from evidence " + hostile}},
                        .unconfirmed = {}};
  const std::string written = WritePolicy(policy, remarks);
  EXPECT_THAT(written, StartsWith("# For tenant A\n# x?[evil]??y = 1?\"]\n"));
  EXPECT_THAT(written, HasSubstr("# from evidence x?[evil]??y = 1?\"]\nmeasurements = "));
  EXPECT_EQ(ErrorOf(written), "");

  remarks.unconfirmed = {"sev_snp.measurements", hostile};
  const std::string unconfirmed = WritePolicy(policy, remarks);
  EXPECT_THAT(unconfirmed, HasSubstr("# UNCONFIRMED\nmeasurements = "));
  EXPECT_THAT(ErrorOf(unconfirmed), HasSubstr("unconfirmed names sev_snp.measurements, x?[evil]"));
}

TEST(PolicyText, IsExplainedInEnglish) {
  const std::string text = ExplainPolicy(*ParsePolicy(Full(), "p.toml"));
  for (const std::string& part :
       {std::string("An attestation stands for 3600 s."), "Model: " + Hex("01", 32) + ".",
        std::string("Tenant key: anything."), std::string("development builds are refused"),
        std::string("on Genoa with at least boot loader 10, TEE 1, SNP 23, microcode 255"),
        std::string("on Turin with at least FMC 2"),
        "measurement " + Hex("03", 48) + " or " + Hex("04", 48), "MRTD " + Hex("10", 48),
        std::string("service TD zeros"), std::string("UpToDate or SWHardeningNeeded"),
        std::string("VLEK of CN=cloud.test accepted"),
        std::string("WHICH PROTECTS NOTHING, is accepted")}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  Policy less = *ParsePolicy(Full(), "p.toml");
  less.sev_snp->measurements = std::vector<SnpMeasurement>();
  less.tdx.reset();
  less.simulated.reset();
  const std::string other = ExplainPolicy(less);
  EXPECT_THAT(other, HasSubstr("measurement nothing (the list is empty)"));
  EXPECT_THAT(other, HasSubstr("Intel TDX is refused."));
  EXPECT_THAT(other, HasSubstr("The simulated TEE is refused."));
  EXPECT_THAT(other, Not(HasSubstr("PROTECTS NOTHING")));
}

}  // namespace
}  // namespace talaria::attest
