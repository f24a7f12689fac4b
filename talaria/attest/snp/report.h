// The ATTESTATION_REPORT of AMD SEV-SNP (SNP firmware ABI, table "ATTESTATION_REPORT Structure";
// doc/attestation.md has the layout). Parsing proves nothing: VerifySnpReport (verify.h) does.
#ifndef TALARIA_ATTEST_SNP_REPORT_H_
#define TALARIA_ATTEST_SNP_REPORT_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "talaria/attest/evidence.h"
#include "talaria/base/bytes.h"
#include "talaria/base/result.h"

namespace talaria::attest {

inline constexpr size_t kSnpReportBytes = 0x4a0;
inline constexpr size_t kSnpSignedBytes = 0x2a0;        // the signature covers [0, this)
inline constexpr size_t kSnpSignatureROffset = 0x2a0;   // 72 bytes, little-endian
inline constexpr size_t kSnpSignatureSOffset = 0x2e8;   // 72 bytes, little-endian
inline constexpr size_t kSnpSignatureNumberBytes = 48;  // of the 72; the rest is zero
inline constexpr size_t kSnpSignatureReservedOffset = 0x330;

// By the lines of certificates, not by CPU: Bergamo and Siena are Genoa here.
enum class SnpProduct : uint8_t { kMilan, kGenoa, kTurin };
std::string_view SnpProductName(SnpProduct product);  // "Milan": as in AMD's certificates

// Components have no common order: only AtLeast() compares two of them.
struct TcbVersion {
  uint8_t fmc = 0;  // Turin only, else 0
  uint8_t boot_loader = 0;
  uint8_t tee = 0;
  uint8_t snp = 0;
  uint8_t microcode = 0;
  bool operator==(const TcbVersion&) const = default;
  bool AtLeast(const TcbVersion& floor) const;  // in every component
};
std::string ToString(const TcbVersion& tcb);  // "fmc 0, bl 4, tee 0, snp 24, ucode 219"

struct SnpFirmware {
  uint8_t build = 0;
  uint8_t minor = 0;
  uint8_t major = 0;
  bool operator==(const SnpFirmware&) const = default;
};

enum class SnpSigningKey : uint8_t { kVcek = 0, kVlek = 1 };

// POLICY of the guest.
namespace snp_guest_policy {
inline constexpr uint64_t kSmt = 1ull << 16;
inline constexpr uint64_t kMustBeOne = 1ull << 17;
inline constexpr uint64_t kMigrateMa = 1ull << 18;
inline constexpr uint64_t kDebug = 1ull << 19;
inline constexpr uint64_t kSingleSocket = 1ull << 20;
inline constexpr uint64_t kCxlAllow = 1ull << 21;
inline constexpr uint64_t kMemAes256Xts = 1ull << 22;
inline constexpr uint64_t kRaplDisable = 1ull << 23;
inline constexpr uint64_t kCiphertextHidingDram = 1ull << 24;
inline constexpr uint64_t kPageSwapDisable = 1ull << 25;
inline constexpr uint64_t kReserved = ~0ull << 26;
}  // namespace snp_guest_policy

// PLATFORM_INFO of the machine.
namespace snp_platform_info {
inline constexpr uint64_t kSmt = 1 << 0;
inline constexpr uint64_t kTsme = 1 << 1;
inline constexpr uint64_t kEcc = 1 << 2;
inline constexpr uint64_t kRaplDisabled = 1 << 3;
inline constexpr uint64_t kCiphertextHiding = 1 << 4;
inline constexpr uint64_t kAliasCheckComplete = 1 << 5;  // the check for BadRAM, AMD-SB-3015
inline constexpr uint64_t kTio = 1 << 7;
}  // namespace snp_platform_info

struct SnpReport {
  uint32_t version = 0;  // 2..5
  uint32_t guest_svn = 0;
  uint64_t policy = 0;  // snp_guest_policy
  std::array<uint8_t, 16> family_id{};
  std::array<uint8_t, 16> image_id{};
  uint32_t vmpl = 0;  // 0..3
  TcbVersion current_tcb;
  uint64_t platform_info = 0;  // snp_platform_info
  bool author_key_enabled = false;
  bool mask_chip_key = false;
  SnpSigningKey signing_key = SnpSigningKey::kVcek;
  ReportData report_data{};
  std::array<uint8_t, 48> measurement{};
  std::array<uint8_t, 32> host_data{};
  std::array<uint8_t, 48> id_key_digest{};
  std::array<uint8_t, 48> author_key_digest{};
  std::array<uint8_t, 32> report_id{};
  std::array<uint8_t, 32> report_id_ma{};
  TcbVersion reported_tcb;
  SnpProduct product = SnpProduct::kMilan;  // from CPUID; of version 2, what the verifier said
  std::array<uint8_t, 3> cpuid{};           // family, model, stepping; zero in version 2
  std::array<uint8_t, 64> chip_id{};
  TcbVersion committed_tcb;
  SnpFirmware current_firmware;
  SnpFirmware committed_firmware;
  TcbVersion launch_tcb;
  uint64_t launch_mitigations = 0;   // LAUNCH_MIT_VECTOR; zero before version 5
  uint64_t current_mitigations = 0;  // CURRENT_MIT_VECTOR; zero before version 5
  bool operator==(const SnpReport&) const = default;
};

// Everything but the signature's value: length, version, reserved ranges (those beside the
// signature too), product. `version_2_product`: version 2 does not say what it runs on, so without
// this it is refused; later versions ignore it.
// Refusals: snp-length, snp-version, snp-signature-algorithm, snp-reserved, snp-signing-key,
// snp-vmpl, snp-product.
Result<SnpReport> ParseSnpReport(Bytes report, std::optional<SnpProduct> version_2_product);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_SNP_REPORT_H_
