// The key pair behind one side of a TLS connection, and how peers name it: by the SHA-256 of its
// SubjectPublicKeyInfo (doc/attestation.md calls it the key hash).
#ifndef TALARIA_WIRE_TLS_KEY_H_
#define TALARIA_WIRE_TLS_KEY_H_

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "talaria/base/digest.h"
#include "talaria/base/result.h"

struct ssl_ctx_st;  // OpenSSL's SSL_CTX

namespace talaria::wire {

// An ECDSA key on P-256 with a self-signed certificate (CN "talaria", random serial, ten years)
// that is made anew with every object: nothing in it but the key means anything to a peer.
// Move-only. The private key leaves it only through ToPemFile() and is wiped with it; connections
// that were made with it keep it alive. All const functions from any thread.
class TlsKey {
 public:
  // kResourceExhausted: no memory or no randomness.
  static Result<TlsKey> Generate();
  // One unencrypted PEM block, PKCS #8 or SEC 1, and nothing else. kNotFound, kIo;
  // kInvalidArgument: somebody else than its owner has any right to the file, or its owner is
  // neither this user nor root; kCorrupt: not such a block, or a key that contradicts itself;
  // kUnsupported: encrypted, or another kind of key.
  static Result<TlsKey> FromPemFile(const std::string& path);
  ~TlsKey();
  TlsKey(TlsKey&&) noexcept;
  TlsKey& operator=(TlsKey&&) noexcept;

  // PKCS #8, mode 0600, on disk when it returns. kIo (also when the file exists),
  // kResourceExhausted.
  Status ToPemFile(const std::string& path) const;
  // What a peer needs to pin this key: SpkiDigestFromPemFile() reads it.
  std::string PublicKeyPem() const;
  Digest spki_sha256() const;
  std::vector<uint8_t> spki() const;  // in DER
  // ECDSA with SHA-256; r and s, 32 bytes each, big-endian. `message` begins with a domain of its
  // own, which no TLS handshake (64 spaces) and no certificate (0x30) begins with: a letter.
  Result<std::array<uint8_t, 64>> Sign(Bytes message) const;

 private:
  friend class TlsTransport;
  struct Impl;
  explicit TlsKey(std::unique_ptr<const Impl> impl);
  ssl_ctx_st* context() const;  // for both roles; owned by this

  std::unique_ptr<const Impl> impl_;
};

// The pin of a peer: the file holds one PEM block, a public key or a certificate of a P-256 key.
// kNotFound, kIo, kCorrupt, kUnsupported (another kind of key).
Result<Digest> SpkiDigestFromPemFile(const std::string& path);

}  // namespace talaria::wire

#endif  // TALARIA_WIRE_TLS_KEY_H_
