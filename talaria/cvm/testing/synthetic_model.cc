#include "talaria/cvm/testing/synthetic_model.h"

#include <random>

#include "talaria/ring/layout.h"
#include "talaria/ring/public_matrix.h"

namespace talaria::cvm::testing {
namespace {

Bytes Raw(const auto& vector) {
  return {reinterpret_cast<const uint8_t*>(vector.data()), vector.size() * sizeof(vector[0])};
}

}  // namespace

SyntheticModel SyntheticModel::Make(uint64_t seed, const std::vector<GroupShape>& shapes) {
  std::mt19937_64 random(seed);
  SyntheticModel out;
  out.manifest.model_name = "synthetic";
  out.manifest.tool_version = "test";
  for (uint32_t g = 0; g < shapes.size(); ++g) {
    model::Group group;
    group.d = shapes[g].d;
    for (uint32_t m = 0; m < shapes[g].outputs.size(); ++m) {
      const bool head = g + 1 == shapes.size() && g != 0;
      model::Matrix entry;
      entry.name = head && m == 0
                       ? "token_embd.weight"
                       : "blk." + std::to_string(g) + ".m" + std::to_string(m) + ".weight";
      entry.role = head && m == 0 ? model::Role::kTiedHead : model::Role::kLinear;
      entry.o = shapes[g].outputs[m];
      group.matrices.push_back(entry);

      Matrix matrix{g, m, group.d, entry.o, {}, {}, {}};
      for (size_t i = 0; i < size_t{matrix.d} * matrix.o; ++i) {
        matrix.weights.push_back(static_cast<int8_t>(static_cast<int>(random() % 255) - 127));
      }
      for (uint32_t i = 0; i < matrix.o; ++i)
        matrix.scales.push_back(1e-4f * static_cast<float>(1 + random() % 1000));
      out.matrices.push_back(std::move(matrix));
    }
    out.manifest.groups.push_back(std::move(group));
  }
  constexpr uint64_t kHoleBytes = 10000;
  out.manifest.skeleton_bytes = 50000 + 2 * kHoleBytes;
  out.manifest.holes = {{4096, kHoleBytes}, {40000, kHoleBytes}};
  for (size_t i = 0; i < 50000; ++i) out.skeleton.push_back(static_cast<uint8_t>(random()));
  out.Seal();  // the weights' digests decide A, and A the hints
  out.ComputeHints();
  out.Seal();
  return out;
}

void SyntheticModel::ComputeHints() {
  const Digest core = model::CoreDigest(manifest);
  for (Matrix& matrix : matrices) {
    const size_t d = matrix.d;
    std::vector<uint8_t> a(ring::ModuleMatrixBytes(d));
    ring::ExpandPublicMatrix(ring::PublicMatrixKey(manifest.profile, core, matrix.d), 0, matrix.d,
                             a);
    std::vector<int64_t> row(d);
    matrix.hints.assign(ring::ModuleMatrixBytes(matrix.o), 0);
    for (size_t slot = 0; slot < ring::kDegree; ++slot) {
      for (size_t i = 0; i < ring::kRank; ++i) {
        for (size_t j = 0; j < d; ++j) {
          row[j] = static_cast<int64_t>(
              ring::LoadResidue(a.data() + ring::ModuleMatrixOffset(j, slot, i)));
        }
        for (size_t o = 0; o < matrix.o; ++o) {
          const int8_t* const w = matrix.weights.data() + o * d;
          int64_t sum = 0;  // |sum| <= 256 * 127 * 2^48 < 2^63 for d <= 256
          for (size_t j = 0; j < d; ++j) sum += row[j] * w[j];
          const int64_t residue = sum % static_cast<int64_t>(ring::kQ);
          ring::StoreResidue(matrix.hints.data() + ring::ModuleMatrixOffset(o, slot, i),
                             ring::FromSigned(residue));
        }
      }
    }
  }
}

void SyntheticModel::Seal() {
  for (const Matrix& matrix : matrices) {
    model::Matrix& entry = manifest.groups[matrix.group].matrices[matrix.member];
    entry.weights = Sha256Of(Raw(matrix.weights));
    entry.scales = Sha256Of(Raw(matrix.scales));
    entry.hints = Sha256Of(Raw(matrix.hints));
  }
  manifest.skeleton = Sha256Of(skeleton);
  manifest_text = model::EncodeManifest(manifest);
}

Bytes SyntheticModel::Stream(model::StreamId id) const {
  switch (id.kind) {
    case model::StreamKind::kManifest:
      return AsBytes(manifest_text);
    case model::StreamKind::kSkeleton:
      return skeleton;
    default:
      break;
  }
  if (id.matrix >= matrices.size()) return {};
  const Matrix& matrix = matrices[id.matrix];
  switch (id.kind) {
    case model::StreamKind::kScales:
      return Raw(matrix.scales);
    case model::StreamKind::kWeights:
      return Raw(matrix.weights);
    default:
      return Raw(matrix.hints);
  }
}

const SyntheticModel::Matrix& SyntheticModel::matrix(uint32_t group, uint32_t member) const {
  for (const Matrix& m : matrices) {
    if (m.group == group && m.member == member) return m;
  }
  TALARIA_CHECK(false);
  std::abort();
}

}  // namespace talaria::cvm::testing
