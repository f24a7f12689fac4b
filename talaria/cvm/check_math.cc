#include "talaria/cvm/check_math.h"

#include <algorithm>
#include <cstring>

#include "talaria/base/result.h"
#include "talaria/ring/layout.h"

namespace talaria::cvm {
namespace {

using ring::kBlockBytes;
using ring::kBlockColumns;
using ring::kPanelBytes;
using ring::kPanelColumns;
using ring::kPanelRowBytes;
using ring::kResidueBytes;
using ring::LoadResidue;

// Any int64 -> [0, q).
uint64_t ReduceSigned(int64_t x) {
  constexpr uint64_t kTwo63 = uint64_t{1} << 63;
  return ring::SubMod(ring::Reduce64(static_cast<uint64_t>(x) + kTwo63), ring::Reduce64(kTwo63));
}

// One column for V vectors at a time: the weight is read once.
template <size_t V>
void AddColumns(const int8_t* weights, size_t d, size_t columns, const uint64_t* const* v,
                int64_t* scratch) {
  for (size_t c = 0; c < columns; ++c) {
    const int8_t* const w = weights + c * d;
    int64_t factor[V];
    for (size_t k = 0; k < V; ++k) factor[k] = static_cast<int64_t>(v[k][c]);
    for (size_t j = 0; j < d; ++j) {
      const int64_t weight = w[j];
      for (size_t k = 0; k < V; ++k) scratch[k * d + j] += weight * factor[k];
    }
  }
}

}  // namespace

void AddWeightProducts(std::span<const int8_t> weights, size_t d, const uint64_t* const* v,
                       size_t vectors, uint64_t* const* sums, int64_t* scratch) {
  TALARIA_CHECK(vectors >= 1 && vectors <= kMaxProductVectors && d != 0 && weights.size() % d == 0);
  constexpr size_t kColumnsPerFold = 256;  // 256 * 128 * 2^48 = 2^63
  const size_t columns = weights.size() / d;
  for (size_t first = 0; first < columns; first += kColumnsPerFold) {
    const size_t n = std::min(kColumnsPerFold, columns - first);
    const uint64_t* from[kMaxProductVectors] = {};
    for (size_t k = 0; k < vectors; ++k) from[k] = v[k] + first;
    std::memset(scratch, 0, vectors * d * sizeof(int64_t));
    const int8_t* const w = weights.data() + first * d;
    switch (vectors) {
      case 1:
        AddColumns<1>(w, d, n, from, scratch);
        break;
      case 2:
        AddColumns<2>(w, d, n, from, scratch);
        break;
      case 3:
        AddColumns<3>(w, d, n, from, scratch);
        break;
      default:
        AddColumns<4>(w, d, n, from, scratch);
        break;
    }
    for (size_t k = 0; k < vectors; ++k) {
      for (size_t j = 0; j < d; ++j)
        sums[k][j] = ring::AddMod(sums[k][j], ReduceSigned(scratch[k * d + j]));
    }
  }
}

void AddModuleProducts(Isa isa, const uint8_t* blocks, size_t columns, const uint64_t* const* x,
                       size_t vectors, WideSum* const* sums) {
  TALARIA_CHECK(columns % kBlockColumns == 0 && vectors >= 1 && vectors <= 2);
  if (isa >= Isa::kAvx512)
    return internal::AddModuleProductsAvx512(blocks, columns, x, vectors, sums);
  for (size_t first = 0; first < columns; first += kBlockColumns, blocks += kBlockBytes) {
    for (size_t row = 0; row < ring::kSecretSize; ++row) {
      const uint8_t* const from = blocks + row * kBlockColumns * kResidueBytes;
      for (size_t c = 0; c < kBlockColumns; ++c) {
        const WideSum value = LoadResidue(from + c * kResidueBytes);
        for (size_t k = 0; k < vectors; ++k) sums[k][row] += value * x[k][first + c];
      }
    }
  }
}

void AddPanelProducts(Isa isa, const uint8_t* panels, size_t columns, const uint64_t* x,
                      WideSum* sums) {
  TALARIA_CHECK(columns % kPanelColumns == 0);
  if (isa >= Isa::kAvx512) return internal::AddPanelProductsAvx512(panels, columns, x, sums);
  for (size_t first = 0; first < columns; first += kPanelColumns, panels += kPanelBytes) {
    for (size_t row = 0; row < ring::kDegree; ++row) {
      const uint8_t* const from = panels + row * kPanelRowBytes;
      WideSum sum = 0;
      for (size_t c = 0; c < kPanelColumns; ++c) {
        sum += static_cast<WideSum>(LoadResidue(from + c * kResidueBytes)) * x[first + c];
      }
      sums[row] += sum;
    }
  }
}

void AddErrorProducts(Isa isa, const int8_t* errors, size_t stride, size_t columns,
                      const uint64_t* x, WideSum* sums) {
  if (isa >= Isa::kAvx512)
    return internal::AddErrorProductsAvx512(errors, stride, columns, x, sums);
  constexpr size_t kColumnsPerFold = 1024;  // 1024 * 64 * 2^48 = 2^64
  for (size_t row = 0; row < ring::kDegree; ++row) {
    const int8_t* const e = errors + row * stride;
    for (size_t first = 0; first < columns; first += kColumnsPerFold) {
      const size_t end = std::min(columns, first + kColumnsPerFold);
      uint64_t sum = 0;
      for (size_t c = first; c < end; ++c) sum += static_cast<uint64_t>(e[c] + kErrorOffset) * x[c];
      sums[row] += sum;
    }
  }
}

uint64_t SumOfSquares(Isa isa, std::span<const int8_t> errors) {
  TALARIA_CHECK(errors.size() <= size_t{1} << 20);
  if (isa >= Isa::kAvx512) return internal::SumOfSquaresAvx512(errors.data(), errors.size());
  uint64_t sum = 0;
  for (const int8_t e : errors) sum += static_cast<uint64_t>(e * e);
  return sum;
}

}  // namespace talaria::cvm
