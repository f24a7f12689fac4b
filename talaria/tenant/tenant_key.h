// The tenant's key: whoever holds its private half says who may use the tenant's CVMs (tokens) and
// who no longer (revocations). The public half is bound into the attestation: doc/attestation.md.
// Ed25519 (RFC 8032). The builder of an image signs releases with a key of the same kind
// (client/release.h); each use has a domain of its own.
#ifndef TALARIA_TENANT_TENANT_KEY_H_
#define TALARIA_TENANT_TENANT_KEY_H_

#include <array>
#include <memory>
#include <string>

#include "talaria/base/bytes.h"
#include "talaria/base/result.h"

namespace talaria::tenant {

inline constexpr size_t kPublicKeyBytes = 32;
inline constexpr size_t kSignatureBytes = 64;
using PublicKey = std::array<uint8_t, kPublicKeyBytes>;  // raw
using Signature = std::array<uint8_t, kSignatureBytes>;

// kInvalidArgument: a key under which anybody can forge signatures, as 32 zero bytes are.
Status CheckPublicKey(const PublicKey& key);

// SubjectPublicKeyInfo, for people who pass public keys on as files. kResourceExhausted.
Result<std::string> PublicKeyPem(const PublicKey& key);
// Exactly one such block. kNotFound, kIo; kCorrupt: not such a block; kUnsupported: another kind of
// key; those of CheckPublicKey.
Result<PublicKey> PublicKeyFromPemFile(const std::string& path);

// Whether `signature` is the holder's of `key` over domain || message. False for anything else, a
// failure of OpenSSL included. Any thread.
bool Verify(const PublicKey& key, std::string_view domain, Bytes message, Bytes signature);

// The private half. Move-only; it leaves this type through ToPemFile() alone and is wiped with it.
// All const functions from any thread.
class TenantKey {
 public:
  // kResourceExhausted: no memory or no randomness.
  static Result<TenantKey> Generate();
  // One unencrypted PKCS #8 block. kNotFound, kIo; kInvalidArgument: somebody else than its owner
  // has any right to the file, or its owner is neither this user nor root; kCorrupt: not such a
  // block; kUnsupported: another kind of key.
  static Result<TenantKey> FromPemFile(const std::string& path);
  ~TenantKey();
  TenantKey(TenantKey&&) noexcept;
  TenantKey& operator=(TenantKey&&) noexcept;

  // PKCS #8, mode 0600, on disk when it returns. kIo (also when the file exists),
  // kResourceExhausted.
  Status ToPemFile(const std::string& path) const;
  const PublicKey& public_key() const;
  // Over domain || message. kResourceExhausted: OpenSSL failed.
  Result<Signature> Sign(std::string_view domain, Bytes message) const;

 private:
  struct Impl;
  explicit TenantKey(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace talaria::tenant

#endif  // TALARIA_TENANT_TENANT_KEY_H_
