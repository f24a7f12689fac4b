#include "talaria/attest/claim.h"

#include <algorithm>

namespace talaria::attest {

std::vector<uint8_t> Encode(const Claim& claim) {
  std::vector<uint8_t> out = Encode(claim.context);
  const std::vector<uint8_t> evidence = Encode(claim.evidence);
  out.insert(out.end(), evidence.begin(), evidence.end());
  return out;
}

Result<Claim> DecodeClaim(Bytes bytes) {
  const size_t context_bytes = std::min(bytes.size(), kContextBytes);
  TALARIA_ASSIGN_OR_RETURN(const Context context, DecodeContext(bytes.first(context_bytes)));
  TALARIA_ASSIGN_OR_RETURN(Evidence evidence, DecodeEvidence(bytes.subspan(context_bytes)));
  return Claim{context, std::move(evidence)};
}

}  // namespace talaria::attest
