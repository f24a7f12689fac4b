#include "talaria/attest/snp/report.h"

#include <algorithm>

#include "talaria/attest/refusal.h"

namespace talaria::attest {
namespace {

std::string Hex32(uint32_t value) {
  std::array<uint8_t, 4> bytes{};
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(value >> (24 - 8 * i));
  return "0x" + ToHex(bytes);
}

bool IsZero(Bytes bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t b) { return b == 0; });
}

// Reads and remembers the first reserved range that was not zero.
class ReportReader : public ByteReader {
 public:
  using ByteReader::ByteReader;
  void Reserved(size_t size) {
    const size_t offset = kSnpReportBytes - remaining();
    const Bytes raw = Raw(size);
    if (!IsZero(raw) && reserved_.empty()) {
      reserved_ = "0x" + ToHex(raw) + " at " + Hex32(static_cast<uint32_t>(offset));
    }
  }
  // As it lies there: which byte is which depends on the product.
  std::array<uint8_t, 8> Tcb() { return Array<8>(); }
  SnpFirmware Firmware() {
    SnpFirmware out;
    out.build = U8();
    out.minor = U8();
    out.major = U8();
    Reserved(1);
    return out;
  }
  const std::string& reserved() const { return reserved_; }

 private:
  std::string reserved_;
};

// False where a reserved byte is not zero.
bool DecodeTcb(SnpProduct product, const std::array<uint8_t, 8>& raw, TcbVersion& out) {
  if (product == SnpProduct::kTurin) {
    out = {.fmc = raw[0], .boot_loader = raw[1], .tee = raw[2], .snp = raw[3], .microcode = raw[7]};
    return IsZero(Bytes(raw).subspan(4, 3));
  }
  out = {.fmc = 0, .boot_loader = raw[0], .tee = raw[1], .snp = raw[6], .microcode = raw[7]};
  return IsZero(Bytes(raw).subspan(2, 4));
}

std::optional<SnpProduct> ProductOfCpuid(const std::array<uint8_t, 3>& cpuid) {
  const auto [family, model, stepping] = cpuid;
  if (family == 0x19 && model <= 0x0f) return SnpProduct::kMilan;
  if (family == 0x19 && ((model >= 0x10 && model <= 0x1f) || (model >= 0xa0 && model <= 0xaf))) {
    return SnpProduct::kGenoa;
  }
  if (family == 0x1a && model <= 0x11) return SnpProduct::kTurin;
  return std::nullopt;
}

}  // namespace

std::string_view SnpProductName(SnpProduct product) {
  switch (product) {
    case SnpProduct::kMilan:
      return "Milan";
    case SnpProduct::kGenoa:
      return "Genoa";
    case SnpProduct::kTurin:
      return "Turin";
  }
  return "unknown";
}

bool TcbVersion::AtLeast(const TcbVersion& floor) const {
  return fmc >= floor.fmc && boot_loader >= floor.boot_loader && tee >= floor.tee &&
         snp >= floor.snp && microcode >= floor.microcode;
}

std::string ToString(const TcbVersion& tcb) {
  return "fmc " + std::to_string(tcb.fmc) + ", bl " + std::to_string(tcb.boot_loader) + ", tee " +
         std::to_string(tcb.tee) + ", snp " + std::to_string(tcb.snp) + ", ucode " +
         std::to_string(tcb.microcode);
}

Result<SnpReport> ParseSnpReport(Bytes bytes, std::optional<SnpProduct> version_2_product) {
  if (bytes.size() != kSnpReportBytes) {
    return Refuse("snp-length", std::to_string(bytes.size()), std::to_string(kSnpReportBytes));
  }
  ReportReader reader(bytes);
  SnpReport report;
  report.version = reader.U32();
  if (report.version < 2 || report.version > 5) {
    return Refuse("snp-version", std::to_string(report.version), "2 to 5");
  }
  if (report.version == 2 && !version_2_product) {
    return Refuse("snp-version", "2, which does not name its product", "3 to 5, or a product");
  }
  report.guest_svn = reader.U32();
  report.policy = reader.U64();
  report.family_id = reader.Array<16>();
  report.image_id = reader.Array<16>();
  report.vmpl = reader.U32();
  const uint32_t algorithm = reader.U32();
  const auto current_tcb = reader.Tcb();
  report.platform_info = reader.U64();
  const uint32_t flags = reader.U32();
  reader.Reserved(4);
  report.report_data = reader.Array<64>();
  report.measurement = reader.Array<48>();
  report.host_data = reader.Array<32>();
  report.id_key_digest = reader.Array<48>();
  report.author_key_digest = reader.Array<48>();
  report.report_id = reader.Array<32>();
  report.report_id_ma = reader.Array<32>();
  const auto reported_tcb = reader.Tcb();
  if (report.version == 2) {
    reader.Reserved(3);
  } else {
    report.cpuid = reader.Array<3>();
  }
  reader.Reserved(21);
  report.chip_id = reader.Array<64>();
  const auto committed_tcb = reader.Tcb();
  report.current_firmware = reader.Firmware();
  report.committed_firmware = reader.Firmware();
  const auto launch_tcb = reader.Tcb();
  if (report.version < 5) {
    reader.Reserved(16);
  } else {
    report.launch_mitigations = reader.U64();
    report.current_mitigations = reader.U64();
  }
  reader.Reserved(152);
  for (int i = 0; i < 2; ++i) {  // r and s
    reader.Raw(kSnpSignatureNumberBytes);
    reader.Reserved(72 - kSnpSignatureNumberBytes);
  }
  reader.Reserved(kSnpReportBytes - kSnpSignatureReservedOffset);
  TALARIA_CHECK(reader.AtEnd());

  if (algorithm != 1) {
    return Refuse("snp-signature-algorithm", std::to_string(algorithm), "1 (ECDSA P-384, SHA-384)");
  }
  if (flags >> 5 != 0) return Refuse("snp-reserved", "flags " + Hex32(flags), "0 above bit 4");
  if (!reader.reserved().empty()) return Refuse("snp-reserved", reader.reserved(), "zeros");
  report.author_key_enabled = (flags & 1) != 0;
  report.mask_chip_key = (flags & 2) != 0;
  const uint32_t signing_key = flags >> 2 & 7;
  if (signing_key > 1) {
    return Refuse("snp-signing-key", std::to_string(signing_key), "0 (VCEK) or 1 (VLEK)");
  }
  report.signing_key = static_cast<SnpSigningKey>(signing_key);
  // 0xffffffff: the host asked for this report, not the guest.
  if (report.vmpl > 3) return Refuse("snp-vmpl", std::to_string(report.vmpl), "0 to 3");
  const std::optional<SnpProduct> product =
      report.version == 2 ? version_2_product : ProductOfCpuid(report.cpuid);
  if (!product) {
    return Refuse("snp-product", "CPUID " + ToHex(report.cpuid), "Milan, Genoa or Turin");
  }
  report.product = *product;
  if (!DecodeTcb(*product, current_tcb, report.current_tcb) ||
      !DecodeTcb(*product, reported_tcb, report.reported_tcb) ||
      !DecodeTcb(*product, committed_tcb, report.committed_tcb) ||
      !DecodeTcb(*product, launch_tcb, report.launch_tcb)) {
    return Refuse("snp-reserved", "a TCB with reserved components", "zeros");
  }
  return report;
}

}  // namespace talaria::attest
