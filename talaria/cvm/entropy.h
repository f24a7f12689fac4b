// Keys of mask batches and check vectors: HKDF-SHA-256(getrandom || RDSEED).
#ifndef TALARIA_CVM_ENTROPY_H_
#define TALARIA_CVM_ENTROPY_H_

#include <cstdint>
#include <span>

#include "talaria/base/result.h"

namespace talaria::cvm {

enum class RdseedPolicy {
  kRequire,       // refuse a machine without RDSEED: production
  kUseIfPresent,  // only together with the simulated TEE; one loud warning per process
};

// RDSEED in its 64-bit form, bounded retries; repeated or all-zero words are refused. kResourceExhausted, kUnsupported.
Status FreshKey(RdseedPolicy policy, std::string_view domain, std::span<uint8_t, 32> out);

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_ENTROPY_H_
