// What a CVM sends to be believed: the context that it says it runs, and evidence that binds it.
// Travels in the wire's Attest frame and in the front's answer to a challenge: doc/attestation.md.
#ifndef TALARIA_ATTEST_CLAIM_H_
#define TALARIA_ATTEST_CLAIM_H_

#include <cstdint>
#include <vector>

#include "talaria/attest/context.h"
#include "talaria/attest/evidence.h"

namespace talaria::attest {

struct Claim {
  Context context;
  Evidence evidence;
};

inline constexpr size_t kMaxClaimBytes =
    kContextBytes + 9 + kMaxReportBytes + kMaxCertificatesBytes;

// Encode(context), then Encode(evidence).
std::vector<uint8_t> Encode(const Claim& claim);
// kUntrusted "context-format", "evidence-format".
Result<Claim> DecodeClaim(Bytes bytes);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_CLAIM_H_
