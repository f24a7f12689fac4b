// The hints of one matrix: A_d * W mod q (doc/masking.md), as ordinary products of the 2,048 rows
// (slot, i) of A_d.
#ifndef TALARIA_CLOUD_HINT_BUILDER_H_
#define TALARIA_CLOUD_HINT_BUILDER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "talaria/base/digest.h"
#include "talaria/base/result.h"
#include "talaria/gemm/device.h"

namespace talaria::cloud {

// One thread at a time. The products are the device's, the rest is spread over `threads`.
class HintBuilder {
 public:
  // `core` is the manifest's CoreDigest. The device outlives this and is used by nobody else.
  HintBuilder(gemm::Device& device, uint32_t profile, const Digest& core, int threads);
  ~HintBuilder();

  // Columns of W: fills int8 [columns][d] from column `first`.
  using ReadColumns = std::function<Status(uint32_t first, std::span<int8_t> out)>;
  // Consecutive bytes of the ModuleMatrix of o columns.
  using Sink = std::function<Status(Bytes data)>;
  // Works through slices of columns, so that memory is bounded by 12,288 * (d + 2 * 2,048) bytes
  // and two slices of W, besides the matrices A_d of earlier widths that are kept. Errors are those
  // of `read`, `sink` and the device.
  Status Build(uint32_t d, uint32_t o, const ReadColumns& read, const Sink& sink);

 private:
  const std::vector<uint8_t>& Planes(uint32_t d);
  Status Multiply(gemm::DeviceWeights& weights, const std::vector<uint8_t>& planes);
  gemm::Device& device_;
  uint32_t profile_;
  Digest core_;
  int threads_;
  std::map<uint32_t, std::vector<uint8_t>>
      planes_;  // per width: digit planes of A_d, [2048][6][padded d]
  std::vector<uint8_t> residues_, hints_;
  std::vector<int8_t> columns_;
};

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_HINT_BUILDER_H_
