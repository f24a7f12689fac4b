#include "talaria/attest/collateral_update.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include "talaria/attest/refusal.h"
#include "talaria/attest/tdx/testing.h"
#include "talaria/attest/testing/collateral_folder.h"
#include "talaria/attest/testing/snp_authority.h"

namespace talaria::attest {
namespace {

using testing::HasSubstr;
using Change = CollateralChange;

constexpr UnixTime kNow = kTdxPlanNow;
constexpr UnixTime kDay = 86'400;

const SnpAuthority& Amd() {
  static const SnpAuthority authority =
      SnpAuthority::Create({.product = SnpProduct::kGenoa}).value();
  return authority;
}

// A plan whose lists have numbers, and a later edition of it under the same keys.
struct Editions {
  TdxPlan plan = DefaultTdxPlan();
  Editions() { plan.root_crl.number = plan.pck_crl.number = 7; }
};

std::string CaChain(const TdxWorld& world) { return TdxPem(world.ca_der) + TdxPem(world.root_der); }

class CollateralUpdateTest : public testing::Test {
 protected:
  CollateralUpdate Open(const IntelRoot& root = PinnedIntelRoot()) const {
    auto update = CollateralUpdate::Open(
        {.folder = folder_.path(), .now = kNow, .amd = Amd().roots(), .intel = root});
    EXPECT_TRUE(update.ok()) << update.status().ToString();
    return std::move(update).value();
  }
  Result<Change> Put(const TdxWorld& world) const {
    return Open(world.root).ReplaceTdx(Fmspc_(), world.collateral, CaChain(world));
  }
  static const Fmspc& Fmspc_() {
    static const Fmspc fmspc = DefaultTdxPlan().platform.fmspc;
    return fmspc;
  }
  Result<Change> PutCrl(const std::vector<uint8_t>& der) const {
    return Open().ReplaceAmdCrl(SnpProduct::kGenoa, der);
  }
  void ExpectRefused(const Result<Change>& result, std::string_view reason,
                     const std::string& words = "") const {
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(ReasonOf(result.status()), reason) << result.status().ToString();
    EXPECT_THAT(result.status().message(), HasSubstr(words));
    EXPECT_FALSE(std::filesystem::exists(folder_.path() + "/.new"));
  }
  // Of the TD's platform, as the loader reads it.
  TdxCollateral Loaded() const {
    const auto collateral = LoadCollateral(folder_.path());
    EXPECT_TRUE(collateral.ok()) << collateral.status().ToString();
    return collateral.ok() && collateral->tdx.size() == 1 ? collateral->tdx[0].files
                                                          : TdxCollateral();
  }

  const CollateralFolder folder_;
};

TEST_F(CollateralUpdateTest, APlatformIsNewThenUnchangedThenRenewed) {
  Editions editions;
  const TdxWorld first = BuildTdxWorld(editions.plan);
  EXPECT_EQ(Put(first).value(), Change::kNew);
  EXPECT_EQ(Loaded(), first.collateral);
  EXPECT_EQ(Put(first).value(), Change::kUnchanged);
  editions.plan.tcb_info.window.issue_date += 60;
  editions.plan.qe_identity.window.issue_date += 60;
  editions.plan.root_crl.number = editions.plan.pck_crl.number = 0x100;
  const TdxWorld second = BuildTdxWorld(editions.plan);
  EXPECT_EQ(Put(second).value(), Change::kRenewed);
  EXPECT_EQ(Loaded(), second.collateral);
  EXPECT_FALSE(std::filesystem::exists(folder_.path() + "/.new"));
}

TEST_F(CollateralUpdateTest, NothingGoesBackToWhatIsOlder) {
  Editions editions;
  const TdxWorld first = BuildTdxWorld(editions.plan);
  ASSERT_TRUE(Put(first).ok());
  const auto older = [&](auto change, const std::string& file) {
    Editions other = editions;
    change(other.plan);
    ExpectRefused(Put(BuildTdxWorld(other.plan)), "collateral-older", file);
    EXPECT_EQ(Loaded(), first.collateral);
  };
  older([](TdxPlan& p) { p.tcb_info.window.issue_date -= 1; }, "tcb_info.json");
  older([](TdxPlan& p) { p.tcb_info.window.tcb_evaluation_data_number -= 1; }, "tcb_info.json");
  older([](TdxPlan& p) { p.qe_identity.window.issue_date -= 1; }, "qe_identity.json");
  older([](TdxPlan& p) { p.qe_identity.window.tcb_evaluation_data_number -= 1; },
        "remove that first");
  older([](TdxPlan& p) { p.root_crl.this_update -= 1; }, "root_ca_crl.der");
  older([](TdxPlan& p) { p.root_crl.number = 6; }, "number 0x06");
  older([](TdxPlan& p) { p.pck_crl.number = std::nullopt; }, "without a number");
  older([](TdxPlan& p) { p.pck_crl.this_update -= 1; }, "pck_crl.der");
}

TEST_F(CollateralUpdateTest, WhatIsNotOfTheRootReplacesNothing) {
  Editions editions;
  const TdxWorld good = BuildTdxWorld(editions.plan);
  ASSERT_TRUE(Put(good).ok());
  const auto refused = [&](auto change, std::string_view reason) {
    TdxWorld bad = good;
    change(bad);
    ExpectRefused(Put(bad), reason);
    EXPECT_EQ(Loaded(), good.collateral);
  };
  const auto flip = [](auto& text) { text[text.size() / 2] ^= 1; };
  refused([&](TdxWorld& w) { flip(w.collateral.tcb_info); }, "tdx-tcb-info-signature");
  refused([&](TdxWorld& w) { flip(w.collateral.qe_identity); }, "tdx-qe-identity-signature");
  refused([](TdxWorld& w) { w.collateral.root_crl.back() ^= 1; }, "tdx-root-crl");
  refused([](TdxWorld& w) { w.collateral.pck_crl.back() ^= 1; }, "tdx-pck-crl");
  refused([](TdxWorld& w) { w.collateral.pck_crl.clear(); }, "tdx-crl-missing");
  refused([](TdxWorld& w) { w.collateral.tcb_info_chain_pem.clear(); }, "tdx-collateral-chain");
  refused([](TdxWorld& w) { w.ca_der = w.signer_der; }, "tdx-pck-name");
  refused([](TdxWorld& w) { w.root_der = w.ca_der; }, "tdx-root");
  refused([](TdxWorld& w) { w.root = PinnedIntelRoot(); }, "tdx-root");
  refused(
      [](TdxWorld& w) {
        TdxPlan other = DefaultTdxPlan();
        w.collateral.pck_crl = BuildTdxWorld(other).collateral.pck_crl;
      },
      "tdx-pck-crl");
  // Revoked or expired.
  const auto planned = [&](auto change, std::string_view reason) {
    Editions other = editions;
    change(other.plan);
    ExpectRefused(Put(BuildTdxWorld(other.plan)), reason);
  };
  planned([](TdxPlan& p) { p.root_crl.revoked = {p.ca.serial}; }, "tdx-revoked");
  planned([](TdxPlan& p) { p.root_crl.revoked = {p.signer.serial}; }, "tdx-revoked");
  planned([](TdxPlan& p) { p.tcb_info.window.next_update = kNow - 1; }, "tdx-tcb-info-expired");
  planned([](TdxPlan& p) { p.pck_crl.next_update = kNow - 1; }, "tdx-pck-crl-expired");
  planned([](TdxPlan& p) { p.ca.not_after = kNow - 1; }, "tdx-pck-expired");
  // Of another platform than was asked for.
  ExpectRefused(Open(good.root).ReplaceTdx(Fmspc{1}, good.collateral, CaChain(good)),
                "tdx-tcb-info-platform");
}

TEST_F(CollateralUpdateTest, ListsOfAmd) {
  const auto list = [](UnixTime from, UnixTime to) { return Amd().MakeCrl(from, to, {}); };
  const auto first = list(kNow - kDay, kNow + kDay);
  EXPECT_EQ(PutCrl(first).value(), Change::kNew);
  EXPECT_EQ(PutCrl(first).value(), Change::kUnchanged);
  EXPECT_EQ(PutCrl(list(kNow - 60, kNow + kDay)).value(), Change::kRenewed);
  ExpectRefused(PutCrl(first), "collateral-older", "amd/genoa.crl");
  ExpectRefused(PutCrl(list(kNow - 2 * kDay, kNow - 1)), "crl-expired");
  ExpectRefused(PutCrl(Amd().MakeCrlOfAsk(kNow - 1, kNow + kDay)), "crl-invalid");
  ExpectRefused(PutCrl({1, 2, 3}), "crl-invalid");
  ExpectRefused(PutCrl({}), "crl-invalid");
  auto flipped = list(kNow - 30, kNow + kDay);
  flipped.back() ^= 1;
  ExpectRefused(PutCrl(flipped), "crl-invalid");
  ExpectRefused(Open().ReplaceAmdCrl(SnpProduct::kTurin, first), "snp-roots");
  EXPECT_EQ(LoadCollateral(folder_.path())->amd[0].crl.this_update(), kNow - 60);
}

// As on a full disk: the old files stay, and nothing half is left.
TEST_F(CollateralUpdateTest, AFullDiskLeavesTheOldFiles) {
  Editions editions;
  const TdxWorld first = BuildTdxWorld(editions.plan);
  ASSERT_TRUE(Put(first).ok());
  editions.plan.tcb_info.window.issue_date += 60;
  const TdxWorld second = BuildTdxWorld(editions.plan);
  const auto crl = Amd().MakeCrl(kNow - kDay, kNow + kDay, {});
  const auto ignored = signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{.rlim_cur = 100, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto platform = Put(second);
  const auto list = PutCrl(crl);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, ignored);
  EXPECT_EQ(platform.status().code(), Code::kResourceExhausted) << platform.status().ToString();
  EXPECT_THAT(platform.status().message(), HasSubstr(folder_.path()));
  EXPECT_EQ(list.status().code(), Code::kResourceExhausted);
  EXPECT_EQ(Loaded(), first.collateral);
  EXPECT_FALSE(std::filesystem::exists(folder_.path() + "/.new"));
  EXPECT_EQ(Put(second).value(), Change::kRenewed);
}

TEST_F(CollateralUpdateTest, WhatAKilledProcessLeftDoesNoHarm) {
  const TdxWorld world = BuildTdxWorld(Editions().plan);
  folder_.Write(".new/x/half", std::string("x"));
  EXPECT_EQ(Put(world).value(), Change::kNew);
  folder_.Write(".new/x/half", std::string("x"));
  EXPECT_EQ(Loaded(), world.collateral);  // a reader passes it over
}

TEST_F(CollateralUpdateTest, OneAtATimeAndOnlyAFolderThatIsInOrder) {
  {
    const CollateralUpdate update = Open();
    const auto second = CollateralUpdate::Open({.folder = folder_.path(), .now = kNow});
    EXPECT_EQ(second.status().code(), Code::kUnavailable);
    EXPECT_THAT(second.status().message(), HasSubstr("updated by another process"));
  }
  folder_.Write("amd/genoa.crl", std::string("x"));
  EXPECT_EQ(CollateralUpdate::Open({.folder = folder_.path(), .now = kNow}).status().code(),
            Code::kCorrupt);
  folder_.Write("file", std::string("x"));
  const auto file = CollateralUpdate::Open({.folder = folder_.path() + "/file", .now = kNow});
  EXPECT_EQ(file.status().code(), Code::kIo) << file.status().ToString();
}

}  // namespace
}  // namespace talaria::attest
