// The first draft of a policy file. What comes from evidence that nobody has verified is marked so,
// and the file is refused until a person has compared it with what they built themselves.
#ifndef TALARIA_CLIENT_POLICY_DRAFT_H_
#define TALARIA_CLIENT_POLICY_DRAFT_H_

#include <array>
#include <string>
#include <string_view>

#include "talaria/attest/claim.h"
#include "talaria/attest/policy_file.h"
#include "talaria/base/result.h"

namespace talaria::client {

struct PolicyDraft {
  attest::Policy policy;
  attest::PolicyRemarks remarks;
  std::string Text() const { return attest::WritePolicy(policy, remarks); }
};

// What the evidence says is what would be accepted, and every such field is unconfirmed. What is
// not for evidence to say (SMT, VLEK, missing revocation lists, development builds of a real TEE,
// ...) stays refused, so the evidence itself may be. Nothing is verified. kUntrusted: not a report.
Result<PolicyDraft> DraftFromClaim(const attest::Claim& claim);

// What somebody knows of their own build.
struct KnownValues {
  attest::EvidenceType type;
  std::array<uint8_t, 48> measurement;  // MEASUREMENT or MRTD
  Digest model_identity;
  Digest configuration;
  attest::TenantKey tenant_key;
};
// The rest has the strictest values that there are for every machine; what nobody can know without
// a machine (TCB, RTMRs) is unconfirmed.
PolicyDraft DraftFromValues(const KnownValues& known);

// A claim from a file: its bytes, or their hexadecimal digits. kUntrusted, and those of ReadFile.
Result<attest::Claim> ReadClaim(const std::string& path);

}  // namespace talaria::client

#endif  // TALARIA_CLIENT_POLICY_DRAFT_H_
