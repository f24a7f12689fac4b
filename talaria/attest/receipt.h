// A receipt: what the key of one boot of a CVM signed about one request and its answer, with the
// evidence behind the key, so that anybody can check it later without the CVM: doc/attestation.md,
// "Receipts". Holds digests under a salt, never text. Canonical: Encode(Decode(x)) == x.
#ifndef TALARIA_ATTEST_RECEIPT_H_
#define TALARIA_ATTEST_RECEIPT_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "talaria/attest/binding.h"
#include "talaria/attest/claim.h"

namespace talaria::attest {

inline constexpr uint16_t kReceiptVersion = 1;
inline constexpr size_t kSpkiBytes = 91;  // of a P-256 key in DER
inline constexpr size_t kSignatureBytes = 64;
inline constexpr size_t kMaxReceiptPathBytes = 64;
inline constexpr size_t kMaxReceiptBytes = 2 + 8 + 3 * 32 + kSpkiBytes + 1 + kMaxReceiptPathBytes +
                                           2 + 2 * 32 + kMaxClaimBytes + kSignatureBytes;

// 32 bytes that the user drew for one request. Who holds a receipt without it cannot test guesses
// of the request or the answer.
using Salt = std::array<uint8_t, 32>;

// One POST request and its answer.
struct Exchange {
  std::string path;  // of the route, without a query; 1..kMaxReceiptPathBytes, '!' to '~'
  uint16_t status;   // of the answer, 100..599
  Digest request;    // RequestHash
  Digest response;   // ResponseHash
  bool operator==(const Exchange&) const = default;
};

// SHA-256 over (domain, salt, body); the body as it is in HTTP, without the framing of chunks.
// Request and answer have domains of their own.
Sha256 RequestHash(const Salt& salt);   // and then the body
Sha256 ResponseHash(const Salt& salt);  // the same

// Every field is given by whoever builds one, none has a default.
struct Receipt {
  int64_t time;                                  // seconds since 1970, >= 0, by the CVM's clock
  std::array<uint8_t, kNonceBytes> nonce;        // what the evidence is bound to,
  std::array<uint8_t, kExporterBytes> exporter;  // besides the key
  Digest peer_key;                               // of the user's TLS; zero without one
  std::array<uint8_t, kSpkiBytes> key;           // the CVM's, which signs
  Exchange exchange;
  Claim claim;
  std::array<uint8_t, kSignatureBytes> signature;  // ECDSA P-256 with SHA-256, r and s big-endian
};

// u16 version, u64 time, nonce, exporter, peer key, key, u8 size, path, u16 status, request digest,
// response digest, claim, signature.
std::vector<uint8_t> Encode(const Receipt& receipt);
// kUntrusted "receipt-format", "context-format", "evidence-format".
Result<Receipt> DecodeReceipt(Bytes bytes);
// What is signed: "talaria-receipt-v1", a zero byte, and the encoding without the signature. No TLS
// 1.3 handshake signs such bytes (they begin with 64 spaces), nor does a certificate (0x30).
std::vector<uint8_t> SignedBytes(const Receipt& receipt);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_RECEIPT_H_
