// The plain number-theoretic transform of Z_q[X] / (X^256 + 1): the oracle of the batch kernels,
// and what turns a secret into its NTT form. Constant time.
#ifndef TALARIA_RING_NTT_H_
#define TALARIA_RING_NTT_H_

#include <array>
#include <cstdint>

#include "talaria/ring/modq.h"
#include "talaria/ring/profile.h"

namespace talaria::ring {

using Polynomial = std::array<uint64_t, kDegree>;  // residues in [0, q)

// The smallest primitive 512th root of unity mod q.
uint64_t Psi();
// Coefficients -> values: out[s] = a(psi^(2s + 1)), natural order. In place.
void ForwardNtt(Polynomial& a);
// The inverse, 1/256 included.
void InverseNtt(Polynomial& a);

}  // namespace talaria::ring

#endif  // TALARIA_RING_NTT_H_
