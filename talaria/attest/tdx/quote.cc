#include "talaria/attest/tdx/quote.h"

#include <algorithm>

#include "talaria/attest/refusal.h"

namespace talaria::attest {
namespace {

constexpr uint16_t kEcdsaP256 = 2;
constexpr uint32_t kTeeTdx = 0x81;
constexpr std::array<uint8_t, 16> kIntelQeVendor = {0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9,
                                                    0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07};
constexpr uint16_t kBodyTd10 = 2, kBodyTd15 = 3;
constexpr uint16_t kCertifiedByPckChain = 5, kCertifiedByQeReport = 6;

Status Truncated(size_t size) {
  return Refuse("tdx-quote-truncated", std::to_string(size) + " bytes");
}

// `found` bytes where the sizes around or inside them demand `wanted`.
Status WrongLength(std::string_view what, size_t found, size_t wanted) {
  return Refuse("tdx-quote-length", std::string(what) + " of " + std::to_string(found) + " bytes",
                std::to_string(wanted) + " bytes");
}

Status ParseHeader(ByteReader& reader, size_t size, TdxQuote& quote) {
  quote.version = reader.U16();
  const uint16_t key_type = reader.U16();
  const uint32_t tee_type = reader.U32();
  const uint32_t reserved = reader.U32();  // SVNs of QE and PCE, in quotes older than version 4
  const auto vendor = reader.Array<16>();
  quote.user_data = reader.Array<20>();
  if (!reader.ok()) return Truncated(size);
  if (quote.version != 4 && quote.version != 5) {
    return Refuse("tdx-quote-version", std::to_string(quote.version), "4 or 5");
  }
  if (key_type != kEcdsaP256) {
    return Refuse("tdx-quote-key-type", std::to_string(key_type), "2 (ECDSA P-256)");
  }
  if (tee_type != kTeeTdx) {
    return Refuse("tdx-quote-tee-type", std::to_string(tee_type), "129 (TDX)");
  }
  if (reserved != 0) return Refuse("tdx-quote-reserved", std::to_string(reserved), "0");
  if (vendor != kIntelQeVendor) {
    return Refuse("tdx-quote-vendor", ToHex(vendor), ToHex(kIntelQeVendor));
  }
  return OkStatus();
}

Status ParseBody(ByteReader& reader, size_t size, TdxQuote& quote) {
  bool is_td15 = false;
  if (quote.version == 5) {
    const uint16_t type = reader.U16();
    const uint32_t body_bytes = reader.U32();
    if (!reader.ok()) return Truncated(size);
    is_td15 = type == kBodyTd15;
    if (!(type == kBodyTd10 && body_bytes == kTdReport10Bytes) &&
        !(type == kBodyTd15 && body_bytes == kTdReport15Bytes)) {
      return Refuse("tdx-quote-body",
                    "type " + std::to_string(type) + " of " + std::to_string(body_bytes) + " bytes",
                    "type 2 of 584 or type 3 of 648");
    }
  }
  TdReport& body = quote.body;
  body.tee_tcb_svn = reader.Array<16>();
  body.mrseam = reader.Array<48>();
  body.mrsignerseam = reader.Array<48>();
  body.seam_attributes = reader.Array<8>();
  body.td_attributes = reader.U64();
  body.xfam = reader.U64();
  body.mrtd = reader.Array<48>();
  body.mrconfigid = reader.Array<48>();
  body.mrowner = reader.Array<48>();
  body.mrownerconfig = reader.Array<48>();
  for (TdxMeasurement& rtmr : body.rtmr) rtmr = reader.Array<48>();
  body.report_data = reader.Array<64>();
  if (is_td15) {
    body.tdx15.emplace();
    body.tdx15->tee_tcb_svn2 = reader.Array<16>();
    body.tdx15->mrservicetd = reader.Array<48>();
  }
  return reader.ok() ? OkStatus() : Truncated(size);
}

// `certification` is exactly the content of the outer certification data.
Status ParseQeCertification(Bytes certification, TdxQuote& quote) {
  ByteReader reader(certification);
  quote.qe_report_bytes = reader.Array<kQeReportBytes>();
  quote.qe_report_signature = reader.Array<64>();
  const uint16_t qe_auth_bytes = reader.U16();
  const Bytes qe_auth = reader.Raw(qe_auth_bytes);
  const uint16_t type = reader.U16();
  const uint32_t pem_bytes = reader.U32();
  if (!reader.ok()) {
    return WrongLength("QE certification", certification.size(),
                       kQeReportBytes + 64 + 8 + size_t{qe_auth_bytes});
  }
  if (type != kCertifiedByPckChain) {
    return Refuse("tdx-quote-certification", std::to_string(type), "5 (PCK chain)");
  }
  if (pem_bytes != reader.remaining()) {
    return WrongLength("PCK chain", pem_bytes, reader.remaining());
  }
  const Bytes pem = reader.Raw(pem_bytes);
  quote.qe_auth.assign(qe_auth.begin(), qe_auth.end());
  quote.pck_chain_pem.assign(pem.begin(), pem.end());
  quote.qe_report = ParseQeReport(quote.qe_report_bytes);
  return OkStatus();
}

Status ParseAuth(Bytes auth, TdxQuote& quote) {
  ByteReader reader(auth);
  quote.signature = reader.Array<64>();
  quote.attestation_key = reader.Array<64>();
  const uint16_t type = reader.U16();
  const uint32_t certification_bytes = reader.U32();
  if (!reader.ok()) return WrongLength("auth data", auth.size(), 134);
  if (type != kCertifiedByQeReport) {
    return Refuse("tdx-quote-certification", std::to_string(type), "6 (QE report)");
  }
  if (certification_bytes != reader.remaining()) {
    return WrongLength("certification", certification_bytes, reader.remaining());
  }
  return ParseQeCertification(reader.Raw(certification_bytes), quote);
}

}  // namespace

QeReport ParseQeReport(const std::array<uint8_t, kQeReportBytes>& bytes) {
  // SGX REPORT body; what lies between these fields is not looked at.
  QeReport report;
  ByteReader reader(bytes);
  report.cpusvn = reader.Array<16>();
  report.miscselect = reader.Array<4>();
  reader.Raw(28);
  report.attributes = reader.Array<16>();
  report.mrenclave = reader.Array<32>();
  reader.Raw(32);
  report.mrsigner = reader.Array<32>();
  reader.Raw(96);
  report.isvprodid = reader.U16();
  report.isvsvn = reader.U16();
  reader.Raw(60);
  report.report_data = reader.Array<64>();
  return report;
}

Result<TdxQuote> ParseTdxQuote(Bytes bytes) {
  if (bytes.empty() || bytes.size() > kMaxReportBytes) {
    return Refuse("tdx-quote-size", std::to_string(bytes.size()),
                  "1 to " + std::to_string(kMaxReportBytes));
  }
  TdxQuote quote;
  ByteReader reader(bytes);
  TALARIA_RETURN_IF_ERROR(ParseHeader(reader, bytes.size(), quote));
  TALARIA_RETURN_IF_ERROR(ParseBody(reader, bytes.size(), quote));
  const Bytes signed_part = bytes.first(bytes.size() - reader.remaining());
  quote.signed_part.assign(signed_part.begin(), signed_part.end());
  const uint32_t auth_bytes = reader.U32();
  const Bytes auth = reader.Raw(auth_bytes);
  if (!reader.ok()) return Truncated(bytes.size());
  TALARIA_RETURN_IF_ERROR(ParseAuth(auth, quote));
  // The TDX driver hands out the buffer, not the quote: zeros follow.
  quote.canonical_bytes = bytes.size() - reader.remaining();
  const Bytes trailing = bytes.subspan(quote.canonical_bytes);
  if (!std::all_of(trailing.begin(), trailing.end(), [](uint8_t b) { return b == 0; })) {
    return Refuse("tdx-quote-trailing", ToHex(trailing.first(std::min<size_t>(trailing.size(), 8))),
                  "zeros");
  }
  return quote;
}

std::vector<uint8_t> EncodeTdxSignedPart(const TdxQuote& quote) {
  std::vector<uint8_t> out;
  ByteWriter writer(out);
  writer.U16(quote.version);
  writer.U16(kEcdsaP256);
  writer.U32(kTeeTdx);
  writer.U32(0);
  writer.Raw(kIntelQeVendor);
  writer.Raw(quote.user_data);
  const TdReport& body = quote.body;
  if (quote.version == 5) {
    writer.U16(body.tdx15 ? kBodyTd15 : kBodyTd10);
    writer.U32(body.tdx15 ? kTdReport15Bytes : kTdReport10Bytes);
  }
  writer.Raw(body.tee_tcb_svn);
  writer.Raw(body.mrseam);
  writer.Raw(body.mrsignerseam);
  writer.Raw(body.seam_attributes);
  writer.U64(body.td_attributes);
  writer.U64(body.xfam);
  writer.Raw(body.mrtd);
  writer.Raw(body.mrconfigid);
  writer.Raw(body.mrowner);
  writer.Raw(body.mrownerconfig);
  for (const TdxMeasurement& rtmr : body.rtmr) writer.Raw(rtmr);
  writer.Raw(body.report_data);
  if (body.tdx15) {
    writer.Raw(body.tdx15->tee_tcb_svn2);
    writer.Raw(body.tdx15->mrservicetd);
  }
  return out;
}

std::vector<uint8_t> EncodeTdxQuote(const TdxQuote& quote) {
  std::vector<uint8_t> certification;
  ByteWriter inner(certification);
  inner.Raw(quote.qe_report_bytes);
  inner.Raw(quote.qe_report_signature);
  inner.U16(static_cast<uint16_t>(quote.qe_auth.size()));
  inner.Raw(quote.qe_auth);
  inner.U16(kCertifiedByPckChain);
  inner.U32(static_cast<uint32_t>(quote.pck_chain_pem.size()));
  inner.Raw(AsBytes(quote.pck_chain_pem));

  std::vector<uint8_t> out = EncodeTdxSignedPart(quote);
  ByteWriter writer(out);
  writer.U32(static_cast<uint32_t>(certification.size() + 134));
  writer.Raw(quote.signature);
  writer.Raw(quote.attestation_key);
  writer.U16(kCertifiedByQeReport);
  writer.U32(static_cast<uint32_t>(certification.size()));
  writer.Raw(certification);
  return out;
}

}  // namespace talaria::attest
