#include "talaria/attest/snp/vek.h"

#include <algorithm>

#include "talaria/attest/refusal.h"

namespace talaria::attest {
namespace {

#define TALARIA_AMD_OID "1.3.6.1.4.1.3704.1."
constexpr const char* kStructVersion = TALARIA_AMD_OID "1";
constexpr const char* kProductName = TALARIA_AMD_OID "2";
constexpr const char* kBootLoaderSpl = TALARIA_AMD_OID "3.1";
constexpr const char* kTeeSpl = TALARIA_AMD_OID "3.2";
constexpr const char* kSnpSpl = TALARIA_AMD_OID "3.3";
constexpr const char* kReservedSpls[] = {TALARIA_AMD_OID "3.4", TALARIA_AMD_OID "3.5",
                                         TALARIA_AMD_OID "3.6", TALARIA_AMD_OID "3.7"};
constexpr const char* kMicrocodeSpl = TALARIA_AMD_OID "3.8";
constexpr const char* kFmcSpl = TALARIA_AMD_OID "3.9";
constexpr const char* kHardwareId = TALARIA_AMD_OID "4";
constexpr const char* kCspId = TALARIA_AMD_OID "5";
#undef TALARIA_AMD_OID

Status Bad(const char* oid, std::string_view found, std::string_view wanted) {
  return Refuse("vek-extension", std::string(oid) + " " + std::string(found), wanted);
}

// Where AMD's extensions are read: one that is asked for must be there.
class Extensions {
 public:
  explicit Extensions(const Certificate& certificate) : certificate_(certificate) {}

  Result<bool> Has(const char* oid) const {
    TALARIA_ASSIGN_OR_RETURN(const auto value, certificate_.Extension(oid, "vek-extension"));
    return value.has_value();
  }
  Result<std::vector<uint8_t>> Value(const char* oid) const {
    TALARIA_ASSIGN_OR_RETURN(auto value, certificate_.Extension(oid, "vek-extension"));
    if (!value) return Bad(oid, "missing", "to be there");
    return *std::move(value);
  }
  // A DER INTEGER of 0..255, in its one shortest form.
  Result<uint8_t> Byte(const char* oid) const {
    TALARIA_ASSIGN_OR_RETURN(const auto der, Value(oid));
    if (der.size() == 3 && der[0] == 2 && der[1] == 1 && der[2] < 0x80) return der[2];
    if (der.size() == 4 && der[0] == 2 && der[1] == 2 && der[2] == 0 && der[3] >= 0x80) {
      return der[3];
    }
    return Bad(oid, ToHex(Bytes(der).first(std::min<size_t>(der.size(), 32))),
               "a DER INTEGER of 0 to 255");
  }
  // An IA5String of 1..127 printable characters.
  Result<std::string> Text(const char* oid) const {
    TALARIA_ASSIGN_OR_RETURN(const auto der, Value(oid));
    const bool framed =
        der.size() >= 3 && der[0] == 0x16 && der[1] < 0x80 && der[1] == der.size() - 2;
    if (!framed || !std::all_of(der.begin() + 2, der.end(),
                                [](uint8_t c) { return c >= 0x20 && c <= 0x7e; })) {
      return Bad(oid, ToHex(Bytes(der).first(std::min<size_t>(der.size(), 32))),
                 "a printable IA5String");
    }
    return std::string(der.begin() + 2, der.end());
  }

 private:
  const Certificate& certificate_;
};

// "Milan", or "Milan-B0" with a stepping.
std::optional<SnpProduct> ProductOfName(std::string_view name) {
  for (const SnpProduct product : {SnpProduct::kMilan, SnpProduct::kGenoa, SnpProduct::kTurin}) {
    const std::string_view plain = SnpProductName(product);
    if (name == plain ||
        (name.starts_with(plain) && name.size() > plain.size() + 1 && name[plain.size()] == '-')) {
      return product;
    }
  }
  return std::nullopt;
}

Result<TcbVersion> TcbOf(const Extensions& extensions, SnpProduct product) {
  TcbVersion tcb;
  TALARIA_ASSIGN_OR_RETURN(tcb.boot_loader, extensions.Byte(kBootLoaderSpl));
  TALARIA_ASSIGN_OR_RETURN(tcb.tee, extensions.Byte(kTeeSpl));
  TALARIA_ASSIGN_OR_RETURN(tcb.snp, extensions.Byte(kSnpSpl));
  TALARIA_ASSIGN_OR_RETURN(tcb.microcode, extensions.Byte(kMicrocodeSpl));
  if (product == SnpProduct::kTurin) {
    TALARIA_ASSIGN_OR_RETURN(tcb.fmc, extensions.Byte(kFmcSpl));
  } else {
    TALARIA_ASSIGN_OR_RETURN(const bool has_fmc, extensions.Has(kFmcSpl));
    if (has_fmc) return Bad(kFmcSpl, "present", "none before Turin");
  }
  // The components that are reserved in a report's TCB, where they must be zero: Turin has one
  // fewer, and so these may be missing, but they may not say anything else.
  for (const char* oid : kReservedSpls) {
    TALARIA_ASSIGN_OR_RETURN(const bool has, extensions.Has(oid));
    if (!has) continue;
    TALARIA_ASSIGN_OR_RETURN(const uint8_t value, extensions.Byte(oid));
    if (value != 0) return Bad(oid, std::to_string(value), "0");
  }
  return tcb;
}

// AMD puts the raw bytes there, without a DER tag, so the length decides first: a raw number may
// begin with the tag's value.
Result<std::vector<uint8_t>> HardwareIdOf(const Extensions& extensions, SnpProduct product) {
  const size_t size = product == SnpProduct::kTurin ? 8 : 64;
  TALARIA_ASSIGN_OR_RETURN(auto value, extensions.Value(kHardwareId));
  if (value.size() == size) return value;
  if (value.size() == size + 2 && value[0] == 4 && value[1] == size) {
    return std::vector<uint8_t>(value.begin() + 2, value.end());
  }
  return Bad(kHardwareId, std::to_string(value.size()) + " bytes", std::to_string(size));
}

}  // namespace

Result<Vek> ParseVek(Bytes der) {
  TALARIA_ASSIGN_OR_RETURN(Certificate certificate, Certificate::FromDer(der, "vek-format"));
  Vek vek;
  vek.certificate = std::move(certificate);
  const std::string name = vek.certificate.SubjectCommonName();
  if (name != "SEV-VCEK" && name != "SEV-VLEK") {
    return Refuse("vek-name", Printable(name), "SEV-VCEK or SEV-VLEK");
  }
  vek.kind = name == "SEV-VCEK" ? SnpSigningKey::kVcek : SnpSigningKey::kVlek;
  if (!vek.certificate.HasEcKey(Curve::kP384)) {
    return Refuse("vek-key", "another key", "EC P-384");
  }
  const Extensions extensions(vek.certificate);
  TALARIA_RETURN_IF_ERROR(extensions.Byte(kStructVersion).status());
  TALARIA_ASSIGN_OR_RETURN(const std::string product_name, extensions.Text(kProductName));
  const std::optional<SnpProduct> product = ProductOfName(product_name);
  if (!product) return Bad(kProductName, Printable(product_name), "Milan, Genoa or Turin");
  vek.product = *product;
  TALARIA_ASSIGN_OR_RETURN(vek.tcb, TcbOf(extensions, *product));
  const bool is_vcek = vek.kind == SnpSigningKey::kVcek;
  const char* foreign = is_vcek ? kCspId : kHardwareId;
  TALARIA_ASSIGN_OR_RETURN(const bool has_foreign, extensions.Has(foreign));
  if (has_foreign) return Bad(foreign, "present", is_vcek ? "none in a VCEK" : "none in a VLEK");
  if (is_vcek) {
    TALARIA_ASSIGN_OR_RETURN(vek.hardware_id, HardwareIdOf(extensions, *product));
  } else {
    TALARIA_ASSIGN_OR_RETURN(vek.csp_id, extensions.Text(kCspId));
  }
  return vek;
}

}  // namespace talaria::attest
