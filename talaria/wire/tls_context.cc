#include "talaria/wire/tls_context.h"

#include <algorithm>

#include "talaria/attest/refusal.h"

namespace talaria::wire {
namespace {

// Longer than one certificate of ours (0.4 KiB) and than what is worth reading to refuse it.
constexpr long kMaxCertificateMessageBytes = 16 << 10;

std::string KindOf(const X509* certificate) {
  const EVP_PKEY* key = X509_get0_pubkey(certificate);
  if (key == nullptr) return "a key that does not decode";
  std::string kind = EVP_PKEY_get0_type_name(key);
  char group[64];
  size_t size = 0;
  if (EVP_PKEY_get_group_name(key, group, sizeof(group), &size) == 1)
    kind.append(" ").append(group);
  return kind;
}

Status CheckPeer(X509_STORE_CTX* store, HandshakeState& state) {
  const int count = sk_X509_num(X509_STORE_CTX_get0_untrusted(store));
  if (count != 1) return attest::Refuse("tls-certificate-count", std::to_string(count), "1");
  const X509* certificate = X509_STORE_CTX_get0_cert(store);
  const std::vector<uint8_t> spki = SpkiOf(certificate);
  if (!IsP256Spki(spki) || X509_get0_pubkey(certificate) == nullptr) {
    return attest::Refuse("tls-key-type", KindOf(certificate),
                          "EC prime256v1, named, uncompressed");
  }
  const Digest found = Sha256Of(spki);
  if (state.peer.is_pinned() && found != state.peer.pin()) {
    return attest::Refuse("tls-peer-key", ToHex(found), ToHex(state.peer.pin()));
  }
  state.peer_key = found;
  return OkStatus();
}

// In place of the verification of a chain, which would prove nothing: the key is what counts. That
// the peer has it, OpenSSL checks right after this (CertificateVerify). Names, dates and the
// certificate's own signature are not looked at: nobody relies on them.
int VerifyPeer(X509_STORE_CTX* store, void*) {
  const auto* ssl = static_cast<const SSL*>(
      X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
  auto* state = ssl == nullptr ? nullptr : static_cast<HandshakeState*>(SSL_get_app_data(ssl));
  if (state == nullptr) return 0;
  state->refusal = CheckPeer(store, *state);
  if (state->refusal.ok()) return 1;
  X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
  return 0;
}

// Called when our certificate is about to be sent: on a client only if the server has asked.
int OwnCertificateAsked(SSL* ssl, void*) {
  auto* state = static_cast<HandshakeState*>(SSL_get_app_data(ssl));
  if (state == nullptr) return 0;
  state->own_asked = true;
  return 1;
}

bool Configure(SSL_CTX* ctx, EVP_PKEY* key, X509* certificate) {
  SSL_CTX_set_security_level(ctx, 2);
  SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                               SSL_OP_CLEANSE_PLAINTEXT);
  // For broken boxes on the way; it only adds records without meaning.
  SSL_CTX_clear_options(ctx, SSL_OP_ENABLE_MIDDLEBOX_COMPAT | SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_set_max_cert_list(ctx, kMaxCertificateMessageBytes);
  SSL_CTX_set_cert_verify_callback(ctx, VerifyPeer, nullptr);
  SSL_CTX_set_cert_cb(ctx, OwnCertificateAsked, nullptr);
  // AES-128 first: 11 % faster (2.57 against 2.32 GB/s on one EPYC core, 16 KiB records), and 128
  // bits are what all of Talaria aims at.
  const char* const ciphers = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384";
  // The hybrid first, where the library has it (OpenSSL 3.5; Debian 12 has 3.0).
  const bool groups = SSL_CTX_set1_groups_list(ctx, "X25519MLKEM768:X25519:P-256") == 1 ||
                      SSL_CTX_set1_groups_list(ctx, "X25519:P-256") == 1;
  ERR_clear_error();
  return groups && SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 &&
         SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1 &&
         SSL_CTX_set_ciphersuites(ctx, ciphers) == 1 &&
         SSL_CTX_set1_sigalgs_list(ctx, "ecdsa_secp256r1_sha256") == 1 &&
         SSL_CTX_set1_client_sigalgs_list(ctx, "ecdsa_secp256r1_sha256") == 1 &&
         SSL_CTX_set_num_tickets(ctx, 0) == 1 && SSL_CTX_set_max_early_data(ctx, 0) == 1 &&
         SSL_CTX_set_recv_max_early_data(ctx, 0) == 1 &&
         SSL_CTX_use_certificate(ctx, certificate) == 1 && SSL_CTX_use_PrivateKey(ctx, key) == 1 &&
         SSL_CTX_check_private_key(ctx) == 1;
}

// i2d twice: once for the size, once for the bytes.
template <class Encode>
std::vector<uint8_t> Der(Encode encode) {
  const int size = encode(nullptr);
  if (size <= 0) return {};
  std::vector<uint8_t> der(static_cast<size_t>(size));
  uint8_t* end = der.data();
  if (encode(&end) != size) return {};
  return der;
}

}  // namespace

std::vector<uint8_t> SpkiOf(const X509* certificate) {
  // As it was sent, not as OpenSSL would write the key that it has decoded.
  const X509_PUBKEY* spki = X509_get_X509_PUBKEY(certificate);
  return Der([spki](uint8_t** out) { return i2d_X509_PUBKEY(spki, out); });
}

std::vector<uint8_t> SpkiOf(const EVP_PKEY* key) {
  return Der([key](uint8_t** out) { return i2d_PUBKEY(key, out); });
}

bool IsP256Spki(Bytes spki) {
  // SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING { 04, x, y } }: RFC 5480.
  constexpr uint8_t kPrefix[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
                                 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
                                 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04};
  constexpr size_t kSize = sizeof(kPrefix) + 64;
  return spki.size() == kSize && std::ranges::equal(spki.first(sizeof(kPrefix)), kPrefix);
}

Result<Owned<SSL_CTX>> MakeTlsContext(EVP_PKEY* key, X509* certificate) {
  Owned<SSL_CTX> ctx(SSL_CTX_new(TLS_method()));
  if (ctx == nullptr || !Configure(ctx.get(), key, certificate))
    return OpenSslFailed("the TLS context");
  return ctx;
}

}  // namespace talaria::wire
