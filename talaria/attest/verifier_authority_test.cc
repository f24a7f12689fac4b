// The verifier on evidence of an AMD and an Intel of our own: that it hands roots, collateral and
// the policy's words to the right layer. Simulated evidence: verifier_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "talaria/attest/testing/snp_authority.h"
#include "talaria/attest/testing/tdx_authority.h"
#include "talaria/attest/testing/verifier_case.h"

namespace talaria::attest {
namespace {

using namespace verifier_case;
using testing::Contains;
using testing::HasSubstr;
using testing::Pair;

constexpr UnixTime kNow = 1795000000;  // in 2026

// --- SEV-SNP under an authority of our own, bound to the channel.

struct SnpWorld {
  SnpAuthority authority = SnpAuthority::Create({.product = SnpProduct::kMilan}).value();
  SnpReport report;
  VerifierOptions options;

  SnpWorld()
      : report(GoodReport()), options{.policy = PolicyWithoutEvidence(CrlHandling::kRequired)} {
    options.policy.sev_snp = SnpPolicyOf(report);
    options.policy.crls = CrlHandling::kAcceptMissing;
    options.amd = authority.roots();
  }
  static SnpReport GoodReport() {
    SnpReport out;
    out.version = 5;
    out.policy = snp_guest_policy::kMustBeOne | 31;
    out.measurement = Filled<48>(0x5e);
    out.report_id_ma = Filled<32>(0xff);
    out.product = SnpProduct::kMilan;
    out.cpuid = {0x19, 0x01, 0x01};
    out.chip_id = Filled<64>(0x77);
    out.reported_tcb = {.fmc = 0, .boot_loader = 4, .tee = 1, .snp = 24, .microcode = 200};
    out.current_tcb = out.committed_tcb = out.launch_tcb = out.reported_tcb;
    return out;
  }
  Claim Make(const Channel& channel = GoodChannel()) {
    report.report_data = DataOf(channel, EvidenceType::kSevSnp, GoodContext());
    SnpVekOptions vek_options;
    vek_options.tcb = report.reported_tcb;
    vek_options.chip_id = report.chip_id;
    const SnpVek vek = authority.IssueVek(vek_options).value();
    Claim claim{GoodContext(), {}};
    claim.evidence.type = EvidenceType::kSevSnp;
    claim.evidence.report = EncodeSnpReport(report);
    SignSnpReport(claim.evidence.report, vek);
    claim.evidence.certificates = MakeCertificateTable(authority, SnpSigningKey::kVcek, vek.der);
    return claim;
  }
  // The authority's list, as if it lay in the collateral folder for `product`.
  void AddCrl(UnixTime next_update, const std::vector<uint64_t>& revoked,
              SnpProduct product = SnpProduct::kMilan) {
    const auto der = authority.MakeCrl(kNow - 1000, next_update, revoked);
    options.collateral.amd = {{product, Crl::FromDer(der, "test").value()}};
  }
};

TEST(VerifierAuthority, AcceptsSnpEvidenceOfThisChannelOnly) {
  SnpWorld world;
  EXPECT_EQ(Reason(world.Make(), world.options, GoodChannel(), kNow), "");
  Channel other = GoodChannel();
  other.exporter[1] ^= 1;
  EXPECT_EQ(Reason(world.Make(other), world.options, GoodChannel(), kNow), "snp-report-data");
}

TEST(VerifierAuthority, RefusesSnpEvidenceOfAnotherAuthority) {
  SnpWorld world;
  world.options.amd = PinnedAmdRoots();
  EXPECT_EQ(Reason(world.Make(), world.options, GoodChannel(), kNow), "snp-chain");
}

TEST(VerifierAuthority, TakesTheRevocationListOfTheReportsProduct) {
  SnpWorld world;
  world.options.policy.crls = CrlHandling::kRequired;
  EXPECT_EQ(Reason(world.Make(), world.options, GoodChannel(), kNow), "crl-missing");
  world.AddCrl(kNow + 1000, {}, SnpProduct::kTurin);
  EXPECT_EQ(Reason(world.Make(), world.options, GoodChannel(), kNow), "crl-missing");
  world.AddCrl(kNow + 1000, {});
  EXPECT_EQ(Reason(world.Make(), world.options, GoodChannel(), kNow), "");
  const auto verdict = Verifier::Create(world.options)->Verify(world.Make(), GoodChannel(), kNow);
  ASSERT_TRUE(verdict.ok());
  EXPECT_EQ(verdict->valid_until, kNow + 1000);
  world.AddCrl(kNow - 1, {});
  EXPECT_EQ(Reason(world.Make(), world.options, GoodChannel(), kNow), "crl-expired");
  world.AddCrl(kNow + 1000, {kSnpAskSerial});
  EXPECT_EQ(Reason(world.Make(), world.options, GoodChannel(), kNow), "snp-revoked");
  // A list that is there counts, even where none is required.
  world.options.policy.crls = CrlHandling::kAcceptMissing;
  EXPECT_EQ(Reason(world.Make(), world.options, GoodChannel(), kNow), "snp-revoked");
}

// --- TDX under an authority of our own, bound to the channel.

struct TdxCase {
  TdxPlan plan = DefaultTdxPlan();
  TdxWorld world;
  VerifierOptions options;

  TdxCase() : world(), options{.policy = PolicyWithoutEvidence(CrlHandling::kRequired)} {
    plan.quote.body.report_data = DataOf(GoodChannel(), EvidenceType::kTdx, GoodContext());
    options.policy.tdx = TdxSection{PolicyOfPlan(plan), 0u};
    Build();
  }
  void Build() {
    world = BuildTdxWorld(plan);
    options.intel = world.root;
    options.collateral.tdx = {{Fmspc{}, {}}, {plan.platform.fmspc, world.collateral}};
  }
  Claim Make() const {
    Claim claim{GoodContext(), {}};
    claim.evidence.type = EvidenceType::kTdx;
    claim.evidence.report = world.quote;
    return claim;
  }
  std::string Reason(const Channel& channel = GoodChannel()) const {
    return verifier_case::Reason(Make(), options, channel, kTdxPlanNow);
  }
};

TEST(VerifierAuthority, AcceptsTdxEvidenceOfThisChannelOnly) {
  const TdxCase good;
  EXPECT_EQ(good.Reason(), "");
  Channel other = GoodChannel();
  other.nonce[1] ^= 1;
  EXPECT_EQ(good.Reason(other), "tdx-report-data");
  const auto verdict =
      Verifier::Create(good.options)->Verify(good.Make(), GoodChannel(), kTdxPlanNow);
  ASSERT_TRUE(verdict.ok()) << verdict.status().ToString();
  const TdxMeasurement& mrtd = good.plan.quote.body.mrtd;
  EXPECT_EQ(verdict->measurement, std::vector<uint8_t>(mrtd.begin(), mrtd.end()));
  EXPECT_EQ(verdict->valid_until, kTdxPlanNow + 3600);  // of the revocation lists
  EXPECT_THAT(verdict->facts, Contains(Pair("tcb", HasSubstr("UpToDate by evaluation "))));
  EXPECT_THAT(verdict->facts, Contains(Pair("revocation", "checked: not revoked")));
}

TEST(VerifierAuthority, ChoosesTheCollateralOfTheQuotesFamily) {
  TdxCase other;
  other.options.collateral.tdx.pop_back();
  EXPECT_EQ(other.Reason(), "tdx-collateral-missing");
  other.options.collateral.tdx.clear();
  EXPECT_EQ(other.Reason(), "tdx-collateral-missing");
  // Whatever stands in its folder's name, collateral of another family is seen through.
  TdxCase wrong;
  wrong.plan.tcb_info.fmspc[0] ^= 1;
  wrong.Build();
  EXPECT_EQ(wrong.Reason(), "tdx-fmspc");
}

TEST(VerifierAuthority, RefusesTdxEvidenceOfAnotherRootBeforeItAsksForCollateral) {
  TdxCase forged;
  forged.options.intel = PinnedIntelRoot();
  forged.options.collateral.tdx.clear();
  EXPECT_EQ(forged.Reason(), "tdx-root");
}

TEST(VerifierAuthority, PassesThePolicysWordsOnToTdx) {
  TdxCase no_lists;
  no_lists.options.collateral.tdx[1].files.pck_crl.clear();
  EXPECT_EQ(no_lists.Reason(), "tdx-crl-missing");
  no_lists.options.policy.crls = CrlHandling::kAcceptMissing;
  EXPECT_EQ(no_lists.Reason(), "");
  TdxCase rollback;
  rollback.options.policy.tdx->min_tcb_evaluation_data_number = 0xffffffffu;
  EXPECT_EQ(rollback.Reason(), "tdx-collateral-rollback");
  TdxCase debug;
  debug.plan.quote.body.td_attributes |= 1;
  debug.Build();
  EXPECT_EQ(debug.Reason(), "tdx-debug");
}

}  // namespace
}  // namespace talaria::attest
