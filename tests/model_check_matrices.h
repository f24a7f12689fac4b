// The matrices of one provisioned model, from both ends: the store's integers, which a cloud
// multiplies by, and the floats of the GGUF file that they were made from. The source is read with
// ggml alone, not with the code that provisioned it.
#ifndef TALARIA_TESTS_MODEL_CHECK_MATRICES_H_
#define TALARIA_TESTS_MODEL_CHECK_MATRICES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "talaria/base/result.h"
#include "talaria/cvm/certificate.h"
#include "talaria/model/store.h"

namespace talaria::tests {

struct CheckedMatrix {
  std::string name;
  uint32_t group = 0, d = 0, o = 0;
  std::vector<int8_t> weights;  // [o][d]
  std::vector<float> scales;    // [o]
  std::string source_type;      // ggml's name
  std::vector<float> source;    // [o][d], dequantised
};

struct CheckedModel {
  std::string architecture;
  std::vector<cvm::Certificate> certificates;  // per group, computed here from the store's integers
  std::vector<CheckedMatrix> matrices;         // in the manifest's order
  // Null for a tensor that was not offloaded.
  const CheckedMatrix* Find(const std::string& name) const;
};

// Reads everything into memory. kCorrupt (file and store do not fit each other), kNotFound, and the
// store's errors.
Result<CheckedModel> ReadCheckedModel(const model::Store& store, const std::string& source_path);

// What a wrong store or a wrong cloud would multiply by, instead of matrix `index`.
struct Mutation {
  std::string what;
  std::vector<int8_t> weights;  // [o][d]
  std::vector<float> scales;    // [o]
};
// Zeroed; rescaled by 1.5; swapped with another matrix of its shape, or with its own rows rotated
// by one where there is none.
std::vector<Mutation> MutationsOf(const CheckedModel& model, size_t index);

}  // namespace talaria::tests

#endif  // TALARIA_TESTS_MODEL_CHECK_MATRICES_H_
