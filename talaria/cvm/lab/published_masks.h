// LABORATORY ONLY: the mask as it was published (ReMO, arXiv 2603.00196), in exact arithmetic:
//   M = M_pvt M_pub,   U = M_pvt R_pub,   R_pub = M_pub W   (all mod q)
// with M_pub [m x d] public and M_pvt fresh and uniform for each row. A cloud that projects on the
// null space of M_pub sees through it. Never linked into talaria-cvm.
#ifndef TALARIA_CVM_LAB_PUBLISHED_MASKS_H_
#define TALARIA_CVM_LAB_PUBLISHED_MASKS_H_

#include <map>
#include <memory>
#include <vector>

#include "talaria/cvm/cloud_link.h"
#include "talaria/cvm/mask_batch.h"
#include "talaria/cvm/masked_model.h"
#include "talaria/lab/published_matrix.h"
#include "talaria/lab/residue_matrix.h"

namespace talaria::cvm::lab {

class PublishedMasks {
 public:
  // Asks the cloud for R_pub, by sending the rows of M_pub as if they were masked. The link is not
  // used afterwards; `model` outlives the object. The link's errors, kResourceExhausted.
  static Result<std::unique_ptr<PublishedMasks>> Create(const MaskedModel& model, CloudLink& link,
                                                        talaria::lab::PublicRows m, Isa isa,
                                                        int threads);
  // All 256 rows of one batch. One thread at a time. kIo, kUnsupported (no entropy).
  Status Fill(uint32_t group, const BatchRows& rows);
  // Bytes of R_pub, of all groups, as residues: what takes the place of the hints.
  uint64_t hint_bytes() const { return hint_bytes_; }

 private:
  PublishedMasks(const MaskedModel& model, talaria::lab::PublicRows m, int threads)
      : model_(model), m_(m), team_(threads) {}
  Status Learn(uint32_t group, CloudLink& link, Bytes m_pub, Isa isa);

  const MaskedModel& model_;
  const talaria::lab::PublicRows m_;
  gemm::ThreadTeam team_;
  std::map<uint32_t, talaria::lab::ResidueMatrix> m_pub_;  // by d
  std::vector<talaria::lab::ResidueMatrix> r_pub_;         // by group
  uint64_t hint_bytes_ = 0;
  talaria::lab::ResidueMatrix::Scratch scratch_;
  std::vector<uint64_t> product_;
};

}  // namespace talaria::cvm::lab

#endif  // TALARIA_CVM_LAB_PUBLISHED_MASKS_H_
