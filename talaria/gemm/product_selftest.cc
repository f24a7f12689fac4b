#include "talaria/gemm/product_selftest.h"

#include <string>

#include "talaria/base/log.h"
#include "talaria/ring/modq.h"

namespace talaria::gemm {
namespace {

// SplitMix64: the shapes and values of the self-test are the same at every start.
class Values {
 public:
  explicit Values(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_;
};

struct Case {
  size_t d, outputs, rows;
  int extreme;  // 0: random; 1: all weights 127, all residues q - 1; -1: all weights -127
};

// One row, a pair and an odd one; one s32 run and several; full depth, where sums reach their
// bound; odd sizes.
constexpr Case kCases[] = {{1, 1, 1, 0},      {65, 33, 3, 0},    {576, 64, 2, 0},
                           {1536, 40, 5, 0},  {1100, 32, 2, 1},  {1100, 32, 2, -1},
                           {65536, 32, 2, 1}, {65536, 32, 1, -1}};

}  // namespace

bool KernelAgrees(const KernelChoice& choice) {
  ThreadTeam alone(1);
  std::vector<uint8_t> scratch;
  for (const Case& c : kCases) {
    Values values(c.d * 1000 + c.outputs);
    std::vector<int8_t> weights(c.d * c.outputs);
    for (int8_t& w : weights) {
      w = static_cast<int8_t>(c.extreme != 0 ? 127 * c.extreme
                                             : static_cast<int>(values.Next() % 255) - 127);
    }
    std::vector<uint8_t> planes(c.rows * kPlanes * PadInputs(c.d));
    for (uint8_t& digit : planes) digit = static_cast<uint8_t>(values.Next());
    for (size_t r = 0; r < c.rows; ++r) {
      for (size_t k = 0; k < c.d && c.extreme != 0; ++k) {
        for (size_t p = 0; p < kPlanes; ++p) {
          planes[(r * kPlanes + p) * PadInputs(c.d) + k] =
              static_cast<uint8_t>((ring::kQ - 1) >> (8 * p));
        }
      }
    }
    auto packed = PackedWeights::CreateFor(*choice.kernel, choice.isa, c.d, PadOutputs(c.outputs));
    if (!packed.ok() || !packed->SetColumns(0, weights).ok()) return false;
    std::vector<uint8_t> expected(c.rows * PadOutputs(c.outputs) * kPlanes),
        got(expected.size(), 0xff);
    ReferenceProduct(weights, c.d, planes, c.rows, expected);
    Product(*packed, planes, c.rows, got, scratch, alone);
    if (got != expected) return false;
  }
  return true;
}

Isa SelfTestedIsa(Isa wanted, std::span<const KernelChoice> table) {
  for (size_t i = table.size(); i-- > 0;) {
    if (table[i].isa > wanted) continue;
    if (KernelAgrees(table[i])) return table[i].isa;
    LogError(std::string("the ") + table[i].kernel->name +
             " product disagrees with the reference and is not used");
  }
  LogError("no product kernel agrees with the reference");
  TALARIA_CHECK(!"a product kernel agrees with the reference");
}

}  // namespace talaria::gemm
