// The start-up self-test over any table of kernels. Internal to talaria/gemm; a test gives it a
// broken one.
#ifndef TALARIA_GEMM_PRODUCT_SELFTEST_H_
#define TALARIA_GEMM_PRODUCT_SELFTEST_H_

#include <span>

#include "talaria/gemm/product.h"
#include "talaria/gemm/product_kernels.h"

namespace talaria::gemm {

struct KernelChoice {
  Isa isa;
  const Kernel* kernel;
};

// True when the kernel's results equal the oracle's on fixed shapes: random values and the largest
// sums that exist.
bool KernelAgrees(const KernelChoice& choice);

// The best of `table` (ascending) up to `wanted` that agrees. Ends the program when none does:
// there is nothing to serve with.
Isa SelfTestedIsa(Isa wanted, std::span<const KernelChoice> table);

}  // namespace talaria::gemm

#endif  // TALARIA_GEMM_PRODUCT_SELFTEST_H_
