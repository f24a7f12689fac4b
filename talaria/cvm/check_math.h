// Inner products mod q with secret vectors, behind three checks:
//   set-up      u = W v and u' = W v'; hints . v' = A . u'
//   self-test   U . v = (M - E) . u of every batch
// Constant time in every value. Sums are lazy: 128 bits take 2^32 products of two 48-bit values.
#ifndef TALARIA_CVM_CHECK_MATH_H_
#define TALARIA_CVM_CHECK_MATH_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "talaria/base/cpu.h"

namespace talaria::cvm {

using WideSum = unsigned __int128;

inline constexpr size_t kMaxProductVectors = 4;

// sums[k][j] += sum_c weights[c][j] v[k][c] mod q, for `columns` = weights.size() / d columns of
// int8 [columns][d]. v: canonical residues; sums: canonical residues [d]; scratch: vectors * d
// words of secret memory, overwritten.
void AddWeightProducts(std::span<const int8_t> weights, size_t d, const uint64_t* const* v,
                       size_t vectors, uint64_t* const* sums, int64_t* scratch);

// sums[k][row] += sum_c matrix[row, c] x[k][c], for whole blocks of a ModuleMatrix (ring/layout.h):
// columns is a multiple of 8, row = slot * kRank + i. vectors is 1 or 2. Reads kSlack past the end.
void AddModuleProducts(Isa isa, const uint8_t* blocks, size_t columns, const uint64_t* const* x,
                       size_t vectors, WideSum* const* sums /*[vectors][2048]*/);

// sums[row] += sum_c panels[row, c] x[c], for whole RowPanels: columns is a multiple of 32. Reads
// kSlack past the end.
void AddPanelProducts(Isa isa, const uint8_t* panels, size_t columns, const uint64_t* x,
                      WideSum* sums /*[256]*/);

// Errors are in [-kErrorOffset, kErrorOffset), and summed without a sign.
inline constexpr int kErrorOffset = 32;

// sums[row] += sum_c (errors[row * stride + c] + kErrorOffset) x[c] for 256 rows of `columns`.
void AddErrorProducts(Isa isa, const int8_t* errors, size_t stride, size_t columns,
                      const uint64_t* x, WideSum* sums /*[256]*/);

// At most 2^20 errors.
uint64_t SumOfSquares(Isa isa, std::span<const int8_t> errors);

namespace internal {

// check_math_avx512.cc, which is compiled for its instruction set and so emits nothing that other
// files share.
void AddModuleProductsAvx512(const uint8_t* blocks, size_t columns, const uint64_t* const* x,
                             size_t vectors, WideSum* const* sums);
void AddPanelProductsAvx512(const uint8_t* panels, size_t columns, const uint64_t* x,
                            WideSum* sums);
void AddErrorProductsAvx512(const int8_t* errors, size_t stride, size_t columns, const uint64_t* x,
                            WideSum* sums);
uint64_t SumOfSquaresAvx512(const int8_t* errors, size_t count);

}  // namespace internal
}  // namespace talaria::cvm

#endif  // TALARIA_CVM_CHECK_MATH_H_
