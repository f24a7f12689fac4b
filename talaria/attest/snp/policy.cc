#include "talaria/attest/snp/policy.h"

#include <algorithm>

#include "talaria/attest/refusal.h"
#include "talaria/base/secret.h"

namespace talaria::attest {
namespace {

std::string Hex64(uint64_t value) {
  std::array<uint8_t, 8> bytes{};
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(value >> (56 - 8 * i));
  return "0x" + ToHex(bytes);
}

template <size_t N>
Status CheckListed(std::string_view reason, const std::array<uint8_t, N>& found,
                   const std::vector<std::array<uint8_t, N>>& allowed) {
  if (std::ranges::find(allowed, found) != allowed.end()) return OkStatus();
  return Refuse(
      reason, ToHex(found),
      allowed.size() == 1 ? ToHex(allowed[0]) : "one of " + std::to_string(allowed.size()));
}

Status CheckBits(std::string_view reason, uint64_t found, uint64_t required) {
  if ((found & required) == required) return OkStatus();
  return Refuse(reason, Hex64(found), "the bits " + Hex64(required));
}

Status CheckAtLeast(std::string_view reason, const TcbVersion& found, const TcbVersion& floor) {
  if (found.AtLeast(floor)) return OkStatus();
  return Refuse(reason, ToString(found), "at least " + ToString(floor));
}

Status CheckGuestPolicy(uint64_t found, const SnpPolicy& policy) {
  namespace bits = snp_guest_policy;
  if ((found & bits::kDebug) != 0) return Refuse("snp-debug", Hex64(found), "no DEBUG");
  if ((found & bits::kMigrateMa) != 0) {
    return Refuse("snp-migration", Hex64(found), "no MIGRATE_MA");
  }
  if ((found & bits::kMustBeOne) == 0 || (found & bits::kReserved) != 0) {
    return Refuse("snp-guest-policy", Hex64(found), "bit 17, and none above 25");
  }
  if ((found & bits::kCxlAllow) != 0 && !*policy.allow_cxl) {
    return Refuse("snp-cxl", Hex64(found), "no CXL_ALLOW");
  }
  if ((found & bits::kSmt) != 0 && !*policy.allow_smt) {
    return Refuse("snp-smt", Hex64(found), "no SMT");
  }
  return CheckBits("snp-guest-policy", found, *policy.required_guest_policy);
}

Status CheckTcb(const SnpReport& report, const TcbVersion& floor, bool allow_provisional) {
  // What a host may do is to understate, never to overstate.
  if (!report.current_tcb.AtLeast(report.reported_tcb) ||
      !report.current_tcb.AtLeast(report.committed_tcb)) {
    return Refuse("snp-tcb-order",
                  "REPORTED " + ToString(report.reported_tcb) + " and COMMITTED " +
                      ToString(report.committed_tcb),
                  "at most CURRENT " + ToString(report.current_tcb));
  }
  TALARIA_RETURN_IF_ERROR(CheckAtLeast("snp-tcb-reported", report.reported_tcb, floor));
  TALARIA_RETURN_IF_ERROR(CheckAtLeast("snp-tcb-committed", report.committed_tcb, floor));
  TALARIA_RETURN_IF_ERROR(CheckAtLeast("snp-tcb-launch", report.launch_tcb, floor));
  const bool committed = report.committed_tcb == report.current_tcb &&
                         report.committed_firmware == report.current_firmware;
  if (!committed && !allow_provisional) {
    return Refuse("snp-provisional", "CURRENT " + ToString(report.current_tcb),
                  "COMMITTED " + ToString(report.committed_tcb) + ", of the same firmware");
  }
  return OkStatus();
}

Status CheckVlek(const VerifiedSnpReport& verified, const std::vector<std::string>& csp_ids) {
  const bool vcek = verified.report().signing_key == SnpSigningKey::kVcek;
  if (vcek || std::ranges::find(csp_ids, verified.csp_id()) != csp_ids.end()) return OkStatus();
  return Refuse("snp-vlek", "a VLEK of " + Printable(verified.csp_id()),
                csp_ids.empty() ? "a VCEK"
                : csp_ids.size() == 1
                    ? "a VCEK, or a VLEK of " + Printable(csp_ids[0])
                    : "a VCEK, or a VLEK of one of " + std::to_string(csp_ids.size()));
}

Status CheckChips(const SnpReport& report, const SnpChips& chips) {
  if (chips.any()) return OkStatus();
  if (report.signing_key == SnpSigningKey::kVlek) {
    return Refuse("snp-chip-not-allowed", "a VLEK, which is of no chip", "a VCEK");
  }
  return CheckListed("snp-chip-not-allowed", report.chip_id, chips.listed());
}

}  // namespace

Status CheckSnpPolicy(const VerifiedSnpReport& verified, const SnpPolicy& policy,
                      const ReportData& expected) {
  const SnpReport& report = verified.report();
  const auto product =
      std::ranges::find(*policy.products, report.product, &SnpProductPolicy::product);
  if (product == policy.products->end()) {
    return Refuse("snp-product-not-allowed", SnpProductName(report.product), "one of the policy's");
  }
  TALARIA_RETURN_IF_ERROR(CheckVlek(verified, *policy.vlek_csp_ids));
  TALARIA_RETURN_IF_ERROR(CheckGuestPolicy(report.policy, policy));
  if (!std::ranges::all_of(report.report_id_ma, [](uint8_t b) { return b == 0xff; })) {
    return Refuse("snp-migration", "a migration agent", "none");
  }
  if (report.vmpl != *policy.vmpl) {
    return Refuse("snp-vmpl", std::to_string(report.vmpl), std::to_string(*policy.vmpl));
  }
  if (report.guest_svn < *policy.min_guest_svn) {
    return Refuse("snp-guest-svn", std::to_string(report.guest_svn),
                  "at least " + std::to_string(*policy.min_guest_svn));
  }
  TALARIA_RETURN_IF_ERROR(CheckTcb(report, *product->min_tcb, *policy.allow_provisional_firmware));
  TALARIA_RETURN_IF_ERROR(
      CheckBits("snp-platform-info", report.platform_info, *product->required_platform_info));
  TALARIA_RETURN_IF_ERROR(CheckBits("snp-mitigation-launch", report.launch_mitigations,
                                    *product->required_launch_mitigations));
  TALARIA_RETURN_IF_ERROR(CheckBits("snp-mitigation-current", report.current_mitigations,
                                    *product->required_current_mitigations));
  TALARIA_RETURN_IF_ERROR(CheckChips(report, policy.chips));
  TALARIA_RETURN_IF_ERROR(CheckListed("snp-measurement", report.measurement, *policy.measurements));
  TALARIA_RETURN_IF_ERROR(CheckListed("snp-host-data", report.host_data, *policy.host_data));
  TALARIA_RETURN_IF_ERROR(CheckListed("snp-id-key", report.id_key_digest, *policy.id_key_digests));
  TALARIA_RETURN_IF_ERROR(
      CheckListed("snp-author-key", report.author_key_digest, *policy.author_key_digests));
  TALARIA_RETURN_IF_ERROR(CheckListed("snp-family-id", report.family_id, *policy.family_ids));
  TALARIA_RETURN_IF_ERROR(CheckListed("snp-image-id", report.image_id, *policy.image_ids));
  if (!ConstantTimeEqual(report.report_data.data(), expected.data(), expected.size())) {
    return Refuse("snp-report-data", ToHex(report.report_data), ToHex(expected));
  }
  return OkStatus();
}

}  // namespace talaria::attest
