// What a CVM keeps of a model after set-up: everything that masking needs and no weights.
#ifndef TALARIA_CVM_MASKED_MODEL_H_
#define TALARIA_CVM_MASKED_MODEL_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "talaria/base/digest.h"
#include "talaria/base/file.h"
#include "talaria/base/secret.h"
#include "talaria/cvm/certificate.h"
#include "talaria/model/manifest.h"

namespace talaria::cvm {

// The width of a digit plane on the wire: d to a multiple of 64 (doc/wire.md).
constexpr uint32_t PaddedInputs(uint32_t d) { return (d + 63) / 64 * 64; }

struct MaskedGroup {
  uint32_t d = 0, d_padded = 0, o_padded = 0;  // o_padded: all members together, as on the wire
  Certificate certificate;
  std::vector<uint32_t> member_outputs;  // o of each member
  std::vector<uint32_t> member_offsets;  // first column of each, a multiple of 32
  std::vector<float> scales;             // [o_padded], zero in the padding
  SecretMemory
      u;  // [check_vectors][d_padded] residues, u = W v over the whole group, zero in the padding
  SecretMemory v;  // [check_vectors][o_padded] residues, secret, uniform (in the padding too)
  std::vector<SecretMemory> hints;  // per member: ModuleMatrix of o columns plus slack
};

struct MaskedModel {
  model::Manifest manifest;
  std::string manifest_text;
  Digest identity{};
  int check_vectors = 2;
  std::vector<MaskedGroup> groups;
  std::map<uint32_t, SecretMemory>
      public_matrices;  // d -> A_d, ModuleMatrix plus slack (public, but kept with the rest)
  Fd skeleton;          // sealed memfd, checked against the manifest
  uint64_t hints_bytes = 0;
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_MASKED_MODEL_H_
