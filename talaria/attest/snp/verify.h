// The signature layer of SNP: who made a report, and on what. Whether we like what it says is
// policy.h's.
#ifndef TALARIA_ATTEST_SNP_VERIFY_H_
#define TALARIA_ATTEST_SNP_VERIFY_H_

#include <optional>
#include <string>

#include "talaria/attest/mandatory.h"
#include "talaria/attest/snp/report.h"
#include "talaria/attest/snp/roots.h"

namespace talaria::attest {

// A list that is given is checked in both cases.
enum class SnpCrlPolicy { kRequired, kAcceptMissing };

struct SnpVerifyOptions {
  Mandatory<UnixTime> now;
  Mandatory<SnpCrlPolicy> crl_policy;
  std::optional<Crl> crl;  // of the product's ARK: speaks of ASK and ASVK, not of VEKs
  std::optional<SnpProduct> version_2_product;  // nullopt: version 2 is refused
};

// Only VerifySnpReport makes one.
class VerifiedSnpReport {
 public:
  const SnpReport& report() const { return report_; }
  // SHA-256 of the signed bytes. ECDSA signatures can be changed and stay valid, so nothing may be
  // remembered under the bytes of a whole report.
  const Digest& signed_digest() const { return signed_digest_; }
  // The cloud that a VLEK belongs to; empty for a VCEK.
  const std::string& csp_id() const { return csp_id_; }

 private:
  VerifiedSnpReport() = default;
  friend Result<VerifiedSnpReport> VerifySnpReport(Bytes, Bytes, const SnpRoots&,
                                                   const SnpVerifyOptions&);
  SnpReport report_;
  Digest signed_digest_{};
  std::string csp_id_;
};

// Format, chain root <- ASK or ASVK <- VEK, revocation, signature, then that the VEK is this
// report's: kind, product, TCB == REPORTED_TCB, HWID == CHIP_ID (a masked CHIP_ID of a VCEK is
// refused; a VLEK has no HWID, and CHIP_ID proves nothing then).
// Refusals: those of ParseSnpReport and ParseVek, and snp-roots (no entry of the product),
// snp-ark-pin, snp-chain-name, snp-chain-key, snp-chain-algorithm, snp-chain, snp-expired,
// crl-missing, crl-invalid, crl-expired, snp-revoked, snp-signature, vek-kind, vek-product,
// vek-tcb, vek-chip, snp-chip-masked.
Result<VerifiedSnpReport> VerifySnpReport(Bytes report, Bytes vek_der, const SnpRoots& roots,
                                          const SnpVerifyOptions& options);
// The same with the leaf taken from the host's table (certificate_table.h), by SIGNING_KEY. Also
// certificate-table, and vek-missing where the table has no such leaf.
Result<VerifiedSnpReport> VerifySnpReportWithTable(Bytes report, Bytes table, const SnpRoots& roots,
                                                   const SnpVerifyOptions& options);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_SNP_VERIFY_H_
