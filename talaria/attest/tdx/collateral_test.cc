// Who signed the collateral, and when. Where the other negative cases are: testing.h.
#include "talaria/attest/tdx/collateral.h"

#include <gtest/gtest.h>

#include "talaria/attest/tdx/testing.h"

namespace talaria::attest {
namespace {

constexpr UnixTime kNow = kTdxPlanNow;

class TdxCollateralTest : public testing::Test {
 protected:
  template <class Edit>
  std::string ReasonWith(Edit edit) const {
    TdxWorld world = world_;
    edit(world.collateral);
    return ReasonOfVerify(world);
  }

  const TdxPlan plan_ = DefaultTdxPlan();
  const TdxWorld world_ = BuildTdxWorld(plan_);
};

TEST_F(TdxCollateralTest, Case41_EveryByteIsSigned) {
  for (size_t at = 0; at < world_.collateral.tcb_info.size(); at += 37) {
    EXPECT_EQ(ReasonWith([at](TdxCollateral& c) { c.tcb_info[at] ^= 1; }),
              "tdx-tcb-info-signature");
  }
  for (size_t at = 0; at < world_.collateral.qe_identity.size(); at += 37) {
    EXPECT_EQ(ReasonWith([at](TdxCollateral& c) { c.qe_identity[at] ^= 1; }),
              "tdx-qe-identity-signature");
  }
  for (size_t at = 0; at < 128; at += 13) {
    EXPECT_EQ(ReasonWith([at](TdxCollateral& c) {
                char& digit = c.tcb_info_signature_hex[at];
                digit = digit == '0' ? '1' : '0';
              }),
              "tdx-tcb-info-signature");
  }
}

TEST_F(TdxCollateralTest, Case41_WrittenAnew) {
  // The same JSON to a parser, other bytes.
  EXPECT_EQ(ReasonWith([](TdxCollateral& c) { c.tcb_info += "\n"; }), "tdx-tcb-info-signature");
  EXPECT_EQ(ReasonWith([](TdxCollateral& c) {
              c.qe_identity = Replaced(c.qe_identity, "\"version\":2", "\"version\": 2");
            }),
            "tdx-qe-identity-signature");
}

TEST_F(TdxCollateralTest, Case41_Signatures) {
  const TdxCollateral& c0 = world_.collateral;
  EXPECT_EQ(ReasonWith([&c0](TdxCollateral& c) {
              c.tcb_info_signature_hex = c0.qe_identity_signature_hex;
            }),
            "tdx-tcb-info-signature");
  EXPECT_EQ(ReasonWith([&c0](TdxCollateral& c) {
              c.qe_identity_signature_hex = c0.tcb_info_signature_hex;
            }),
            "tdx-qe-identity-signature");
  // By somebody else of the same Intel.
  for (const TdxTestKey& key : {plan_.pck_key, plan_.ca_key, plan_.root_key}) {
    EXPECT_EQ(ReasonWith([&key](TdxCollateral& c) {
                c.tcb_info_signature_hex = ToHex(key.Sign(AsBytes(c.tcb_info)));
              }),
              "tdx-tcb-info-signature");
  }
  for (const std::string& bad : {std::string(), std::string("00"), std::string(128, '0'),
                                 std::string(128, 'g'), c0.tcb_info_signature_hex + "\n"}) {
    EXPECT_EQ(ReasonWith([&bad](TdxCollateral& c) { c.tcb_info_signature_hex = bad; }),
              "tdx-tcb-info-signature");
  }
}

TEST_F(TdxCollateralTest, Case41_ChainsOfOtherSigners) {
  const std::string root = TdxPem(world_.root_der);
  const auto with_chain = [this](const std::string& chain, const TdxTestKey& key) {
    return ReasonWith([&](TdxCollateral& c) {
      c.tcb_info_chain_pem = chain;
      c.tcb_info_signature_hex = ToHex(key.Sign(AsBytes(c.tcb_info)));
    });
  };
  EXPECT_EQ(with_chain(TdxPem(world_.signer_der) + root, plan_.signer_key), "accepted");
  EXPECT_EQ(with_chain(TdxPem(world_.pck_der) + root, plan_.pck_key), "tdx-collateral-chain");
  EXPECT_EQ(with_chain(TdxPem(world_.ca_der) + root, plan_.ca_key), "tdx-collateral-chain");
  EXPECT_EQ(with_chain(root + root, plan_.root_key), "tdx-collateral-chain");
  EXPECT_EQ(with_chain(TdxPem(world_.signer_der), plan_.signer_key), "tdx-collateral-chain");
  EXPECT_EQ(with_chain(root + TdxPem(world_.signer_der), plan_.signer_key), "tdx-collateral-chain");
  // Another Intel with the same names, with its own root and with ours.
  const TdxPlan other = DefaultTdxPlan();
  const TdxWorld others = BuildTdxWorld(other);
  EXPECT_EQ(with_chain(others.collateral.tcb_info_chain_pem, other.signer_key),
            "tdx-collateral-chain");
  EXPECT_EQ(with_chain(TdxPem(others.signer_der) + root, other.signer_key), "tdx-collateral-chain");
  // The QE identity's chain is checked as well.
  EXPECT_EQ(ReasonWith([&others](TdxCollateral& c) {
              c.qe_identity_chain_pem = others.collateral.qe_identity_chain_pem;
            }),
            "tdx-collateral-chain");
}

TEST_F(TdxCollateralTest, Case42_Age) {
  struct Window {
    UnixTime issue_date, next_update;
    bool good;
  };
  for (const Window window : {Window{kNow - 10, kNow - 1, false},
                              Window{kNow + 1, kNow + 10, false}, Window{kNow, kNow, true}}) {
    TdxPlan plan = plan_;
    plan.tcb_info.window.issue_date = window.issue_date;
    plan.tcb_info.window.next_update = window.next_update;
    EXPECT_EQ(ReasonOfVerify(plan), window.good ? "accepted" : "tdx-tcb-info-expired");
    plan = plan_;
    plan.qe_identity.window.issue_date = window.issue_date;
    plan.qe_identity.window.next_update = window.next_update;
    EXPECT_EQ(ReasonOfVerify(plan), window.good ? "accepted" : "tdx-qe-identity-expired");
  }
}

TEST_F(TdxCollateralTest, Case42_RollbackInsideTheWindow) {
  TdxPlan plan = plan_;
  plan.tcb_info.window.tcb_evaluation_data_number = 16;
  EXPECT_EQ(ReasonOfVerify(plan), "tdx-collateral-rollback");
  plan = plan_;
  plan.qe_identity.window.tcb_evaluation_data_number = 16;
  EXPECT_EQ(ReasonOfVerify(plan), "tdx-collateral-rollback");
  plan.tcb_info.window.tcb_evaluation_data_number = 18;
  const TdxWorld world = BuildTdxWorld(plan);
  TdxVerifyOptions options = OptionsOfPlan();
  options.min_tcb_evaluation_data_number = uint32_t{16};
  const auto verified = VerifyTdxQuote(world.quote, world.collateral, world.root, options);
  ASSERT_TRUE(verified.ok()) << verified.status().ToString();
  EXPECT_EQ(verified->tcb_evaluation_data_number(), 16u);
}

TEST_F(TdxCollateralTest, Case42_Kind) {
  const std::string info = TcbInfoJson(plan_.tcb_info);
  const std::string identity = QeIdentityJson(plan_.qe_identity);
  const auto with_info = [this](const std::string& text) {
    TdxPlan plan = plan_;
    plan.tcb_info_text = text;
    return ReasonOfVerify(plan);
  };
  const auto with_identity = [this](const std::string& text) {
    TdxPlan plan = plan_;
    plan.qe_identity_text = text;
    return ReasonOfVerify(plan);
  };
  EXPECT_EQ(with_info(Replaced(info, "\"TDX\"", "\"SGX\"")), "tdx-tcb-info-kind");
  EXPECT_EQ(with_info(Replaced(info, "\"version\":3", "\"version\":2")), "tdx-tcb-info-kind");
  EXPECT_EQ(with_info(Replaced(info, "\"version\":3", "\"version\":4")), "tdx-tcb-info-kind");
  EXPECT_EQ(with_info(Replaced(info, "\"tcbType\":0", "\"tcbType\":1")), "tdx-tcb-info-kind");
  EXPECT_EQ(with_identity(Replaced(identity, "\"TD_QE\"", "\"QE\"")), "tdx-qe-identity-kind");
  EXPECT_EQ(with_identity(Replaced(identity, "\"TD_QE\"", "\"QVE\"")), "tdx-qe-identity-kind");
  EXPECT_EQ(with_identity(Replaced(identity, "\"version\":2", "\"version\":1")),
            "tdx-qe-identity-kind");
  EXPECT_EQ(with_identity(info), "tdx-qe-identity-kind");
  EXPECT_EQ(with_info(identity), "tdx-tcb-info-kind");
}

TEST_F(TdxCollateralTest, Case43_OtherPlatforms) {
  TdxPlan plan = plan_;
  plan.tcb_info.fmspc[5] = 1;
  EXPECT_EQ(ReasonOfVerify(plan), "tdx-fmspc");
  plan = plan_;
  plan.tcb_info.pceid[1] = 1;
  EXPECT_EQ(ReasonOfVerify(plan), "tdx-pceid");
  plan.platform.pceid[1] = 1;
  EXPECT_EQ(ReasonOfVerify(plan), "accepted");
}

}  // namespace
}  // namespace talaria::attest
