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

// The same bytes, not the same name or key: a peer's copy is never used, and may not differ.
Status CheckRoot(const Certificate& found, const IntelRoot& root) {
  if (found == root.certificate) return OkStatus();
  return Refuse("tdx-root", ToHex(Sha256Of(found.der())), ToHex(Sha256Of(root.certificate.der())));
}

Status CheckCaName(const Certificate& ca) {
  const std::string name = ca.SubjectCommonName();
  if (name == "Intel SGX PCK Platform CA" || name == "Intel SGX PCK Processor CA")
    return OkStatus();
  return Refuse("tdx-pck-name", Printable(name), "Intel SGX PCK Platform CA or Processor CA");
}

constexpr ChainOptions kChainOptions = {
    .reason = "tdx-pck-chain", .expired_reason = "tdx-pck-expired", .strict = true};

}  // namespace

Result<Certificate> VerifyPckCa(std::string_view pem, const IntelRoot& root, UnixTime now) {
  TALARIA_ASSIGN_OR_RETURN(const std::vector<Certificate> chain,
                           Certificate::FromPem(pem, 2, "tdx-pck-pem"));
  TALARIA_RETURN_IF_ERROR(CheckRoot(chain[1], root));
  TALARIA_RETURN_IF_ERROR(VerifyChain(chain[0], {}, root.certificate, now, kChainOptions));
  TALARIA_RETURN_IF_ERROR(CheckCaName(chain[0]));
  return chain[0];
}

Result<PckChain> VerifyPckChain(std::string_view pem, const IntelRoot& root, UnixTime now) {
  TALARIA_ASSIGN_OR_RETURN(const std::vector<Certificate> chain,
                           Certificate::FromPem(pem, 3, "tdx-pck-pem"));
  const Certificate& leaf = chain[0];
  const Certificate& issuer = chain[1];
  TALARIA_RETURN_IF_ERROR(CheckRoot(chain[2], root));
  TALARIA_RETURN_IF_ERROR(VerifyChain(leaf, {&issuer, 1}, root.certificate, now, kChainOptions));
  constexpr std::string_view kLeafName = "Intel SGX PCK Certificate";
  if (leaf.SubjectCommonName() != kLeafName) {
    return Refuse("tdx-pck-name", Printable(leaf.SubjectCommonName()), kLeafName);
  }
  TALARIA_RETURN_IF_ERROR(CheckCaName(issuer));
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
