#include "talaria/attest/facts.h"

#include <ctime>

#include "talaria/attest/refusal.h"

namespace talaria::attest {
namespace {

std::string OnOff(bool on) { return on ? "on" : "off"; }

std::string Hex64(uint64_t value) {
  std::array<uint8_t, 8> big_endian{};
  for (size_t i = 0; i < 8; ++i) big_endian[i] = static_cast<uint8_t>(value >> (56 - 8 * i));
  return "0x" + ToHex(big_endian);
}

template <size_t N>
bool IsZero(const std::array<uint8_t, N>& bytes) {
  return bytes == std::array<uint8_t, N>{};
}

// Zeros stand for "not used" in the fields that a guest may leave alone.
template <size_t N>
void AddUnlessZero(Facts& facts, const char* name, const std::array<uint8_t, N>& bytes) {
  if (!IsZero(bytes)) facts.emplace_back(name, ToHex(bytes));
}

std::string Joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  return out.empty() ? "none" : out;
}

std::string PlatformWords(uint64_t bits) {
  namespace info = snp_platform_info;
  std::vector<std::string> words;
  const std::pair<uint64_t, const char*> known[] = {{info::kSmt, "SMT"},
                                                    {info::kTsme, "TSME"},
                                                    {info::kEcc, "ECC"},
                                                    {info::kRaplDisabled, "RAPL disabled"},
                                                    {info::kCiphertextHiding, "ciphertext hiding"},
                                                    {info::kAliasCheckComplete, "alias check"},
                                                    {info::kTio, "TIO"}};
  for (const auto& [bit, word] : known) {
    if ((bits & bit) != 0) words.emplace_back(word);
  }
  return Joined(words);
}

}  // namespace

Facts SnpFacts(const VerifiedSnpReport& verified) {
  const SnpReport& report = verified.report();
  const SnpFirmware& firmware = report.current_firmware;
  const bool vlek = report.signing_key == SnpSigningKey::kVlek;
  Facts facts = {
      {"product", std::string(SnpProductName(report.product))},
      {"tcb", DescribeTcb(report.product, report.reported_tcb)},
      {"firmware", std::to_string(firmware.major) + "." + std::to_string(firmware.minor) + "." +
                       std::to_string(firmware.build)},
      {"signing key", vlek ? "VLEK" : "VCEK"},
      // A VLEK names a cloud; CHIP_ID proves nothing then.
      vlek ? std::pair<std::string, std::string>("cloud", Printable(verified.csp_id()))
           : std::pair<std::string, std::string>("chip", ToHex(report.chip_id)),
      {"debug", OnOff((report.policy & snp_guest_policy::kDebug) != 0)},
      {"migration", OnOff((report.policy & snp_guest_policy::kMigrateMa) != 0)},
      {"smt", (report.policy & snp_guest_policy::kSmt) != 0 ? "allowed" : "off"},
      {"guest policy", Hex64(report.policy)},
      {"platform", PlatformWords(report.platform_info)},
      {"vmpl", std::to_string(report.vmpl)},
      {"guest svn", std::to_string(report.guest_svn)},
      {"measurement", ToHex(report.measurement)},
  };
  AddUnlessZero(facts, "host data", report.host_data);
  AddUnlessZero(facts, "id key", report.id_key_digest);
  AddUnlessZero(facts, "author key", report.author_key_digest);
  AddUnlessZero(facts, "family id", report.family_id);
  AddUnlessZero(facts, "image id", report.image_id);
  return facts;
}

Facts TdxFacts(const VerifiedTdxQuote& verified) {
  const TdReport& body = verified.body();
  const TdxTcb& tcb = verified.tcb();
  Facts facts = {
      {"product", "Intel TDX, FMSPC " + ToHex(verified.pck().fmspc)},
      {"tcb", std::string(TcbStatusName(tcb.converged)) + " by evaluation " +
                  std::to_string(verified.tcb_evaluation_data_number())},
      {"advisories", Joined(tcb.advisories)},
      {"chip", ToHex(verified.pck().ppid)},
      {"debug", OnOff((body.td_attributes & 1) != 0)},
      {"td attributes", Hex64(body.td_attributes)},
      {"xfam", Hex64(body.xfam)},
      {"tee tcb svn", ToHex(body.tee_tcb_svn)},
      {"measurement", ToHex(body.mrtd)},
  };
  for (size_t i = 0; i < body.rtmr.size(); ++i) {
    facts.emplace_back("rtmr" + std::to_string(i), ToHex(body.rtmr[i]));
  }
  AddUnlessZero(facts, "mrconfigid", body.mrconfigid);
  AddUnlessZero(facts, "mrowner", body.mrowner);
  AddUnlessZero(facts, "mrownerconfig", body.mrownerconfig);
  if (body.tdx15) {
    facts.emplace_back("tee tcb svn2", ToHex(body.tdx15->tee_tcb_svn2));
    AddUnlessZero(facts, "mrservicetd", body.tdx15->mrservicetd);
  }
  return facts;
}

Facts ContextFacts(const Context& context) {
  return {{"model identity", ToHex(context.model_identity)},
          {"configuration", ToHex(context.configuration)},
          {"tenant key", ToHex(context.tenant_key)},
          {"profile", std::to_string(context.profile)},
          {"check vectors", std::to_string(context.check_vectors)},
          {"build", context.development ? "development" : "release"}};
}

std::string DescribeTcb(SnpProduct product, const TcbVersion& tcb) {
  const std::string fmc =
      product == SnpProduct::kTurin ? "FMC " + std::to_string(tcb.fmc) + ", " : "";
  return fmc + "boot loader " + std::to_string(tcb.boot_loader) + ", TEE " +
         std::to_string(tcb.tee) + ", SNP " + std::to_string(tcb.snp) + ", microcode " +
         std::to_string(tcb.microcode);
}

std::string FormatUtc(UnixTime time) {
  constexpr UnixTime kYear10000 = 253402300800;
  const std::time_t seconds = time;
  std::tm utc{};
  char text[32];
  if (time < 0 || time >= kYear10000 || gmtime_r(&seconds, &utc) == nullptr ||
      std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &utc) == 0) {
    return std::to_string(time);
  }
  return text;
}

}  // namespace talaria::attest
