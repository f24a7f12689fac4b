// Exactness of a group, in integers, from the weights that the CVM saw itself (doc/masking.md,
// "Exactness").
//   Delta = 2^delta_log2, the smallest with Delta^2 >= 7512 max_j ||w_j||_2^2   (|E w_j| < Delta /
//   2 except with 2^-128) B = floor((q - Delta) / (2 Delta)); a quantised row h is safe when
//   ||h||_inf max||w||_1 <= B  or  ||h||_2^2 max||w||_2^2 <= B^2  or  ||h||_1 max|w| <= B.
#ifndef TALARIA_CVM_CERTIFICATE_H_
#define TALARIA_CVM_CERTIFICATE_H_

#include <cstdint>
#include <span>

#include "talaria/base/result.h"
#include "talaria/cvm/online.h"

namespace talaria::cvm {

// Maxima over the columns of every matrix of a group.
struct WeightNorms {
  uint64_t max_abs = 0;
  uint64_t max_l1 = 0;
  uint64_t max_l2_squared = 0;
  // Folds in `columns` = weights.size() / d columns of int8 [columns][d]. kSessionEnded for a
  // weight of -128.
  Status Add(std::span<const int8_t> weights, size_t d);
};

struct Certificate {
  int delta_log2 = 0;
  uint64_t bound = 0;  // B
  WeightNorms norms;
  uint32_t d = 0;
  // kUnsupported when no activation of at least 8 bits would fit.
  static Result<Certificate> Compute(const WeightNorms& norms, uint32_t d);

  // The scale of a row: the smallest sigma for which one of the three inequalities and |h| <= 32767
  // hold for h = round(x / sigma), with the rounding slack in closed form. A function of (row,
  // group) only; 1 for a zero row. No branch on the row.
  RowScale ScaleFor(const RowNorms& row) const;
  // The integer inequality on the quantised row, without a branch on values. False is our own bug.
  bool Holds(const QuantisedNorms& h) const;
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_CERTIFICATE_H_
