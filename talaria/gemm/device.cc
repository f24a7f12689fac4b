#include "talaria/gemm/device.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <new>

#include "talaria/base/log.h"
#include "talaria/gemm/product.h"

namespace talaria::gemm {
namespace {

constexpr size_t kResidueBytes = 6;

class CpuDevice final : public Device {
 public:
  CpuDevice(int threads, Isa isa) : isa_(isa), team_(threads) {}
  std::string name() const override {
    return "cpu (" + std::string(IsaName(isa_)) + ", " + std::to_string(team_.size()) + " threads)";
  }
  Result<std::unique_ptr<DeviceWeights>> CreateWeights(size_t d, size_t padded_outputs) override;

  void Multiply(const PackedWeights& weights, std::span<const RowBlock> blocks) {
    if (blocks.size() == 1) {
      Product(weights, blocks[0].planes, blocks[0].rows, blocks[0].out, scratch_, team_);
      return;
    }
    // One pass over the weights for all rows is worth the two copies: a row of planes and of
    // residues is some kilobytes, the weights are megabytes.
    const size_t in_row = kPlanes * weights.padded_inputs();
    const size_t out_row = kResidueBytes * weights.padded_outputs();
    size_t rows = 0;
    for (const RowBlock& block : blocks) rows += block.rows;
    if (planes_.size() < rows * in_row) planes_.resize(rows * in_row);
    if (out_.size() < rows * out_row) out_.resize(rows * out_row);
    uint8_t* to = planes_.data();
    for (const RowBlock& block : blocks) {
      TALARIA_CHECK(block.planes.size() == block.rows * in_row);
      std::memcpy(to, block.planes.data(), block.planes.size());
      to += block.planes.size();
    }
    Product(weights, Bytes(planes_).first(rows * in_row), rows,
            MutableBytes(out_).first(rows * out_row), scratch_, team_);
    const uint8_t* from = out_.data();
    for (const RowBlock& block : blocks) {
      TALARIA_CHECK(block.out.size() == block.rows * out_row);
      std::memcpy(block.out.data(), from, block.out.size());
      from += block.out.size();
    }
  }

 private:
  const Isa isa_;
  ThreadTeam team_;
  std::vector<uint8_t> scratch_, planes_, out_;  // grow to the largest call
};

class CpuWeights final : public DeviceWeights {
 public:
  CpuWeights(CpuDevice& device, PackedWeights weights)
      : device_(device), weights_(std::move(weights)) {}
  Status SetColumns(size_t first, std::span<const int8_t> weights) override {
    return weights_.SetColumns(first, weights);
  }
  // About 2^31 products of weights, some 50 ms on two cores. From 16 rows on a call is bound by
  // arithmetic, not by reading the weights again.
  size_t max_rows() const override {
    constexpr uint64_t kCallProducts = uint64_t{1} << 31;
    const uint64_t rows =
        kCallProducts / (uint64_t{weights_.padded_inputs()} * weights_.padded_outputs());
    return static_cast<size_t>(std::clamp<uint64_t>(rows / 16 * 16, 16, 512));
  }
  Status Multiply(std::span<const RowBlock> blocks) override {
    try {
      device_.Multiply(weights_, blocks);
    } catch (const std::bad_alloc&) {
      return {Code::kResourceExhausted, "no memory for the rows of a product"};
    }
    return OkStatus();
  }

 private:
  CpuDevice& device_;
  PackedWeights weights_;
};

Result<std::unique_ptr<DeviceWeights>> CpuDevice::CreateWeights(size_t d, size_t padded_outputs) {
  TALARIA_ASSIGN_OR_RETURN(auto weights, PackedWeights::Create(isa_, d, padded_outputs));
  return std::unique_ptr<DeviceWeights>(std::make_unique<CpuWeights>(*this, std::move(weights)));
}

Result<std::unique_ptr<Device>> Tested(Result<std::unique_ptr<Device>> device) {
  if (device.ok()) TALARIA_RETURN_IF_ERROR(SelfTestDevice(**device));
  return device;
}

}  // namespace

std::unique_ptr<Device> CreateCpuDevice(int threads, Isa isa) {
  return std::make_unique<CpuDevice>(threads, isa);
}

Result<DeviceSpec> DeviceSpec::Parse(const std::string& text) {
  constexpr std::string_view kCudaPrefix = "cuda:";
  DeviceSpec spec;
  if (text == "auto") {
    spec.kind = Kind::kAuto;
  } else if (text == "cpu") {
    spec.kind = Kind::kCpu;
  } else if (text == "cuda") {
    spec.kind = Kind::kCuda;
  } else {
    const std::string_view number = std::string_view(text).substr(
        text.starts_with(kCudaPrefix) ? kCudaPrefix.size() : text.size());
    const auto [end, error] =
        std::from_chars(number.data(), number.data() + number.size(), spec.ordinal);
    constexpr int kMaxOrdinal = 1023;
    if (error != std::errc() || end != number.data() + number.size() || spec.ordinal < 0 ||
        spec.ordinal > kMaxOrdinal) {
      return Status(Code::kInvalidArgument,
                    "no such device: '" + text + "' (auto, cpu, cuda or cuda:N)");
    }
    spec.kind = Kind::kCuda;
  }
  return spec;
}

Result<std::unique_ptr<Device>> CreateDevice(const DeviceSpec& spec) {
  if (spec.kind != DeviceSpec::Kind::kCpu) {
    auto cuda = Tested(CreateCudaDevice(spec.ordinal));
    if (cuda.ok() || spec.kind == DeviceSpec::Kind::kCuda) return cuda;
    // No GPU is nothing to worry about; one that computes wrongly is.
    const std::string text = "products run on the processor: " + cuda.status().ToString();
    if (cuda.status().code() == Code::kUnavailable) {
      LogInfo(text);
    } else {
      LogError(text);
    }
  }
  return Tested(CreateCpuDevice(spec.threads, SelfTestedIsa(spec.isa)));
}

}  // namespace talaria::gemm
