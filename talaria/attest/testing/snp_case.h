// What the tests of SNP begin with: a report of our own authority that verifies and that a policy
// likes, in which each test then changes one thing.
#ifndef TALARIA_ATTEST_TESTING_SNP_CASE_H_
#define TALARIA_ATTEST_TESTING_SNP_CASE_H_

#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "talaria/attest/refusal.h"
#include "talaria/attest/snp/policy.h"
#include "talaria/attest/snp/verify.h"
#include "talaria/attest/testing/snp_authority.h"
#include "talaria/base/file.h"

namespace talaria::attest::snp_case {

using Buffer = std::vector<uint8_t>;
inline constexpr UnixTime kNow = 1772845473;  // 2026-03-07
inline constexpr SnpProduct kProducts[] = {SnpProduct::kMilan, SnpProduct::kGenoa,
                                           SnpProduct::kTurin};

// A file below testdata/attestation.
inline Buffer Load(const std::string& name) {
  const char* root = std::getenv("TALARIA_TESTDATA");
  TALARIA_CHECK(root != nullptr);
  auto data = ReadFile(std::string(root) + "/attestation/" + name, 1 << 20);
  TALARIA_CHECK(data.ok());
  return std::move(data).value();
}

inline const SnpAuthority& Authority(SnpProduct product = SnpProduct::kMilan) {
  static std::map<SnpProduct, SnpAuthority> made;
  auto found = made.find(product);
  if (found == made.end()) {
    found = made.emplace(product, SnpAuthority::Create({.product = product}).value()).first;
  }
  return found->second;
}

// The names, serials and all else of Authority(), under keys of somebody else.
inline SnpAuthorityOptions ForgerOptions(SnpProduct product = SnpProduct::kMilan) {
  const SnpAuthorityKeys& keys = PublicSnpAuthorityKeys();
  SnpAuthorityOptions options;
  options.product = product;
  options.keys = {.ark = keys.asvk, .ask = keys.ark, .asvk = keys.ask};
  return options;
}

template <size_t N>
std::array<uint8_t, N> Filled(uint8_t value) {
  std::array<uint8_t, N> out;
  out.fill(value);
  return out;
}

inline SnpReport GoodReport(SnpProduct product = SnpProduct::kMilan) {
  SnpReport report;
  report.version = 5;
  report.guest_svn = 3;
  report.policy = snp_guest_policy::kMustBeOne | 31;
  report.family_id = Filled<16>(0xfa);
  report.image_id = Filled<16>(0x1a);
  report.platform_info = snp_platform_info::kEcc | snp_platform_info::kAliasCheckComplete;
  report.report_data = Filled<64>(0xda);
  report.measurement = Filled<48>(0xea);
  report.host_data = Filled<32>(0x0d);
  report.id_key_digest = Filled<48>(0x1d);
  report.author_key_digest = Filled<48>(0xad);
  report.author_key_enabled = true;
  report.report_id = Filled<32>(0x77);
  report.report_id_ma = Filled<32>(0xff);
  report.product = product;
  report.cpuid = {0x19, 0x01, 0x01};
  if (product == SnpProduct::kGenoa) report.cpuid = {0x19, 0x11, 0x01};
  if (product == SnpProduct::kTurin) report.cpuid = {0x1a, 0x02, 0x01};
  for (size_t i = 0; i < (product == SnpProduct::kTurin ? 8u : 64u); ++i) {
    report.chip_id[i] = static_cast<uint8_t>(i + 100);
  }
  // Every component another number, on both sides of what a DER INTEGER takes two bytes for.
  report.reported_tcb = {.boot_loader = 4, .tee = 1, .snp = 24, .microcode = 200};
  if (product == SnpProduct::kTurin) report.reported_tcb.fmc = 2;
  report.current_tcb = report.committed_tcb = report.launch_tcb = report.reported_tcb;
  report.current_firmware = report.committed_firmware = {.build = 29, .minor = 55, .major = 1};
  report.launch_mitigations = report.current_mitigations = 0x3f;
  return report;
}

inline SnpVekOptions VekOptionsFor(const SnpReport& report) {
  SnpVekOptions options;
  options.kind = report.signing_key;
  options.tcb = report.reported_tcb;
  options.chip_id = report.chip_id;
  return options;
}

inline SnpVerifyOptions Options(UnixTime now = kNow) {
  return {.now = now,
          .crl_policy = SnpCrlPolicy::kAcceptMissing,
          .crl = std::nullopt,
          .version_2_product = std::nullopt};
}

// Signs whatever it is given with a new VEK of the authority, and verifies.
inline Result<VerifiedSnpReport> SignAndVerify(Buffer report, const SnpVekOptions& vek_options,
                                               SnpProduct product = SnpProduct::kMilan) {
  const SnpVek vek = Authority(product).IssueVek(vek_options).value();
  SignSnpReport(report, vek);
  return VerifySnpReport(report, vek.der, Authority(product).roots(), Options());
}
inline Result<VerifiedSnpReport> SignAndVerify(const SnpReport& report) {
  return SignAndVerify(EncodeSnpReport(report), VekOptionsFor(report), report.product);
}

// "" when all is well; a status that is no refusal, in full.
inline std::string Outcome(const Status& status) {
  if (status.ok()) return "";
  const std::string reason(ReasonOf(status));
  return reason.empty() ? status.ToString() : reason;
}
template <class T>
std::string Outcome(const Result<T>& result) {
  return Outcome(result.status());
}

// Accepts GoodReport() of any product.
inline SnpPolicy GoodPolicy() {
  const SnpReport report = GoodReport();
  std::vector<SnpProductPolicy> products;
  for (const SnpProduct product : kProducts) {
    products.push_back({.product = product,
                        .min_tcb = TcbVersion{.boot_loader = 4, .snp = 24, .microcode = 200},
                        .required_platform_info = snp_platform_info::kAliasCheckComplete,
                        .required_launch_mitigations = 0x3,
                        .required_current_mitigations = 0x3});
  }
  return {.products = products,
          .measurements = std::vector{Filled<48>(0x01), report.measurement},
          .host_data = std::vector{report.host_data},
          .id_key_digests = std::vector{report.id_key_digest},
          .author_key_digests = std::vector{report.author_key_digest},
          .family_ids = std::vector{report.family_id},
          .image_ids = std::vector{report.image_id},
          .chips = SnpChips::Any(),
          .vmpl = 0,
          .min_guest_svn = 3,
          .required_guest_policy = 0,
          .allow_smt = false,
          .allow_cxl = false,
          .vlek_csp_ids = std::vector<std::string>{},
          .allow_provisional_firmware = false};
}

}  // namespace talaria::attest::snp_case

#endif  // TALARIA_ATTEST_TESTING_SNP_CASE_H_
