// What the tests of the verifier begin with: a channel, a context, and policies that accept them.
#ifndef TALARIA_ATTEST_TESTING_VERIFIER_CASE_H_
#define TALARIA_ATTEST_TESTING_VERIFIER_CASE_H_

#include <string>
#include <vector>

#include "talaria/attest/refusal.h"
#include "talaria/attest/verifier.h"

namespace talaria::attest::verifier_case {

template <size_t N>
std::array<uint8_t, N> Filled(uint8_t value) {
  std::array<uint8_t, N> out;
  out.fill(value);
  return out;
}

inline Context GoodContext() {
  return {.version = kAttestationVersion,
          .model_identity = Filled<32>(0x0a),
          .profile = 1,
          .check_vectors = 2,
          .configuration = Filled<32>(0x0c),
          .tenant_key = Filled<32>(0x0d),
          .development = true};
}

inline Channel GoodChannel() {
  return {.role = Role::kServerToClient,
          .nonce = Filled<32>(0x01),
          .exporter = Filled<32>(0x02),
          .cvm_key = Filled<32>(0x03),
          .peer_key = Filled<32>(0x04)};
}

inline ContextPolicy GoodContextPolicy() {
  return {.model_identities = {GoodContext().model_identity},
          .configurations = {GoodContext().configuration},
          .tenant_keys = {GoodContext().tenant_key},
          .profiles = std::vector<uint16_t>{1},
          .min_check_vectors = uint8_t{2},
          .allow_development = true};
}

// What an honest CVM binds its evidence to.
inline ReportData DataOf(const Channel& channel, EvidenceType type, const Context& context) {
  return ReportDataFor({.role = channel.role,
                        .type = type,
                        .nonce = channel.nonce,
                        .exporter = channel.exporter,
                        .cvm_key = channel.cvm_key,
                        .peer_key = channel.peer_key,
                        .context = DigestOf(context)});
}

// Nobody's evidence yet: a test adds the section that it is about.
inline Policy PolicyWithoutEvidence(CrlHandling crls) {
  return {.context = GoodContextPolicy(),
          .max_age_s = 3600,
          .require_post_quantum = false,
          .crls = crls,
          .sev_snp = std::nullopt,
          .tdx = std::nullopt,
          .simulated = std::nullopt};
}

// Pins what a report says.
inline SnpPolicy SnpPolicyOf(const SnpReport& report) {
  return {.products = std::vector<SnpProductPolicy>{{.product = report.product,
                                                     .min_tcb = report.reported_tcb,
                                                     .required_platform_info = 0,
                                                     .required_launch_mitigations = 0,
                                                     .required_current_mitigations = 0}},
          .measurements = std::vector{report.measurement},
          .host_data = std::vector{report.host_data},
          .id_key_digests = std::vector{report.id_key_digest},
          .author_key_digests = std::vector{report.author_key_digest},
          .family_ids = std::vector{report.family_id},
          .image_ids = std::vector{report.image_id},
          .chips = SnpChips::Any(),
          .vmpl = report.vmpl,
          .min_guest_svn = report.guest_svn,
          .required_guest_policy = 0,
          .allow_smt = true,
          .allow_cxl = false,
          .vlek_csp_ids = std::vector<std::string>{},
          .allow_provisional_firmware = false};
}

// "" when it is accepted; the message of what is no refusal.
inline std::string Reason(const Claim& claim, const VerifierOptions& options,
                          const Channel& channel, UnixTime now) {
  const Result<Verifier> verifier = Verifier::Create(options);
  if (!verifier.ok()) return verifier.status().ToString();
  const Result<Verdict> verdict = verifier->Verify(claim, channel, now);
  if (verdict.ok()) return "";
  const std::string reason(ReasonOf(verdict.status()));
  return reason.empty() ? verdict.status().ToString() : reason;
}

}  // namespace talaria::attest::verifier_case

#endif  // TALARIA_ATTEST_TESTING_VERIFIER_CASE_H_
