#include "talaria/attest/tdx/tcb.h"

#include <algorithm>

#include "talaria/attest/refusal.h"

namespace talaria::attest {
namespace {

template <size_t N>
bool EqualUnder(const std::array<uint8_t, N>& mask, const std::array<uint8_t, N>& found,
                const std::array<uint8_t, N>& wanted) {
  for (size_t i = 0; i < N; ++i) {
    if ((found[i] & mask[i]) != wanted[i]) return false;
  }
  return true;
}

template <size_t N>
bool IsZero(const std::array<uint8_t, N>& bytes) {
  return bytes == std::array<uint8_t, N>{};
}

bool Reaches(const TdReport& report, const PckExtension& pck, const PlatformLevel& level) {
  for (size_t i = 0; i < level.sgx_svns.size(); ++i) {
    if (pck.tcb_svns[i] < level.sgx_svns[i]) return false;
  }
  if (pck.pcesvn < level.pcesvn) return false;
  const size_t first = report.tee_tcb_svn[1] > 0 ? 2 : 0;
  for (size_t i = first; i < level.tdx_svns.size(); ++i) {
    if (report.tee_tcb_svn[i] < level.tdx_svns[i]) return false;
  }
  return true;
}

Result<TcbStatus> StatusAt(uint16_t isvsvn, const std::vector<IsvLevel>& levels,
                           std::string_view reason) {
  for (const IsvLevel& level : levels) {
    if (level.isvsvn <= isvsvn) return level.status;
  }
  return Refuse(reason, std::to_string(isvsvn),
                "at least " + std::to_string(levels.empty() ? 0 : levels.back().isvsvn));
}

}  // namespace

Result<TcbStatus> EvaluateQe(const QeReport& report, const QeIdentity& identity) {
  if (!EqualUnder(identity.miscselect_mask, report.miscselect, identity.miscselect)) {
    return Refuse("tdx-qe-miscselect", ToHex(report.miscselect), ToHex(identity.miscselect));
  }
  if (!EqualUnder(identity.attributes_mask, report.attributes, identity.attributes)) {
    return Refuse("tdx-qe-attributes", ToHex(report.attributes),
                  ToHex(identity.attributes) + " under " + ToHex(identity.attributes_mask));
  }
  if (report.mrsigner != identity.mrsigner) {
    return Refuse("tdx-qe-mrsigner", ToHex(report.mrsigner), ToHex(identity.mrsigner));
  }
  if (report.isvprodid != identity.isvprodid) {
    return Refuse("tdx-qe-isvprodid", std::to_string(report.isvprodid),
                  std::to_string(identity.isvprodid));
  }
  return StatusAt(report.isvsvn, identity.levels, "tdx-qe-isvsvn");
}

Result<PlatformLevel> EvaluatePlatform(const TdReport& report, const PckExtension& pck,
                                       const TcbInfo& info) {
  if (pck.fmspc != info.fmspc) {
    return Refuse("tdx-fmspc", "collateral of " + ToHex(info.fmspc), ToHex(pck.fmspc));
  }
  if (pck.pceid != info.pceid) {
    return Refuse("tdx-pceid", "collateral of " + ToHex(info.pceid), ToHex(pck.pceid));
  }
  for (const PlatformLevel& level : info.levels) {
    if (Reaches(report, pck, level)) return level;
  }
  return Refuse("tdx-tcb-level",
                "components " + ToHex(pck.tcb_svns) + ", PCE " + std::to_string(pck.pcesvn) +
                    ", TEE_TCB_SVN " + ToHex(report.tee_tcb_svn),
                "one of " + std::to_string(info.levels.size()) + " levels");
}

Result<TcbStatus> EvaluateModule(const TdReport& report, const TcbInfo& info) {
  const uint8_t major = report.tee_tcb_svn[1];
  const TdxModule* module = &info.module;
  const std::vector<IsvLevel>* levels = nullptr;
  if (major > 0) {
    const auto found = std::find_if(info.module_identities.begin(), info.module_identities.end(),
                                    [major](const auto& one) { return one.major == major; });
    if (found == info.module_identities.end()) {
      return Refuse("tdx-module-identity", "a module of version " + std::to_string(major),
                    "one of " + std::to_string(info.module_identities.size()) + " identities");
    }
    module = &found->module;
    levels = &found->levels;
  }
  if (report.mrsignerseam != module->mrsigner || !IsZero(report.mrsignerseam)) {
    return Refuse("tdx-module-signer", ToHex(report.mrsignerseam), ToHex(module->mrsigner));
  }
  if (!EqualUnder(module->attributes_mask, report.seam_attributes, module->attributes) ||
      !IsZero(report.seam_attributes)) {
    return Refuse("tdx-module-attributes", ToHex(report.seam_attributes),
                  ToHex(module->attributes));
  }
  // Version 0 has no levels of its own: its SVN is among the platform's components.
  if (levels == nullptr) return TcbStatus::kUpToDate;
  return StatusAt(report.tee_tcb_svn[0], *levels, "tdx-module-isvsvn");
}

TcbStatus Converge(TcbStatus platform, TcbStatus module, TcbStatus qe) {
  const auto any_is = [&](TcbStatus status) {
    return platform == status || module == status || qe == status;
  };
  if (any_is(TcbStatus::kRevoked)) return TcbStatus::kRevoked;
  if (module != TcbStatus::kOutOfDate && qe != TcbStatus::kOutOfDate) return platform;
  switch (platform) {
    case TcbStatus::kConfigurationNeeded:
    case TcbStatus::kConfigurationAndSwHardeningNeeded:
    case TcbStatus::kOutOfDateConfigurationNeeded:
      return TcbStatus::kOutOfDateConfigurationNeeded;
    default:
      return TcbStatus::kOutOfDate;
  }
}

Result<TdxTcb> EvaluateTcb(const TdxQuote& quote, const PckExtension& pck, const TcbInfo& info,
                           const QeIdentity& identity) {
  TdxTcb tcb;
  TALARIA_ASSIGN_OR_RETURN(tcb.qe, EvaluateQe(quote.qe_report, identity));
  TALARIA_ASSIGN_OR_RETURN(PlatformLevel level, EvaluatePlatform(quote.body, pck, info));
  tcb.platform = level.status;
  tcb.advisories = std::move(level.advisories);
  TALARIA_ASSIGN_OR_RETURN(tcb.module, EvaluateModule(quote.body, info));
  tcb.converged = Converge(tcb.platform, tcb.module, tcb.qe);
  return tcb;
}

}  // namespace talaria::attest
