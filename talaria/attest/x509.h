// The few things of X.509 and ECDSA that attestation needs, over OpenSSL 3: no other file of attest
// includes its headers, except testing/ and simulated/. Nothing here reads the clock, the network,
// a file or an environment variable. All failures are refusals (attest/refusal.h); the caller names
// the reason.
#ifndef TALARIA_ATTEST_X509_H_
#define TALARIA_ATTEST_X509_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/digest.h"
#include "talaria/base/result.h"

namespace talaria::attest {

using UnixTime = int64_t;  // seconds; always the verifier's own clock, passed in

inline constexpr size_t kMaxCertificateBytes = 8 << 10;

enum class Curve { kP256, kP384 };

// A public key on a curve of ours, or an RSA one.
class PublicKey {
 public:
  // `x_y`: both coordinates, big-endian (64 or 96 bytes). Refused unless a point of the curve.
  static Result<PublicKey> FromPoint(Curve curve, Bytes x_y, std::string_view reason);
  // ECDSA with SHA-256 (P-256) or SHA-384 (P-384) over `message`; r and s big-endian, of the
  // curve's size each. False for a key of another kind, and for r or s outside 1..n-1.
  bool VerifyEcdsa(Curve curve, Bytes message, Bytes r, Bytes s) const;

 private:
  friend class Certificate;
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

// Immutable and cheap to copy.
class Certificate {
 public:
  // Exactly one DER certificate and nothing behind it, at most kMaxCertificateBytes.
  static Result<Certificate> FromDer(Bytes der, std::string_view reason);
  // Exactly `count` PEM certificates, nothing but white space and at most one final NUL around
  // them.
  static Result<std::vector<Certificate>> FromPem(std::string_view pem, size_t count,
                                                  std::string_view reason);
  Bytes der() const;
  Digest SpkiSha256() const;
  std::string SubjectCommonName() const;  // empty unless there is exactly one
  std::string IssuerCommonName() const;
  bool IsIssuedNameOf(const Certificate& issuer) const;  // our issuer name == its subject name
  PublicKey Key() const;
  bool HasEcKey(Curve curve) const;
  bool HasRsaKey(int bits) const;
  // The extension's value (content of its OCTET STRING). nullopt when absent; refused when there
  // are two of that OID. `oid` in dotted form.
  Result<std::optional<std::vector<uint8_t>>> Extension(std::string_view oid,
                                                        std::string_view reason) const;
  // RSASSA-PSS with SHA-384, MGF1 with SHA-384 and salt 48: what AMD's chain uses throughout.
  bool IsSignedWithPssSha384() const;
  UnixTime not_before() const;
  UnixTime not_after() const;
  bool operator==(const Certificate& other) const;  // the same DER

  struct Impl;

 private:
  friend Status VerifyChain(const Certificate&, std::span<const Certificate>, const Certificate&,
                            UnixTime, struct ChainOptions);
  friend class Crl;
  std::shared_ptr<const Impl> impl_;
};

struct ChainOptions {
  std::string_view reason;          // of the signature, the names and the depth
  std::string_view expired_reason;  // of a certificate that is not valid at that time
  bool strict;                      // X509_V_FLAG_X509_STRICT: Intel's chains pass, AMD's do not
};
// leaf <- intermediates (in order, all of them used, no other) <- root, with exactly that root as
// the only trust anchor (its self-signature is checked too), valid at `now`.
Status VerifyChain(const Certificate& leaf, std::span<const Certificate> intermediates,
                   const Certificate& root, UnixTime now, ChainOptions options);

class Crl {
 public:
  static Result<Crl> FromDer(Bytes der, std::string_view reason);
  // Signed by `issuer`, with its name, and thisUpdate <= now <= nextUpdate (which must be there).
  Status Verify(const Certificate& issuer, UnixTime now, std::string_view reason,
                std::string_view expired_reason) const;
  bool Revokes(const Certificate& certificate) const;
  UnixTime this_update() const;
  UnixTime next_update() const;  // 0 when absent
  // The extension cRLNumber, big-endian without leading zeros; nullopt when there is none.
  std::optional<std::vector<uint8_t>> number() const;
  std::string IssuerCommonName() const;  // empty unless there is exactly one

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_X509_H_
