#include "talaria/model/testing/small_store.h"

#include <random>

#include "talaria/model/store_writer.h"
#include "talaria/ring/layout.h"
#include "talaria/ring/modq.h"
#include "talaria/ring/public_matrix.h"

namespace talaria::model::testing {
namespace {

constexpr uint64_t kSkeletonBytes = 20000;
constexpr Hole kHoles[] = {{4096, 5000}, {12288, 4096}};

// The definition, one residue at a time.
std::vector<uint8_t> ScalarHints(const Digest& key, uint32_t d, uint32_t o,
                                 const std::vector<int8_t>& weights) {
  std::vector<uint8_t> a(ring::ModuleMatrixBytes(d) + ring::kSlack),
      hints(ring::ModuleMatrixBytes(o));
  ring::ExpandPublicMatrix(key, 0, d, {a.data(), ring::ModuleMatrixBytes(d)});
  for (uint32_t column = 0; column < o; ++column) {
    for (size_t row = 0; row < ring::kSecretSize; ++row) {
      const size_t slot = row / ring::kRank, i = row % ring::kRank;
      __int128 sum = 0;
      for (uint32_t j = 0; j < d; ++j) {
        sum += static_cast<__int128>(
                   ring::LoadResidue(a.data() + ring::ModuleMatrixOffset(j, slot, i))) *
               weights[size_t{column} * d + j];
      }
      const __int128 q = ring::kQ;
      ring::StoreResidue(hints.data() + ring::ModuleMatrixOffset(column, slot, i),
                         static_cast<uint64_t>((sum % q + q) % q));
    }
  }
  return hints;
}

Bytes AsRaw(const auto& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(values[0])};
}

Status WriteSkeleton(std::mt19937_64& random, StoreWriter& writer, Manifest& manifest) {
  Sha256 hash;
  for (const Extent& extent : writer.layout().skeleton) {
    std::vector<uint8_t> bytes(extent.bytes);
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(random());
    hash.Update(bytes);
    TALARIA_RETURN_IF_ERROR(writer.WriteSkeleton(extent.file_offset, bytes));
  }
  manifest.skeleton = hash.Finish();
  return OkStatus();
}

}  // namespace

std::vector<SmallGroup> DefaultSmallGroups() {
  return {{48, {{"blk.0.attn_q.weight", 40}, {"blk.0.attn_k.weight", 33}}},
          {80, {{"blk.0.ffn_down.weight", 48}}},
          {48, {{"token_embd.weight", 70, Role::kTiedHead}}}};
}

Result<Manifest> WriteSmallStore(const std::string& directory, uint64_t seed,
                                 const std::vector<SmallGroup>& groups) {
  std::mt19937_64 random(seed);
  Manifest manifest;
  manifest.model_name = "small test model";
  manifest.tool_version = "test";
  manifest.source = Sha256Of(AsBytes("source"));
  manifest.skeleton_bytes = kSkeletonBytes;
  manifest.holes.assign(std::begin(kHoles), std::end(kHoles));
  for (const SmallGroup& from : groups) {
    Group group;
    group.d = from.d;
    for (const SmallMatrix& m : from.matrices) {
      Matrix matrix;
      matrix.name = m.name;
      matrix.role = m.role;
      matrix.o = m.o;
      group.matrices.push_back(matrix);
    }
    manifest.groups.push_back(std::move(group));
  }
  TALARIA_ASSIGN_OR_RETURN(StoreWriter writer, StoreWriter::Create(directory, manifest));
  TALARIA_RETURN_IF_ERROR(WriteSkeleton(random, writer, manifest));
  std::vector<std::vector<int8_t>> all;
  for (Group& group : manifest.groups) {
    for (Matrix& matrix : group.matrices) {
      std::vector<int8_t> weights(size_t{group.d} * matrix.o);
      for (int8_t& w : weights) w = static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
      std::vector<float> scales(matrix.o);
      for (float& s : scales) s = 0.001f * static_cast<float>(1 + random() % 1000);
      TALARIA_RETURN_IF_ERROR(writer.WriteWeights(all.size(), 0, AsRaw(weights)));
      TALARIA_RETURN_IF_ERROR(writer.WriteScales(all.size(), 0, AsRaw(scales)));
      matrix.weights = Sha256Of(AsRaw(weights));
      matrix.scales = Sha256Of(AsRaw(scales));
      all.push_back(std::move(weights));
    }
  }
  const Digest core = CoreDigest(manifest);
  size_t index = 0;
  for (Group& group : manifest.groups) {
    for (Matrix& matrix : group.matrices) {
      const std::vector<uint8_t> hints = ScalarHints(
          ring::PublicMatrixKey(manifest.profile, core, group.d), group.d, matrix.o, all[index]);
      TALARIA_RETURN_IF_ERROR(writer.WriteHints(index++, 0, hints));
      matrix.hints = Sha256Of(hints);
    }
  }
  TALARIA_ASSIGN_OR_RETURN([[maybe_unused]] const Digest identity, writer.Finish(manifest));
  return manifest;
}

}  // namespace talaria::model::testing
