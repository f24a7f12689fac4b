// Policies as TOML files: doc/attestation.md has an example. Every field of policy.h stands in the
// file; nothing has a default, nothing is clamped. Byte strings are lower-case hex of their exact
// length, sets of bits are strings such as "0x20", an empty list accepts nothing, and the word
// "any" takes the place of a list only where policy.h has Any: never for a measurement, a service
// TD or a model.
#ifndef TALARIA_ATTEST_POLICY_FILE_H_
#define TALARIA_ATTEST_POLICY_FILE_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "talaria/attest/policy.h"
#include "talaria/base/result.h"

namespace talaria::attest {

inline constexpr size_t kMaxPolicyBytes = 1 << 20;
inline constexpr size_t kMaxPolicyList = 4096;  // values in one list

// `name` stands in error messages: "name:line: table.key says what is wrong". kInvalidArgument:
// not TOML; a key that is unknown, missing, of another type or out of its range; a value listed
// twice; no section for any evidence; or, at last, a list `unconfirmed` that is not empty.
Result<Policy> ParsePolicy(std::string_view text, const std::string& name);
// The same for a file. kNotFound, kIo, kResourceExhausted, kInvalidArgument.
Result<Policy> LoadPolicy(const std::string& path);

struct PolicyRemarks {
  std::vector<std::string> heading;             // comment lines at the top
  std::map<std::string, std::string> of_field;  // "sev_snp.measurements": a comment above it
  // Fields that were copied from evidence which nobody has compared with a build yet. ParsePolicy
  // refuses the file until a person has taken them off the list.
  std::vector<std::string> unconfirmed;
};
// A file with comments. ParsePolicy gives the same policy back (but for its digest), if it is one
// that a file can state.
std::string WritePolicy(const Policy& policy, const PolicyRemarks& remarks);

// What the policy accepts, in English, one statement a line.
std::string ExplainPolicy(const Policy& policy);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_POLICY_FILE_H_
