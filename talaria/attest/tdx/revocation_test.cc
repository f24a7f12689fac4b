// Who is no longer, or not yet, vouched for. Where the other negative cases are: testing.h.
#include <gtest/gtest.h>

#include "talaria/attest/tdx/testing.h"

namespace talaria::attest {
namespace {

constexpr UnixTime kNow = kTdxPlanNow;

class TdxRevocationTest : public testing::Test {
 protected:
  const TdxPlan plan_ = DefaultTdxPlan();
};

TdxVerifyOptions AcceptMissing() {
  TdxVerifyOptions options = OptionsOfPlan();
  options.crl_policy = TdxCrlPolicy::kAcceptMissing;
  return options;
}

TEST_F(TdxRevocationTest, Case40_CertificatesOutOfTheirTime) {
  const auto off = [this](TdxCertificatePlan TdxPlan::*which, UnixTime from, UnixTime to) {
    TdxPlan plan = plan_;
    (plan.*which).not_before = from;
    (plan.*which).not_after = to;
    return ReasonOfVerify(plan);
  };
  for (const auto which : {&TdxPlan::pck, &TdxPlan::ca, &TdxPlan::root}) {
    EXPECT_EQ(off(which, kNow - 100, kNow - 1), "tdx-pck-expired");
    EXPECT_EQ(off(which, kNow + 1, kNow + 100), "tdx-pck-expired");
    EXPECT_EQ(off(which, kNow - 1, kNow + 1), "accepted");
  }
  EXPECT_EQ(off(&TdxPlan::signer, kNow - 100, kNow - 1), "tdx-collateral-chain-expired");
  EXPECT_EQ(off(&TdxPlan::signer, kNow + 1, kNow + 100), "tdx-collateral-chain-expired");
}

TEST_F(TdxRevocationTest, Case40_RevokedCertificates) {
  TdxPlan plan = plan_;
  plan.pck_crl.revoked = {1, 2, 4, 77};  // serials of others
  plan.root_crl.revoked = {1, 3, 99};
  EXPECT_EQ(ReasonOfVerify(plan), "accepted");

  plan = plan_;
  plan.pck_crl.revoked = {77, plan.pck.serial};
  EXPECT_EQ(ReasonOfVerify(plan), "tdx-revoked");
  plan = plan_;
  plan.root_crl.revoked = {plan.ca.serial};
  EXPECT_EQ(ReasonOfVerify(plan), "tdx-revoked");
  plan = plan_;
  plan.root_crl.revoked = {plan.signer.serial};
  EXPECT_EQ(ReasonOfVerify(plan), "tdx-revoked");
  // A list that is there counts, whatever the policy says of missing ones.
  EXPECT_EQ(ReasonOfVerify(BuildTdxWorld(plan), AcceptMissing()), "tdx-revoked");
}

TEST_F(TdxRevocationTest, Case40_MissingLists) {
  for (const auto which : {&TdxPlan::root_crl, &TdxPlan::pck_crl}) {
    TdxPlan plan = plan_;
    (plan.*which).there = false;
    const TdxWorld world = BuildTdxWorld(plan);
    EXPECT_EQ(ReasonOfVerify(world), "tdx-crl-missing");
    const auto verified =
        VerifyTdxQuote(world.quote, world.collateral, world.root, AcceptMissing());
    ASSERT_TRUE(verified.ok()) << verified.status().ToString();
    EXPECT_FALSE(verified->revocation_checked());
  }
}

TEST_F(TdxRevocationTest, Case40_StaleLists) {
  struct Which {
    TdxCrlPlan TdxPlan::*crl;
    std::string reason;
  };
  for (const Which& which : {Which{&TdxPlan::root_crl, "tdx-root-crl-expired"},
                             Which{&TdxPlan::pck_crl, "tdx-pck-crl-expired"}}) {
    TdxPlan plan = plan_;
    (plan.*which.crl).next_update = kNow - 1;
    EXPECT_EQ(ReasonOfVerify(plan), which.reason);
    EXPECT_EQ(ReasonOfVerify(BuildTdxWorld(plan), AcceptMissing()), which.reason);
    plan = plan_;
    (plan.*which.crl).this_update = kNow + 1;
    EXPECT_EQ(ReasonOfVerify(plan), which.reason);
    plan = plan_;
    (plan.*which.crl).this_update = (plan.*which.crl).next_update = kNow;
    EXPECT_EQ(ReasonOfVerify(plan), "accepted");
  }
}

TEST_F(TdxRevocationTest, Case40_ListsOfAnotherIssuer) {
  const TdxWorld world = BuildTdxWorld(plan_);
  const auto with = [&world](std::vector<uint8_t> root_crl, std::vector<uint8_t> pck_crl) {
    TdxWorld off = world;
    off.collateral.root_crl = std::move(root_crl);
    off.collateral.pck_crl = std::move(pck_crl);
    return ReasonOfVerify(off);
  };
  const std::vector<uint8_t> root_crl = world.collateral.root_crl;
  const std::vector<uint8_t> pck_crl = world.collateral.pck_crl;
  EXPECT_EQ(with(pck_crl, root_crl), "tdx-root-crl");
  EXPECT_EQ(with(root_crl, root_crl), "tdx-pck-crl");
  // The right name, another key.
  EXPECT_EQ(with(MakeTdxCrl({}, plan_.root.common_name, plan_.ca_key), pck_crl), "tdx-root-crl");
  EXPECT_EQ(with(root_crl, MakeTdxCrl({}, plan_.ca.common_name, plan_.root_key)), "tdx-pck-crl");
  // The right key, another name.
  EXPECT_EQ(with(root_crl, MakeTdxCrl({}, "Intel SGX PCK Processor CA", plan_.ca_key)),
            "tdx-pck-crl");
  // No list at all.
  EXPECT_EQ(with({1, 2, 3}, pck_crl), "tdx-root-crl");
  std::vector<uint8_t> trailing = pck_crl;
  trailing.push_back(0);
  EXPECT_EQ(with(root_crl, trailing), "tdx-pck-crl");
}

TEST_F(TdxRevocationTest, ValidUntilTheFirstOfAllEnds) {
  const auto valid_until = [](const TdxPlan& plan) {
    const TdxWorld world = BuildTdxWorld(plan);
    const auto verified =
        VerifyTdxQuote(world.quote, world.collateral, world.root, OptionsOfPlan());
    EXPECT_TRUE(verified.ok());
    if (!verified.ok()) return UnixTime{0};
    EXPECT_TRUE(verified->revocation_checked());
    return verified->valid_until();
  };
  EXPECT_EQ(valid_until(plan_), kNow + 3600);
  TdxPlan plan = plan_;
  plan.root_crl.next_update = kNow + 10;
  EXPECT_EQ(valid_until(plan), kNow + 10);
  plan.pck_crl.next_update = kNow + 9;
  EXPECT_EQ(valid_until(plan), kNow + 9);
  plan.tcb_info.window.next_update = kNow + 8;
  EXPECT_EQ(valid_until(plan), kNow + 8);
  plan.qe_identity.window.next_update = kNow + 7;
  EXPECT_EQ(valid_until(plan), kNow + 7);
  plan.pck.not_after = kNow + 6;
  EXPECT_EQ(valid_until(plan), kNow + 6);
}

}  // namespace
}  // namespace talaria::attest
