// The two signed JSON objects of Intel's provisioning service (PCS v4): what the TCB of a family of
// platforms must be, and what the TD quoting enclave is. Parsed only after the signature over the
// exact bytes was verified (collateral.h), and strictly all the same.
//
// Common to both: at most kMaxCollateralJsonBytes, one object from the first byte to the last, no
// key twice in any object, numbers as unsigned integers within their field, hex in either case and
// of its exact length, times as YYYY-MM-DDThh:mm:ssZ. Keys that are not known are passed over:
// Intel adds them without a new version.
#ifndef TALARIA_ATTEST_TDX_COLLATERAL_JSON_H_
#define TALARIA_ATTEST_TDX_COLLATERAL_JSON_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "talaria/attest/tdx/pck.h"
#include "talaria/attest/tdx/quote.h"
#include "talaria/attest/x509.h"
#include "talaria/base/result.h"

namespace talaria::attest {

inline constexpr size_t kMaxCollateralJsonBytes = 1 << 20;

enum class TcbStatus {
  kUpToDate,
  kSwHardeningNeeded,
  kConfigurationNeeded,
  kConfigurationAndSwHardeningNeeded,
  kOutOfDate,
  kOutOfDateConfigurationNeeded,
  kRevoked,
};
std::string_view TcbStatusName(TcbStatus status);  // Intel's own: "UpToDate", ...

// When a collateral was issued, and until when it may be used.
struct CollateralWindow {
  UnixTime issue_date = 0;
  UnixTime next_update = 0;
  uint32_t tcb_evaluation_data_number = 0;  // grows with every TCB recovery
};

// A level of an enclave or module: reached when isvsvn <= the report's.
struct IsvLevel {
  uint16_t isvsvn = 0;
  TcbStatus status = TcbStatus::kRevoked;  // UpToDate, OutOfDate or Revoked only
};

struct PlatformLevel {
  std::array<uint8_t, 16> sgx_svns{};  // against the PCK certificate's
  std::array<uint8_t, 16> tdx_svns{};  // against TEE_TCB_SVN
  uint16_t pcesvn = 0;
  TcbStatus status = TcbStatus::kRevoked;
  std::vector<std::string> advisories;  // "INTEL-SA-00837", printable, for people
};

struct TdxModule {
  TdxMeasurement mrsigner{};
  std::array<uint8_t, 8> attributes{};
  std::array<uint8_t, 8> attributes_mask{};
};

struct TdxModuleIdentity {
  uint8_t major = 0;  // of the id "TDX_xx"
  TdxModule module;
  std::vector<IsvLevel> levels;  // in Intel's order, the newest first
};

// "tcbInfo" with id "TDX", version 3.
struct TcbInfo {
  CollateralWindow window;
  Fmspc fmspc{};
  std::array<uint8_t, 2> pceid{};
  TdxModule module;  // of major version 0, which has no identity of its own
  std::vector<TdxModuleIdentity> module_identities;
  std::vector<PlatformLevel> levels;  // in Intel's order, the newest first
};

// "enclaveIdentity" with id "TD_QE", version 2. Masked values are compared in the byte order of the
// report.
struct QeIdentity {
  CollateralWindow window;
  std::array<uint8_t, 4> miscselect{}, miscselect_mask{};
  std::array<uint8_t, 16> attributes{}, attributes_mask{};
  std::array<uint8_t, 32> mrsigner{};
  uint16_t isvprodid = 0;
  std::vector<IsvLevel> levels;
};

// Refusals: "tdx-tcb-info-format" (with the place), "tdx-tcb-info-kind" (id, version or type),
// "tdx-collateral-duplicate-key", "tdx-tcb-status-unknown".
Result<TcbInfo> ParseTcbInfo(std::string_view json);
// As above, with "tdx-qe-identity-format" and "tdx-qe-identity-kind".
Result<QeIdentity> ParseQeIdentity(std::string_view json);

// A response of the service: {"NAME":OBJECT,"signature":"HEX"}, exactly, as it is sent.
struct SignedJson {
  std::string object;         // the exact bytes that are signed
  std::string signature_hex;  // r || s, 128 characters
};
// `name`: "tcbInfo" or "enclaveIdentity". Slices, and does not look inside the object. Refusal:
// "tdx-collateral-response".
Result<SignedJson> SliceSignedJson(std::string_view response, std::string_view name);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_TDX_COLLATERAL_JSON_H_
