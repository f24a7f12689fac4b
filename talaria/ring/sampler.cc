#include "talaria/ring/sampler.h"

#include <algorithm>

#include "talaria/base/bytes.h"
#include "talaria/base/secret.h"
#include "talaria/ring/sampler_kernels.h"

namespace talaria::ring {
namespace internal {
namespace {

// Arithmetic only: the compiler's own fallback for a processor without POPCNT may look up a table,
// at an address that depends on the secret.
uint64_t CountOnes(uint64_t x) {
  x -= (x >> 1) & 0x5555555555555555;
  x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333);
  x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f;
  return (x * 0x0101010101010101) >> 56;
}

}  // namespace

// The order of samples: stream word 8 j + lane of a group becomes sample 8 lane + j. So eight
// vectors of eight 64-bit counts are gathered into one vector of 64 bytes by shifts and ors.
void CountErrorsPortable(const uint8_t* stream, size_t groups, int8_t* out) {
  for (; groups != 0; --groups, stream += kErrorGroupBytes, out += kErrorGroup) {
    for (size_t j = 0; j < 8; ++j) {
      for (size_t lane = 0; lane < 8; ++lane) {
        const uint64_t ones = CountOnes(LoadResidue(stream + 6 * (8 * j + lane)) & kErrorMask);
        out[8 * lane + j] = static_cast<int8_t>(static_cast<int>(ones) - kEta);
      }
    }
  }
}

}  // namespace internal

void SampleTernary(AesCtrStream& stream, Polynomial& out) {
  uint8_t words[8 * kDegree];
  stream.Next(words);
  for (size_t j = 0; j < kDegree; ++j) {
    const unsigned __int128 triple =
        static_cast<unsigned __int128>(LoadLe<uint64_t>(words + 8 * j)) * 3;
    out[j] = FromSigned(static_cast<int64_t>(static_cast<uint64_t>(triple >> 64)) - 1);
  }
  Wipe(words, sizeof words);
}

void SampleError(Isa isa, AesCtrStream& stream, std::span<int8_t> out) {
  constexpr size_t kGroupsPerChunk = 20;  // 7,680 bytes: stay in the L1 cache
  constexpr size_t kSlackBytes = 64;      // that the vector paths read past the end
  TALARIA_CHECK(out.size() % internal::kErrorGroup == 0);
  const internal::CountErrorsFunction count = isa >= Isa::kAvx512 ? internal::CountErrorsAvx512
                                              : isa == Isa::kAvx2 ? internal::CountErrorsAvx2
                                                                  : internal::CountErrorsPortable;
  alignas(64) uint8_t words[kGroupsPerChunk * internal::kErrorGroupBytes + kSlackBytes] = {};
  while (!out.empty()) {
    const size_t groups = std::min(out.size() / internal::kErrorGroup, kGroupsPerChunk);
    stream.Next(MutableBytes(words, groups * internal::kErrorGroupBytes));
    count(words, groups, out.data());
    out = out.subspan(groups * internal::kErrorGroup);
  }
  Wipe(words, sizeof words);
}

void SampleResidues(AesCtrStream& stream, std::span<uint64_t> out) {
  uint8_t words[4096];
  while (!out.empty()) {
    const size_t count = std::min(out.size(), sizeof words / 16);
    stream.Next(MutableBytes(words, 16 * count));
    for (size_t j = 0; j < count; ++j) {
      out[j] = Reduce128(LoadLe<unsigned __int128>(words + 16 * j));
    }
    out = out.subspan(count);
  }
  Wipe(words, sizeof words);
}

}  // namespace talaria::ring
