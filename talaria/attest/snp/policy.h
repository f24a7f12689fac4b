// The policy layer of SNP: whether we like what a verified report says. Every field must be given,
// and an empty list accepts nothing: there is no "not checked".
#ifndef TALARIA_ATTEST_SNP_POLICY_H_
#define TALARIA_ATTEST_SNP_POLICY_H_

#include <string>
#include <utility>
#include <vector>

#include "talaria/attest/mandatory.h"
#include "talaria/attest/snp/verify.h"

namespace talaria::attest {

using SnpMeasurement = std::array<uint8_t, 48>;
using SnpKeyDigest = std::array<uint8_t, 48>;
using SnpHostData = std::array<uint8_t, 32>;
using SnpImageId = std::array<uint8_t, 16>;  // FAMILY_ID and IMAGE_ID
using SnpChipId = std::array<uint8_t, 64>;

// Which machines. A VLEK's report fits no list: its CHIP_ID proves nothing.
class SnpChips {
 public:
  static SnpChips Any() { return SnpChips(true, {}); }
  static SnpChips Listed(std::vector<SnpChipId> chips) { return {false, std::move(chips)}; }
  bool any() const { return any_; }
  const std::vector<SnpChipId>& listed() const { return listed_; }

 private:
  SnpChips(bool any, std::vector<SnpChipId> listed) : any_(any), listed_(std::move(listed)) {}
  bool any_;
  std::vector<SnpChipId> listed_;
};

struct SnpProductPolicy {
  SnpProduct product;
  Mandatory<TcbVersion> min_tcb;  // of REPORTED, COMMITTED and LAUNCH, each, per component
  // Bits that must be set. Mitigation vectors exist from report version 5 on.
  Mandatory<uint64_t> required_platform_info;  // snp_platform_info, kAliasCheckComplete usually
  Mandatory<uint64_t> required_launch_mitigations;
  Mandatory<uint64_t> required_current_mitigations;
};

// In the lists of digests and identifiers zeros stand for "none": {SnpKeyDigest{}} demands that the
// guest has no ID block.
struct SnpPolicy {
  Mandatory<std::vector<SnpProductPolicy>> products;  // one that is not listed is refused
  Mandatory<std::vector<SnpMeasurement>> measurements;
  Mandatory<std::vector<SnpHostData>> host_data;
  Mandatory<std::vector<SnpKeyDigest>> id_key_digests;
  Mandatory<std::vector<SnpKeyDigest>> author_key_digests;
  Mandatory<std::vector<SnpImageId>> family_ids;
  Mandatory<std::vector<SnpImageId>> image_ids;
  SnpChips chips;
  Mandatory<uint32_t> vmpl;  // exactly this
  Mandatory<uint32_t> min_guest_svn;
  Mandatory<uint64_t> required_guest_policy;  // bits of snp_guest_policy besides the usual ones
  Mandatory<bool> allow_smt;
  Mandatory<bool> allow_cxl;
  // Clouds whose VLEKs are accepted, as their certificates name them
  // ("CN=cc-us-east-2.amazonaws.com"); an empty list accepts VCEKs only.
  Mandatory<std::vector<std::string>> vlek_csp_ids;
  Mandatory<bool> allow_provisional_firmware;  // CURRENT newer than COMMITTED
};

// DEBUG, MIGRATE_MA, a migration agent, POLICY's reserved bits and a TCB that is ahead of CURRENT
// are always refused. `expected` is compared over all 64 bytes.
// Refusals: snp-product-not-allowed, snp-vlek, snp-debug, snp-migration, snp-guest-policy,
// snp-cxl, snp-smt, snp-vmpl, snp-guest-svn, snp-tcb-order, snp-tcb-reported, snp-tcb-committed,
// snp-tcb-launch, snp-provisional, snp-platform-info, snp-mitigation-launch,
// snp-mitigation-current, snp-chip-not-allowed, snp-measurement, snp-host-data, snp-id-key,
// snp-author-key, snp-family-id, snp-image-id, snp-report-data.
Status CheckSnpPolicy(const VerifiedSnpReport& verified, const SnpPolicy& policy,
                      const ReportData& expected);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_SNP_POLICY_H_
