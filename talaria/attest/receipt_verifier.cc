#include "talaria/attest/receipt_verifier.h"

#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>

#include "talaria/attest/refusal.h"

namespace talaria::attest {
namespace {

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};
template <class T, auto Free>
using Held = std::unique_ptr<T, Deleter<Free>>;

bool IsSignedBy(Bytes key, Bytes signature, Bytes message) {
  const uint8_t* end = key.data();
  const Held<EVP_PKEY, EVP_PKEY_free> pkey(
      d2i_PUBKEY(nullptr, &end, static_cast<long>(key.size())));
  if (!pkey || end != key.data() + key.size() || EVP_PKEY_is_a(pkey.get(), "EC") != 1) return false;
  const Held<ECDSA_SIG, ECDSA_SIG_free> numbers(ECDSA_SIG_new());
  BIGNUM* const r = BN_bin2bn(signature.data(), 32, nullptr);
  BIGNUM* const s = BN_bin2bn(signature.data() + 32, 32, nullptr);
  if (!numbers || !r || !s || ECDSA_SIG_set0(numbers.get(), r, s) != 1) {
    BN_free(r);
    BN_free(s);
    return false;
  }
  uint8_t* der = nullptr;
  const int der_bytes = i2d_ECDSA_SIG(numbers.get(), &der);
  const Held<EVP_MD_CTX, EVP_MD_CTX_free> context(EVP_MD_CTX_new());
  const bool good =
      der_bytes > 0 && context &&
      EVP_DigestVerifyInit(context.get(), nullptr, EVP_sha256(), nullptr, pkey.get()) == 1 &&
      EVP_DigestVerify(context.get(), der, static_cast<size_t>(der_bytes), message.data(),
                       message.size()) == 1;
  OPENSSL_free(der);
  return good;
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
  ERR_clear_error();
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
