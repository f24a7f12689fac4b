// The judgement on a receipt, for a third party: needs no CVM, no network and no clock.
#ifndef TALARIA_ATTEST_RECEIPT_VERIFIER_H_
#define TALARIA_ATTEST_RECEIPT_VERIFIER_H_

#include "talaria/attest/receipt.h"
#include "talaria/attest/verifier.h"

namespace talaria::attest {

inline constexpr int64_t kReceiptClockSkewS = 300;

// What a user shows beside the receipt: bodies as they were in HTTP.
struct Disclosure {
  Salt salt;
  Bytes request, response;
};

// First what the CVM's evidence says at `now` (not at the receipt's time, which only the CVM's
// clock vouches for: what was revoked since is refused), then that the key in it signed this
// receipt, then that the receipt is of this request and answer. kUntrusted: those of
// Verifier::VerifyReportData, "receipt-signature", "receipt-time" (after `now`), "receipt-request",
// "receipt-response".
Result<Verdict> VerifyReceipt(const Receipt& receipt, const Disclosure& disclosure,
                              const Verifier& verifier, UnixTime now);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_RECEIPT_VERIFIER_H_
