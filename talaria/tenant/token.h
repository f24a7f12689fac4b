// What lets one user in: a text that the tenant signed and the user's client sends with every
// request (`Authorization: Bearer TOKEN`). The CVM keeps no list of users; the tenant's key, which
// is bound into its attestation, is all it needs. Canonical: Encode(Decode(x)) == x.
//
//   "tlr1_" base64url( u8 version 1, u8 size, user, 16 bytes id, i64 not before, i64 expires,
//                      u32 requests per minute, u32 tokens per day, u16 concurrent requests,
//                      32 bytes client key, 64 bytes signature )
//
// without padding, integers little-endian; the signature is Ed25519 over "talaria-token-v1\0" and
// all bytes before it.
#ifndef TALARIA_TENANT_TOKEN_H_
#define TALARIA_TENANT_TOKEN_H_

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <string_view>

#include "talaria/base/digest.h"
#include "talaria/base/result.h"
#include "talaria/tenant/tenant_key.h"

namespace talaria::tenant {

inline constexpr size_t kTokenIdBytes = 16;
inline constexpr size_t kMaxUserBytes = 64;
inline bool IsUserName(std::string_view text) {
  return !text.empty() && text.size() <= kMaxUserBytes &&
         std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
}
inline constexpr uint32_t kUnlimitedTokens = std::numeric_limits<uint32_t>::max();
using TokenId = std::array<uint8_t, kTokenIdBytes>;

// Every field is given by whoever makes one, none has a default.
struct Token {
  std::string user;  // 1..kMaxUserBytes, printable ASCII; limits count per user, not per token
  TokenId id;        // random; what a revocation names
  int64_t not_before, expires;   // seconds since 1970, UTC; good from the first to before the last
  uint32_t requests_per_minute;  // 0: none
  uint32_t tokens_per_day;       // of answers; 0: none, kUnlimitedTokens: any number
  uint16_t concurrent_requests;  // 0: none
  Digest client_key;             // SHA-256 of the SPKI of the one TLS client that may use it;
                                 // zeros: whoever holds the token
  bool operator==(const Token&) const = default;
};

// 5 + 272 characters at most.
inline constexpr size_t kMaxTokenChars = 277;

// kInvalidArgument: a user that is empty, too long or not printable ASCII, or expires <=
// not_before. kResourceExhausted: OpenSSL.
Result<std::string> MakeToken(const Token& token, const TenantKey& key);

// What the holder of `tenant` has signed, and nothing that anybody else has: the signature is
// checked before any field is. kUntrusted: "token-format", "token-signature". Of time, client key
// and revocation nothing is checked here.
Result<Token> VerifyToken(std::string_view text, const PublicKey& tenant);

// Whether a token is good now and here. kUntrusted: "token-not-yet-valid", "token-expired",
// "token-client-key" (`client_key` is zero for a client without one).
Status CheckToken(const Token& token, int64_t now, const Digest& client_key);

}  // namespace talaria::tenant

#endif  // TALARIA_TENANT_TOKEN_H_
