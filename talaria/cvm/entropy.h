// Keys of mask batches and check vectors: HKDF-SHA-256(getrandom || RDSEED). Two sources, so that
// neither a bad processor nor a bad kernel alone decides a key.
#ifndef TALARIA_CVM_ENTROPY_H_
#define TALARIA_CVM_ENTROPY_H_

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "talaria/base/result.h"

namespace talaria::cvm {

enum class RdseedPolicy {
  kRequire,       // refuse a machine without RDSEED: production
  kUseIfPresent,  // only together with the simulated TEE; one loud warning per process
};

// Fills `out` with a fresh key; `domain` (at most 64 bytes) separates uses. RDSEED in its 64-bit
// form, bounded retries; repeated, all-zero and all-one words are refused. kResourceExhausted:
// RDSEED delivers nothing. kUnsupported: there is no RDSEED, or it is broken. kIo: getrandom
// failed. Any thread.
Status FreshKey(RdseedPolicy policy, std::string_view domain, std::span<uint8_t, 32> out);

namespace internal {

inline constexpr size_t kRdseedWords = 4;
inline constexpr int kRdseedTries = 1000;  // per word

// Four words from `rdseed`, which is the instruction: false when it had nothing. A parameter, so
// that tests can break it.
Status ReadSeedWords(const std::function<bool(uint64_t&)>& rdseed,
                     std::array<uint64_t, kRdseedWords>& out);

}  // namespace internal
}  // namespace talaria::cvm

#endif  // TALARIA_CVM_ENTROPY_H_
