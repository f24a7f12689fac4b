#include "talaria/attest/tdx/verify.h"

#include <algorithm>

#include "talaria/attest/refusal.h"
#include "talaria/attest/tdx/signatures.h"

namespace talaria::attest {

Result<VerifiedTdxQuote> VerifyTdxQuote(Bytes quote, const TdxCollateral& collateral,
                                        const IntelRoot& root, const TdxVerifyOptions& options) {
  const UnixTime now = *options.now;
  const uint32_t min_number = *options.min_tcb_evaluation_data_number;
  VerifiedTdxQuote out;
  TALARIA_ASSIGN_OR_RETURN(out.quote_, ParseTdxQuote(quote));
  TALARIA_ASSIGN_OR_RETURN(const PckChain chain,
                           VerifyPckChain(out.quote_.pck_chain_pem, root, now));
  TALARIA_ASSIGN_OR_RETURN(const RevocationLists lists,
                           VerifyRevocation(collateral, chain, root, now, *options.crl_policy));
  TALARIA_RETURN_IF_ERROR(VerifyQuoteSignatures(out.quote_, chain));
  TALARIA_ASSIGN_OR_RETURN(const QeIdentity identity,
                           VerifyQeIdentity(collateral, lists, root, now, min_number));
  TALARIA_ASSIGN_OR_RETURN(const TcbInfo info,
                           VerifyTcbInfo(collateral, lists, root, now, min_number));
  TALARIA_ASSIGN_OR_RETURN(out.tcb_, EvaluateTcb(out.quote_, chain.extension, info, identity));
  if (out.tcb_.converged == TcbStatus::kRevoked) {
    return Refuse("tdx-tcb-revoked", TcbStatusName(out.tcb_.converged));
  }
  out.pck_ = chain.extension;
  out.tcb_evaluation_data_number_ =
      std::min(identity.window.tcb_evaluation_data_number, info.window.tcb_evaluation_data_number);
  out.valid_until_ =
      std::min({identity.window.next_update, info.window.next_update, chain.leaf.not_after(),
                chain.issuer.not_after(), root.certificate.not_after()});
  for (const std::optional<Crl>* list : {&lists.root, &lists.pck}) {
    if (*list) out.valid_until_ = std::min(out.valid_until_, (*list)->next_update());
  }
  out.revocation_checked_ = lists.root && lists.pck;
  return out;
}

}  // namespace talaria::attest
