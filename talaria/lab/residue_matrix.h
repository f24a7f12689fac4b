// LABORATORY ONLY: products of dense residue matrices mod q, which the published mask needs and the
// product does not.
//   Y [n x columns] = X [n x rows] R [rows x columns] mod q
// R is kept as seven planes of balanced base-128 digits, int8, so that the integer kernels of
// gemm/product.h do the work exactly: Y = sum_p 128^p (X R_p).
#ifndef TALARIA_LAB_RESIDUE_MATRIX_H_
#define TALARIA_LAB_RESIDUE_MATRIX_H_

#include <cstdint>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/cpu.h"
#include "talaria/base/result.h"
#include "talaria/gemm/product.h"

namespace talaria::lab {

class ResidueMatrix {
 public:
  // From canonical six-byte residues [rows][columns]. kInvalidArgument for no or more than 65,536
  // rows; kResourceExhausted.
  static Result<ResidueMatrix> Create(Isa isa, size_t rows, size_t columns, Bytes residues);
  size_t padded_columns() const { return planes_[0].padded_outputs(); }
  // `x`: digit planes [n][6][rows padded to 64]. `out` [n][padded_columns()] residues. One thread
  // at a time per scratch and team.
  struct Scratch {
    std::vector<uint8_t> product, gemm;
  };
  void Multiply(Bytes x, size_t n, std::vector<uint64_t>& out, Scratch& scratch,
                gemm::ThreadTeam& team) const;

 private:
  std::vector<gemm::PackedWeights> planes_;  // low digit first
};

// [n][6][rows padded to 64] planes of n rows of residues.
std::vector<uint8_t> DigitPlanes(const std::vector<uint64_t>& residues, size_t n, size_t rows);

// The oracle: one 128-bit product at a time. x [n][rows], r [rows][columns] -> [n][columns].
std::vector<uint64_t> ReferenceResidueProduct(const std::vector<uint64_t>& x, size_t n, Bytes r,
                                              size_t rows, size_t columns);

}  // namespace talaria::lab

#endif  // TALARIA_LAB_RESIDUE_MATRIX_H_
