// What a verified report may say: negative cases 21 to 28 of doc/attestation.md. The genuine
// reports among them are in vectors_test.cc.
#include "talaria/attest/snp/policy.h"

#include <gtest/gtest.h>

#include "talaria/attest/testing/snp_case.h"

namespace talaria::attest {
namespace {

using namespace snp_case;

static_assert(!std::is_default_constructible_v<SnpPolicy>);
static_assert(!std::is_default_constructible_v<SnpProductPolicy>);

Status CheckStatus(const SnpReport& report, const SnpPolicy& policy) {
  const auto verified = SignAndVerify(report);
  TALARIA_CHECK(verified.ok());
  return CheckSnpPolicy(*verified, policy, Filled<64>(0xda));
}
std::string Check(const SnpReport& report, const SnpPolicy& policy = GoodPolicy()) {
  return Outcome(CheckStatus(report, policy));
}
// With one thing changed, in the report or in the policy.
std::string Changed(void (*change)(SnpReport&)) {
  SnpReport report = GoodReport();
  change(report);
  return Check(report);
}
std::string Asked(void (*change)(SnpPolicy&)) {
  SnpPolicy policy = GoodPolicy();
  change(policy);
  return Check(GoodReport(), policy);
}

TEST(SnpPolicy, AcceptsAGoodReportOfEveryProduct) {
  for (const SnpProduct product : kProducts) EXPECT_EQ(Check(GoodReport(product)), "");
}

TEST(SnpPolicy, ARefusalNamesWhatWasFoundAndWhatWasWanted) {
  SnpReport report = GoodReport();
  report.vmpl = 1;
  EXPECT_EQ(CheckStatus(report, GoodPolicy()).message(), "snp-vmpl: found 1, wanted 0");
  report = GoodReport();
  report.launch_tcb.snp = 23;
  EXPECT_EQ(CheckStatus(report, GoodPolicy()).message(),
            "snp-tcb-launch: found fmc 0, bl 4, tee 1, snp 23, ucode 200, wanted at least fmc 0, "
            "bl 4, tee 0, snp 24, ucode 200");
}

TEST(SnpPolicy, Case21GuestPolicyBits) {
  namespace bits = snp_guest_policy;
  EXPECT_EQ(Changed([](SnpReport& r) { r.policy |= bits::kDebug; }), "snp-debug");
  EXPECT_EQ(Changed([](SnpReport& r) { r.policy |= bits::kMigrateMa; }), "snp-migration");
  EXPECT_EQ(Changed([](SnpReport& r) { r.policy &= ~bits::kMustBeOne; }), "snp-guest-policy");
  for (int bit = 26; bit < 64; ++bit) {
    if (bit > 28 && bit < 62) continue;
    SnpReport report = GoodReport();
    report.policy |= 1ull << bit;
    EXPECT_EQ(Check(report), "snp-guest-policy") << bit;
  }
  SnpReport report = GoodReport();
  SnpPolicy policy = GoodPolicy();
  report.policy |= bits::kCxlAllow;
  EXPECT_EQ(Check(report), "snp-cxl");
  policy.allow_cxl = true;
  EXPECT_EQ(Check(report, policy), "");
  report = GoodReport();
  report.policy |= bits::kSmt;
  EXPECT_EQ(Check(report), "snp-smt");
  policy.allow_smt = true;
  EXPECT_EQ(Check(report, policy), "");
}

TEST(SnpPolicy, Case21BitsThatThePolicyDemands) {
  const auto demand = [](SnpPolicy& p) {
    p.required_guest_policy =
        snp_guest_policy::kCiphertextHidingDram | snp_guest_policy::kPageSwapDisable;
  };
  EXPECT_EQ(Asked(demand), "snp-guest-policy");
  SnpPolicy policy = GoodPolicy();
  demand(policy);
  SnpReport report = GoodReport();
  report.policy |= snp_guest_policy::kCiphertextHidingDram;
  EXPECT_EQ(Check(report, policy), "snp-guest-policy");
  report.policy |= snp_guest_policy::kPageSwapDisable;
  EXPECT_EQ(Check(report, policy), "");
}

TEST(SnpPolicy, Case21AMigrationAgent) {
  EXPECT_EQ(Changed([](SnpReport& r) { r.report_id_ma[31] = 0xfe; }), "snp-migration");
  EXPECT_EQ(Changed([](SnpReport& r) { r.report_id_ma = {}; }), "snp-migration");
}

TEST(SnpPolicy, Case22Vmpl) {
  EXPECT_EQ(Changed([](SnpReport& r) { r.vmpl = 3; }), "snp-vmpl");
  // Exactly the one asked for, not "at most".
  EXPECT_EQ(Asked([](SnpPolicy& p) { p.vmpl = 1; }), "snp-vmpl");
}

TEST(SnpPolicy, Case23EachTcbBelowTheFloorAlone) {
  EXPECT_EQ(Changed([](SnpReport& r) { r.reported_tcb.snp = 23; }), "snp-tcb-reported");
  EXPECT_EQ(Changed([](SnpReport& r) { r.committed_tcb.snp = 23; }), "snp-tcb-committed");
  EXPECT_EQ(Changed([](SnpReport& r) { r.launch_tcb.snp = 23; }), "snp-tcb-launch");
}

TEST(SnpPolicy, Case23AFloorIsMetInEveryComponentOrNot) {
  for (uint8_t TcbVersion::*part :
       {&TcbVersion::boot_loader, &TcbVersion::snp, &TcbVersion::microcode}) {
    SnpReport report = GoodReport();
    report.reported_tcb = {.boot_loader = 9, .tee = 9, .snp = 99, .microcode = 255};
    report.reported_tcb.*part = static_cast<uint8_t>(GoodReport().reported_tcb.*part - 1);
    report.current_tcb = report.committed_tcb = report.launch_tcb = report.reported_tcb;
    EXPECT_EQ(Check(report), "snp-tcb-reported");
  }
  SnpPolicy policy = GoodPolicy();
  policy.products->at(2).min_tcb->fmc = 3;
  EXPECT_EQ(Check(GoodReport(SnpProduct::kTurin), policy), "snp-tcb-reported");
}

TEST(SnpPolicy, Case23NothingIsAheadOfCurrent) {
  EXPECT_EQ(Changed([](SnpReport& r) { r.reported_tcb.tee = 2; }), "snp-tcb-order");
  EXPECT_EQ(Changed([](SnpReport& r) { r.committed_tcb.microcode = 201; }), "snp-tcb-order");
}

TEST(SnpPolicy, Case23GuestSvn) {
  EXPECT_EQ(Changed([](SnpReport& r) { r.guest_svn = 2; }), "snp-guest-svn");
  EXPECT_EQ(Changed([](SnpReport& r) { r.guest_svn = 4; }), "");
}

TEST(SnpPolicy, Case24ProvisionalFirmware) {
  const auto newer = {+[](SnpReport& r) { r.current_tcb.microcode = 201; },
                      +[](SnpReport& r) { r.current_firmware.build = 30; },
                      +[](SnpReport& r) { r.current_firmware.minor = 56; },
                      +[](SnpReport& r) { r.current_firmware.major = 2; }};
  SnpPolicy lenient = GoodPolicy();
  lenient.allow_provisional_firmware = true;
  for (const auto change : newer) {
    EXPECT_EQ(Changed(change), "snp-provisional");
    SnpReport report = GoodReport();
    change(report);
    EXPECT_EQ(Check(report, lenient), "");
  }
}

TEST(SnpPolicy, Case25LastByteOfEveryPinnedValue) {
  EXPECT_EQ(Changed([](SnpReport& r) { r.measurement[47] ^= 1; }), "snp-measurement");
  EXPECT_EQ(Changed([](SnpReport& r) { r.host_data[31] ^= 1; }), "snp-host-data");
  EXPECT_EQ(Changed([](SnpReport& r) { r.id_key_digest[47] ^= 1; }), "snp-id-key");
  EXPECT_EQ(Changed([](SnpReport& r) { r.author_key_digest[47] ^= 1; }), "snp-author-key");
  EXPECT_EQ(Changed([](SnpReport& r) { r.family_id[15] ^= 1; }), "snp-family-id");
  EXPECT_EQ(Changed([](SnpReport& r) { r.image_id[15] ^= 1; }), "snp-image-id");
}

TEST(SnpPolicy, Case25AnEmptyListAcceptsNothing) {
  EXPECT_EQ(Asked([](SnpPolicy& p) { p.measurements->clear(); }), "snp-measurement");
  EXPECT_EQ(Asked([](SnpPolicy& p) { p.host_data->clear(); }), "snp-host-data");
  EXPECT_EQ(Asked([](SnpPolicy& p) { p.id_key_digests->clear(); }), "snp-id-key");
  EXPECT_EQ(Asked([](SnpPolicy& p) { p.author_key_digests->clear(); }), "snp-author-key");
  EXPECT_EQ(Asked([](SnpPolicy& p) { p.family_ids->clear(); }), "snp-family-id");
  EXPECT_EQ(Asked([](SnpPolicy& p) { p.image_ids->clear(); }), "snp-image-id");
  EXPECT_EQ(Asked([](SnpPolicy& p) { p.chips = SnpChips::Listed({}); }), "snp-chip-not-allowed");
}

TEST(SnpPolicy, Case25ZerosMeanNoneAndNotAny) {
  EXPECT_EQ(Asked([](SnpPolicy& p) { p.id_key_digests = std::vector{SnpKeyDigest{}}; }),
            "snp-id-key");
  SnpPolicy policy = GoodPolicy();
  policy.author_key_digests = std::vector{SnpKeyDigest{}};
  EXPECT_EQ(Check(GoodReport(), policy), "snp-author-key");
  SnpReport report = GoodReport();
  report.author_key_enabled = false;
  report.author_key_digest = {};
  EXPECT_EQ(Check(report, policy), "");
}

TEST(SnpPolicy, AListOfChips) {
  SnpChipId other = GoodReport().chip_id;
  other[63] ^= 1;
  SnpPolicy policy = GoodPolicy();
  policy.chips = SnpChips::Listed({other});
  EXPECT_EQ(Check(GoodReport(), policy), "snp-chip-not-allowed");
  policy.chips = SnpChips::Listed({other, GoodReport().chip_id});
  EXPECT_EQ(Check(GoodReport(), policy), "");
  // Not even where a VLEK's report names a listed one.
  SnpReport vlek = GoodReport();
  vlek.signing_key = SnpSigningKey::kVlek;
  policy.vlek_csp_ids = std::vector<std::string>{"CN=cloud.test"};
  EXPECT_EQ(Check(vlek, policy), "snp-chip-not-allowed");
}

TEST(SnpPolicy, Case12VlekOnlyWhereAllowed) {
  SnpReport vlek = GoodReport();
  vlek.signing_key = SnpSigningKey::kVlek;
  EXPECT_EQ(Check(vlek), "snp-vlek");
  SnpPolicy policy = GoodPolicy();
  policy.vlek_csp_ids = std::vector<std::string>{"CN=cloud.test"};
  EXPECT_EQ(Check(vlek, policy), "");
}

TEST(SnpPolicy, Case12AVlekOfAnotherCloudIsRefused) {
  SnpReport vlek = GoodReport();
  vlek.signing_key = SnpSigningKey::kVlek;
  SnpPolicy policy = GoodPolicy();
  const auto message = [&](std::vector<std::string> clouds) {
    policy.vlek_csp_ids = std::move(clouds);
    return CheckStatus(vlek, policy).message();
  };
  EXPECT_EQ(message({}), "snp-vlek: found a VLEK of CN=cloud.test, wanted a VCEK");
  EXPECT_EQ(message({"CN=other.test"}),
            "snp-vlek: found a VLEK of CN=cloud.test, wanted a VCEK, or a VLEK of CN=other.test");
  EXPECT_EQ(message({"CN=cloud.tes", "CN=cloud.test2"}),
            "snp-vlek: found a VLEK of CN=cloud.test, wanted a VCEK, or a VLEK of one of 2");
  EXPECT_EQ(message({"CN=other.test", "CN=cloud.test"}), "");
  // A VCEK is of no cloud.
  EXPECT_EQ(Check(GoodReport(), policy), "");
}

TEST(SnpPolicy, Case26AllOfReportData) {
  for (size_t at = 0; at < 64; at += 9) {
    SnpReport report = GoodReport();
    report.report_data[at] ^= 0x10;
    EXPECT_EQ(Check(report), "snp-report-data") << at;
  }
  EXPECT_EQ(Changed([](SnpReport& r) { r.report_data = {}; }), "snp-report-data");
  EXPECT_EQ(Changed([](SnpReport& r) {
              std::fill(r.report_data.begin() + 32, r.report_data.end(), uint8_t{0});
            }),
            "snp-report-data");
}

TEST(SnpPolicy, Case27PlatformInfoAndMitigations) {
  EXPECT_EQ(Changed([](SnpReport& r) { r.platform_info = snp_platform_info::kEcc; }),
            "snp-platform-info");
  EXPECT_EQ(Changed([](SnpReport& r) { r.launch_mitigations = 0x3d; }), "snp-mitigation-launch");
  EXPECT_EQ(Changed([](SnpReport& r) { r.current_mitigations = 0x3e; }), "snp-mitigation-current");
  // Before version 5 a report has no vectors: what is required is lacking.
  EXPECT_EQ(Changed([](SnpReport& r) {
              r.version = 4;
              r.launch_mitigations = r.current_mitigations = 0;
            }),
            "snp-mitigation-launch");
}

TEST(SnpPolicy, Case28ProductsThatAreNotListed) {
  EXPECT_EQ(Asked([](SnpPolicy& p) { p.products->erase(p.products->begin()); }),
            "snp-product-not-allowed");
  EXPECT_EQ(Asked([](SnpPolicy& p) { p.products->clear(); }), "snp-product-not-allowed");
}

}  // namespace
}  // namespace talaria::attest
