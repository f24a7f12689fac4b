// A small random model as the streams that a cloud serves, for tests: everything that a store
// holds, built by definition.
#ifndef TALARIA_CVM_TESTING_SYNTHETIC_MODEL_H_
#define TALARIA_CVM_TESTING_SYNTHETIC_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/model/manifest.h"
#include "talaria/model/stream.h"

namespace talaria::cvm::testing {

struct GroupShape {
  uint32_t d;
  std::vector<uint32_t> outputs;
};

// The default has widths and outputs that are multiples of nothing, a group of three and a tied
// head.
inline std::vector<GroupShape> DefaultShapes() {
  return {{128, {96, 40, 33}}, {200, {72}}, {128, {64, 64}}, {128, {130}}};
}

struct SyntheticModel {
  struct Matrix {
    uint32_t group, member, d, o;
    std::vector<int8_t> weights;  // [o][d]
    std::vector<float> scales;    // [o]
    std::vector<uint8_t> hints;   // ModuleMatrix
  };
  model::Manifest manifest;
  std::vector<Matrix> matrices;   // in the order of StreamId::matrix
  std::vector<uint8_t> skeleton;  // the bytes outside the holes
  std::string manifest_text;

  static SyntheticModel Make(uint64_t seed,
                             const std::vector<GroupShape>& shapes = DefaultShapes());

  // A provider who lies consistently changes what it likes and seals again: digests and identity
  // fit.
  void ComputeHints();  // of all matrices, from the weights as they are
  void Seal();          // all digests, then the text
  Digest identity() const { return model::ModelIdentity(manifest_text); }
  Bytes Stream(model::StreamId id) const;  // empty when there is none
  const Matrix& matrix(uint32_t group, uint32_t member) const;
};

}  // namespace talaria::cvm::testing

#endif  // TALARIA_CVM_TESTING_SYNTHETIC_MODEL_H_
