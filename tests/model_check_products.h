// What a product of an offloaded matrix must be, by definition: the oracle of talaria-model-check.
// Plain loops, no kernel.
//
// Exact. With the row's scale sigma from the group's certificate, h = round(x / sigma), and the
// store's integers w and scale s:
//   out = float(sum_j h_j w_j) * (sigma * s), bit for bit.
//
// Bound. Let W be a row of the source (as floats), s' = max|W| / 127 its step, and sigma the
// activations'. The two quantisations are
//   |W_j - s w_j| <= a = s' (1/2 + 2^-16)        a float division of a number of at most 127 may be
//   off by 127 * 2^-24 |x_j - sigma h_j| <= b = sigma (1/2 + 2^-8)  two float roundings of a number
//   of at most 2^15
// so, from x W - (sigma h)(s w) = x (W - s w) + (x - sigma h) s w and |s w_j| <= |W_j| + a,
//   |x W - sigma s (h . w)| <= a ||x||_1 + b (||W||_1 + d a).
// The result itself is rounded three times to float (2^-22 of it covers them), and the sum of
// doubles that it is compared with is off by at most d 2^-52 sum|x_j W_j|. A row whose step is no
// normal number is stored as zeros: then a = max|W|. Nothing of the store enters the bound but
// sigma, so a store that was made wrongly breaks it.
#ifndef TALARIA_TESTS_MODEL_CHECK_PRODUCTS_H_
#define TALARIA_TESTS_MODEL_CHECK_PRODUCTS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "talaria/cvm/certificate.h"
#include "tests/model_check_matrices.h"

namespace talaria::tests {

struct ProductVerdict {
  uint64_t values = 0;
  uint64_t inexact = 0;       // not the exact product's bits
  uint64_t out_of_bound = 0;  // or not a number
  double worst = 0;           // largest |out - x W| / bound
  bool exact() const { return values > 0 && inexact == 0; }
  bool within_bound() const { return values > 0 && out_of_bound == 0; }
  void Add(const ProductVerdict& other);
};

// input [rows][d] -> [rows][o]. Empty when an input is not finite: there is no exact product then.
std::vector<float> ExactProduct(const cvm::Certificate& certificate,
                                std::span<const int8_t> weights, std::span<const float> scales,
                                uint32_t rows, std::span<const float> input);

// Compares an evaluated product, output [rows][o], with both. A size that is off is a product
// without a right value.
ProductVerdict CheckProduct(const CheckedMatrix& matrix, const cvm::Certificate& certificate,
                            uint32_t rows, std::span<const float> input,
                            std::span<const float> output);

}  // namespace talaria::tests

#endif  // TALARIA_TESTS_MODEL_CHECK_PRODUCTS_H_
