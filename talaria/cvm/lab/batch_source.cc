#include "talaria/cvm/lab/batch_source.h"

#include <time.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <utility>

#include "talaria/cvm/entropy.h"
#include "talaria/ring/aes_ctr.h"
#include "talaria/ring/batch.h"
#include "talaria/ring/layout.h"
#include "talaria/ring/sampler.h"

namespace talaria::cvm::lab {
namespace {

double ProcessCpuSeconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

Status Entropy(std::span<uint8_t, 32> key) {
  return FreshKey(RdseedPolicy::kUseIfPresent, "talaria-lab", key);
}

}  // namespace

class BatchSource::Batch final : public RowOwner {
 public:
  static Result<std::shared_ptr<Batch>> Create(const MaskedGroup& group, bool reused) {
    auto batch = std::make_shared<Batch>();
    batch->reused_ = reused;
    constexpr LockPolicy kLock = LockPolicy::kWarnIfImpossible;
    TALARIA_ASSIGN_OR_RETURN(
        batch->mask_,
        SecretMemory::Create(ring::RowPanelsBytes(group.d_padded) + ring::kSlack, kLock));
    TALARIA_ASSIGN_OR_RETURN(
        batch->unmask_,
        SecretMemory::Create(ring::RowPanelsBytes(group.o_padded) + ring::kSlack, kLock));
    return batch;
  }
  BatchRows rows() { return {mask_.Expose().data(), unmask_.Expose().data()}; }
  MaskRowView Spend(uint32_t row) override {
    TALARIA_CHECK(row < kBatchRows && (reused_ || !spent_[row]));
    spent_[row] = true;
    const size_t offset = row * ring::kPanelRowBytes;
    return {mask_.Expose().data() + offset, unmask_.Expose().data() + offset, ring::kPanelBytes,
            /*wipe=*/!reused_};
  }
  void Burn(uint32_t /*row*/) override {}  // wiped with the batch

 private:
  SecretMemory mask_, unmask_;
  std::bitset<kBatchRows> spent_;
  bool reused_ = false;
};

BatchSource::BatchSource(const MaskedModel& model, Fill fill, Rows rows)
    : model_(model), fill_(std::move(fill)), rows_(rows), groups_(model.groups.size()) {}
BatchSource::~BatchSource() = default;

Status BatchSource::Make(uint32_t group) {
  const double start = ProcessCpuSeconds();
  TALARIA_ASSIGN_OR_RETURN(const std::shared_ptr<Batch> batch,
                           Batch::Create(model_.groups[group], rows_ == Rows::kReused));
  TALARIA_RETURN_IF_ERROR(fill_(group, batch->rows()));
  groups_[group] = {.batch = batch, .next = 0};
  stats_.rows_generated += kBatchRows;
  ++stats_.batches;
  stats_.generation_cpu_seconds += ProcessCpuSeconds() - start;
  return OkStatus();
}

Status BatchSource::Draw(uint32_t group, uint32_t rows, std::vector<RowTicket>& out) {
  const std::lock_guard lock(mutex_);
  if (poisoned_) return Status(Code::kSessionEnded, "the session has ended");
  Group& g = groups_[group];
  if (g.next == kBatchRows) {
    if (g.batch != nullptr && rows_ == Rows::kReused) {
      g.next = 0;
    } else {
      TALARIA_RETURN_IF_ERROR(Make(group));
    }
  }
  const uint32_t n = std::min(rows, kBatchRows - g.next);
  for (uint32_t i = 0; i < n; ++i) out.emplace_back(g.batch, g.next++);
  stats_.rows_drawn += n;
  return OkStatus();
}

MaskStats BatchSource::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void BatchSource::Poison() {
  const std::lock_guard lock(mutex_);
  poisoned_ = true;
  groups_.assign(groups_.size(), {});
}

Result<BatchSource::Fill> Lattice(const MaskedModel& model, Isa isa) {
  TALARIA_ASSIGN_OR_RETURN(
      std::shared_ptr<BatchGenerator> generator,
      BatchGenerator::Create(model, isa, LockPolicy::kWarnIfImpossible, Entropy));
  return BatchSource::Fill([generator](uint32_t group, const BatchRows& rows) {
    const std::atomic<bool> never{false};
    return generator->Generate(group, {&rows, 1}, never);
  });
}

Result<BatchSource::Fill> LatticeWithoutError(const MaskedModel& model, Isa isa) {
  TALARIA_ASSIGN_OR_RETURN(
      SecretMemory created,
      SecretMemory::Create(ring::RowGenerator::ScratchBytes(), LockPolicy::kWarnIfImpossible));
  const auto scratch = std::make_shared<SecretMemory>(std::move(created));
  return BatchSource::Fill([&model, isa, scratch](uint32_t index, const BatchRows& rows) {
    std::array<uint8_t, 32> key{};
    TALARIA_RETURN_IF_ERROR(Entropy(key));
    ring::AesCtrStream stream(key, 0);
    const auto secret = std::make_unique<ring::NttSecret>();
    for (ring::Polynomial& s : secret->s) {
      ring::SampleTernary(stream, s);
      ring::ForwardNtt(s);
    }
    const ring::RowGenerator generator(isa, {secret.get(), 1}, scratch->Expose());
    const MaskedGroup& group = model.groups[index];
    const auto generate = [&](const SecretMemory& matrix, size_t columns, size_t first,
                              uint8_t* to) {
      const ring::BatchOutput output{nullptr, to + ring::RowPanelsOffset(0, first)};
      generator.Generate(matrix.Expose().data(), columns, 0, {&output, 1});
    };
    generate(model.public_matrices.at(group.d), group.d, 0, rows.mask);
    for (size_t m = 0; m < group.hints.size(); ++m)
      generate(group.hints[m], group.member_outputs[m], group.member_offsets[m], rows.unmask);
    return OkStatus();
  });
}

}  // namespace talaria::cvm::lab
