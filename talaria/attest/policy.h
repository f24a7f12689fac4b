// Whom a client or a provider believes. Every field is given by whoever builds a policy; an empty
// list accepts nothing. Files: policy_file.h.
#ifndef TALARIA_ATTEST_POLICY_H_
#define TALARIA_ATTEST_POLICY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "talaria/attest/accepted.h"
#include "talaria/attest/context.h"
#include "talaria/attest/mandatory.h"
#include "talaria/attest/snp/policy.h"
#include "talaria/attest/tdx/policy.h"

namespace talaria::attest {

inline constexpr int kMaxAgeS = 86400;

struct ContextPolicy {
  Accepted<Digest> model_identities;  // never any, in a file
  Accepted<Digest> configurations;    // SHA-256 of the CVM's configuration file
  Accepted<TenantKey> tenant_keys;    // a provider may serve any tenant; a client never
  Mandatory<std::vector<uint16_t>> profiles;
  Mandatory<uint8_t> min_check_vectors;
  Mandatory<bool> allow_development;
};

enum class CrlHandling { kRequired, kAcceptMissing };

// The simulated TEE's own section: everything else of its reports is fixed.
struct SimulatedPolicy {
  Mandatory<std::vector<SnpMeasurement>> measurements;
};

struct TdxSection {
  TdxPolicy policy;
  // Collateral from before this TCB recovery is refused even while it is fresh.
  Mandatory<uint32_t> min_tcb_evaluation_data_number;
};

struct Policy {
  Mandatory<ContextPolicy> context;
  Mandatory<int> max_age_s;              // how long one attestation stands, 1..kMaxAgeS
  Mandatory<bool> require_post_quantum;  // of the key exchange
  Mandatory<CrlHandling> crls;
  // Evidence of a type without a section here is refused ("evidence-type-not-accepted").
  std::optional<SnpPolicy> sev_snp;
  std::optional<TdxSection> tdx;
  std::optional<SimulatedPolicy> simulated;
  Digest digest{};  // SHA-256 of the file's bytes; zero for a policy that was never a file
};

// Refusals, in this order: "development-build", "model-identity", "configuration", "tenant-key",
// "profile", "check-vectors".
Status CheckContext(const Context& context, const ContextPolicy& policy);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_POLICY_H_
