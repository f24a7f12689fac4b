#include "talaria/attest/collateral_files.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>

#include "talaria/attest/refusal.h"
#include "talaria/base/file.h"

namespace talaria::attest {
namespace {

namespace fs = std::filesystem;

constexpr SnpProduct kProducts[] = {SnpProduct::kMilan, SnpProduct::kGenoa, SnpProduct::kTurin};

// Reasons of refusals do not matter here: a folder's fault is told by file, as kCorrupt.
constexpr std::string_view kReason = "collateral";

std::string CrlName(SnpProduct product) {
  std::string name(SnpProductName(product));
  name[0] = static_cast<char>(name[0] - 'A' + 'a');
  return name + ".crl";
}

// Names of a folder come from whoever filled it.
Status Invalid(const std::string& path, std::string_view what) {
  return Status(Code::kInvalidArgument, path + " " + std::string(what));
}
Status Corrupt(const std::string& path, const std::string& what) {
  return Status(Code::kCorrupt, path + ": " + what);
}

// The names in a folder, sorted; at most `max` of them.
Result<std::vector<std::string>> NamesIn(const std::string& folder, size_t max) {
  std::error_code error;
  const auto status = fs::status(folder, error);
  if (status.type() == fs::file_type::not_found) {
    return Status(Code::kNotFound, folder + " does not exist");
  }
  if (!error && status.type() != fs::file_type::directory) {
    return Invalid(folder, "is not a folder");
  }
  std::vector<std::string> names;
  fs::directory_iterator at(folder, error);
  for (; !error && at != fs::directory_iterator(); at.increment(error)) {
    if (names.size() == max) return Invalid(folder, "holds too much");
    names.push_back(at->path().filename().string());
  }
  if (error) return Status(Code::kIo, folder + ": " + error.message());
  std::ranges::sort(names);
  return names;
}

Result<std::vector<uint8_t>> Load(const std::string& path) {
  Result<std::vector<uint8_t>> bytes = ReadFile(path, kMaxCollateralFileBytes);
  if (bytes.ok()) {
    if (bytes->empty()) return Corrupt(path, "is empty");
    return bytes;
  }
  // Not all messages of the layer below name the file.
  const Status& status = bytes.status();
  return status.message().find(path) == std::string::npos ? status.Annotate(path) : status;
}

Result<Crl> LoadCrl(const std::string& path) {
  TALARIA_ASSIGN_OR_RETURN(const std::vector<uint8_t> der, Load(path));
  Result<Crl> crl = Crl::FromDer(der, kReason);
  if (!crl.ok()) return Corrupt(path, crl.status().message());
  return crl;
}

Status LoadAmd(const std::string& folder, std::vector<AmdCrl>& out) {
  TALARIA_ASSIGN_OR_RETURN(const auto names, NamesIn(folder, std::size(kProducts) + 1));
  for (const std::string& name : names) {
    const auto product = std::ranges::find(kProducts, name, CrlName);
    if (product == std::end(kProducts)) {
      return Invalid(folder + "/" + Printable(name),
                     "is not known: wanted milan.crl, genoa.crl or turin.crl");
    }
    TALARIA_ASSIGN_OR_RETURN(Crl crl, LoadCrl(folder + "/" + name));
    out.push_back({*product, std::move(crl)});
  }
  return OkStatus();
}

// One file of a platform: where its bytes go.
struct TdxFile {
  std::string_view name;
  std::string TdxCollateral::*text;
  std::vector<uint8_t> TdxCollateral::*bytes;
};
constexpr TdxFile kTdxFiles[] = {
    {"tcb_info.json", &TdxCollateral::tcb_info, nullptr},
    {"tcb_info.sig.hex", &TdxCollateral::tcb_info_signature_hex, nullptr},
    {"tcb_info_issuer_chain.pem", &TdxCollateral::tcb_info_chain_pem, nullptr},
    {"qe_identity.json", &TdxCollateral::qe_identity, nullptr},
    {"qe_identity.sig.hex", &TdxCollateral::qe_identity_signature_hex, nullptr},
    {"qe_identity_issuer_chain.pem", &TdxCollateral::qe_identity_chain_pem, nullptr},
    {"root_ca_crl.der", nullptr, &TdxCollateral::root_crl},
    {"pck_crl.der", nullptr, &TdxCollateral::pck_crl},
};

// Collects the dates of one platform, which parses all of it on the way.
class Platform {
 public:
  Platform(const TdxPlatformCollateral& platform, std::string folder)
      : files_(platform.files), fmspc_(platform.fmspc), folder_(std::move(folder)) {}

  Result<std::vector<CollateralExpiry>> Expiries() {
    TALARIA_RETURN_IF_ERROR(Json());
    TALARIA_RETURN_IF_ERROR(Chain("tcb_info_issuer_chain.pem", files_.tcb_info_chain_pem));
    TALARIA_RETURN_IF_ERROR(Chain("qe_identity_issuer_chain.pem", files_.qe_identity_chain_pem));
    TALARIA_RETURN_IF_ERROR(Signature("tcb_info.sig.hex", files_.tcb_info_signature_hex));
    TALARIA_RETURN_IF_ERROR(Signature("qe_identity.sig.hex", files_.qe_identity_signature_hex));
    TALARIA_RETURN_IF_ERROR(List("root_ca_crl.der", files_.root_crl, "Intel's root"));
    TALARIA_RETURN_IF_ERROR(List("pck_crl.der", files_.pck_crl, "the PCK CA"));
    return std::move(out_);
  }

 private:
  Status Json() {
    const Result<TcbInfo> info = ParseTcbInfo(files_.tcb_info);
    if (!info.ok()) return Corrupt(Path("tcb_info.json"), info.status().message());
    if (info->fmspc != fmspc_) {
      return Corrupt(Path("tcb_info.json"),
                     "is of FMSPC " + ToHex(info->fmspc) + ", its folder of " + ToHex(fmspc_));
    }
    Add("tcb_info.json",
        "TCB info, evaluation " + std::to_string(info->window.tcb_evaluation_data_number),
        info->window.next_update);
    const Result<QeIdentity> identity = ParseQeIdentity(files_.qe_identity);
    if (!identity.ok()) return Corrupt(Path("qe_identity.json"), identity.status().message());
    Add("qe_identity.json",
        "identity of the quoting enclave, evaluation " +
            std::to_string(identity->window.tcb_evaluation_data_number),
        identity->window.next_update);
    return OkStatus();
  }
  Status Chain(std::string_view name, const std::string& pem) {
    const auto chain = Certificate::FromPem(pem, 2, kReason);
    if (!chain.ok()) return Corrupt(Path(name), chain.status().message());
    Add(name, "certificate of its signer",
        std::min(chain->front().not_after(), chain->back().not_after()));
    return OkStatus();
  }
  Status Signature(std::string_view name, const std::string& hex) {
    std::array<uint8_t, 64> raw;
    if (FromHex(hex, raw)) return OkStatus();
    return Corrupt(Path(name), "is not 128 lower-case hexadecimal digits");
  }
  Status List(std::string_view name, const std::vector<uint8_t>& der, const std::string& of) {
    if (der.empty()) return OkStatus();
    const Result<Crl> crl = Crl::FromDer(der, kReason);
    if (!crl.ok()) return Corrupt(Path(name), crl.status().message());
    Add(name, "revocation list of " + of, crl->next_update());
    return OkStatus();
  }
  std::string Path(std::string_view name) const { return folder_ + "/" + std::string(name); }
  void Add(std::string_view name, std::string what, UnixTime next_update) {
    out_.push_back({Path(name), std::move(what), next_update});
  }

  const TdxCollateral& files_;
  const Fmspc fmspc_;
  const std::string folder_;
  std::vector<CollateralExpiry> out_;
};

Result<TdxPlatformCollateral> LoadPlatform(const std::string& folder, const Fmspc& fmspc) {
  TALARIA_ASSIGN_OR_RETURN(const auto names, NamesIn(folder, std::size(kTdxFiles) + 1));
  for (const std::string& name : names) {
    if (std::ranges::find(kTdxFiles, name, &TdxFile::name) == std::end(kTdxFiles)) {
      return Invalid(folder + "/" + Printable(name), "is not known");
    }
  }
  TdxPlatformCollateral out{fmspc, {}};
  for (const TdxFile& file : kTdxFiles) {
    const std::string path = folder + "/" + std::string(file.name);
    const bool there = std::ranges::binary_search(names, file.name);
    const bool optional = file.bytes != nullptr;
    if (!there && optional) continue;
    if (!there) return Status(Code::kNotFound, path + " is missing");
    TALARIA_ASSIGN_OR_RETURN(std::vector<uint8_t> bytes, Load(path));
    if (optional) {
      out.files.*file.bytes = std::move(bytes);
    } else {
      out.files.*file.text = std::string(bytes.begin(), bytes.end());
    }
  }
  TALARIA_RETURN_IF_ERROR(Platform(out, folder).Expiries().status());
  return out;
}

Status LoadTdx(const std::string& folder, std::vector<TdxPlatformCollateral>& out) {
  TALARIA_ASSIGN_OR_RETURN(const auto names, NamesIn(folder, kMaxCollateralPlatforms));
  for (const std::string& name : names) {
    Fmspc fmspc;
    if (!FromHex(name, fmspc)) {
      return Invalid(folder + "/" + Printable(name),
                     "is not known: wanted an FMSPC of 12 lower-case hexadecimal digits");
    }
    TALARIA_ASSIGN_OR_RETURN(TdxPlatformCollateral platform,
                             LoadPlatform(folder + "/" + name, fmspc));
    out.push_back(std::move(platform));
  }
  return OkStatus();
}

}  // namespace

std::string AmdCrlPath(SnpProduct product) { return "amd/" + CrlName(product); }
std::string TdxPlatformPath(const Fmspc& fmspc) { return "tdx/" + ToHex(fmspc); }

std::vector<CollateralFile> FilesOf(const TdxCollateral& files) {
  std::vector<CollateralFile> out;
  for (const TdxFile& file : kTdxFiles) {
    const Bytes bytes =
        file.bytes != nullptr ? Bytes(files.*file.bytes) : AsBytes(files.*file.text);
    if (!bytes.empty()) out.push_back({file.name, bytes});
  }
  return out;
}

Result<Collateral> LoadCollateral(const std::string& folder) {
  TALARIA_ASSIGN_OR_RETURN(const auto names, NamesIn(folder, kMaxCollateralPlatforms));
  Collateral out;
  for (const std::string& name : names) {
    const std::string path = folder + "/" + name;
    if (name == kCollateralStaging) continue;
    if (name == "amd") {
      TALARIA_RETURN_IF_ERROR(LoadAmd(path, out.amd));
    } else if (name == "tdx") {
      TALARIA_RETURN_IF_ERROR(LoadTdx(path, out.tdx));
    } else {
      return Invalid(folder + "/" + Printable(name), "is not known: wanted amd or tdx");
    }
  }
  if (out.amd.empty() && out.tdx.empty()) return Invalid(folder, "holds no collateral");
  return out;
}

Result<std::vector<CollateralExpiry>> ExpiryOf(const Collateral& collateral) {
  std::vector<CollateralExpiry> out;
  for (const auto& [product, crl] : collateral.amd) {
    out.push_back({AmdCrlPath(product),
                   "revocation list of ARK-" + std::string(SnpProductName(product)),
                   crl.next_update()});
  }
  for (const TdxPlatformCollateral& platform : collateral.tdx) {
    TALARIA_ASSIGN_OR_RETURN(auto expiries,
                             Platform(platform, TdxPlatformPath(platform.fmspc)).Expiries());
    std::ranges::move(expiries, std::back_inserter(out));
  }
  std::ranges::stable_sort(out, {}, &CollateralExpiry::next_update);
  return out;
}

}  // namespace talaria::attest
