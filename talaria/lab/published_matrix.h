// LABORATORY ONLY: the public matrix of the mask as it was published (ReMO, arXiv 2603.00196),
//   M = M_pvt M_pub,   M_pub [m x d] public, m < d,   M_pvt [rows x m] fresh and uniform, mod q.
// Known to break: whoever knows M_pub projects on its null space, where the mask vanishes.
#ifndef TALARIA_LAB_PUBLISHED_MATRIX_H_
#define TALARIA_LAB_PUBLISHED_MATRIX_H_

#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

#include "talaria/base/digest.h"
#include "talaria/base/result.h"

namespace talaria::lab {

// The rows m of M_pub for a width d: a share of d, a number, or d less a number.
class PublicRows {
 public:
  PublicRows() = default;  // d/2
  // "1/4", "288" or "d-1". kInvalidArgument with an example.
  static Result<PublicRows> Parse(std::string_view text);
  uint32_t Of(uint32_t d) const;  // within 1..d - 1; d >= 2

 private:
  uint32_t numerator_ = 1, denominator_ = 2;  // m = d numerator / denominator + offset
  int64_t offset_ = 0;
};

// M_pub [m][d], six-byte residues, uniform: the AES-256-CTR stream under
// SHA-256("talaria/lab/M_pub"
// || core digest of the manifest || u32 d || u32 m). Everybody can compute it.
std::vector<uint8_t> PublishedMatrix(const Digest& core_digest, uint32_t d, uint32_t m);

}  // namespace talaria::lab

#endif  // TALARIA_LAB_PUBLISHED_MATRIX_H_
