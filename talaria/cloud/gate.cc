#include "talaria/cloud/gate.h"

#include <algorithm>

#include "talaria/attest/refusal.h"
#include "talaria/base/log.h"

namespace talaria::cloud {

bool Gate::AcceptsModel(const Digest& identity) const {
  return options_.verifier.policy().context->model_identities.Has(identity);
}

std::optional<Gate::Time> Gate::AdmittedUntil(const Digest& cvm_key) const {
  const std::lock_guard lock(mutex_);
  const auto found = admitted_.find(cvm_key);
  if (found == admitted_.end() || found->second <= Now()) return std::nullopt;
  return found->second;
}

Result<Gate::Time> Gate::Admit(const attest::Claim& claim, const attest::Channel& channel) {
  const attest::UnixTime unix_now = options_.now();
  Result<attest::Verdict> verdict = options_.verifier.Verify(claim, channel, unix_now);
  const std::lock_guard lock(mutex_);
  if (!verdict.ok()) {
    admitted_.erase(channel.cvm_key);
    return verdict.status();
  }
  const Time now = Now();
  std::erase_if(admitted_, [now](const auto& entry) { return entry.second <= now; });
  if (admitted_.size() >= kMaxAdmitted)
    return Status(Code::kResourceExhausted, "too many CVMs at once");
  // Not beyond the certificates and the collateral that it rests on.
  const Time until =
      now + std::chrono::seconds(std::min<int64_t>(*options_.verifier.policy().max_age_s,
                                                   verdict->valid_until - unix_now));
  admitted_[channel.cvm_key] = until;
  LogInfo("admitted a CVM: " + std::string(EvidenceTypeName(verdict->type)) + ", key " +
          ToHex(channel.cvm_key) + ", evidence " + ToHex(verdict->evidence_digest));
  return until;
}

Status Gate::CheckKeyExchange(const std::string& group) const {
  if (!*options_.verifier.policy().require_post_quantum || IsPostQuantum(group)) return OkStatus();
  return attest::Refuse("tls-group", group, "a post-quantum key exchange");
}

bool IsPostQuantum(std::string_view group) { return group.find("MLKEM") != std::string_view::npos; }

}  // namespace talaria::cloud
