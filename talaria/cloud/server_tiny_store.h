// A provisioned store of random small matrices, for tests and fuzzers of the server. Fixed seeds.
#ifndef TALARIA_CLOUD_SERVER_TINY_STORE_H_
#define TALARIA_CLOUD_SERVER_TINY_STORE_H_

#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "talaria/base/testing/temp_folder.h"
#include "talaria/gemm/product.h"
#include "talaria/model/store_writer.h"
#include "talaria/ring/layout.h"

namespace talaria::cloud {

using Buffer = std::vector<uint8_t>;

inline Buffer RandomBytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  Buffer out(size);
  for (uint8_t& b : out) b = static_cast<uint8_t>(random());
  return out;
}

// In a folder of its own, which dies with it. Hints and skeleton are arbitrary bytes with the right
// digests.
class TinyStore {
 public:
  struct Shape {
    uint32_t d;
    std::vector<uint32_t> outputs;  // of the group's members
  };

  explicit TinyStore(const std::vector<Shape>& shapes, uint64_t seed = 1) {
    std::mt19937_64 random(seed);
    for (const Shape& shape : shapes) {
      model::Group group{.d = shape.d, .matrices = {}};
      for (const uint32_t o : shape.outputs) {
        std::vector<int8_t> w(size_t{o} * shape.d);
        for (int8_t& x : w) x = static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
        AddMatrix(group, o, std::move(w));
      }
      manifest.groups.push_back(std::move(group));
    }
    Write();
  }
  // One group of one matrix.
  TinyStore(uint32_t d, std::vector<int8_t> w) {
    model::Group group{.d = d, .matrices = {}};
    const auto o = static_cast<uint32_t>(w.size() / d);
    AddMatrix(group, o, std::move(w));
    manifest.groups.push_back(std::move(group));
    Write();
  }
  TinyStore(const TinyStore&) = delete;
  TinyStore& operator=(const TinyStore&) = delete;

  std::string path() const { return folder_.File("store"); }
  std::string socket() const { return "unix:" + folder_.File("s"); }

  // The residues that the oracle computes for a whole group: [rows][o_padded] x 6 bytes.
  Buffer Oracle(size_t group_index, Bytes planes, size_t rows) const {
    const model::Group& group = manifest.groups[group_index];
    const size_t row_bytes = size_t{model::GroupOutputs(group)} * 6;
    Buffer out(rows * row_bytes);
    size_t matrix = 0;
    for (size_t g = 0; g < group_index; ++g) matrix += manifest.groups[g].matrices.size();
    for (size_t member = 0; member < group.matrices.size(); ++member, ++matrix) {
      const size_t part_bytes = gemm::PadOutputs(group.matrices[member].o) * 6;
      Buffer part(rows * part_bytes);
      gemm::ReferenceProduct(weights[matrix], group.d, planes, rows, part);
      for (size_t row = 0; row < rows; ++row) {
        std::memcpy(&out[row * row_bytes + size_t{model::ColumnOffset(group, member)} * 6],
                    &part[row * part_bytes], part_bytes);
      }
    }
    return out;
  }
  Buffer Planes(size_t group, size_t rows, uint64_t seed) const {
    return RandomBytes(rows * 6 * gemm::PadInputs(manifest.groups[group].d), seed);
  }

  model::Manifest manifest;
  std::vector<std::vector<int8_t>> weights;  // of all matrices
  std::vector<Buffer> scales, hints;
  Buffer skeleton;

 private:
  void AddMatrix(model::Group& group, uint32_t o, std::vector<int8_t> w) {
    const size_t index = weights.size();
    weights.push_back(std::move(w));
    scales.push_back(RandomBytes(size_t{o} * 4, 100 + index));
    hints.push_back(RandomBytes(ring::ModuleMatrixBytes(o), 200 + index));
    const std::vector<int8_t>& stored = weights.back();
    group.matrices.push_back(
        {.name = "blk." + std::to_string(index) + ".weight",
         .role = model::Role::kLinear,
         .o = o,
         .weights = Sha256Of({reinterpret_cast<const uint8_t*>(stored.data()), stored.size()}),
         .scales = Sha256Of(scales.back()),
         .hints = Sha256Of(hints.back())});
  }

  void Write() {
    skeleton = RandomBytes(3000, 5);
    manifest.model_name = "tiny";
    manifest.tool_version = "test";
    manifest.skeleton_bytes = 10000;
    manifest.holes = {{1000, 4000}, {6000, 3000}};  // 1000 + 1000 + 1000 bytes are left
    manifest.skeleton = Sha256Of(skeleton);
    auto writer = model::StoreWriter::Create(path(), manifest);
    TALARIA_CHECK(writer.ok());
    for (size_t i = 0; i < weights.size(); ++i) {
      const Bytes w(reinterpret_cast<const uint8_t*>(weights[i].data()), weights[i].size());
      TALARIA_CHECK(writer->WriteWeights(i, 0, w).ok() &&
                    writer->WriteScales(i, 0, scales[i]).ok() &&
                    writer->WriteHints(i, 0, hints[i]).ok());
    }
    const Bytes all(skeleton);
    TALARIA_CHECK(writer->WriteSkeleton(0, all.first(1000)).ok());
    TALARIA_CHECK(writer->WriteSkeleton(5000, all.subspan(1000, 1000)).ok());
    TALARIA_CHECK(writer->WriteSkeleton(9000, all.subspan(2000)).ok());
    TALARIA_CHECK(writer->Finish(manifest).ok());
  }

  const TempFolder folder_;
};

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_SERVER_TINY_STORE_H_
