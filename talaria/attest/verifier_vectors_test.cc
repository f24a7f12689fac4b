// Genuine evidence of testdata/attestation through the whole verifier: policy from a file,
// collateral from a folder, AMD's and Intel's own roots.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "talaria/attest/policy_file.h"
#include "talaria/attest/refusal.h"
#include "talaria/attest/testing/collateral_folder.h"
#include "talaria/attest/verifier.h"
#include "talaria/base/file.h"

namespace talaria::attest {
namespace {

using testing::Contains;
using testing::Pair;

constexpr UnixTime kGenoaTime = 1772849107;
constexpr UnixTime kTdxTime = 1750377600;

std::vector<uint8_t> Load(const std::string& name) {
  const char* root = std::getenv("TALARIA_TESTDATA");
  TALARIA_CHECK(root != nullptr);
  auto data = ReadFile(std::string(root) + "/attestation/" + name, 1 << 20);
  TALARIA_CHECK(data.ok());
  return std::move(data).value();
}

std::string Zeros(int bytes) { return std::string(static_cast<size_t>(2 * bytes), '0'); }

// Values: expected.json, beside the vectors.
std::string PolicyText() {
  const std::string zeros48 = "[\"" + Zeros(48) + "\"]";
  return "[policy]\nmax_age_s = 3600\nrequire_post_quantum = false\ncrls = \"accept-missing\"\n"
         "[context]\nmodel_identities = [\"" +
         Zeros(32) +
         "\"]\nconfigurations = \"any\"\ntenant_keys = \"any\"\nprofiles = [1]\n"
         "min_check_vectors = 2\nallow_development = false\n"
         "[sev_snp]\n"
         "measurements = [\"5feee30d6d7e1a29f403d70a4198237ddfb13051a2d69764"
         "39487c609388ed7f98189887920ab2fa0096903a0c23fca1\"]\n"
         "host_data = [\"4f4448c67f3c8dfc8de8a5e37125d807dadcc41f06cf23f615dbd52eec777d10\"]\n"
         "id_key_digests = [\"0ad79ceb0b648b0e6a90d8aa9f6ea24c33a968b663208535"
         "3145e8b19a4741a2dab9ba342e13be4fc0d225e889cc1a58\"]\n"
         "author_key_digests = " +
         zeros48 +
         "\nfamily_ids = [\"01000000000000000000000000000000\"]\n"
         "image_ids = [\"02000000000000000000000000000000\"]\nchips = \"any\"\nvmpl = 0\n"
         "min_guest_svn = 2\nrequired_guest_policy = \"0x0\"\nallow_smt = true\n"
         "allow_cxl = false\nvlek_csp_ids = []\nallow_provisional_firmware = false\n"
         "[[sev_snp.product]]\nname = \"Genoa\"\n"
         "min_tcb = { boot_loader = 10, tee = 0, snp = 23, microcode = 84 }\n"
         "required_platform_info = \"0x20\"\nrequired_launch_mitigations = \"0x0\"\n"
         "required_current_mitigations = \"0x0\"\n"
         "[tdx]\n"
         "mrtd = [\"91eb2b44d141d4ece09f0c75c2c53d247a3c68edd7fafe8a"
         "3520c942a604a407de03ae6dc5f87f27428b2538873118b7\"]\n"
         "rtmr0 = [\"44c0197b39157fdd7a4dcc44767f9d6b0bb3977c7a8e347b"
         "8492f827fe9d9e5c48aca29b220b80b6a540cf994b9bc9c0\"]\n"
         "rtmr1 = [\"0084452c01668329d4bc06acdf58a7205c26743304509973"
         "949e5619bf81a6a7aea8c323c173019b3093d54e579e9378\"]\n"
         "rtmr2 = [\"d833feef2cd945148aa38ead2c53e9b7f138190aaaebfc55"
         "1dccd829fc207aa3ba80b70870d7330733642e01d48c3132\"]\n"
         "rtmr3 = " +
         zeros48 + "\nmrconfigid = " + zeros48 + "\nmrowner = " + zeros48 +
         "\nmrownerconfig = " + zeros48 + "\nmrservicetd = " + zeros48 +
         "\nallowed_xfam = \"0x602e7\"\naccept_septve_enabled = false\n"
         "accept_key_locker = false\naccept_perfmon = false\naccept_sw_hardening_needed = false\n"
         "min_tee_tcb_svn = \"06010300000000000000000000000000\"\nmin_tee_tcb_svn2 = \"" +
         Zeros(16) +
         "\"\nfmspc = [\"b0c06f000000\"]\n"
         "ppid = [\"811dca2a26b952e85bb6448b097ba4fd\"]\nmin_tcb_evaluation_data_number = 17\n";
}

Claim ClaimOf(EvidenceType type, std::vector<uint8_t> report, std::vector<uint8_t> certificates) {
  Claim claim{.context = {.version = kAttestationVersion,
                          .model_identity = {},
                          .profile = 1,
                          .check_vectors = 2,
                          .configuration = {},
                          .tenant_key = {},
                          .development = false},
              .evidence = {}};
  claim.evidence.type = type;
  claim.evidence.report = std::move(report);
  claim.evidence.certificates = std::move(certificates);
  return claim;
}

Verifier MakeVerifier() {
  auto policy = ParsePolicy(PolicyText(), "policy.toml");
  EXPECT_TRUE(policy.ok()) << policy.status().ToString();
  const CollateralFolder folder;
  folder.AddTdx("b0c06f000000", "v4_uptodate");
  auto collateral = LoadCollateral(folder.path());
  EXPECT_TRUE(collateral.ok()) << collateral.status().ToString();
  VerifierOptions options{.policy = *policy, .collateral = *collateral};
  return Verifier::Create(std::move(options)).value();
}

ReportData At(const std::vector<uint8_t>& report, size_t offset) {
  ReportData out;
  std::copy_n(report.begin() + static_cast<ptrdiff_t>(offset), out.size(), out.begin());
  return out;
}

TEST(VerifierVectors, AGenuineGenoa) {
  const Claim claim = ClaimOf(EvidenceType::kSevSnp, Load("snp/genoa_v3/report.bin"),
                              Load("snp/genoa_v3/auxblob.bin"));
  const ReportData data = At(claim.evidence.report, 0x50);
  const Verifier verifier = MakeVerifier();
  const auto verdict = verifier.VerifyReportData(claim, data, kGenoaTime);
  ASSERT_TRUE(verdict.ok()) << verdict.status().ToString();
  EXPECT_EQ(verdict->type, EvidenceType::kSevSnp);
  for (const auto& [name, value] :
       {std::pair("product", "Genoa"), std::pair("signing key", "VCEK"),
        std::pair("tcb", "boot loader 10, TEE 0, SNP 23, microcode 84"), std::pair("debug", "off"),
        std::pair("firmware", "1.55.40"), std::pair("smt", "allowed"),
        std::pair("family id", "01000000000000000000000000000000")}) {
    EXPECT_THAT(verdict->facts, Contains(Pair(name, value)));
  }
  EXPECT_GT(verdict->valid_until, kGenoaTime);
  EXPECT_LT(verdict->valid_until, kGenoaTime + 10 * 366 * 86400);

  ReportData other = data;
  other[63] ^= 1;
  EXPECT_EQ(ReasonOf(verifier.VerifyReportData(claim, other, kGenoaTime).status()),
            "snp-report-data");
  // After its `valid_until`, and not before.
  EXPECT_TRUE(verifier.VerifyReportData(claim, data, verdict->valid_until - 1).ok());
  EXPECT_EQ(ReasonOf(verifier.VerifyReportData(claim, data, verdict->valid_until + 1).status()),
            "snp-expired");
}

TEST(VerifierVectors, AnotherGenuineMachineIsNotThePolicys) {
  const Claim claim = ClaimOf(EvidenceType::kSevSnp, Load("snp/turin_v5/report.bin"),
                              Load("snp/turin_v5/auxblob.bin"));
  const ReportData data = At(claim.evidence.report, 0x50);
  EXPECT_EQ(ReasonOf(MakeVerifier().VerifyReportData(claim, data, 1772845473).status()),
            "snp-product-not-allowed");
}

TEST(VerifierVectors, AGenuineQuoteWithItsCollateral) {
  const Claim claim = ClaimOf(EvidenceType::kTdx, Load("tdx/v4_uptodate/quote.bin"), {});
  const ReportData data = At(claim.evidence.report, 48 + 520);
  const Verifier verifier = MakeVerifier();
  const auto verdict = verifier.VerifyReportData(claim, data, kTdxTime);
  ASSERT_TRUE(verdict.ok()) << verdict.status().ToString();
  for (const auto& [name, value] :
       {std::pair("product", "Intel TDX, FMSPC b0c06f000000"),
        std::pair("tcb", "UpToDate by evaluation 17"), std::pair("debug", "off"),
        std::pair("chip", "811dca2a26b952e85bb6448b097ba4fd"), std::pair("advisories", "none"),
        std::pair("revocation", "checked: not revoked")}) {
    EXPECT_THAT(verdict->facts, Contains(Pair(name, value)));
  }
  EXPECT_GT(verdict->valid_until, kTdxTime);
  EXPECT_TRUE(verifier.VerifyReportData(claim, data, verdict->valid_until).ok());
  EXPECT_FALSE(verifier.VerifyReportData(claim, data, verdict->valid_until + 1).ok());

  ReportData other = data;
  other[0] ^= 1;
  EXPECT_EQ(ReasonOf(verifier.VerifyReportData(claim, other, kTdxTime).status()),
            "tdx-report-data");
}

TEST(VerifierVectors, AQuoteOfAFamilyWithoutCollateral) {
  const Claim claim = ClaimOf(EvidenceType::kTdx, Load("tdx/v4_mrconfigid/quote.bin"), {});
  EXPECT_EQ(ReasonOf(MakeVerifier()
                         .VerifyReportData(claim, At(claim.evidence.report, 48 + 520), 1757462400)
                         .status()),
            "tdx-collateral-missing");
}

}  // namespace
}  // namespace talaria::attest
