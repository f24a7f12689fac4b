// What RowGenerator shares with its kernels. Not for use outside batch*.cc. The kernel files are
// compiled for one instruction set each, so they get plain pointers only: an inline function or a
// template of a shared header, if emitted there, could be the copy that the linker keeps.
#ifndef TALARIA_RING_BATCH_KERNELS_H_
#define TALARIA_RING_BATCH_KERNELS_H_

#include <cstddef>
#include <cstdint>

namespace talaria::ring::internal {

// Kernels keep NTT values in bit-reversed order: position p holds slot reverse8(p).
struct Pass {
  const uint8_t* matrix;
  size_t columns;       // > 0
  size_t error_stride;  // bytes
  size_t batches;       // 1..4
  // Per batch.
  const int8_t* error[4];  // or null
  uint8_t* rows[4];
  // The secrets, times the kernel's factor: [256 positions][i = 0..7][batches].
  const uint64_t* secrets;
  // [batches][256 positions] of the kernel's vector, 64-byte aligned.
  void* values;
  // For the AVX2 kernel instead: the 24-bit halves of each word of `secrets`, low and high.
  const double* halves;
};

// Powers of psi^-1 in the form that a kernel multiplies by: root[e] for psi^-e. The root of level
// l = 0..7 of the decimation in time is w_j = psi^-(j << (8 - l)), j in [0, 2^l), and the final
// twist of coefficient j is psi^-j.
struct IfmaRoot {
  uint64_t w;         // psi^-e 2^52 mod q: Montgomery form
  uint64_t w_over_q;  // w q^-1 mod 2^52
};
struct FmaRoot {
  double w;         // psi^-e, centred
  double w_over_q;  // w / q
};
struct IfmaRoots {
  IfmaRoot root[256];
};
struct FmaRoots {
  FmaRoot root[256];
};
const IfmaRoots& GetIfmaRoots();
const FmaRoots& GetFmaRoots();

void GenerateAvx2(const Pass& pass);
void GenerateAvx512(const Pass& pass);

}  // namespace talaria::ring::internal

#endif  // TALARIA_RING_BATCH_KERNELS_H_
