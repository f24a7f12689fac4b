#include "talaria/attest/tdx/collateral.h"

#include <array>

#include "talaria/attest/refusal.h"

namespace talaria::attest {
namespace {

Status CheckNotRevoked(const std::optional<Crl>& list, const Certificate& certificate) {
  if (list && list->Revokes(certificate)) {
    return Refuse("tdx-revoked", Printable(certificate.SubjectCommonName()));
  }
  return OkStatus();
}

struct CrlWords {
  std::string_view name;
  std::string_view reason;
  std::string_view expired_reason;
};

Result<std::optional<Crl>> VerifyCrl(Bytes der, const Certificate& issuer, UnixTime now,
                                     TdxCrlPolicy policy, CrlWords words) {
  if (der.empty()) {
    if (policy == TdxCrlPolicy::kAcceptMissing) return std::optional<Crl>();
    return Refuse("tdx-crl-missing", "nothing", words.name);
  }
  TALARIA_ASSIGN_OR_RETURN(Crl crl, Crl::FromDer(der, words.reason));
  TALARIA_RETURN_IF_ERROR(crl.Verify(issuer, now, words.reason, words.expired_reason));
  return std::optional(std::move(crl));
}

// `object` was signed by the TCB signer of `chain_pem`, who stands directly under the root.
Status VerifySigned(std::string_view object, std::string_view signature_hex,
                    std::string_view chain_pem, const RevocationLists& lists, const IntelRoot& root,
                    UnixTime now, std::string_view signature_reason) {
  constexpr std::string_view kChain = "tdx-collateral-chain";
  constexpr std::string_view kSigner = "Intel SGX TCB Signing";
  TALARIA_ASSIGN_OR_RETURN(const std::vector<Certificate> chain,
                           Certificate::FromPem(chain_pem, 2, kChain));
  const Certificate& signer = chain[0];
  if (!(chain[1] == root.certificate)) {
    return Refuse(kChain, "a root of digest " + ToHex(Sha256Of(chain[1].der())),
                  ToHex(Sha256Of(root.certificate.der())));
  }
  TALARIA_RETURN_IF_ERROR(VerifyChain(
      signer, {}, root.certificate, now,
      {.reason = kChain, .expired_reason = "tdx-collateral-chain-expired", .strict = true}));
  if (signer.SubjectCommonName() != kSigner) {
    return Refuse(kChain, Printable(signer.SubjectCommonName()), kSigner);
  }
  TALARIA_RETURN_IF_ERROR(CheckNotRevoked(lists.root, signer));
  std::array<uint8_t, 64> signature{};
  if (!FromHex(signature_hex, signature)) {
    return Refuse(signature_reason, "no signature", "128 digits of lower-case hex");
  }
  const Bytes both(signature);
  if (!signer.Key().VerifyEcdsa(Curve::kP256, AsBytes(object), both.first(32), both.subspan(32))) {
    return Refuse(signature_reason, "bytes that the TCB signer did not sign");
  }
  return OkStatus();
}

Status CheckWindow(const CollateralWindow& window, UnixTime now, uint32_t min_number,
                   std::string_view expired_reason) {
  if (now < window.issue_date || now > window.next_update) {
    return Refuse(expired_reason, "time " + std::to_string(now),
                  std::to_string(window.issue_date) + " to " + std::to_string(window.next_update));
  }
  if (window.tcb_evaluation_data_number < min_number) {
    return Refuse("tdx-collateral-rollback",
                  "tcbEvaluationDataNumber " + std::to_string(window.tcb_evaluation_data_number),
                  "at least " + std::to_string(min_number));
  }
  return OkStatus();
}

}  // namespace

Result<RevocationLists> VerifyRevocationLists(const TdxCollateral& collateral,
                                              const Certificate& pck_ca, const IntelRoot& root,
                                              UnixTime now, TdxCrlPolicy policy) {
  RevocationLists lists;
  TALARIA_ASSIGN_OR_RETURN(lists.root,
                           VerifyCrl(collateral.root_crl, root.certificate, now, policy,
                                     {"root CRL", "tdx-root-crl", "tdx-root-crl-expired"}));
  TALARIA_RETURN_IF_ERROR(CheckNotRevoked(lists.root, pck_ca));
  TALARIA_ASSIGN_OR_RETURN(lists.pck, VerifyCrl(collateral.pck_crl, pck_ca, now, policy,
                                                {"PCK CRL", "tdx-pck-crl", "tdx-pck-crl-expired"}));
  return lists;
}

Result<RevocationLists> VerifyRevocation(const TdxCollateral& collateral, const PckChain& chain,
                                         const IntelRoot& root, UnixTime now, TdxCrlPolicy policy) {
  // By the leaf's own issuer: the issuer chain that Intel sends with its list adds nothing.
  TALARIA_ASSIGN_OR_RETURN(RevocationLists lists,
                           VerifyRevocationLists(collateral, chain.issuer, root, now, policy));
  TALARIA_RETURN_IF_ERROR(CheckNotRevoked(lists.pck, chain.leaf));
  return lists;
}

Result<TcbInfo> VerifyTcbInfo(const TdxCollateral& collateral, const RevocationLists& lists,
                              const IntelRoot& root, UnixTime now,
                              uint32_t min_tcb_evaluation_data_number) {
  TALARIA_RETURN_IF_ERROR(VerifySigned(collateral.tcb_info, collateral.tcb_info_signature_hex,
                                       collateral.tcb_info_chain_pem, lists, root, now,
                                       "tdx-tcb-info-signature"));
  TALARIA_ASSIGN_OR_RETURN(TcbInfo info, ParseTcbInfo(collateral.tcb_info));
  TALARIA_RETURN_IF_ERROR(
      CheckWindow(info.window, now, min_tcb_evaluation_data_number, "tdx-tcb-info-expired"));
  return info;
}

Result<QeIdentity> VerifyQeIdentity(const TdxCollateral& collateral, const RevocationLists& lists,
                                    const IntelRoot& root, UnixTime now,
                                    uint32_t min_tcb_evaluation_data_number) {
  TALARIA_RETURN_IF_ERROR(VerifySigned(collateral.qe_identity, collateral.qe_identity_signature_hex,
                                       collateral.qe_identity_chain_pem, lists, root, now,
                                       "tdx-qe-identity-signature"));
  TALARIA_ASSIGN_OR_RETURN(QeIdentity identity, ParseQeIdentity(collateral.qe_identity));
  TALARIA_RETURN_IF_ERROR(
      CheckWindow(identity.window, now, min_tcb_evaluation_data_number, "tdx-qe-identity-expired"));
  return identity;
}

}  // namespace talaria::attest
