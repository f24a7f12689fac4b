#include "talaria/attest/receipt_verifier.h"

#include <algorithm>
#include <array>

#include "talaria/attest/refusal.h"
#include "talaria/attest/x509.h"

namespace talaria::attest {
namespace {

// The DER of a P-256 SubjectPublicKeyInfo up to its point's coordinates (RFC 5480).
constexpr std::array<uint8_t, kSpkiBytes - 64> kP256SpkiHead = {
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
    0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04};

bool IsSignedBy(Bytes spki, Bytes signature, Bytes message) {
  if (!std::ranges::equal(spki.first(kP256SpkiHead.size()), kP256SpkiHead)) return false;
  const auto key =
      PublicKey::FromPoint(Curve::kP256, spki.subspan(kP256SpkiHead.size()), "receipt-signature");
  return key.ok() &&
         key->VerifyEcdsa(Curve::kP256, message, signature.first(32), signature.subspan(32));
}

Digest HashOf(Sha256 hash, Bytes body) {
  hash.Update(body);
  return hash.Finish();
}

}  // namespace

Result<Verdict> VerifyReceipt(const Receipt& receipt, const Disclosure& disclosure,
                              const Verifier& verifier, UnixTime now) {
  const Channel channel{.role = Role::kServerToClient,
                        .nonce = receipt.nonce,
                        .exporter = receipt.exporter,
                        .cvm_key = Sha256Of(receipt.key),
                        .peer_key = receipt.peer_key};
  TALARIA_ASSIGN_OR_RETURN(Verdict verdict, verifier.Verify(receipt.claim, channel, now));
  const bool is_signed = IsSignedBy(receipt.key, receipt.signature, SignedBytes(receipt));
  if (!is_signed)
    return Refuse("receipt-signature", "another", "one of the key that the evidence names");
  if (receipt.time > now + kReceiptClockSkewS)
    return Refuse("receipt-time", FormatUtc(receipt.time), "not after " + FormatUtc(now));
  if (HashOf(RequestHash(disclosure.salt), disclosure.request) != receipt.exchange.request)
    return Refuse("receipt-request", "another request or salt", "those of the receipt");
  if (HashOf(ResponseHash(disclosure.salt), disclosure.response) != receipt.exchange.response)
    return Refuse("receipt-response", "another answer", "that of the receipt");
  return verdict;
}

}  // namespace talaria::attest
