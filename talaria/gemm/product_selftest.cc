#include "talaria/gemm/product_selftest.h"

#include <algorithm>
#include <string>

#include "talaria/base/log.h"
#include "talaria/gemm/device.h"
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

// One row, a pair, an odd one and more than a tile; one s32 run and several; full depth, where sums
// reach their bound; odd sizes.
constexpr Case kCases[] = {{1, 1, 1, 0},      {65, 33, 3, 0},    {576, 64, 2, 0},
                           {1536, 40, 5, 0},  {320, 48, 70, 0},  {1100, 32, 2, 1},
                           {1100, 32, 2, -1}, {65536, 32, 2, 1}, {65536, 32, 1, -1}};

// The inputs of a case and what the oracle says.
struct Sample {
  explicit Sample(const Case& c)
      : weights(c.d * c.outputs),
        planes(c.rows * kPlanes * PadInputs(c.d)),
        expected(c.rows * PadOutputs(c.outputs) * kPlanes) {
    Values values(c.d * 1000 + c.outputs);
    for (int8_t& w : weights) {
      w = static_cast<int8_t>(c.extreme != 0 ? 127 * c.extreme
                                             : static_cast<int>(values.Next() % 255) - 127);
    }
    for (uint8_t& digit : planes) digit = static_cast<uint8_t>(values.Next());
    for (size_t r = 0; r < c.rows; ++r) {
      for (size_t k = 0; k < c.d && c.extreme != 0; ++k) {
        for (size_t p = 0; p < kPlanes; ++p) {
          planes[(r * kPlanes + p) * PadInputs(c.d) + k] =
              static_cast<uint8_t>((ring::kQ - 1) >> (8 * p));
        }
      }
    }
    ReferenceProduct(weights, c.d, planes, c.rows, expected);
  }
  std::vector<int8_t> weights;
  std::vector<uint8_t> planes, expected;
};

// All rows of a sample, each call with as many as the device takes: in one block, or a block a row.
Status MultiplySample(DeviceWeights& weights, const Case& c, const Sample& sample,
                      bool block_per_row, std::vector<uint8_t>& got) {
  const size_t in_row = sample.planes.size() / c.rows, out_row = got.size() / c.rows;
  for (size_t row = 0; row < c.rows;) {
    const size_t rows = std::min(weights.max_rows(), c.rows - row);
    std::vector<RowBlock> blocks;
    const size_t step = block_per_row ? 1 : rows;
    for (size_t end = row + rows; row < end; row += step) {
      blocks.push_back({Bytes(sample.planes).subspan(row * in_row, step * in_row), step,
                        MutableBytes(got).subspan(row * out_row, step * out_row)});
    }
    TALARIA_RETURN_IF_ERROR(weights.Multiply(blocks));
  }
  return OkStatus();
}

}  // namespace

bool KernelAgrees(const KernelChoice& choice) {
  ThreadTeam alone(1);
  std::vector<uint8_t> scratch;
  for (const Case& c : kCases) {
    const Sample sample(c);
    auto packed = PackedWeights::CreateFor(*choice.kernel, choice.isa, c.d, PadOutputs(c.outputs));
    if (!packed.ok() || !packed->SetColumns(0, sample.weights).ok()) return false;
    std::vector<uint8_t> got(sample.expected.size(), 0xff);
    Product(*packed, sample.planes, c.rows, got, scratch, alone);
    if (got != sample.expected) return false;
  }
  return true;
}

Status SelfTestDevice(Device& device) {
  for (const Case& c : kCases) {
    const Sample sample(c);
    TALARIA_ASSIGN_OR_RETURN(const auto weights, device.CreateWeights(c.d, PadOutputs(c.outputs)));
    TALARIA_RETURN_IF_ERROR(weights->SetColumns(0, sample.weights));
    for (const bool block_per_row : {false, true}) {
      std::vector<uint8_t> got(sample.expected.size(), 0xff);
      TALARIA_RETURN_IF_ERROR(MultiplySample(*weights, c, sample, block_per_row, got));
      if (got == sample.expected) continue;
      return {Code::kUnsupported,
              "the products of " + device.name() +
                  " differ from the reference: nothing may be served with it (try another "
                  "--device, and look at its driver and its memory)"};
    }
  }
  return OkStatus();
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
