#include "talaria/attest/tdx/signatures.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "talaria/attest/refusal.h"
#include "talaria/base/digest.h"

namespace talaria::attest {
namespace {

bool IsSignedBy(const PublicKey& key, Bytes message, const EcSignature& signature) {
  const Bytes both(signature);
  return key.VerifyEcdsa(Curve::kP256, message, both.first(32), both.subspan(32));
}

}  // namespace

Result<PckChain> VerifyPckChain(std::string_view pem, const IntelRoot& root, UnixTime now) {
  TALARIA_ASSIGN_OR_RETURN(const std::vector<Certificate> chain,
                           Certificate::FromPem(pem, 3, "tdx-pck-pem"));
  const Certificate& leaf = chain[0];
  const Certificate& issuer = chain[1];
  // The same bytes, not the same name or key: a peer's copy is never used, and may not differ.
  if (!(chain[2] == root.certificate)) {
    return Refuse("tdx-root", ToHex(Sha256Of(chain[2].der())),
                  ToHex(Sha256Of(root.certificate.der())));
  }
  TALARIA_RETURN_IF_ERROR(VerifyChain(
      leaf, {&issuer, 1}, root.certificate, now,
      {.reason = "tdx-pck-chain", .expired_reason = "tdx-pck-expired", .strict = true}));
  constexpr std::string_view kLeafName = "Intel SGX PCK Certificate";
  if (leaf.SubjectCommonName() != kLeafName) {
    return Refuse("tdx-pck-name", Printable(leaf.SubjectCommonName()), kLeafName);
  }
  const std::string issuer_name = issuer.SubjectCommonName();
  if (issuer_name != "Intel SGX PCK Platform CA" && issuer_name != "Intel SGX PCK Processor CA") {
    return Refuse("tdx-pck-name", Printable(issuer_name),
                  "Intel SGX PCK Platform CA or Processor CA");
  }
  if (!leaf.HasEcKey(Curve::kP256)) return Refuse("tdx-pck-key", "another key", "P-256");
  TALARIA_ASSIGN_OR_RETURN(const std::optional<std::vector<uint8_t>> extension,
                           leaf.Extension(kPckExtensionOid, "tdx-pck-extension"));
  if (!extension) return Refuse("tdx-pck-extension", "no extension");
  TALARIA_ASSIGN_OR_RETURN(PckExtension parsed, ParsePckExtension(*extension));
  return PckChain{leaf, issuer, parsed};
}

Status VerifyQuoteSignatures(const TdxQuote& quote, const PckChain& chain) {
  if (!IsSignedBy(chain.leaf.Key(), quote.qe_report_bytes, quote.qe_report_signature)) {
    return Refuse("tdx-qe-signature", "a QE report that the PCK key did not sign");
  }
  Sha256 hash;
  hash.Update(quote.attestation_key);
  hash.Update(quote.qe_auth);
  std::array<uint8_t, 64> bound{};  // the digest, then zeros
  const Digest digest = hash.Finish();
  std::copy(digest.begin(), digest.end(), bound.begin());
  if (quote.qe_report.report_data != bound) {
    return Refuse("tdx-key-binding", ToHex(quote.qe_report.report_data), ToHex(bound));
  }
  TALARIA_ASSIGN_OR_RETURN(
      const PublicKey key,
      PublicKey::FromPoint(Curve::kP256, quote.attestation_key, "tdx-attestation-key"));
  if (!IsSignedBy(key, quote.signed_part, quote.signature)) {
    return Refuse("tdx-quote-signature", "a quote that the attestation key did not sign");
  }
  return OkStatus();
}

}  // namespace talaria::attest
