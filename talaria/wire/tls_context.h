// What tls_key.cc and tls.cc share: the one configuration of TLS. The only header of this folder
// that includes OpenSSL's; nothing but tls*.cc includes it.
#ifndef TALARIA_WIRE_TLS_CONTEXT_H_
#define TALARIA_WIRE_TLS_CONTEXT_H_

#include <string>
#include <vector>

#include "talaria/base/digest.h"
#include "talaria/base/openssl.h"
#include "talaria/base/result.h"
#include "talaria/wire/tls.h"

namespace talaria::wire {

// SubjectPublicKeyInfo of a certificate or key, DER; empty on failure.
std::vector<uint8_t> SpkiOf(const X509* certificate);
std::vector<uint8_t> SpkiOf(const EVP_PKEY* key);
// Exactly a P-256 key in the one form we write: named curve, uncompressed point. The point itself
// is checked by OpenSSL when it decodes the key.
bool IsP256Spki(Bytes spki);

// What the callbacks of one handshake read and write: the SSL's application data, set before the
// handshake begins, alive as long as the SSL. Reached by one thread at a time.
struct HandshakeState {
  explicit HandshakeState(const PeerKey& wanted) : peer(wanted) {}
  const PeerKey peer;
  Digest peer_key{};       // SHA-256 of the peer's SPKI; zero: it has shown no certificate
  Status refusal;          // why the peer's certificate was refused
  bool own_asked = false;  // the peer asked for our certificate, so it knows our key
};

// kResourceExhausted (memory).
Result<Owned<SSL_CTX>> MakeTlsContext(EVP_PKEY* key, X509* certificate);

}  // namespace talaria::wire

#endif  // TALARIA_WIRE_TLS_CONTEXT_H_
