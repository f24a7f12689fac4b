// The attested context: what a CVM runs, fixed per boot, bound into every report (attest/binding.h)
// and sent beside it: doc/attestation.md. Canonical: Encode(Decode(x)) == x.
#ifndef TALARIA_ATTEST_CONTEXT_H_
#define TALARIA_ATTEST_CONTEXT_H_

#include <array>
#include <cstdint>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/digest.h"
#include "talaria/base/result.h"

namespace talaria::attest {

inline constexpr uint16_t kAttestationVersion = 1;
inline constexpr size_t kContextBytes = 102;

using TenantKey = std::array<uint8_t, 32>;  // raw Ed25519 public key (RFC 8032)

// Every field is given by whoever builds one, none has a default.
struct Context {
  uint16_t version;       // of the attestation protocol, kAttestationVersion
  Digest model_identity;  // SHA-256 of manifest.json
  uint16_t profile;       // id of the mask's parameters (ring/profile.h)
  uint8_t check_vectors;  // per group; each lets a wrong product pass with 2^-48
  Digest configuration;   // SHA-256 of the effective configuration
  TenantKey tenant_key;
  bool development;  // built with the simulated TEE, or started with --insecure-simulated-tee
  bool operator==(const Context&) const = default;
};

// u16 version, model identity, u16 profile, u8 check vectors, configuration, tenant key, u8 flag;
// integers little-endian; kContextBytes in all.
std::vector<uint8_t> Encode(const Context& context);
// kUntrusted "context-format": another size, another version, or a flag that is not 0 or 1. What
// the values must be is the policy's to say.
Result<Context> DecodeContext(Bytes bytes);
// SHA-256 of Encode(context).
Digest DigestOf(const Context& context);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_CONTEXT_H_
