#include "talaria/lab/residue_matrix.h"

#include <algorithm>

#include "talaria/ring/modq.h"

namespace talaria::lab {
namespace {

using ring::kResidueBytes;

// Seven digits of -64..63 cover +-2^48, a centred residue needs +-2^47; six base-255 digits of
// -127..127 do not.
constexpr size_t kDigits = 7;
constexpr int kDigitBits = 7;
constexpr size_t kSlabColumns = 256;

}  // namespace

Result<ResidueMatrix> ResidueMatrix::Create(Isa isa, size_t rows, size_t columns, Bytes residues) {
  TALARIA_CHECK(residues.size() == rows * columns * kResidueBytes);
  ResidueMatrix out;
  for (size_t p = 0; p < kDigits; ++p) {
    TALARIA_ASSIGN_OR_RETURN(auto plane,
                             gemm::PackedWeights::Create(isa, rows, gemm::PadOutputs(columns)));
    out.planes_.push_back(std::move(plane));
  }
  std::vector<int8_t> digits(kDigits * kSlabColumns * rows);  // [digit][column][row]
  for (size_t first = 0; first < columns; first += kSlabColumns) {
    const size_t n = std::min(kSlabColumns, columns - first);
    for (size_t row = 0; row < rows; ++row) {
      const uint8_t* const from = residues.data() + (row * columns + first) * kResidueBytes;
      for (size_t c = 0; c < n; ++c) {
        int64_t rest = ring::Centred(ring::LoadResidue(from + c * kResidueBytes));
        for (size_t p = 0; p < kDigits; ++p) {
          const int64_t digit = ((rest + 64) & 127) - 64;
          digits[(p * kSlabColumns + c) * rows + row] = static_cast<int8_t>(digit);
          rest = (rest - digit) >> kDigitBits;
        }
      }
    }
    for (size_t p = 0; p < kDigits; ++p) {
      TALARIA_RETURN_IF_ERROR(out.planes_[p].SetColumns(
          first, std::span<const int8_t>(digits).subspan(p * kSlabColumns * rows, n * rows)));
    }
  }
  return out;
}

void ResidueMatrix::Multiply(Bytes x, size_t n, std::vector<uint64_t>& out, Scratch& scratch,
                             gemm::ThreadTeam& team) const {
  const size_t count = n * padded_columns();
  out.assign(count, 0);
  scratch.product.resize(count * kResidueBytes);
  for (size_t p = kDigits; p-- > 0;) {
    gemm::Product(planes_[p], x, n, scratch.product, scratch.gemm, team);
    const uint8_t* from = scratch.product.data();
    for (size_t i = 0; i < count; ++i, from += kResidueBytes)
      out[i] = ring::Reduce64((out[i] << kDigitBits) + ring::LoadResidue(from));
  }
}

std::vector<uint8_t> DigitPlanes(const std::vector<uint64_t>& residues, size_t n, size_t rows) {
  const size_t width = gemm::PadInputs(rows);
  std::vector<uint8_t> out(n * gemm::kPlanes * width);
  for (size_t r = 0; r < n; ++r) {
    for (size_t p = 0; p < gemm::kPlanes; ++p) {
      for (size_t j = 0; j < rows; ++j)
        out[(r * gemm::kPlanes + p) * width + j] =
            static_cast<uint8_t>(residues[r * rows + j] >> (8 * p));
    }
  }
  return out;
}

std::vector<uint64_t> ReferenceResidueProduct(const std::vector<uint64_t>& x, size_t n, Bytes r,
                                              size_t rows, size_t columns) {
  std::vector<uint64_t> out(n * columns, 0);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < rows; ++j) {
      for (size_t c = 0; c < columns; ++c) {
        const uint64_t factor = ring::LoadResidue(r.data() + (j * columns + c) * kResidueBytes);
        uint64_t& y = out[i * columns + c];
        y = ring::AddMod(y, ring::MulMod(x[i * rows + j], factor));
      }
    }
  }
  return out;
}

}  // namespace talaria::lab
