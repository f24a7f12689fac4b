// Which trust domains are accepted. No field may be left out, an empty list accepts nothing, and
// what no policy should accept (DEBUG, MIGRATABLE, unknown attributes) cannot be stated.
#ifndef TALARIA_ATTEST_TDX_POLICY_H_
#define TALARIA_ATTEST_TDX_POLICY_H_

#include <array>
#include <cstdint>

#include "talaria/attest/accepted.h"
#include "talaria/attest/evidence.h"
#include "talaria/attest/mandatory.h"
#include "talaria/attest/tdx/pck.h"
#include "talaria/attest/tdx/quote.h"
#include "talaria/attest/tdx/verify.h"
#include "talaria/base/result.h"

namespace talaria::attest {

// Features that TDX defines for XFAM (Intel TDX module, XFAM; dcap-qvl has the same mask).
inline constexpr uint64_t kXfamDefined = 0x6dbe7;
inline constexpr uint64_t kXfamX87AndSse = 0x3;  // always on

struct TdxPolicy {
  // What the TD consists of. MRTD alone covers only the firmware.
  Accepted<TdxMeasurement> mrtd;
  Accepted<TdxMeasurement> rtmr0;  // firmware configuration
  Accepted<TdxMeasurement> rtmr1;  // kernel
  Accepted<TdxMeasurement> rtmr2;  // command line and initrd
  Accepted<TdxMeasurement> rtmr3;  // application
  // What the host chose at launch; zeros unless used.
  Accepted<TdxMeasurement> mrconfigid;
  Accepted<TdxMeasurement> mrowner;
  Accepted<TdxMeasurement> mrownerconfig;
  // Service TDs may migrate or change the TD. A body of TDX 1.0 does not report them: it counts as
  // zeros.
  Accepted<TdxMeasurement> mrservicetd;

  // Extended processor state that the TD may have; beyond kXfamDefined nothing is accepted.
  Mandatory<uint64_t> allowed_xfam;
  // TDATTRIBUTES that are refused unless stated. PKS is accepted, all others are refused.
  Mandatory<bool> accept_septve_enabled;  // the host can make #VE happen anywhere in the guest
  Mandatory<bool> accept_key_locker;
  Mandatory<bool> accept_perfmon;

  // UpToDate is always accepted, SWHardeningNeeded only so, nothing else ever.
  Mandatory<bool> accept_sw_hardening_needed;
  // Component by component. The second is the module that runs now; a body of TDX 1.0 does not
  // report it and reaches zeros only.
  Mandatory<TdxSvns> min_tee_tcb_svn;
  Mandatory<TdxSvns> min_tee_tcb_svn2;

  // Which machines: signatures of a machine whose keys were taken are valid ones.
  Accepted<Fmspc> fmspc;
  Accepted<Ppid> ppid;
};

// Refusals, in this order: "tdx-tcb-status", "tdx-debug", "tdx-migratable", "tdx-sept-ve",
// "tdx-key-locker", "tdx-perfmon", "tdx-attributes", "tdx-xfam", "tdx-tee-tcb-svn",
// "tdx-tee-tcb-svn2", "tdx-mrservicetd", "tdx-mrtd", "tdx-rtmr0" to "tdx-rtmr3",
// "tdx-mrconfigid", "tdx-mrowner", "tdx-mrownerconfig", "tdx-fmspc-not-accepted",
// "tdx-ppid-not-accepted", "tdx-report-data" (all 64 bytes are compared).
Status CheckTdxPolicy(const VerifiedTdxQuote& verified, const TdxPolicy& policy,
                      const ReportData& expected);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_TDX_POLICY_H_
