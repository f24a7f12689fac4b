#include "talaria/attest/evidence.h"

#include "talaria/attest/refusal.h"

namespace talaria::attest {

std::string_view EvidenceTypeName(EvidenceType type) {
  switch (type) {
    case EvidenceType::kSevSnp:
      return "sev-snp";
    case EvidenceType::kTdx:
      return "tdx";
    case EvidenceType::kSimulated:
      return "simulated";
  }
  return "unknown";
}

std::vector<uint8_t> Encode(const Evidence& evidence) {
  std::vector<uint8_t> out;
  ByteWriter writer(out);
  writer.U8(static_cast<uint8_t>(evidence.type));
  writer.U32(static_cast<uint32_t>(evidence.report.size()));
  writer.Raw(evidence.report);
  writer.U32(static_cast<uint32_t>(evidence.certificates.size()));
  writer.Raw(evidence.certificates);
  return out;
}

Result<Evidence> DecodeEvidence(Bytes bytes) {
  const auto sized = [](ByteReader& reader, size_t max, std::vector<uint8_t>& out) {
    const uint32_t size = reader.U32();
    if (!reader.ok() || size > max) return false;
    const Bytes raw = reader.Raw(size);
    out.assign(raw.begin(), raw.end());
    return reader.ok();
  };
  ByteReader reader(bytes);
  Evidence evidence;
  const uint8_t type = reader.U8();
  if (type != 1 && type != 2 && type != 128) {
    return Refuse("evidence-format", "type " + std::to_string(type));
  }
  evidence.type = static_cast<EvidenceType>(type);
  if (!sized(reader, kMaxReportBytes, evidence.report) || evidence.report.empty() ||
      !sized(reader, kMaxCertificatesBytes, evidence.certificates) || !reader.AtEnd()) {
    return Refuse("evidence-format", std::to_string(bytes.size()) + " bytes");
  }
  return evidence;
}

Digest DigestOf(const Evidence& evidence) { return Sha256Of(Encode(evidence)); }

}  // namespace talaria::attest
