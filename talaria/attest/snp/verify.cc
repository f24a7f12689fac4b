#include "talaria/attest/snp/verify.h"

#include <algorithm>

#include "talaria/attest/refusal.h"
#include "talaria/attest/snp/certificate_table.h"
#include "talaria/attest/snp/vek.h"

namespace talaria::attest {
namespace {

std::string_view KindName(SnpSigningKey kind) {
  return kind == SnpSigningKey::kVcek ? "VCEK" : "VLEK";
}

Status CheckName(const Certificate& certificate, const std::string& wanted) {
  const std::string found = certificate.SubjectCommonName();
  if (found != wanted) return Refuse("snp-chain-name", Printable(found), wanted);
  return OkStatus();
}

// Everything that is particular to AMD's chain, then the chain itself. The pin comes first: names
// and signatures of a root that is not AMD's mean nothing.
Status CheckChain(const Vek& vek, const SnpProductRoots& roots, const SnpVerifyOptions& options) {
  const std::string product(SnpProductName(roots.product));
  const bool is_vcek = vek.kind == SnpSigningKey::kVcek;
  const Certificate& intermediate = is_vcek ? roots.ask : roots.asvk;
  if (const Digest spki = roots.ark.SpkiSha256(); spki != roots.ark_spki_sha256) {
    return Refuse("snp-ark-pin", ToHex(spki), ToHex(roots.ark_spki_sha256));
  }
  TALARIA_RETURN_IF_ERROR(CheckName(roots.ark, "ARK-" + product));
  TALARIA_RETURN_IF_ERROR(CheckName(intermediate, (is_vcek ? "SEV-" : "SEV-VLEK-") + product));
  for (const Certificate* authority : {&roots.ark, &intermediate}) {
    if (!authority->HasRsaKey(4096)) return Refuse("snp-chain-key", "another key", "RSA-4096");
  }
  for (const Certificate* one : {&roots.ark, &intermediate, &vek.certificate}) {
    if (!one->IsSignedWithPssSha384()) {
      return Refuse("snp-chain-algorithm", "a signature of another kind",
                    "PSS with SHA-384 and a salt of 48");
    }
  }
  // Not strict: AMD's VEKs have no authority key identifier.
  TALARIA_RETURN_IF_ERROR(
      VerifyChain(vek.certificate, {&intermediate, 1}, roots.ark, *options.now,
                  {.reason = "snp-chain", .expired_reason = "snp-expired", .strict = false}));
  if (!options.crl) {
    if (*options.crl_policy == SnpCrlPolicy::kAcceptMissing) return OkStatus();
    return Refuse("crl-missing", "", "a revocation list of ARK-" + product);
  }
  TALARIA_RETURN_IF_ERROR(
      options.crl->Verify(roots.ark, *options.now, "crl-invalid", "crl-expired"));
  if (options.crl->Revokes(intermediate)) {
    return Refuse("snp-revoked", Printable(intermediate.SubjectCommonName()));
  }
  return OkStatus();
}

Status CheckSignature(Bytes report, const PublicKey& key) {
  const auto big_endian = [report](size_t offset) {
    const Bytes number = report.subspan(offset, kSnpSignatureNumberBytes);
    return std::vector<uint8_t>(number.rbegin(), number.rend());
  };
  if (!key.VerifyEcdsa(Curve::kP384, report.first(kSnpSignedBytes),
                       big_endian(kSnpSignatureROffset), big_endian(kSnpSignatureSOffset))) {
    return Refuse("snp-signature", "a signature that is not the VEK's");
  }
  return OkStatus();
}

Status CheckChip(const SnpReport& report, const Vek& vek) {
  if (vek.kind == SnpSigningKey::kVlek) return OkStatus();
  const Bytes chip_id = report.chip_id;
  const auto is_zero = [](Bytes bytes) {
    return std::all_of(bytes.begin(), bytes.end(), [](uint8_t b) { return b == 0; });
  };
  if (report.mask_chip_key || is_zero(chip_id)) {
    return Refuse("snp-chip-masked", "a masked CHIP_ID", "the chip's");
  }
  const size_t size = vek.hardware_id.size();
  if (!std::ranges::equal(chip_id.first(size), vek.hardware_id) ||
      !is_zero(chip_id.subspan(size))) {
    return Refuse("vek-chip", "CHIP_ID " + ToHex(chip_id), "HWID " + ToHex(vek.hardware_id));
  }
  return OkStatus();
}

}  // namespace

Result<VerifiedSnpReport> VerifySnpReport(Bytes report, Bytes vek_der, const SnpRoots& roots,
                                          const SnpVerifyOptions& options) {
  VerifiedSnpReport verified;
  TALARIA_ASSIGN_OR_RETURN(verified.report_, ParseSnpReport(report, options.version_2_product));
  TALARIA_ASSIGN_OR_RETURN(const Vek vek, ParseVek(vek_der));
  const SnpReport& fields = verified.report_;
  if (vek.kind != fields.signing_key) {
    return Refuse("vek-kind", KindName(vek.kind), KindName(fields.signing_key));
  }
  if (vek.product != fields.product) {
    return Refuse("vek-product", SnpProductName(vek.product), SnpProductName(fields.product));
  }
  const auto of_product =
      std::ranges::find(roots.products, fields.product, &SnpProductRoots::product);
  if (of_product == roots.products.end()) {
    return Refuse("snp-roots", SnpProductName(fields.product), "a product with a root");
  }
  TALARIA_RETURN_IF_ERROR(CheckChain(vek, *of_product, options));
  TALARIA_RETURN_IF_ERROR(CheckSignature(report, vek.certificate.Key()));
  if (vek.tcb != fields.reported_tcb) {
    return Refuse("vek-tcb", "REPORTED_TCB " + ToString(fields.reported_tcb),
                  "that of the VEK, " + ToString(vek.tcb));
  }
  TALARIA_RETURN_IF_ERROR(CheckChip(fields, vek));
  verified.signed_digest_ = Sha256Of(report.first(kSnpSignedBytes));
  verified.csp_id_ = vek.csp_id;
  return verified;
}

Result<VerifiedSnpReport> VerifySnpReportWithTable(Bytes report, Bytes table, const SnpRoots& roots,
                                                   const SnpVerifyOptions& options) {
  TALARIA_ASSIGN_OR_RETURN(const SnpReport fields,
                           ParseSnpReport(report, options.version_2_product));
  TALARIA_ASSIGN_OR_RETURN(const CertificateTable certificates, ParseCertificateTable(table));
  const Bytes vek =
      fields.signing_key == SnpSigningKey::kVcek ? certificates.vcek : certificates.vlek;
  if (vek.empty()) {
    return Refuse("vek-missing", "a table without it", KindName(fields.signing_key));
  }
  return VerifySnpReport(report, vek, roots, options);
}

}  // namespace talaria::attest
