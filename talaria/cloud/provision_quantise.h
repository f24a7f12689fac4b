// Rows of floats to signed bytes: the one rule that turns a source model into Talaria's integers.
// Part of the format: the same GGUF gives the same bytes on every machine.
#ifndef TALARIA_CLOUD_PROVISION_QUANTISE_H_
#define TALARIA_CLOUD_PROVISION_QUANTISE_H_

#include <cstdint>
#include <span>

namespace talaria::cloud {

struct RowQuantisation {
  float scale = 1;
  double error = 0;  // sum over the row of (x - q * scale)^2
  double norm = 0;   // sum over the row of x^2
};

// Symmetric: scale = max|x| / 127 as one IEEE single-precision division, q = x / scale (one
// division) rounded to the nearest integer, ties to even; so |q| <= 127 and -128 never occurs. A
// row whose scale would not be a normal number (all zero, or below 127 * 2^-126) gets scale 1 and q
// = 0. False when a value is not finite. out.size() == row.size().
bool QuantiseRow(std::span<const float> row, std::span<int8_t> out, RowQuantisation& result);

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_PROVISION_QUANTISE_H_
