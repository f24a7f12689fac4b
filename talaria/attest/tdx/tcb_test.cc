// What Intel's collateral says of QE, platform and module. Where the other negative cases are:
// testing.h.
#include "talaria/attest/tdx/tcb.h"

#include <gtest/gtest.h>

#include "talaria/attest/tdx/testing.h"

namespace talaria::attest {
namespace {

class TdxTcbTest : public testing::Test {
 protected:
  // The whole way, policy included.
  static std::string Reason(const TdxPlan& plan, bool accept_sw_hardening_needed = false) {
    const TdxWorld world = BuildTdxWorld(plan);
    const auto verified =
        VerifyTdxQuote(world.quote, world.collateral, world.root, OptionsOfPlan());
    if (!verified.ok()) return std::string(ReasonOf(verified.status()));
    TdxPolicy policy = PolicyOfPlan(plan);
    policy.accept_sw_hardening_needed = accept_sw_hardening_needed;
    const Status status = CheckTdxPolicy(*verified, policy, plan.quote.body.report_data);
    return status.ok() ? "accepted" : std::string(ReasonOf(status));
  }
  const TdxPlan plan_ = DefaultTdxPlan();
};

TEST_F(TdxTcbTest, TheWorldItselfIsUpToDate) {
  const TdxWorld world = BuildTdxWorld(plan_);
  const auto verified = VerifyTdxQuote(world.quote, world.collateral, world.root, OptionsOfPlan());
  ASSERT_TRUE(verified.ok()) << verified.status().ToString();
  for (const TcbStatus status : {verified->tcb().qe, verified->tcb().platform,
                                 verified->tcb().module, verified->tcb().converged}) {
    EXPECT_EQ(status, TcbStatus::kUpToDate);
  }
  EXPECT_EQ(verified->pck(), plan_.platform);
  EXPECT_EQ(Reason(plan_), "accepted");
}

TEST_F(TdxTcbTest, Case44_EveryComponentCounts) {
  // Each below the newest level, alone: the second level, which is as high there, is not reached.
  for (size_t i = 0; i < 16; ++i) {
    if (plan_.platform.tcb_svns[i] == 0) continue;
    TdxPlan plan = plan_;
    --plan.platform.tcb_svns[i];
    EXPECT_EQ(Reason(plan), i == 0 ? "tdx-tcb-status" : "tdx-tcb-level") << i;
  }
  TdxPlan plan = plan_;
  plan.tcb_info.levels[0].sgx_svns[15] = 1;
  plan.tcb_info.levels[1].sgx_svns[15] = 1;
  EXPECT_EQ(Reason(plan), "tdx-tcb-level");
  plan = plan_;
  --plan.platform.pcesvn;
  EXPECT_EQ(Reason(plan), "tdx-tcb-level");
  plan = plan_;
  plan.tcb_info.levels[0].tdx_svns[15] = plan.tcb_info.levels[1].tdx_svns[15] = 1;
  EXPECT_EQ(Reason(plan), "tdx-tcb-level");
  // Much newer in all components but one.
  plan = plan_;
  plan.platform.tcb_svns.fill(255);
  plan.platform.tcb_svns[7] = 4;
  EXPECT_EQ(Reason(plan), "tdx-tcb-level");
}

TEST_F(TdxTcbTest, Case44_TheFirstTwoTdxComponentsAreTheModules) {
  TdxPlan plan = plan_;
  plan.tcb_info.levels.resize(1);
  plan.tcb_info.levels[0].tdx_svns = {200, 200, 3};  // not looked at for a module with identity
  EXPECT_EQ(Reason(plan), "accepted");
  plan.quote.body.tee_tcb_svn = {6, 0, 3};
  EXPECT_EQ(Reason(plan), "tdx-tcb-level");
  plan.tcb_info.levels[0].tdx_svns = {6, 0, 3};
  EXPECT_EQ(ReasonOfVerify(plan), "accepted");
  plan.tcb_info.levels[0].tdx_svns = {7, 0, 3};
  EXPECT_EQ(ReasonOfVerify(plan), "tdx-tcb-level");
}

TEST_F(TdxTcbTest, Case44_TheFirstLevelReachedDecides) {
  TdxPlan plan = plan_;
  std::swap(plan.tcb_info.levels[0], plan.tcb_info.levels[1]);
  EXPECT_EQ(Reason(plan), "tdx-tcb-status");
}

TEST_F(TdxTcbTest, Case44_Status) {
  struct Row {
    TcbStatus status;
    std::string by_default, with_hardening_accepted;
  };
  for (const Row& row :
       {Row{TcbStatus::kUpToDate, "accepted", "accepted"},
        Row{TcbStatus::kSwHardeningNeeded, "tdx-tcb-status", "accepted"},
        Row{TcbStatus::kConfigurationNeeded, "tdx-tcb-status", "tdx-tcb-status"},
        Row{TcbStatus::kConfigurationAndSwHardeningNeeded, "tdx-tcb-status", "tdx-tcb-status"},
        Row{TcbStatus::kOutOfDate, "tdx-tcb-status", "tdx-tcb-status"},
        Row{TcbStatus::kOutOfDateConfigurationNeeded, "tdx-tcb-status", "tdx-tcb-status"},
        Row{TcbStatus::kRevoked, "tdx-tcb-revoked", "tdx-tcb-revoked"}}) {
    TdxPlan plan = plan_;
    plan.tcb_info.levels[0].status = row.status;
    EXPECT_EQ(Reason(plan), row.by_default) << TcbStatusName(row.status);
    EXPECT_EQ(Reason(plan, true), row.with_hardening_accepted) << TcbStatusName(row.status);
  }
}

TEST_F(TdxTcbTest, AdvisoriesOfTheLevelAreKept) {
  TdxPlan plan = plan_;
  plan.platform.tcb_svns[0] = 2;
  const TdxWorld world = BuildTdxWorld(plan);
  const auto verified = VerifyTdxQuote(world.quote, world.collateral, world.root, OptionsOfPlan());
  ASSERT_TRUE(verified.ok());
  EXPECT_EQ(verified->tcb().converged, TcbStatus::kOutOfDate);
  EXPECT_EQ(verified->tcb().advisories, plan.tcb_info.levels[1].advisories);
}

TEST_F(TdxTcbTest, Case46_ModuleIdentity) {
  TdxPlan plan = plan_;
  plan.quote.body.tee_tcb_svn[1] = 2;
  EXPECT_EQ(Reason(plan), "tdx-module-identity");
  plan = plan_;
  plan.tcb_info.module_identities.clear();
  EXPECT_EQ(Reason(plan), "tdx-module-identity");
  plan = plan_;
  plan.tcb_info.module_identities[1].levels = {{7, TcbStatus::kUpToDate}};
  EXPECT_EQ(Reason(plan), "tdx-module-isvsvn");
}

TEST_F(TdxTcbTest, Case46_ModuleSignerAndAttributes) {
  for (const uint8_t major : std::initializer_list<uint8_t>{0, 1}) {
    TdxPlan plan = plan_;
    plan.quote.body.tee_tcb_svn[1] = major;
    EXPECT_EQ(ReasonOfVerify(plan), "accepted");
    plan.quote.body.mrsignerseam[47] = 1;
    EXPECT_EQ(Reason(plan), "tdx-module-signer");
    // Not even where the collateral says so: Intel's modules have none.
    plan.tcb_info.module.mrsigner[47] = plan.tcb_info.module_identities[1].module.mrsigner[47] = 1;
    EXPECT_EQ(Reason(plan), "tdx-module-signer");
    plan.quote.body.mrsignerseam[47] = 0;
    EXPECT_EQ(Reason(plan), "tdx-module-signer");

    plan = plan_;
    plan.quote.body.tee_tcb_svn[1] = major;
    plan.quote.body.seam_attributes[7] = 0x80;
    EXPECT_EQ(Reason(plan), "tdx-module-attributes");
    plan.tcb_info.module.attributes[7] = 0x80;
    plan.tcb_info.module_identities[1].module.attributes[7] = 0x80;
    EXPECT_EQ(Reason(plan), "tdx-module-attributes");
    plan.quote.body.seam_attributes[7] = 0;
    EXPECT_EQ(Reason(plan), "tdx-module-attributes");
  }
}

TEST_F(TdxTcbTest, Case46_AnOldModuleOnANewPlatform) {
  TdxPlan plan = plan_;
  plan.quote.body.tee_tcb_svn[0] = 5;
  const TdxWorld world = BuildTdxWorld(plan);
  const auto verified = VerifyTdxQuote(world.quote, world.collateral, world.root, OptionsOfPlan());
  ASSERT_TRUE(verified.ok());
  EXPECT_EQ(verified->tcb().platform, TcbStatus::kUpToDate);
  EXPECT_EQ(verified->tcb().module, TcbStatus::kOutOfDate);
  EXPECT_EQ(Reason(plan), "tdx-tcb-status");
  plan.quote.body.tee_tcb_svn[0] = 3;
  EXPECT_EQ(Reason(plan), "tdx-tcb-revoked");
  plan.quote.body.tee_tcb_svn[0] = 1;
  EXPECT_EQ(Reason(plan), "tdx-module-isvsvn");
  // A new module does not make up for an old platform.
  plan = plan_;
  plan.tcb_info.levels[0].status = TcbStatus::kOutOfDate;
  EXPECT_EQ(Reason(plan), "tdx-tcb-status");
}

TEST(TdxConverge, TheWorstOfThree) {
  using enum TcbStatus;
  EXPECT_EQ(Converge(kUpToDate, kUpToDate, kUpToDate), kUpToDate);
  for (const TcbStatus platform :
       {kUpToDate, kSwHardeningNeeded, kConfigurationNeeded, kConfigurationAndSwHardeningNeeded,
        kOutOfDate, kOutOfDateConfigurationNeeded, kRevoked}) {
    EXPECT_EQ(Converge(platform, kUpToDate, kUpToDate), platform);
    EXPECT_EQ(Converge(platform, kRevoked, kUpToDate), kRevoked);
    EXPECT_EQ(Converge(platform, kUpToDate, kRevoked), kRevoked);
    EXPECT_EQ(Converge(platform, kOutOfDate, kRevoked), kRevoked);
  }
  for (const auto& [module, qe] :
       {std::pair(kOutOfDate, kUpToDate), std::pair(kUpToDate, kOutOfDate),
        std::pair(kOutOfDate, kOutOfDate)}) {
    EXPECT_EQ(Converge(kUpToDate, module, qe), kOutOfDate);
    EXPECT_EQ(Converge(kSwHardeningNeeded, module, qe), kOutOfDate);
    EXPECT_EQ(Converge(kOutOfDate, module, qe), kOutOfDate);
    EXPECT_EQ(Converge(kConfigurationNeeded, module, qe), kOutOfDateConfigurationNeeded);
    EXPECT_EQ(Converge(kConfigurationAndSwHardeningNeeded, module, qe),
              kOutOfDateConfigurationNeeded);
    EXPECT_EQ(Converge(kOutOfDateConfigurationNeeded, module, qe), kOutOfDateConfigurationNeeded);
  }
}

TEST_F(TdxTcbTest, Case47_QuotingEnclave) {
  TdxPlan plan = plan_;
  plan.qe_report.mrsigner[31] ^= 1;
  EXPECT_EQ(Reason(plan), "tdx-qe-mrsigner");
  plan = plan_;
  plan.qe_report.isvprodid = 1;
  EXPECT_EQ(Reason(plan), "tdx-qe-isvprodid");
  plan.qe_report.isvprodid = 0x102;
  EXPECT_EQ(Reason(plan), "tdx-qe-isvprodid");
  plan = plan_;
  plan.qe_report.miscselect[3] = 1;
  EXPECT_EQ(Reason(plan), "tdx-qe-miscselect");
  plan = plan_;
  plan.qe_report.attributes[0] |= 2;  // DEBUG
  EXPECT_EQ(Reason(plan), "tdx-qe-attributes");
  plan = plan_;
  plan.qe_report.attributes[7] = 1;
  EXPECT_EQ(Reason(plan), "tdx-qe-attributes");
  plan = plan_;  // what the mask leaves out
  plan.qe_report.attributes[0] &= 0xfb;
  plan.qe_report.attributes[15] = 0xff;
  EXPECT_EQ(Reason(plan), "accepted");
}

TEST_F(TdxTcbTest, Case47_VersionOfTheQuotingEnclave) {
  TdxPlan plan = plan_;
  plan.qe_report.isvsvn = 4;
  EXPECT_EQ(Reason(plan), "accepted");
  plan.qe_report.isvsvn = 3;
  EXPECT_EQ(Reason(plan), "tdx-tcb-status");
  plan.qe_report.isvsvn = 1;
  EXPECT_EQ(Reason(plan), "tdx-qe-isvsvn");
  plan.qe_identity.levels.push_back({1, TcbStatus::kRevoked});
  EXPECT_EQ(Reason(plan), "tdx-tcb-revoked");
}

}  // namespace
}  // namespace talaria::attest
