// Inputs for tests and benchmarks of the product. Fixed seeds.
#ifndef TALARIA_GEMM_PRODUCT_TESTING_H_
#define TALARIA_GEMM_PRODUCT_TESTING_H_

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "talaria/gemm/product.h"
#include "talaria/ring/modq.h"

namespace talaria::gemm {

// [outputs][d], uniform in -127..127.
inline std::vector<int8_t> RandomWeights(size_t outputs, size_t d, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int8_t> weights(outputs * d);
  for (int8_t& w : weights) w = static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
  return weights;
}

// [rows][d], uniform in [0, q).
inline std::vector<uint64_t> RandomResidues(size_t rows, size_t d, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint64_t> residues(rows * d);
  for (uint64_t& x : residues) x = random() % ring::kQ;
  return residues;
}

// [rows][d] residues -> [rows][6][PadInputs(d)] digit planes, with `padding` in the digits past d.
inline std::vector<uint8_t> DigitPlanes(std::span<const uint64_t> residues, size_t d,
                                        uint8_t padding = 0xa5) {
  const size_t rows = residues.size() / d, padded = PadInputs(d);
  std::vector<uint8_t> planes(rows * kPlanes * padded, padding);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t k = 0; k < d; ++k) {
      for (size_t p = 0; p < kPlanes; ++p) {
        planes[(r * kPlanes + p) * padded + k] =
            static_cast<uint8_t>(residues[r * d + k] >> (8 * p));
      }
    }
  }
  return planes;
}

}  // namespace talaria::gemm

#endif  // TALARIA_GEMM_PRODUCT_TESTING_H_
