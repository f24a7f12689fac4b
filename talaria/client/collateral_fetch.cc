#include "talaria/client/collateral_fetch.h"

#include <algorithm>

#include "talaria/attest/refusal.h"
#include "talaria/attest/snp/report.h"
#include "talaria/attest/tdx/pck.h"
#include "talaria/attest/tdx/quote.h"

namespace talaria::client {
namespace {

using attest::Refuse;

constexpr size_t kMaxChainBytes = 32 << 10;
constexpr std::string_view kProcessorCa = "Intel SGX PCK Processor CA";

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string Upper(std::string text) {
  for (char& c : text) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return text;
}

// `header` in lower case.
Result<std::string> ChainOf(const FetchedFile& file, const std::string& url,
                            const std::string& header) {
  const auto found = file.headers.find(header);
  if (found == file.headers.end())
    return Refuse("tdx-issuer-chain", "no header " + header + " from " + url);
  return DecodeIssuerChain(found->second);
}

// One of Intel's two signed objects, with the chain of its signer.
Status FetchSigned(Fetcher& fetcher, const std::string& url, std::string_view name,
                   const std::string& chain_header, std::string& object, std::string& signature,
                   std::string& chain) {
  TALARIA_ASSIGN_OR_RETURN(const FetchedFile file, fetcher.Get(url));
  const std::string_view body(reinterpret_cast<const char*>(file.body.data()), file.body.size());
  TALARIA_ASSIGN_OR_RETURN(attest::SignedJson sliced, attest::SliceSignedJson(body, name));
  TALARIA_ASSIGN_OR_RETURN(chain, ChainOf(file, url, chain_header));
  object = std::move(sliced.object);
  signature = std::move(sliced.signature_hex);
  return OkStatus();
}

}  // namespace

Result<CollateralWish> WishOf(const attest::Evidence& evidence) {
  CollateralWish out;
  switch (evidence.type) {
    case attest::EvidenceType::kSevSnp: {
      TALARIA_ASSIGN_OR_RETURN(const attest::SnpReport report,
                               attest::ParseSnpReport(evidence.report, std::nullopt));
      out.amd.push_back(report.product);
      return out;
    }
    case attest::EvidenceType::kTdx: {
      TALARIA_ASSIGN_OR_RETURN(const attest::TdxQuote quote,
                               attest::ParseTdxQuote(evidence.report));
      TALARIA_ASSIGN_OR_RETURN(const std::vector<attest::Certificate> chain,
                               attest::Certificate::FromPem(quote.pck_chain_pem, 3, "tdx-pck-pem"));
      TALARIA_ASSIGN_OR_RETURN(const auto extension,
                               chain[0].Extension(attest::kPckExtensionOid, "tdx-pck-extension"));
      if (!extension) return Refuse("tdx-pck-extension", "no extension");
      TALARIA_ASSIGN_OR_RETURN(const attest::PckExtension pck,
                               attest::ParsePckExtension(*extension));
      out.tdx.push_back({pck.fmspc, chain[0].IssuerCommonName() == kProcessorCa
                                        ? PckCa::kProcessor
                                        : PckCa::kPlatform});
      return out;
    }
    case attest::EvidenceType::kSimulated:
      break;
  }
  return Status(Code::kInvalidArgument,
                "nobody publishes anything about the simulated TEE: it needs no collateral");
}

CollateralWish WishOf(const attest::Collateral& held) {
  CollateralWish out;
  for (const attest::AmdCrl& list : held.amd) out.amd.push_back(list.product);
  for (const attest::TdxPlatformCollateral& platform : held.tdx) {
    const auto crl = attest::Crl::FromDer(platform.files.pck_crl, "collateral");
    const bool processor = crl.ok() && crl->IssuerCommonName() == kProcessorCa;
    out.tdx.push_back({platform.fmspc, processor ? PckCa::kProcessor : PckCa::kPlatform});
  }
  return out;
}

Result<std::vector<uint8_t>> FetchAmdCrl(Fetcher& fetcher, const VendorServers& servers,
                                         attest::SnpProduct product) {
  TALARIA_ASSIGN_OR_RETURN(FetchedFile file,
                           fetcher.Get(servers.kds + "/vcek/v1/" +
                                       std::string(attest::SnpProductName(product)) + "/crl"));
  return std::move(file.body);
}

Result<FetchedTdx> FetchTdx(Fetcher& fetcher, const VendorServers& servers,
                            const CollateralWish::Tdx& wish) {
  FetchedTdx out;
  attest::TdxCollateral& files = out.files;
  TALARIA_RETURN_IF_ERROR(FetchSigned(
      fetcher, servers.pcs + "/tdx/certification/v4/tcb?fmspc=" + Upper(ToHex(wish.fmspc)),
      "tcbInfo", "tcb-info-issuer-chain", files.tcb_info, files.tcb_info_signature_hex,
      files.tcb_info_chain_pem));
  TALARIA_RETURN_IF_ERROR(FetchSigned(fetcher, servers.pcs + "/tdx/certification/v4/qe/identity",
                                      "enclaveIdentity", "sgx-enclave-identity-issuer-chain",
                                      files.qe_identity, files.qe_identity_signature_hex,
                                      files.qe_identity_chain_pem));
  const std::string ca = wish.ca == PckCa::kProcessor ? "processor" : "platform";
  const std::string url = servers.pcs + "/sgx/certification/v4/pckcrl?ca=" + ca + "&encoding=der";
  TALARIA_ASSIGN_OR_RETURN(FetchedFile list, fetcher.Get(url));
  TALARIA_ASSIGN_OR_RETURN(out.pck_ca_chain_pem, ChainOf(list, url, "sgx-pck-crl-issuer-chain"));
  files.pck_crl = DecodeListBody(std::move(list.body));
  TALARIA_ASSIGN_OR_RETURN(FetchedFile root_list, fetcher.Get(servers.root_crl));
  files.root_crl = DecodeListBody(std::move(root_list.body));
  return out;
}

Result<std::string> DecodeIssuerChain(std::string_view header) {
  constexpr std::string_view kReason = "tdx-issuer-chain";
  if (header.empty() || header.size() > kMaxChainBytes) {
    return Refuse(kReason, std::to_string(header.size()) + " bytes",
                  "1 to " + std::to_string(kMaxChainBytes));
  }
  std::string out;
  out.reserve(header.size());
  for (size_t at = 0; at < header.size(); ++at) {
    char c = header[at];
    if (c == '%') {
      const int high = header.size() - at > 2 ? HexDigit(header[at + 1]) : -1;
      const int low = high >= 0 ? HexDigit(header[at + 2]) : -1;
      if (low < 0) return Refuse(kReason, "a '%' without two hexadecimal digits");
      c = static_cast<char>(high * 16 + low);
      at += 2;
    }
    if (c != '\n' && c != '\r' && (c < 0x20 || c > 0x7e))
      return Refuse(kReason, "a byte that no PEM has");
    out.push_back(c);
  }
  return out;
}

std::vector<uint8_t> DecodeListBody(std::vector<uint8_t> body) {
  std::vector<uint8_t> out;
  size_t size = body.size();
  while (size > 0 && (body[size - 1] == '\n' || body[size - 1] == '\r')) --size;
  if (size == 0 || size % 2 != 0) return body;
  out.reserve(size / 2);
  for (size_t at = 0; at < size; at += 2) {
    const int high = HexDigit(static_cast<char>(body[at]));
    const int low = HexDigit(static_cast<char>(body[at + 1]));
    // DER begins with 0x30, which is a digit, but goes on with a length that is none.
    if (high < 0 || low < 0) return body;
    out.push_back(static_cast<uint8_t>(high * 16 + low));
  }
  return out;
}

}  // namespace talaria::client
