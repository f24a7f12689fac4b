#include "talaria/attest/policy.h"

#include <algorithm>

#include "talaria/attest/refusal.h"

namespace talaria::attest {
namespace {

// "one of A, B and 3 more": enough to see which of one's own values was meant.
template <class T, class ToText>
std::string OneOf(const std::vector<T>& values, ToText to_text) {
  if (values.empty()) return "none: the list is empty";
  std::string out = to_text(values[0]);
  if (values.size() > 1) out += " or " + to_text(values[1]);
  if (values.size() > 2) out += " or one of " + std::to_string(values.size() - 2) + " more";
  return out;
}

Status CheckAccepted(std::string_view reason, const std::array<uint8_t, 32>& found,
                     const Accepted<std::array<uint8_t, 32>>& accepted) {
  if (accepted.Has(found)) return OkStatus();
  return Refuse(
      reason, ToHex(found),
      OneOf(accepted.values(), [](const std::array<uint8_t, 32>& value) { return ToHex(value); }));
}

}  // namespace

Status CheckContext(const Context& context, const ContextPolicy& policy) {
  if (context.development && !*policy.allow_development) {
    return Refuse("development-build", "a development build", "a release build");
  }
  TALARIA_RETURN_IF_ERROR(
      CheckAccepted("model-identity", context.model_identity, policy.model_identities));
  TALARIA_RETURN_IF_ERROR(
      CheckAccepted("configuration", context.configuration, policy.configurations));
  TALARIA_RETURN_IF_ERROR(CheckAccepted("tenant-key", context.tenant_key, policy.tenant_keys));
  const std::vector<uint16_t>& profiles = *policy.profiles;
  if (std::ranges::find(profiles, context.profile) == profiles.end()) {
    return Refuse("profile", std::to_string(context.profile),
                  OneOf(profiles, [](uint16_t id) { return std::to_string(id); }));
  }
  if (context.check_vectors < *policy.min_check_vectors) {
    return Refuse("check-vectors", std::to_string(context.check_vectors),
                  "at least " + std::to_string(*policy.min_check_vectors));
  }
  return OkStatus();
}

}  // namespace talaria::attest
