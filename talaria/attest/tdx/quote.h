// A TDX quote, version 4 or 5, as the quoting enclave writes it. All integers little-endian;
// signatures (r || s) and keys (x || y) big-endian. Bytes of a peer; nothing here is verified.
//
//   header 48 | v5 only: u16 body type, u32 body size | TD report 584 or 648     <- signed
//   u32 auth size, then as many bytes:
//     quote signature 64 | attestation key 64 | u16 6 | u32 size, then as many bytes:
//       QE report 384 | its signature 64 | u16 size, QE auth data | u16 5 | u32 size, PEM
//   zeros                                                                        <- not signed
#ifndef TALARIA_ATTEST_TDX_QUOTE_H_
#define TALARIA_ATTEST_TDX_QUOTE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "talaria/attest/evidence.h"
#include "talaria/base/bytes.h"
#include "talaria/base/result.h"

namespace talaria::attest {

using TdxMeasurement = std::array<uint8_t, 48>;  // SHA-384
using TdxSvns = std::array<uint8_t, 16>;         // one security version number per component
using EcPoint = std::array<uint8_t, 64>;         // x || y on P-256, big-endian
using EcSignature = std::array<uint8_t, 64>;     // r || s, big-endian

inline constexpr size_t kTdxQuoteHeaderBytes = 48;
inline constexpr uint32_t kTdReport10Bytes = 584;
inline constexpr uint32_t kTdReport15Bytes = 648;
inline constexpr size_t kQeReportBytes = 384;

// What TDX 1.5 added to the report. Not nested: clang 14 takes a nested struct with default values
// for one that std::optional cannot make.
struct Tdx15Fields {
  TdxSvns tee_tcb_svn2{};  // of the module that runs now, after a TD-preserving update
  TdxMeasurement mrservicetd{};
  bool operator==(const Tdx15Fields&) const = default;
};

// What the TDX module says of the TD and of itself.
struct TdReport {
  TdxSvns tee_tcb_svn{};  // [0] module's SVN, [1] its major version, [2] microcode
  TdxMeasurement mrseam{};
  TdxMeasurement mrsignerseam{};
  std::array<uint8_t, 8> seam_attributes{};
  uint64_t td_attributes = 0;
  uint64_t xfam = 0;
  TdxMeasurement mrtd{};
  TdxMeasurement mrconfigid{};
  TdxMeasurement mrowner{};
  TdxMeasurement mrownerconfig{};
  std::array<TdxMeasurement, 4> rtmr{};
  ReportData report_data{};
  std::optional<Tdx15Fields> tdx15;  // with a body of 648 bytes only
  bool operator==(const TdReport&) const = default;
};

// The fields of the quoting enclave's SGX report that its identity is checked on.
struct QeReport {
  std::array<uint8_t, 16> cpusvn{};
  std::array<uint8_t, 4> miscselect{};
  std::array<uint8_t, 16> attributes{};
  std::array<uint8_t, 32> mrenclave{};
  std::array<uint8_t, 32> mrsigner{};
  uint16_t isvprodid = 0;
  uint16_t isvsvn = 0;
  std::array<uint8_t, 64> report_data{};
};

struct TdxQuote {
  uint16_t version = 4;
  std::array<uint8_t, 20> user_data{};
  TdReport body;
  EcSignature signature{};
  EcPoint attestation_key{};
  std::array<uint8_t, kQeReportBytes> qe_report_bytes{};
  EcSignature qe_report_signature{};
  std::vector<uint8_t> qe_auth;
  std::string pck_chain_pem;

  // Set by the parser only.
  QeReport qe_report;                // of qe_report_bytes
  std::vector<uint8_t> signed_part;  // header to body, as received. Caches key on this, never on
                                     // the quote: signatures and PEM are malleable.
  size_t canonical_bytes = 0;        // without the zeros behind
};

// At most kMaxReportBytes. Refusals, in this order of checks: "tdx-quote-size",
// "tdx-quote-truncated" (at any place), "tdx-quote-version", "tdx-quote-key-type",
// "tdx-quote-tee-type", "tdx-quote-reserved", "tdx-quote-vendor", "tdx-quote-body",
// "tdx-quote-length" (nested sizes that do not add up exactly), "tdx-quote-certification",
// "tdx-quote-trailing".
Result<TdxQuote> ParseTdxQuote(Bytes bytes);

QeReport ParseQeReport(const std::array<uint8_t, kQeReportBytes>& bytes);

// Canonical: EncodeTdxQuote(*ParseTdxQuote(x)) is x without its trailing zeros.
std::vector<uint8_t> EncodeTdxQuote(const TdxQuote& quote);
// The part of it that the attestation key signs.
std::vector<uint8_t> EncodeTdxSignedPart(const TdxQuote& quote);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_TDX_QUOTE_H_
