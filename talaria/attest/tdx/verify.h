// A TDX quote, verified down to Intel's root and rated against Intel's collateral. What the TD is,
// and whether its status suffices, is the policy's business: policy.h.
#ifndef TALARIA_ATTEST_TDX_VERIFY_H_
#define TALARIA_ATTEST_TDX_VERIFY_H_

#include "talaria/attest/mandatory.h"
#include "talaria/attest/tdx/collateral.h"
#include "talaria/attest/tdx/intel_root.h"
#include "talaria/attest/tdx/pck.h"
#include "talaria/attest/tdx/quote.h"
#include "talaria/attest/tdx/tcb.h"
#include "talaria/attest/x509.h"
#include "talaria/base/bytes.h"
#include "talaria/base/digest.h"
#include "talaria/base/result.h"

namespace talaria::attest {

struct TdxVerifyOptions {
  Mandatory<UnixTime> now;  // the verifier's own clock
  Mandatory<TdxCrlPolicy> crl_policy;
  // Collateral from before this TCB recovery is refused even while it is fresh.
  Mandatory<uint32_t> min_tcb_evaluation_data_number;
};

// Made by VerifyTdxQuote only.
class VerifiedTdxQuote {
 public:
  const TdxQuote& quote() const { return quote_; }
  const TdReport& body() const { return quote_.body; }
  const PckExtension& pck() const { return pck_; }
  const TdxTcb& tcb() const { return tcb_; }
  // The lower one of the two collaterals.
  uint32_t tcb_evaluation_data_number() const { return tcb_evaluation_data_number_; }
  // When the first of the collaterals, revocation lists and PCK certificates expires.
  UnixTime valid_until() const { return valid_until_; }
  // Both revocation lists were there.
  bool revocation_checked() const { return revocation_checked_; }
  // SHA-256 of the signed bytes. Signatures, PEM and padding can be changed and stay valid, so
  // nothing may be remembered under the bytes of a whole quote.
  Digest signed_digest() const { return Sha256Of(quote_.signed_part); }

 private:
  VerifiedTdxQuote() = default;
  friend Result<VerifiedTdxQuote> VerifyTdxQuote(Bytes, const TdxCollateral&, const IntelRoot&,
                                                 const TdxVerifyOptions&);
  TdxQuote quote_;
  PckExtension pck_;
  TdxTcb tcb_;
  uint32_t tcb_evaluation_data_number_ = 0;
  UnixTime valid_until_ = 0;
  bool revocation_checked_ = false;
};

// In Intel's order: format, PCK chain, revocation, QE report, attestation key, quote, then QE
// identity, TCB info and status. Nothing is fetched. Refusals: those of quote.h, signatures.h,
// collateral.h and tcb.h, and "tdx-tcb-revoked", which no policy can accept. Thread-safe.
Result<VerifiedTdxQuote> VerifyTdxQuote(Bytes quote, const TdxCollateral& collateral,
                                        const IntelRoot& root, const TdxVerifyOptions& options);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_TDX_VERIFY_H_
