#include "talaria/cloud/gate.h"

#include "talaria/attest/refusal.h"
#include "talaria/base/log.h"

namespace talaria::cloud {

std::optional<Gate::Time> Gate::AdmittedUntil(const Digest& cvm_key) const {
  const std::lock_guard lock(mutex_);
  const auto found = admitted_.find(cvm_key);
  if (found == admitted_.end() || found->second <= Now()) return std::nullopt;
  return found->second;
}

Result<Gate::Time> Gate::Admit(const attest::Claim& claim, const attest::Channel& channel) {
  Result<attest::Verdict> verdict = options_.verifier.Verify(claim, channel, options_.now());
  const std::lock_guard lock(mutex_);
  if (!verdict.ok()) {
    admitted_.erase(channel.cvm_key);
    return verdict.status();
  }
  const Time now = Now();
  std::erase_if(admitted_, [now](const auto& entry) { return entry.second <= now; });
  if (admitted_.size() >= kMaxAdmitted)
    return Status(Code::kResourceExhausted, "too many CVMs at once");
  const Time until = now + std::chrono::seconds(*options_.verifier.policy().max_age_s);
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
