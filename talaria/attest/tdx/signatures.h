// From the pinned root to the TD's report, without collateral:
//
//   root -> PCK CA -> PCK certificate -> QE report -> attestation key -> header and body
#ifndef TALARIA_ATTEST_TDX_SIGNATURES_H_
#define TALARIA_ATTEST_TDX_SIGNATURES_H_

#include <string_view>

#include "talaria/attest/tdx/intel_root.h"
#include "talaria/attest/tdx/pck.h"
#include "talaria/attest/tdx/quote.h"
#include "talaria/attest/x509.h"
#include "talaria/base/result.h"

namespace talaria::attest {

struct PckChain {
  Certificate leaf;    // "Intel SGX PCK Certificate"
  Certificate issuer;  // "Intel SGX PCK Platform CA" or "... Processor CA"
  PckExtension extension;
};

// `pem`: leaf, issuer and root, as quotes carry them. The root must be `root`, byte for byte.
// Refusals, in this order: "tdx-pck-pem", "tdx-root", "tdx-pck-chain", "tdx-pck-expired",
// "tdx-pck-name", "tdx-pck-key", "tdx-pck-extension".
Result<PckChain> VerifyPckChain(std::string_view pem, const IntelRoot& root, UnixTime now);

// The CA alone, as it comes with its revocation list: the CA and root. Refusals: the first five.
Result<Certificate> VerifyPckCa(std::string_view pem, const IntelRoot& root, UnixTime now);

// Refusals, in this order: "tdx-qe-signature", "tdx-key-binding" (the QE's report names another
// attestation key: without this check anybody could sign quotes), "tdx-attestation-key",
// "tdx-quote-signature".
Status VerifyQuoteSignatures(const TdxQuote& quote, const PckChain& chain);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_TDX_SIGNATURES_H_
