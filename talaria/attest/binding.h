// What evidence is bound to: doc/attestation.md. The 64 bytes that the TEE signs name one TLS
// session, one nonce, both keys and the attested context, so that evidence cannot be replayed,
// relayed, reflected or used for another configuration.
#ifndef TALARIA_ATTEST_BINDING_H_
#define TALARIA_ATTEST_BINDING_H_

#include <cstdint>
#include <string_view>

#include "talaria/attest/evidence.h"

namespace talaria::attest {

// Of the TLS exporter (RFC 8446, section 7.5; labels without registration begin EXPERIMENTAL); its
// context value is the nonce.
inline constexpr std::string_view kExporterLabel = "EXPERIMENTAL-talaria-attest-v1";
inline constexpr size_t kExporterBytes = 32;
inline constexpr size_t kNonceBytes = 32;

// Whom the CVM speaks to. An exporter is the same on both sides: without the role, evidence that
// was made for one side could be shown to the other.
enum class Role : uint8_t {
  kServerToClient = 1,  // the CVM is the TLS server, a user verifies
  kClientToCloud = 2,   // the CVM is the TLS client, the provider verifies
};

// Every field is given by whoever builds one, none has a default. The verifier takes nonce,
// exporter and keys from what it chose and saw itself, never from the peer's message.
struct Binding {
  Role role;
  EvidenceType type;
  std::array<uint8_t, kNonceBytes> nonce;        // the verifier's, fresh, used once
  std::array<uint8_t, kExporterBytes> exporter;  // of the session that carries the evidence
  Digest cvm_key;                                // SHA-256 of the CVM's SPKI in DER
  Digest peer_key;                               // of the peer's; zero for a user with a token
  Digest context;                                // DigestOf(Context)
};

// SHA-512 over (domain, role, type, nonce, exporter, CVM key, peer key, context), every field
// preceded by its u32 little-endian length; role and type are one byte each.
ReportData ReportDataFor(const Binding& binding);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_BINDING_H_
