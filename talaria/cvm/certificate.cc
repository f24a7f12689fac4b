#include "talaria/cvm/certificate.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "talaria/ring/modq.h"

namespace talaria::cvm {
namespace {

using Wide = unsigned __int128;

constexpr uint64_t kMaxQuantised = 32767;  // 16 bits
constexpr uint64_t kMinQuantised = 127;    // a model that leaves less than 8 bits is refused
constexpr uint32_t kMaxWidth = uint32_t{1} << 22;
constexpr uint64_t kErrorFactor = 7512;  // 4 * 43.33^2

// All relative roundings together: sigma, its inverse and x * inverse are floats (3 x 2^-24), the
// sums of doubles are off by less than (d / 16 + 5) 2^-53 <= 2^-34, a handful of further operations
// on doubles by 2^-50. 2^-22 covers them.
constexpr double kRounding = 1.0 + 0x1p-20;
// Below it x * inverse of a denormal x could reach 1/2, and the result would depend on the thread's
// flush-to-zero bits.
constexpr double kMinSigma = 0x1p-124;

// One inequality ||h|| <= limit, with ||h|| <= ||x|| / sigma + rounding: sigma >= ||x|| * (the
// factor returned). When rounding alone may reach the limit the factor is so large that another
// inequality is taken. The operands are public.
double Factor(double limit, double rounding) {
  constexpr double kDown = 1.0 - 0x1p-40, kUp = 1.0 + 0x1p-40;
  const double room = limit * kDown - rounding * kUp;
  return room > 0 ? 1.0 / room : 1e300;
}

// All ones when a <= b; both below 2^127.
uint64_t AtMost(Wide a, Wide b) { return static_cast<uint64_t>((b - a) >> 127) - 1; }

}  // namespace

Status WeightNorms::Add(std::span<const int8_t> weights, size_t d) {
  TALARIA_CHECK(d != 0 && weights.size() % d == 0);
  constexpr size_t kChunk = size_t{1} << 15;  // 128^2 * 2^15 = 2^29: sums of a chunk fit 32 bits
  for (const int8_t* column = weights.data(); column != weights.data() + weights.size();
       column += d) {
    uint64_t l1 = 0, l2_squared = 0;
    int lowest = 0, highest = 0;
    for (size_t begin = 0; begin < d; begin += kChunk) {
      const size_t end = std::min(begin + kChunk, d);
      uint32_t sum = 0, squares = 0;
      int8_t low = 0, high = 0;
      for (size_t i = begin; i < end; ++i) {
        const int w = column[i];
        sum += static_cast<uint32_t>(w < 0 ? -w : w);
        squares += static_cast<uint32_t>(w * w);
        low = std::min(low, column[i]);
        high = std::max(high, column[i]);
      }
      l1 += sum;
      l2_squared += squares;
      lowest = std::min<int>(lowest, low);
      highest = std::max<int>(highest, high);
    }
    if (lowest < -127) return Status(Code::kSessionEnded, "a weight of -128");
    max_abs = std::max(max_abs, static_cast<uint64_t>(std::max(-lowest, highest)));
    max_l1 = std::max(max_l1, l1);
    max_l2_squared = std::max(max_l2_squared, l2_squared);
  }
  return OkStatus();
}

Result<Certificate> Certificate::Compute(const WeightNorms& norms, uint32_t d) {
  if (d == 0 || d > kMaxWidth)
    return Status(Code::kUnsupported, "an input width of " + std::to_string(d));
  Certificate certificate;
  certificate.norms = norms;
  certificate.d = d;
  const Wide need = Wide{kErrorFactor} * norms.max_l2_squared;
  while ((Wide{1} << (2 * certificate.delta_log2)) < need)
    ++certificate.delta_log2;  // need < 2^77: at most 39
  const uint64_t delta = uint64_t{1} << certificate.delta_log2;
  certificate.bound = (ring::kQ - delta) / (2 * delta);
  // ||h||_inf <= 127 and max||w||_1: of the three inequalities the one that a worst row meets
  // first.
  if (Wide{kMinQuantised} * norms.max_l1 > certificate.bound) {
    return Status(Code::kUnsupported, "weights leave activations less than 8 bits");
  }
  return certificate;
}

RowScale Certificate::ScaleFor(const RowNorms& row) const {
  // Of the group only, so these may branch. max(1, .): without weights every row is safe.
  const double b = static_cast<double>(bound);
  const double root_d = std::sqrt(static_cast<double>(d));
  const uint64_t largest = std::min(kMaxQuantised, bound / std::max<uint64_t>(1, norms.max_l1));
  // Rounding an entry below n + 1/2 gives at most n, so this inequality gains its half instead of
  // losing it.
  const double by_inf = 1.0 / (static_cast<double>(largest) + 0.5);
  const double by_l2 = Factor(
      b / std::sqrt(static_cast<double>(std::max<uint64_t>(1, norms.max_l2_squared))), root_d / 2);
  const double by_l1 = Factor(b / static_cast<double>(std::max<uint64_t>(1, norms.max_abs)),
                              static_cast<double>(d) / 2);
  constexpr double kBy16Bits = 1.0 / (static_cast<double>(kMaxQuantised) + 0.5);

  // Of the row: minima, maxima and a mask.
  const double safe = std::min(row.max_abs * by_inf,
                               std::min(std::sqrt(row.sum_squares) * by_l2, row.sum_abs * by_l1));
  const double wanted = std::max(kMinSigma, std::max(row.max_abs * kBy16Bits, safe) * kRounding);
  const uint64_t zero = uint64_t{0} - ((std::bit_cast<uint64_t>(row.max_abs) - 1) >>
                                       63);  // max_abs >= 0: only +0 wraps
  constexpr uint64_t kOne = std::bit_cast<uint64_t>(1.0);
  RowScale scale;
  scale.sigma = static_cast<float>(
      std::bit_cast<double>((std::bit_cast<uint64_t>(wanted) & ~zero) | (kOne & zero)));
  scale.inverse = 1.0f / scale.sigma;
  return scale;
}

bool Certificate::Holds(const QuantisedNorms& h) const {
  const Wide b = bound;
  const uint64_t safe = AtMost(Wide{h.max_abs} * norms.max_l1, b) |
                        AtMost(Wide{h.sum_squares} * norms.max_l2_squared, b * b) |
                        AtMost(Wide{h.sum_abs} * norms.max_abs, b);
  return (safe & AtMost(h.max_abs, kMaxQuantised) & 1) != 0;
}

}  // namespace talaria::cvm
