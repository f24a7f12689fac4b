#include "talaria/cloud/provision_quantise.h"

#include <algorithm>
#include <bit>
#include <cfloat>

namespace talaria::cloud {
namespace {

constexpr uint32_t kInfinity = 0x7f800000;  // bits; a NaN lies above
// Adding and subtracting 1.5 * 2^23 rounds |x| < 2^22 to an integer in the current mode, which is
// nearest-even: floats of that size are one apart. Unlike lrintf it vectorises everywhere.
constexpr float kRound = 12582912.0f;

}  // namespace

bool QuantiseRow(std::span<const float> row, std::span<int8_t> out, RowQuantisation& result) {
  uint32_t max_bits = 0;
  for (const float x : row) max_bits = std::max(max_bits, std::bit_cast<uint32_t>(x) & 0x7fffffff);
  if (max_bits >= kInfinity) return false;
  const float scale = std::bit_cast<float>(max_bits) / 127.0f;
  const bool usable = scale >= FLT_MIN;
  result = {usable ? scale : 1.0f, 0, 0};
  if (!usable) {
    std::fill(out.begin(), out.end(), int8_t{0});
  } else {
    for (size_t j = 0; j < row.size(); ++j) {
      const float rounded = (row[j] / scale + kRound) - kRound;
      out[j] = static_cast<int8_t>(rounded);
    }
  }
  for (size_t j = 0; j < row.size(); ++j) {
    const double x = row[j];
    const double e = x - static_cast<double>(out[j]) * static_cast<double>(result.scale);
    result.error += e * e;
    result.norm += x * x;
  }
  return true;
}

}  // namespace talaria::cloud
