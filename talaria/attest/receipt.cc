#include "talaria/attest/receipt.h"

#include <algorithm>

#include "talaria/attest/refusal.h"

namespace talaria::attest {
namespace {

constexpr std::string_view kSignatureDomain{"talaria-receipt-v1\0", 19};
constexpr std::string_view kRequestDomain{"talaria-receipt-request-v1\0", 27};
constexpr std::string_view kResponseDomain{"talaria-receipt-response-v1\0", 28};
// u8 type and two u32 sizes without a byte of evidence.
constexpr size_t kMinClaimBytes = kContextBytes + 9;

Sha256 SaltedHash(std::string_view domain, const Salt& salt) {
  Sha256 hash;
  hash.Update(AsBytes(domain));
  hash.Update(salt);
  return hash;
}

void WriteUnsigned(const Receipt& receipt, std::vector<uint8_t>& out) {
  ByteWriter writer(out);
  writer.U16(kReceiptVersion);
  writer.U64(static_cast<uint64_t>(receipt.time));
  writer.Raw(receipt.nonce);
  writer.Raw(receipt.exporter);
  writer.Raw(receipt.peer_key);
  writer.Raw(receipt.key);
  writer.U8(static_cast<uint8_t>(receipt.exchange.path.size()));
  writer.Raw(AsBytes(receipt.exchange.path));
  writer.U16(receipt.exchange.status);
  writer.Raw(receipt.exchange.request);
  writer.Raw(receipt.exchange.response);
  writer.Raw(Encode(receipt.claim));
}

bool IsPath(std::string_view path) {
  return !path.empty() && path.size() <= kMaxReceiptPathBytes &&
         std::ranges::all_of(path, [](char c) { return c >= '!' && c <= '~'; });
}

}  // namespace

Sha256 RequestHash(const Salt& salt) { return SaltedHash(kRequestDomain, salt); }
Sha256 ResponseHash(const Salt& salt) { return SaltedHash(kResponseDomain, salt); }

std::vector<uint8_t> Encode(const Receipt& receipt) {
  TALARIA_CHECK(IsPath(receipt.exchange.path) && receipt.time >= 0);
  std::vector<uint8_t> out;
  WriteUnsigned(receipt, out);
  ByteWriter(out).Raw(receipt.signature);
  return out;
}

std::vector<uint8_t> SignedBytes(const Receipt& receipt) {
  std::vector<uint8_t> out(kSignatureDomain.begin(), kSignatureDomain.end());
  WriteUnsigned(receipt, out);
  return out;
}

Result<Receipt> DecodeReceipt(Bytes bytes) {
  ByteReader reader(bytes);
  const uint16_t version = reader.U16();
  if (!reader.ok() || version != kReceiptVersion)
    return Refuse("receipt-format", "another version", "version 1");
  const uint64_t time = reader.U64();
  const auto nonce = reader.Array<kNonceBytes>();
  const auto exporter = reader.Array<kExporterBytes>();
  const Digest peer_key = reader.Array<32>();
  const auto key = reader.Array<kSpkiBytes>();
  const Bytes path_bytes = reader.Raw(reader.U8());
  const std::string path(path_bytes.begin(), path_bytes.end());
  const uint16_t status = reader.U16();
  const Digest request = reader.Array<32>();
  const Digest response = reader.Array<32>();
  if (!reader.ok() || reader.remaining() < kMinClaimBytes + kSignatureBytes ||
      bytes.size() > kMaxReceiptBytes) {
    return Refuse("receipt-format", std::to_string(bytes.size()) + " bytes");
  }
  // At most 9999-12-31, so that any clock's arithmetic with it is safe.
  if (time > 253'402'300'799u || !IsPath(path) || status < 100 || status > 599)
    return Refuse("receipt-format", "time, path or status out of range");
  TALARIA_ASSIGN_OR_RETURN(Claim claim,
                           DecodeClaim(reader.Raw(reader.remaining() - kSignatureBytes)));
  return Receipt{.time = static_cast<int64_t>(time),
                 .nonce = nonce,
                 .exporter = exporter,
                 .peer_key = peer_key,
                 .key = key,
                 .exchange = {path, status, request, response},
                 .claim = std::move(claim),
                 .signature = reader.Array<kSignatureBytes>()};
}

}  // namespace talaria::attest
