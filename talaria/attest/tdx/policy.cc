#include "talaria/attest/tdx/policy.h"

#include <array>
#include <string>
#include <string_view>

#include "talaria/attest/refusal.h"
#include "talaria/base/secret.h"

namespace talaria::attest {
namespace {

// TDATTRIBUTES (Intel TDX module, ATTRIBUTES).
constexpr uint64_t kDebug = uint64_t{1} << 0;
constexpr uint64_t kSeptVeDisable = uint64_t{1} << 28;
constexpr uint64_t kMigratable = uint64_t{1} << 29;
constexpr uint64_t kPks = uint64_t{1} << 30;
constexpr uint64_t kKeyLocker = uint64_t{1} << 31;
constexpr uint64_t kPerfmon = uint64_t{1} << 63;

std::string Hex64(uint64_t value) {
  std::array<uint8_t, 8> big_endian{};
  for (size_t i = 0; i < 8; ++i) big_endian[i] = static_cast<uint8_t>(value >> (56 - 8 * i));
  return "0x" + ToHex(big_endian);
}

template <class T>
Status CheckAccepted(std::string_view reason, const T& found, const Accepted<T>& accepted) {
  if (accepted.Has(found)) return OkStatus();
  const auto& values = accepted.values();
  if (values.empty()) return Refuse(reason, ToHex(found), "none: the list is empty");
  std::string wanted = ToHex(values[0]);
  if (values.size() > 1) wanted += " or one of " + std::to_string(values.size() - 1) + " others";
  return Refuse(reason, ToHex(found), wanted);
}

Status CheckAtLeast(std::string_view reason, const TdxSvns& found, const TdxSvns& min) {
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i] < min[i]) return Refuse(reason, ToHex(found), "at least " + ToHex(min));
  }
  return OkStatus();
}

Status CheckAttributes(uint64_t found, const TdxPolicy& policy) {
  const auto refuse = [found](std::string_view reason, std::string_view wanted) {
    return Refuse(reason, Hex64(found), wanted);
  };
  if ((found & kDebug) != 0) return refuse("tdx-debug", "bit 0 clear");
  if ((found & kMigratable) != 0) return refuse("tdx-migratable", "bit 29 clear");
  if ((found & kSeptVeDisable) == 0 && !*policy.accept_septve_enabled) {
    return refuse("tdx-sept-ve", "bit 28 set");
  }
  if ((found & kKeyLocker) != 0 && !*policy.accept_key_locker) {
    return refuse("tdx-key-locker", "bit 31 clear");
  }
  if ((found & kPerfmon) != 0 && !*policy.accept_perfmon) {
    return refuse("tdx-perfmon", "bit 63 clear");
  }
  constexpr uint64_t kKnown = kSeptVeDisable | kPks | kKeyLocker | kPerfmon;
  if ((found & ~kKnown) != 0) return refuse("tdx-attributes", "no bit outside " + Hex64(kKnown));
  return OkStatus();
}

}  // namespace

Status CheckTdxPolicy(const VerifiedTdxQuote& verified, const TdxPolicy& policy,
                      const ReportData& expected) {
  const TdReport& body = verified.body();
  const TcbStatus status = verified.tcb().converged;
  const bool hardening = *policy.accept_sw_hardening_needed;
  if (status != TcbStatus::kUpToDate && !(hardening && status == TcbStatus::kSwHardeningNeeded)) {
    return Refuse("tdx-tcb-status", TcbStatusName(status),
                  hardening ? "UpToDate or SWHardeningNeeded" : "UpToDate");
  }
  TALARIA_RETURN_IF_ERROR(CheckAttributes(body.td_attributes, policy));
  const uint64_t allowed_xfam = *policy.allowed_xfam & kXfamDefined;
  if ((body.xfam & kXfamX87AndSse) != kXfamX87AndSse || (body.xfam & ~allowed_xfam) != 0) {
    return Refuse("tdx-xfam", Hex64(body.xfam), "3, and no bit outside " + Hex64(allowed_xfam));
  }

  const Tdx15Fields newer = body.tdx15.value_or(Tdx15Fields{});
  TALARIA_RETURN_IF_ERROR(
      CheckAtLeast("tdx-tee-tcb-svn", body.tee_tcb_svn, *policy.min_tee_tcb_svn));
  TALARIA_RETURN_IF_ERROR(
      CheckAtLeast("tdx-tee-tcb-svn2", newer.tee_tcb_svn2, *policy.min_tee_tcb_svn2));

  struct Pin {
    std::string_view reason;
    const TdxMeasurement& found;
    const Accepted<TdxMeasurement>& accepted;
  };
  const std::array<Pin, 9> pins{{
      {"tdx-mrservicetd", newer.mrservicetd, policy.mrservicetd},
      {"tdx-mrtd", body.mrtd, policy.mrtd},
      {"tdx-rtmr0", body.rtmr[0], policy.rtmr0},
      {"tdx-rtmr1", body.rtmr[1], policy.rtmr1},
      {"tdx-rtmr2", body.rtmr[2], policy.rtmr2},
      {"tdx-rtmr3", body.rtmr[3], policy.rtmr3},
      {"tdx-mrconfigid", body.mrconfigid, policy.mrconfigid},
      {"tdx-mrowner", body.mrowner, policy.mrowner},
      {"tdx-mrownerconfig", body.mrownerconfig, policy.mrownerconfig},
  }};
  for (const Pin& pin : pins) {
    TALARIA_RETURN_IF_ERROR(CheckAccepted(pin.reason, pin.found, pin.accepted));
  }
  TALARIA_RETURN_IF_ERROR(
      CheckAccepted("tdx-fmspc-not-accepted", verified.pck().fmspc, policy.fmspc));
  TALARIA_RETURN_IF_ERROR(CheckAccepted("tdx-ppid-not-accepted", verified.pck().ppid, policy.ppid));

  if (!ConstantTimeEqual(body.report_data.data(), expected.data(), expected.size())) {
    return Refuse("tdx-report-data", ToHex(body.report_data), ToHex(expected));
  }
  return OkStatus();
}

}  // namespace talaria::attest
