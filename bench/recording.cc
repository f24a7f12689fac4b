#include "bench/recording.h"

#include <cstring>

#include "talaria/base/file.h"
#include "talaria/gemm/product.h"

namespace talaria::bench {
namespace {

constexpr size_t kResidueBytes = 6;
constexpr uint64_t kMaxFileBytes = uint64_t{4} << 30;

// The digit planes of `count` rows of a group's file, beginning with row `first`.
std::vector<uint8_t> Planes(const std::vector<uint8_t>& residues, size_t d, size_t first,
                            size_t count) {
  const size_t padded = gemm::PadInputs(d), row_bytes = d * kResidueBytes;
  const size_t recorded = residues.size() / row_bytes;
  std::vector<uint8_t> planes(count * gemm::kPlanes * padded);
  for (size_t r = 0; r < count; ++r) {
    const uint8_t* from = &residues[(first + r) % recorded * row_bytes];
    for (size_t k = 0; k < d; ++k) {
      for (size_t p = 0; p < gemm::kPlanes; ++p)
        planes[(r * gemm::kPlanes + p) * padded + k] = *from++;
    }
  }
  return planes;
}

// Multiplies the rows of all versions with one matrix and puts the residues where the group's
// answer has them.
Status AddMatrix(const model::Store& store, uint32_t index, const model::Group& group,
                 size_t member, size_t group_number, Recording& recording) {
  const model::Matrix& matrix = group.matrices[member];
  std::vector<int8_t> weights(size_t{matrix.o} * group.d);
  TALARIA_RETURN_IF_ERROR(
      store.ReadStream({model::StreamKind::kWeights, index}, 0,
                       {reinterpret_cast<uint8_t*>(weights.data()), weights.size()}));
  const size_t part_bytes = gemm::PadOutputs(matrix.o) * kResidueBytes;
  const size_t row_bytes = size_t{model::GroupOutputs(group)} * kResidueBytes;
  std::vector<uint8_t> part(recording.rows * part_bytes);
  for (size_t call = group_number; call < recording.calls.size(); call += recording.groups) {
    Recording::Call& to = recording.calls[call];
    gemm::ReferenceProduct(weights, group.d, to.planes, recording.rows, part);
    for (size_t row = 0; row < recording.rows; ++row) {
      std::memcpy(&to.expected[row * row_bytes +
                               size_t{model::ColumnOffset(group, member)} * kResidueBytes],
                  &part[row * part_bytes], part_bytes);
    }
  }
  return OkStatus();
}

}  // namespace

Result<Recording> Recording::Read(const std::string& folder, const model::Store& store,
                                  uint32_t rows, size_t versions) {
  const std::vector<model::Group>& groups = store.manifest().groups;
  Recording recording;
  recording.rows = rows;
  recording.groups = groups.size();
  recording.calls.resize(versions * groups.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    const std::string path = folder + "/cloud/group-" + std::to_string(g) + ".residues";
    TALARIA_ASSIGN_OR_RETURN(const std::vector<uint8_t> residues, ReadFile(path, kMaxFileBytes));
    const size_t row_bytes = groups[g].d * kResidueBytes;
    if (residues.empty() || residues.size() % row_bytes != 0)
      return Status(Code::kCorrupt, path + " has no rows, or half of one");
    recording.recorded_rows += residues.size() / row_bytes;
    for (size_t version = 0; version < versions; ++version) {
      recording.calls[version * groups.size() + g] = {
          static_cast<uint32_t>(g), Planes(residues, groups[g].d, version * rows, rows),
          std::vector<uint8_t>(rows * size_t{model::GroupOutputs(groups[g])} * kResidueBytes)};
    }
  }
  uint32_t index = 0;  // of the matrix, through all groups
  for (size_t g = 0; g < groups.size(); ++g) {
    for (size_t member = 0; member < groups[g].matrices.size(); ++member, ++index)
      TALARIA_RETURN_IF_ERROR(AddMatrix(store, index, groups[g], member, g, recording));
  }
  return recording;
}

}  // namespace talaria::bench
