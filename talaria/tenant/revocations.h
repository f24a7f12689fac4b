// Which tokens are no longer good: a list that the tenant signs and anybody may bring to a CVM. It
// replaces the one before, so it names every revoked token that has not expired yet. Canonical.
//
//   "talaria-revocations-v1\0", u64 version, i64 issued, u32 count, count * 16 bytes token id
//   (ascending, each once), 64 bytes Ed25519 signature over all before
//
// A CVM keeps the list in memory: after a start it has none until somebody brings one again.
#ifndef TALARIA_TENANT_REVOCATIONS_H_
#define TALARIA_TENANT_REVOCATIONS_H_

#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/result.h"
#include "talaria/tenant/tenant_key.h"
#include "talaria/tenant/token.h"

namespace talaria::tenant {

inline constexpr uint32_t kMaxRevocations = 16384;
inline constexpr size_t kMaxRevocationListBytes =
    23 + 8 + 8 + 4 + size_t{kMaxRevocations} * kTokenIdBytes + kSignatureBytes;

struct Revocations {
  uint64_t version;          // the next list has a higher one
  int64_t issued;            // seconds since 1970, UTC; for people
  std::vector<TokenId> ids;  // ascending, each once
  bool Contains(const TokenId& id) const;
};

// Sorts the ids and drops doubles. kInvalidArgument: more than kMaxRevocations.
// kResourceExhausted: OpenSSL.
Result<std::vector<uint8_t>> MakeRevocations(Revocations list, const TenantKey& key);
// kUntrusted: "revocations-format", "revocations-signature". Whether it is newer than another is
// the caller's to check.
Result<Revocations> VerifyRevocations(Bytes bytes, const PublicKey& tenant);

}  // namespace talaria::tenant

#endif  // TALARIA_TENANT_REVOCATIONS_H_
