// What Intel publishes about platforms, and its verification under the root: who signed it, whether
// it is fresh, and who was revoked. All of it comes from a file or a peer, none of it is secret.
#ifndef TALARIA_ATTEST_TDX_COLLATERAL_H_
#define TALARIA_ATTEST_TDX_COLLATERAL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "talaria/attest/tdx/collateral_json.h"
#include "talaria/attest/tdx/intel_root.h"
#include "talaria/attest/tdx/signatures.h"
#include "talaria/attest/x509.h"
#include "talaria/base/result.h"

namespace talaria::attest {

// The bytes of each file, unchanged. The chains are signer and root, as PEM.
struct TdxCollateral {
  std::string tcb_info;                // the object that is signed, exactly (SliceSignedJson)
  std::string tcb_info_signature_hex;  // r || s, 128 lower-case digits
  std::string tcb_info_chain_pem;
  std::string qe_identity;
  std::string qe_identity_signature_hex;
  std::string qe_identity_chain_pem;
  std::vector<uint8_t> root_crl;  // DER; empty where there is none
  std::vector<uint8_t> pck_crl;   // DER, of the CA that issued the PCK certificate; or empty
  bool operator==(const TdxCollateral&) const = default;
};

enum class TdxCrlPolicy {
  kRequired,       // both lists must be there
  kAcceptMissing,  // a list that is there counts in full; stale ones are refused all the same
};

struct RevocationLists {
  std::optional<Crl> root;  // of the PCK CAs and of the TCB signer
  std::optional<Crl> pck;   // of PCK certificates
};

// The lists, verified, and the CA of PCK certificates not on them. Refusals: "tdx-crl-missing",
// "tdx-root-crl", "tdx-root-crl-expired", "tdx-pck-crl", "tdx-pck-crl-expired", "tdx-revoked".
Result<RevocationLists> VerifyRevocationLists(const TdxCollateral& collateral,
                                              const Certificate& pck_ca, const IntelRoot& root,
                                              UnixTime now, TdxCrlPolicy policy);
// The same, and nobody in `chain` on them.
Result<RevocationLists> VerifyRevocation(const TdxCollateral& collateral, const PckChain& chain,
                                         const IntelRoot& root, UnixTime now, TdxCrlPolicy policy);

// The signer's chain, its revocation, the signature over the exact bytes, then the parse, then
// issueDate <= now <= nextUpdate and the floor. Refusals: "tdx-collateral-chain",
// "tdx-collateral-chain-expired", "tdx-revoked", "tdx-tcb-info-signature", those of ParseTcbInfo,
// "tdx-tcb-info-expired", "tdx-collateral-rollback".
Result<TcbInfo> VerifyTcbInfo(const TdxCollateral& collateral, const RevocationLists& lists,
                              const IntelRoot& root, UnixTime now,
                              uint32_t min_tcb_evaluation_data_number);
// As above, with "tdx-qe-identity-signature" and "tdx-qe-identity-expired".
Result<QeIdentity> VerifyQeIdentity(const TdxCollateral& collateral, const RevocationLists& lists,
                                    const IntelRoot& root, UnixTime now,
                                    uint32_t min_tcb_evaluation_data_number);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_TDX_COLLATERAL_H_
