// Is this platform patched? The quoting enclave, the processor's firmware and the TDX module each
// get a status from Intel's collateral, and the three converge into one.
#ifndef TALARIA_ATTEST_TDX_TCB_H_
#define TALARIA_ATTEST_TDX_TCB_H_

#include <string>
#include <vector>

#include "talaria/attest/tdx/collateral_json.h"
#include "talaria/attest/tdx/pck.h"
#include "talaria/attest/tdx/quote.h"
#include "talaria/base/result.h"

namespace talaria::attest {

struct TdxTcb {
  TcbStatus qe = TcbStatus::kRevoked;
  TcbStatus platform = TcbStatus::kRevoked;
  TcbStatus module = TcbStatus::kRevoked;
  TcbStatus converged = TcbStatus::kRevoked;
  std::vector<std::string> advisories;  // of the platform's level; for people
};

// The report is of Intel's quoting enclave. Refusals: "tdx-qe-miscselect", "tdx-qe-attributes",
// "tdx-qe-mrsigner", "tdx-qe-isvprodid", "tdx-qe-isvsvn" (below all levels).
Result<TcbStatus> EvaluateQe(const QeReport& report, const QeIdentity& identity);

// The first level that the PCK certificate and TEE_TCB_SVN reach in every component; never the
// status of a component alone. TEE_TCB_SVN[0..1] is left to EvaluateModule where the module has a
// major version. Refusals: "tdx-fmspc" and "tdx-pceid" (collateral of another family),
// "tdx-tcb-level" (none reached).
Result<PlatformLevel> EvaluatePlatform(const TdReport& report, const PckExtension& pck,
                                       const TcbInfo& info);

// The module that TEE_TCB_SVN[1] names. Refusals: "tdx-module-signer" and "tdx-module-attributes"
// (not Intel's production module: both must match and be zero), "tdx-module-identity" (none for
// that version), "tdx-module-isvsvn" (below all levels).
Result<TcbStatus> EvaluateModule(const TdReport& report, const TcbInfo& info);

// The worst of the three.
TcbStatus Converge(TcbStatus platform, TcbStatus module, TcbStatus qe);

// All of the above, in that order; `converged` may be any status.
Result<TdxTcb> EvaluateTcb(const TdxQuote& quote, const PckExtension& pck, const TcbInfo& info,
                           const QeIdentity& identity);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_TDX_TCB_H_
