#include "talaria/cloud/hint_builder.h"

#include <algorithm>
#include <cstring>

#include "talaria/cloud/provision_source.h"
#include "talaria/gemm/product.h"
#include "talaria/ring/layout.h"
#include "talaria/ring/public_matrix.h"

namespace talaria::cloud {
namespace {

constexpr size_t kRows = ring::kSecretSize;        // (slot, i), row slot * k + i
constexpr uint32_t kSliceColumns = 2048;           // of W per product: 25 MB of residues
constexpr size_t kMaxKeptBytes = size_t{1} << 30;  // of digit planes
constexpr size_t kResidueBytes = ring::kResidueBytes;

}  // namespace

HintBuilder::HintBuilder(gemm::Device& device, uint32_t profile, const Digest& core, int threads)
    : device_(device), profile_(profile), core_(core), threads_(threads) {}
HintBuilder::~HintBuilder() = default;

const std::vector<uint8_t>& HintBuilder::Planes(uint32_t d) {
  if (const auto found = planes_.find(d); found != planes_.end()) return found->second;
  const size_t padded = gemm::PadInputs(d);
  const size_t bytes = kRows * gemm::kPlanes * padded;
  size_t kept = bytes;
  for (const auto& [width, planes] : planes_) kept += planes.size();
  if (kept > kMaxKeptBytes) planes_.clear();
  std::vector<uint8_t>& planes = planes_[d];
  planes.assign(bytes, 0);
  const Digest key = ring::PublicMatrixKey(profile_, core_, d);
  // 64 columns at a time: whole cache lines of every plane.
  ParallelFor(threads_, padded / gemm::kInputUnit, [&](size_t unit) {
    const size_t first = unit * gemm::kInputUnit;
    const size_t columns = std::min(gemm::kInputUnit, d - first);
    std::vector<uint8_t> a(ring::ModuleMatrixBytes(columns));
    ring::ExpandPublicMatrix(key, static_cast<uint32_t>(first), static_cast<uint32_t>(columns), a);
    for (size_t row = 0; row < kRows; ++row) {
      for (size_t j = 0; j < columns; ++j) {
        const uint8_t* residue =
            a.data() + ring::ModuleMatrixOffset(j, row / ring::kRank, row % ring::kRank);
        for (size_t plane = 0; plane < gemm::kPlanes; ++plane)
          planes[(row * gemm::kPlanes + plane) * padded + first + j] = residue[plane];
      }
    }
  });
  return planes;
}

// All rows of A_d, in as few calls as the device takes them.
Status HintBuilder::Multiply(gemm::DeviceWeights& weights, const std::vector<uint8_t>& planes) {
  const size_t in_row = planes.size() / kRows, out_row = residues_.size() / kRows;
  for (size_t row = 0; row < kRows;) {
    const size_t rows = std::min(weights.max_rows(), kRows - row);
    const gemm::RowBlock block{Bytes(planes).subspan(row * in_row, rows * in_row), rows,
                               MutableBytes(residues_).subspan(row * out_row, rows * out_row)};
    TALARIA_RETURN_IF_ERROR(weights.Multiply({&block, 1}));
    row += rows;
  }
  return OkStatus();
}

Status HintBuilder::Build(uint32_t d, uint32_t o, const ReadColumns& read, const Sink& sink) {
  const std::vector<uint8_t>& planes = Planes(d);
  for (uint32_t first = 0; first < o; first += kSliceColumns) {
    const uint32_t columns = std::min(kSliceColumns, o - first);
    const size_t padded = gemm::PadOutputs(columns);
    columns_.resize(size_t{columns} * d);
    TALARIA_RETURN_IF_ERROR(read(first, columns_));
    TALARIA_ASSIGN_OR_RETURN(const auto weights, device_.CreateWeights(d, padded));
    TALARIA_RETURN_IF_ERROR(weights->SetColumns(0, columns_));
    residues_.resize(kRows * padded * kResidueBytes);
    TALARIA_RETURN_IF_ERROR(Multiply(*weights, planes));
    // [row][column] -> [column / 8][row][8 columns]; the padding columns of the product are zero,
    // as the layout wants them.
    hints_.resize(ring::ModuleMatrixBytes(columns));
    constexpr size_t kRun = ring::kBlockColumns * kResidueBytes;
    ParallelFor(threads_, hints_.size() / ring::kBlockBytes, [&](size_t block) {
      for (size_t row = 0; row < kRows; ++row) {
        std::memcpy(hints_.data() + block * ring::kBlockBytes + row * kRun,
                    residues_.data() + row * padded * kResidueBytes + block * kRun, kRun);
      }
    });
    TALARIA_RETURN_IF_ERROR(sink(hints_));
  }
  return OkStatus();
}

}  // namespace talaria::cloud
