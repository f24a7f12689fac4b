// LABORATORY ONLY: masks that a product must not have, one batch of 256 rows of a group at a time,
// made when the first of its rows is drawn. Never linked into talaria-cvm.
#ifndef TALARIA_CVM_LAB_BATCH_SOURCE_H_
#define TALARIA_CVM_LAB_BATCH_SOURCE_H_

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "talaria/cvm/mask_batch.h"
#include "talaria/cvm/mask_source.h"
#include "talaria/cvm/masked_model.h"

namespace talaria::cvm::lab {

class BatchSource final : public MaskSource {
 public:
  // Fills the rows of one batch, which are zero before.
  using Fill = std::function<Status(uint32_t group, const BatchRows& rows)>;
  enum class Rows {
    kOnce,    // as they should be
    kReused,  // one batch per group, served again and again
  };
  // `model` outlives the source.
  BatchSource(const MaskedModel& model, Fill fill, Rows rows);
  ~BatchSource() override;
  // As MaskSource, and whatever `fill` says.
  Status Draw(uint32_t group, uint32_t rows, std::vector<RowTicket>& out) override;
  MaskStats stats() const override;
  void Poison() override;

 private:
  class Batch;
  struct Group {
    std::shared_ptr<Batch> batch;
    uint32_t next = kBatchRows;  // row to hand out
  };
  Status Make(uint32_t group);

  const MaskedModel& model_;
  const Fill fill_;
  const Rows rows_;
  mutable std::mutex mutex_;  // guards all that follows
  std::vector<Group> groups_;
  MaskStats stats_;
  bool poisoned_ = false;
};

// The lattice mask without its error, M = s A: falls to linear algebra over Z_q once a batch has
// shown more columns than s has coefficients. A positive control of attacks. `model` outlives it.
Result<BatchSource::Fill> LatticeWithoutError(const MaskedModel& model, Isa isa);
// The product's lattice masks, for a source that serves them again. `model` outlives it.
Result<BatchSource::Fill> Lattice(const MaskedModel& model, Isa isa);

}  // namespace talaria::cvm::lab

#endif  // TALARIA_CVM_LAB_BATCH_SOURCE_H_
