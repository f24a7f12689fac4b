// What the gateway's own routes over an attested channel are sent and answer: doc/http.md. Pure
// functions; nothing of a request appears in an error.
#ifndef TALARIA_CVM_GATEWAY_CHANNEL_H_
#define TALARIA_CVM_GATEWAY_CHANNEL_H_

#include <string>
#include <string_view>
#include <vector>

#include "talaria/attest/binding.h"
#include "talaria/attest/claim.h"
#include "talaria/base/result.h"
#include "talaria/tenant/revocations.h"

namespace talaria::cvm {

inline constexpr std::string_view kAttestationPath = "/v1/talaria/attestation";
inline constexpr std::string_view kRevocationsPath = "/v1/talaria/revocations";
inline constexpr std::string_view kReceiptPath = "/v1/talaria/receipt";
inline constexpr std::string_view kSaltHeader = "Talaria-Receipt-Salt";
inline constexpr size_t kMaxChallengeBytes = 256;
inline constexpr size_t kMaxRevocationsBodyBytes = 2 * tenant::kMaxRevocationListBytes + 64;

using Nonce = std::array<uint8_t, attest::kNonceBytes>;

// {"nonce":"<64 lower-case hex>"}, white space allowed and nothing else. kInvalidArgument: anything
// else, and a nonce of zeros only, which nobody draws.
Result<Nonce> DecodeChallenge(std::string_view body);
// {"list":"<lower-case hex>"}. kInvalidArgument.
Result<std::vector<uint8_t>> DecodeRevocationsBody(std::string_view body);
// {"claim":"<hex>"}
std::string EncodeClaimAnswer(const attest::Claim& claim);
// {"receipt":"<hex>"}
std::string EncodeReceiptAnswer(Bytes receipt);

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_GATEWAY_CHANNEL_H_
