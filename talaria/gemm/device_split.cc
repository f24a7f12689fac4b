// One device of several: each holds a slice of every matrix's outputs, a product runs on all of
// them at once, and the results are put side by side.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <new>

#include "talaria/gemm/device.h"
#include "talaria/gemm/product.h"
#include "talaria/gemm/thread_team.h"

namespace talaria::gemm {
namespace {

constexpr size_t kResidueBytes = 6;

class SplitDevice final : public Device {
 public:
  explicit SplitDevice(std::vector<std::unique_ptr<Device>> parts)
      : parts_(std::move(parts)),
        scratch_(parts_.size()),
        blocks_(parts_.size()),
        statuses_(parts_.size()),
        team_(static_cast<int>(parts_.size())) {
    TALARIA_CHECK(!parts_.empty());
  }
  std::string name() const override {
    std::string out;
    for (const auto& part : parts_) out += (out.empty() ? "" : " + ") + part->name();
    return out;
  }
  std::vector<Memory> memory() const override {
    std::vector<Memory> out;
    for (const auto& part : parts_) {
      for (Memory& one : part->memory()) out.push_back(std::move(one));
    }
    return out;
  }
  Result<std::unique_ptr<DeviceWeights>> CreateWeights(size_t d, size_t padded_outputs) override;

  // One of them lost is all lost, for every matrix: those that it had no share of, too.
  Status Keep(Status status) {
    if (status.code() != Code::kUnavailable) return status;
    const std::lock_guard lock(mutex_);
    if (lost_.ok()) lost_ = std::move(status);
    return lost_;
  }
  Status lost() const {
    const std::lock_guard lock(mutex_);
    return lost_;
  }

  // The outputs of one device; none: no weights.
  struct Slice {
    size_t begin, end;
    std::unique_ptr<DeviceWeights> weights;
  };
  Status Multiply(std::span<const Slice> slices, size_t out_row, std::span<const RowBlock> blocks) {
    TALARIA_RETURN_IF_ERROR(lost());
    try {  // before anything is under way
      for (size_t i = 0; i < slices.size(); ++i) Prepare(i, slices[i], blocks);
    } catch (const std::bad_alloc&) {
      return {Code::kResourceExhausted, "no memory for the rows of a product"};
    }
    std::atomic<size_t> next{0};
    auto work = [&] {
      for (size_t i; (i = next++) < slices.size();) {
        if (slices[i].weights == nullptr) continue;
        try {
          statuses_[i] = slices[i].weights->Multiply(blocks_[i]);
        } catch (const std::bad_alloc&) {
          statuses_[i] = {Code::kResourceExhausted, "no memory for a product"};
        }
        if (statuses_[i].ok()) Place(i, slices[i], out_row, blocks);
      }
    };
    std::ranges::fill(statuses_, OkStatus());
    team_.impl().Run(work, true);
    // A lost one before one that is short of memory: that is for good.
    for (const Code code : {Code::kUnavailable, Code::kOk}) {
      for (const Status& status : statuses_) {
        if (!status.ok() && (code == Code::kOk || status.code() == code)) return Keep(status);
      }
    }
    return OkStatus();
  }

 private:
  // Where the residues of a device go first: it writes whole rows, of its outputs only.
  void Prepare(size_t i, const Slice& slice, std::span<const RowBlock> blocks) {
    const size_t row_bytes = (slice.end - slice.begin) * kResidueBytes;
    size_t rows = 0;
    for (const RowBlock& block : blocks) rows += block.rows;
    if (scratch_[i].size() < rows * row_bytes) scratch_[i].resize(rows * row_bytes);
    blocks_[i].clear();
    MutableBytes rest(scratch_[i]);
    for (const RowBlock& block : blocks) {
      blocks_[i].push_back({block.planes, block.rows, rest.first(block.rows * row_bytes)});
      rest = rest.subspan(block.rows * row_bytes);
    }
  }
  void Place(size_t i, const Slice& slice, size_t out_row, std::span<const RowBlock> blocks) const {
    const size_t row_bytes = (slice.end - slice.begin) * kResidueBytes;
    for (size_t b = 0; b < blocks.size(); ++b) {
      TALARIA_CHECK(blocks[b].out.size() == blocks[b].rows * out_row);
      for (size_t row = 0; row < blocks[b].rows; ++row) {
        std::memcpy(blocks[b].out.data() + row * out_row + slice.begin * kResidueBytes,
                    blocks_[i][b].out.data() + row * row_bytes, row_bytes);
      }
    }
  }

  const std::vector<std::unique_ptr<Device>> parts_;
  // Of the product under way, for each device; the memory grows to the largest one.
  std::vector<std::vector<uint8_t>> scratch_;
  std::vector<std::vector<RowBlock>> blocks_;
  std::vector<Status> statuses_;
  ThreadTeam team_;  // a thread a device, the caller's included
  mutable std::mutex mutex_;
  Status lost_;  // guarded by mutex_
};

class SplitWeights final : public DeviceWeights {
 public:
  SplitWeights(SplitDevice& device, size_t d, size_t padded_outputs,
               std::vector<SplitDevice::Slice> slices)
      : device_(device), d_(d), padded_outputs_(padded_outputs), slices_(std::move(slices)) {}

  // Everything is checked before the first device is given its part: nothing changes on an error.
  Status SetColumns(size_t first, std::span<const int8_t> weights) override {
    TALARIA_RETURN_IF_ERROR(device_.lost());
    if (weights.size() % d_ != 0) return {Code::kInvalidArgument, "weights end inside a column"};
    const size_t count = weights.size() / d_;
    if (first % kOutputUnit != 0 || first > padded_outputs_ || count > padded_outputs_ - first)
      return {Code::kInvalidArgument, "columns " + std::to_string(first) + " + " +
                                          std::to_string(count) + " do not fit " +
                                          std::to_string(padded_outputs_)};
    if (std::ranges::find(weights, int8_t{-128}) != weights.end())
      return {Code::kCorrupt, "a weight of -128 (the range is -127..127)"};
    for (const SplitDevice::Slice& slice : slices_) {
      const size_t begin = std::max(first, slice.begin), end = std::min(first + count, slice.end);
      if (begin >= end) continue;
      TALARIA_RETURN_IF_ERROR(device_.Keep(slice.weights->SetColumns(
          begin - slice.begin, weights.subspan((begin - first) * d_, (end - begin) * d_))));
    }
    return OkStatus();
  }
  size_t max_rows() const override {
    size_t least = SIZE_MAX;
    for (const SplitDevice::Slice& slice : slices_) {
      if (slice.weights != nullptr) least = std::min(least, slice.weights->max_rows());
    }
    return least;
  }
  Status Multiply(std::span<const RowBlock> blocks) override {
    return device_.Multiply(slices_, padded_outputs_ * kResidueBytes, blocks);
  }

 private:
  SplitDevice& device_;
  const size_t d_, padded_outputs_;
  const std::vector<SplitDevice::Slice> slices_;
};

// Even slices, in units of 32 outputs; a matrix of fewer units leaves some devices without one.
Result<std::unique_ptr<DeviceWeights>> SplitDevice::CreateWeights(size_t d, size_t padded_outputs) {
  TALARIA_RETURN_IF_ERROR(lost());
  if (d == 0 || d > kMaxInputs || padded_outputs == 0 || padded_outputs % kOutputUnit != 0)
    return Status(Code::kInvalidArgument, "a matrix of " + std::to_string(d) + " inputs and " +
                                              std::to_string(padded_outputs) +
                                              " padded outputs (1 to 65536; a multiple of 32)");
  const size_t units = padded_outputs / kOutputUnit, n = parts_.size();
  std::vector<Slice> slices;
  for (size_t i = 0, begin = 0; i < n; ++i) {
    const size_t end = begin + (units / n + (i < units % n ? 1 : 0)) * kOutputUnit;
    slices.push_back({begin, end, nullptr});
    if (begin < end) {
      auto weights = parts_[i]->CreateWeights(d, end - begin);
      if (!weights.ok()) return Keep(weights.status());
      slices.back().weights = std::move(weights).value();
    }
    begin = end;
  }
  return std::unique_ptr<DeviceWeights>(
      std::make_unique<SplitWeights>(*this, d, padded_outputs, std::move(slices)));
}

}  // namespace

std::unique_ptr<Device> CreateSplitDevice(std::vector<std::unique_ptr<Device>> parts) {
  return std::make_unique<SplitDevice>(std::move(parts));
}

}  // namespace talaria::gemm
