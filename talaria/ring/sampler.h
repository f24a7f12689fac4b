// Secrets and errors from key streams. Constant time, no rejection, bit-identical on every path.
#ifndef TALARIA_RING_SAMPLER_H_
#define TALARIA_RING_SAMPLER_H_

#include <array>
#include <cstdint>
#include <span>

#include "talaria/base/cpu.h"
#include "talaria/ring/aes_ctr.h"
#include "talaria/ring/ntt.h"

namespace talaria::ring {

// One uniform ternary polynomial: coefficient j = floor(3 w_j / 2^64) - 1 for the j-th 64-bit word
// of the stream; the statistical distance from uniform is below 2^-62 per coefficient. Residues in
// {q - 1, 0, 1}.
void SampleTernary(AesCtrStream& stream, Polynomial& out);

// out.size() samples of the centred binomial distribution with eta = 21: popcount(42 bits) - 21 of
// consecutive six-byte words. out.size() is a multiple of 64. The order of samples within a group
// of 64 is fixed and documented in sampler.cc.
void SampleError(Isa isa, AesCtrStream& stream, std::span<int8_t> out);

// out.size() residues, each a 128-bit word of the stream mod q (statistical distance 2^-80): for
// the secret check vectors.
void SampleResidues(AesCtrStream& stream, std::span<uint64_t> out);

}  // namespace talaria::ring

#endif  // TALARIA_RING_SAMPLER_H_
