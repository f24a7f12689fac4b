// What a TEE says about itself, as it travels: doc/attestation.md. Canonical:
// Encode(Decode(x)) == x.
#ifndef TALARIA_ATTEST_EVIDENCE_H_
#define TALARIA_ATTEST_EVIDENCE_H_

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/digest.h"
#include "talaria/base/result.h"

namespace talaria::attest {

enum class EvidenceType : uint8_t {
  kSevSnp = 1,       // report: ATTESTATION_REPORT, 1184 bytes; certificates: GHCB table or empty
  kTdx = 2,          // report: TDX quote v4 or v5; certificates: empty
  kSimulated = 128,  // as kSevSnp, under a root whose private key everybody has
};
std::string_view EvidenceTypeName(EvidenceType type);  // "sev-snp", "tdx", "simulated"

using ReportData = std::array<uint8_t, 64>;

inline constexpr size_t kMaxReportBytes = 32 << 10;
inline constexpr size_t kMaxCertificatesBytes = 32 << 10;

struct Evidence {
  EvidenceType type = EvidenceType::kSevSnp;
  std::vector<uint8_t> report;        // 1..kMaxReportBytes
  std::vector<uint8_t> certificates;  // from the host, never trusted; 0..kMaxCertificatesBytes
  bool operator==(const Evidence&) const = default;
};

// u8 type, u32 size, report, u32 size, certificates.
std::vector<uint8_t> Encode(const Evidence& evidence);
// kUntrusted "evidence-format".
Result<Evidence> DecodeEvidence(Bytes bytes);
// SHA-256 of Encode(evidence): what receipts and verdicts call the evidence's digest.
Digest DigestOf(const Evidence& evidence);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_EVIDENCE_H_
