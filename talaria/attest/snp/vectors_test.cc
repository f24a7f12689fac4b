// The genuine vectors of testdata/attestation/snp against expected.json: fields, verification at
// their time, and what policies say of those that must be refused.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "talaria/attest/testing/snp_case.h"

namespace talaria::attest {
namespace {

using namespace snp_case;
using Json = nlohmann::json;

const Json& Expected() {
  static const Json json = [] {
    const Buffer text = Load("expected.json");
    return Json::parse(text.begin(), text.end()).at("snp");
  }();
  return json;
}

SnpProduct ProductOf(const Json& vector) {
  const std::string name = vector.at("product");
  for (const SnpProduct product : kProducts) {
    std::string lower(SnpProductName(product));
    lower[0] = static_cast<char>(lower[0] + ('a' - 'A'));
    if (lower == name) return product;
  }
  ADD_FAILURE() << name;
  return SnpProduct::kMilan;
}

SnpVerifyOptions OptionsOf(const Json& vector) {
  SnpVerifyOptions options = Options(vector.at("verify_at_unix").get<UnixTime>());
  if (vector.at("fields").at("version") == 2) options.version_2_product = ProductOf(vector);
  return options;
}

Result<VerifiedSnpReport> Verify(const std::string& name) {
  return VerifySnpReport(Load("snp/" + name + "/report.bin"), Load("snp/" + name + "/vek.der"),
                         PinnedAmdRoots(), OptionsOf(Expected().at(name)));
}

std::string TcbHex(SnpProduct product, const TcbVersion& tcb) {
  const uint8_t milan[8] = {tcb.boot_loader, tcb.tee, 0, 0, 0, 0, tcb.snp, tcb.microcode};
  const uint8_t turin[8] = {tcb.fmc, tcb.boot_loader, tcb.tee, tcb.snp, 0, 0, 0, tcb.microcode};
  return ToHex(product == SnpProduct::kTurin ? turin : milan);
}

std::string FirmwareText(const SnpFirmware& firmware) {
  return std::to_string(firmware.major) + "." + std::to_string(firmware.minor) + "." +
         std::to_string(firmware.build);
}

Json FieldsOf(const SnpReport& r) {
  const uint64_t bits = r.policy;
  const bool vlek = r.signing_key == SnpSigningKey::kVlek;
  return {{"version", r.version},
          {"guest_svn", r.guest_svn},
          {"policy", r.policy},
          {"family_id", ToHex(r.family_id)},
          {"image_id", ToHex(r.image_id)},
          {"vmpl", r.vmpl},
          {"sig_algo", 1},
          {"current_tcb", TcbHex(r.product, r.current_tcb)},
          {"platform_info", r.platform_info},
          {"flags", (r.author_key_enabled ? 1 : 0) | (r.mask_chip_key ? 2 : 0) | (vlek ? 4 : 0)},
          {"report_data", ToHex(r.report_data)},
          {"measurement", ToHex(r.measurement)},
          {"host_data", ToHex(r.host_data)},
          {"id_key_digest", ToHex(r.id_key_digest)},
          {"author_key_digest", ToHex(r.author_key_digest)},
          {"report_id", ToHex(r.report_id)},
          {"report_id_ma", ToHex(r.report_id_ma)},
          {"reported_tcb", TcbHex(r.product, r.reported_tcb)},
          {"cpuid", {r.cpuid[0], r.cpuid[1], r.cpuid[2]}},
          {"chip_id", ToHex(r.chip_id)},
          {"committed_tcb", TcbHex(r.product, r.committed_tcb)},
          {"cur_fw", FirmwareText(r.current_firmware)},
          {"com_fw", FirmwareText(r.committed_firmware)},
          {"launch_tcb", TcbHex(r.product, r.launch_tcb)},
          {"launch_mit", r.launch_mitigations},
          {"current_mit", r.current_mitigations},
          {"debug", (bits & snp_guest_policy::kDebug) != 0},
          {"migrate_ma", (bits & snp_guest_policy::kMigrateMa) != 0},
          {"smt", (bits & snp_guest_policy::kSmt) != 0},
          {"rsvd1", (bits & snp_guest_policy::kMustBeOne) != 0},
          {"signing_key", vlek ? "VLEK" : "VCEK"},
          {"mask_chip_key", r.mask_chip_key},
          {"author_key_en", r.author_key_enabled}};
}

// A policy that pins exactly what a report says, with strict answers to everything else.
SnpPolicy PolicyOf(const SnpReport& report) {
  SnpPolicy policy = GoodPolicy();
  policy.products = std::vector<SnpProductPolicy>{{.product = report.product,
                                                   .min_tcb = report.reported_tcb,
                                                   .required_platform_info = 0,
                                                   .required_launch_mitigations = 0,
                                                   .required_current_mitigations = 0}};
  policy.measurements = std::vector{report.measurement};
  policy.host_data = std::vector{report.host_data};
  policy.id_key_digests = std::vector{report.id_key_digest};
  policy.author_key_digests = std::vector{report.author_key_digest};
  policy.family_ids = std::vector{report.family_id};
  policy.image_ids = std::vector{report.image_id};
  policy.min_guest_svn = report.guest_svn;
  policy.allow_smt = true;  // all genuine ones have it
  return policy;
}

TEST(SnpVectors, ThereAreEleven) { EXPECT_EQ(Expected().size(), 11u); }

TEST(SnpVectors, TheFieldsAreTheExpectedOnes) {
  for (const auto& [name, vector] : Expected().items()) {
    SCOPED_TRACE(name);
    const Buffer bytes = Load("snp/" + name + "/report.bin");
    const auto report = ParseSnpReport(bytes, ProductOf(vector));
    ASSERT_TRUE(report.ok()) << report.status().ToString();
    EXPECT_EQ(FieldsOf(*report), vector.at("fields"));
    EXPECT_EQ(report->product, ProductOf(vector));
    // The writer of the tests' own reports knows every byte of them too.
    Buffer again = EncodeSnpReport(*report);
    EXPECT_EQ(ToHex(Bytes(again).first(kSnpSignedBytes)),
              ToHex(Bytes(bytes).first(kSnpSignedBytes)));
  }
}

TEST(SnpVectors, AllVerifyAtTheirTime) {
  for (const auto& [name, vector] : Expected().items()) {
    SCOPED_TRACE(name);
    const auto verified = Verify(name);
    ASSERT_TRUE(verified.ok()) << verified.status().ToString();
    const Json& csp_id = vector.at("checks").at("csp_id");
    EXPECT_EQ(verified->csp_id(), csp_id.is_null() ? "" : csp_id.get<std::string>());
    const Buffer bytes = Load("snp/" + name + "/report.bin");
    EXPECT_EQ(verified->signed_digest(), Sha256Of(Bytes(bytes).first(kSnpSignedBytes)));
  }
}

TEST(SnpVectors, TheHostsTablesServeAsWell) {
  for (const char* name : {"milan_v5_bound", "genoa_v3", "turin_v5", "milan_v3_vlek_aws"}) {
    const std::string folder = "snp/" + std::string(name) + "/";
    EXPECT_EQ(
        Outcome(VerifySnpReportWithTable(Load(folder + "report.bin"), Load(folder + "auxblob.bin"),
                                         PinnedAmdRoots(), OptionsOf(Expected().at(name)))),
        "")
        << name;
  }
}

TEST(SnpVectors, TheCompiledInRootsAreThoseOfTheFiles) {
  ASSERT_EQ(PinnedAmdRoots().products.size(), 3u);
  for (const SnpProductRoots& roots : PinnedAmdRoots().products) {
    std::string name(SnpProductName(roots.product));
    name[0] = static_cast<char>(name[0] + ('a' - 'A'));
    const auto load = [&](const char* which) {
      const Buffer pem = Load("roots/amd/" + name + "_" + which + ".pem");
      return Certificate::FromPem({reinterpret_cast<const char*>(pem.data()), pem.size()}, 1, "pem")
          ->front();
    };
    EXPECT_EQ(roots.ark, load("ark"));
    EXPECT_EQ(roots.ask, load("ask"));
    EXPECT_EQ(roots.asvk, load("asvk"));
    EXPECT_EQ(roots.ark.SpkiSha256(), roots.ark_spki_sha256);
  }
}

TEST(SnpVectors, APolicyWithTheirValuesAcceptsThoseThatAreMeantToBe) {
  size_t accepted = 0;
  for (const auto& [name, vector] : Expected().items()) {
    if (!vector.at("expected").get<std::string>().starts_with("accept")) continue;
    SCOPED_TRACE(name);
    const auto verified = Verify(name);
    SnpPolicy policy = PolicyOf(verified->report());
    if (name == "milan_v5_bound") policy.vmpl = 1;
    EXPECT_EQ(Outcome(CheckSnpPolicy(*verified, policy, verified->report().report_data)), "");
    ++accepted;
  }
  EXPECT_EQ(accepted, 8u);
}

std::string CheckWithItsValues(const std::string& name, void (*change)(SnpPolicy&)) {
  const auto verified = Verify(name);
  SnpPolicy policy = PolicyOf(verified->report());
  change(policy);
  return Outcome(CheckSnpPolicy(*verified, policy, verified->report().report_data));
}

constexpr char kAws[] = "CN=cc-us-east-2.amazonaws.com";

TEST(SnpVectors, Case21Debug) {
  EXPECT_EQ(CheckWithItsValues("milan_v2_debug", [](SnpPolicy&) {}), "snp-debug");
}

TEST(SnpVectors, Case22Vmpl1) {
  EXPECT_EQ(CheckWithItsValues("milan_v5_bound", [](SnpPolicy&) {}), "snp-vmpl");
  EXPECT_EQ(
      CheckWithItsValues("milan_v3_vlek_aws",
                         [](SnpPolicy& p) { p.vlek_csp_ids = std::vector<std::string>{kAws}; }),
      "snp-vmpl");
}

TEST(SnpVectors, Case24CurrentAheadOfCommitted) {
  EXPECT_EQ(CheckWithItsValues("milan_v2_rolledback", [](SnpPolicy&) {}), "snp-provisional");
  EXPECT_EQ(CheckWithItsValues("milan_v2_rolledback",
                               [](SnpPolicy& p) { p.allow_provisional_firmware = true; }),
            "");
}

TEST(SnpVectors, Case12And20AVlekNeedsEveryOneOfItsExceptions) {
  EXPECT_EQ(CheckWithItsValues("milan_v3_vlek_aws", [](SnpPolicy&) {}), "snp-vlek");
  const auto all = [](SnpPolicy& p) {
    p.vlek_csp_ids = std::vector<std::string>{kAws};
    p.vmpl = 1;
    p.allow_provisional_firmware = true;
  };
  EXPECT_EQ(CheckWithItsValues("milan_v3_vlek_aws", all), "");
  EXPECT_EQ(CheckWithItsValues("milan_v3_vlek_aws",
                               [](SnpPolicy& p) {
                                 p.vlek_csp_ids = std::vector<std::string>{kAws};
                                 p.vmpl = 1;
                               }),
            "snp-provisional");
  EXPECT_EQ(CheckWithItsValues("milan_v3_vlek_aws",
                               [](SnpPolicy& p) {
                                 p.vlek_csp_ids = std::vector<std::string>{kAws};
                                 p.vmpl = 1;
                                 p.allow_provisional_firmware = true;
                                 p.chips = SnpChips::Listed({SnpChipId{}});
                               }),
            "snp-chip-not-allowed");
}

TEST(SnpVectors, Case12AGenuineVlekOfAnotherCloud) {
  EXPECT_EQ(CheckWithItsValues("milan_v3_vlek_aws",
                               [](SnpPolicy& p) {
                                 p.vlek_csp_ids =
                                     std::vector<std::string>{"CN=cc-eu-west-1.amazonaws.com"};
                               }),
            "snp-vlek");
}

TEST(SnpVectors, Case14AVlekAfterItsYear) {
  SnpVerifyOptions options = Options(1765500000);  // 2025-12-12
  EXPECT_EQ(
      Outcome(VerifySnpReport(Load("snp/milan_v3_vlek_aws/report.bin"),
                              Load("snp/milan_v3_vlek_aws/vek.der"), PinnedAmdRoots(), options)),
      "snp-expired");
}

// SHA-512(nonce || public key), computed with `sha512sum`.
constexpr std::string_view kBoundReportData =
    "3a6753fd4b194de53824d7fd5b45e251cc19a32a71dd5ba3e131fe19f2adbe86"
    "d658c147479571226e0f294eb7e44abb6c1673f39a5378ac25cd5d6268b91f1a";

TEST(SnpVectors, Case26AReportBoundToAKey) {
  const auto verified = Verify("milan_v5_bound");
  SnpPolicy policy = PolicyOf(verified->report());
  policy.vmpl = 1;
  ReportData expected{};
  ASSERT_TRUE(FromHex(kBoundReportData, expected));
  EXPECT_EQ(Outcome(CheckSnpPolicy(*verified, policy, expected)), "");
  for (const size_t at : {0u, 31u, 32u, 63u}) {
    ReportData wrong = expected;
    wrong[at] ^= 1;
    EXPECT_EQ(Outcome(CheckSnpPolicy(*verified, policy, wrong)), "snp-report-data") << at;
  }
}

TEST(SnpVectors, Case26ReportsThatAreBoundToNothingOfOurs) {
  ReportData wanted{};
  ASSERT_TRUE(FromHex(kBoundReportData, wanted));
  // All zero; and a paravisor's digest of something else with a tail of zeros.
  for (const char* name : {"milan_v5", "genoa_v3_azure_paravisor"}) {
    const auto verified = Verify(name);
    EXPECT_EQ(Outcome(CheckSnpPolicy(*verified, PolicyOf(verified->report()), wanted)),
              "snp-report-data")
        << name;
  }
  const Buffer runtime = Load("snp/genoa_v3_azure_paravisor/runtime_data.json");
  const Digest digest = Sha256Of(runtime);
  const auto azure = Verify("genoa_v3_azure_paravisor");
  EXPECT_TRUE(std::equal(digest.begin(), digest.end(), azure->report().report_data.begin()));
  std::copy(digest.begin(), digest.end(), wanted.begin());  // the first half right, the tail not
  EXPECT_EQ(Outcome(CheckSnpPolicy(*azure, PolicyOf(azure->report()), wanted)), "snp-report-data");
}

TEST(SnpVectors, Case9KeysOfOtherChipsAndProducts) {
  const auto verify = [](const char* report, const char* vek, UnixTime now) {
    SnpVerifyOptions options = Options(now);
    options.version_2_product = SnpProduct::kMilan;
    return Outcome(VerifySnpReport(Load("snp/" + std::string(report)),
                                   Load("snp/" + std::string(vek)), PinnedAmdRoots(), options));
  };
  EXPECT_EQ(verify("milan_v3/report.bin", "milan_v5/vek.der", kNow), "snp-signature");
  EXPECT_EQ(verify("milan_v5/report.bin", "milan_v3/vek.der", kNow), "snp-signature");
  EXPECT_EQ(verify("milan_v3/report.bin", "genoa_v3/vek.der", kNow), "vek-product");
  EXPECT_EQ(verify("turin_v5/report.bin", "milan_v3/vek.der", kNow), "vek-product");
  const UnixTime then = Expected().at("milan_v2_rolledback").at("verify_at_unix").get<UnixTime>();
  for (const char* vek : {"milan_v2_rolledback/vek_other_chip_legacy.der",
                          "milan_v2_rolledback/vek_other_chip_octetstring.der"}) {
    EXPECT_EQ(verify("milan_v2_rolledback/report.bin", vek, then), "snp-chain") << vek;
  }
}

}  // namespace
}  // namespace talaria::attest
