// A release file: what the builder of an image says that its measurements are, signed with the
// builder's Ed25519 key. A user who trusts the builder takes measurements from it, and never from
// the server that is to be judged.
//
//   signature = "128 digits"                       Ed25519 over "talaria-release-v1" 0x00, then
//   format = 1                                     every byte behind the first line
//   name = "talaria-cvm"
//   version = "1.2.0"
//   date = "2026-11-29"
//
//   [sev_snp]                                      one or more of these tables, in this order
//   measurements = ["96 digits", "96 digits"]
//
//   [tdx]
//   mrtd = ["96 digits"]
//   rtmr0 = ["96 digits"]                          and so on to rtmr3
//
//   [simulated]
//   measurements = ["96 digits"]
//
// It is TOML, but of this form only, byte for byte: EncodeRelease(ParseRelease(x)) == x.
#ifndef TALARIA_CLIENT_RELEASE_H_
#define TALARIA_CLIENT_RELEASE_H_

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "talaria/client/policy_draft.h"
#include "talaria/tenant/tenant_key.h"

namespace talaria::client {

inline constexpr size_t kMaxReleaseBytes = 256 << 10;
inline constexpr size_t kMaxReleaseMeasurements = 256;  // in one list

using ReleaseMeasurements = std::vector<std::array<uint8_t, 48>>;  // at least one, none twice

struct ReleaseTdx {
  ReleaseMeasurements mrtd;
  std::array<ReleaseMeasurements, 4> rtmr;
  bool operator==(const ReleaseTdx&) const = default;
};
struct Release {
  std::string name, version;  // 1 to 64 of A-Z a-z 0-9 . _ + -
  std::string date;           // YYYY-MM-DD
  std::optional<ReleaseMeasurements> sev_snp;
  std::optional<ReleaseTdx> tdx;
  std::optional<ReleaseMeasurements> simulated;
  bool operator==(const Release&) const = default;
};

// What is signed. kInvalidArgument: what a file cannot state, with the field.
Result<std::string> EncodeRelease(const Release& release);
// The same bytes back; nobody's signature is looked at. kUntrusted "release-format", with the line.
Result<Release> ParseRelease(std::string_view text);

// The file. Those of EncodeRelease and TenantKey::Sign.
Result<std::string> SignRelease(const Release& release, const tenant::TenantKey& builder);
// The signature first, over the bytes as they are, and only then their meaning. kUntrusted
// "release-signature" (another key, or a byte was changed), "release-format".
Result<Release> VerifyRelease(std::string_view file, const tenant::PublicKey& builder);
// The same of a file. Also kNotFound, kIo, kResourceExhausted (larger than kMaxReleaseBytes).
Result<Release> LoadRelease(const std::string& path, const tenant::PublicKey& builder);

// Its measurements take the place of the draft's, confirmed; the rest of the draft stays.
// kInvalidArgument: it has none for the kind of TEE of the draft.
Status ApplyRelease(const Release& release, const tenant::PublicKey& builder, PolicyDraft& draft);

}  // namespace talaria::client

#endif  // TALARIA_CLIENT_RELEASE_H_
