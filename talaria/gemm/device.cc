#include "talaria/gemm/device.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstring>
#include <new>
#include <numeric>

#include "talaria/base/log.h"
#include "talaria/base/memory.h"
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
  std::vector<Memory> memory() const override { return {{"cpu", weight_bytes, AvailableMemory()}}; }
  Result<std::unique_ptr<DeviceWeights>> CreateWeights(size_t d, size_t padded_outputs) override;

  std::atomic<uint64_t> weight_bytes{0};

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
      : device_(device), weights_(std::move(weights)) {
    device_.weight_bytes += bytes();
  }
  ~CpuWeights() override { device_.weight_bytes -= bytes(); }
  Status SetColumns(size_t first, std::span<const int8_t> weights) override {
    return weights_.SetColumns(first, weights);
  }
  // About 2^31 products of weights, some 50 ms on two cores. From 16 rows on a call is bound by
  // arithmetic, not by reading the weights again.
  size_t max_rows() const override {
    constexpr uint64_t kCallProducts = uint64_t{1} << 31;
    const uint64_t rows = kCallProducts / bytes();
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
  uint64_t bytes() const { return uint64_t{weights_.padded_inputs()} * weights_.padded_outputs(); }

  CpuDevice& device_;
  PackedWeights weights_;
};

Result<std::unique_ptr<DeviceWeights>> CpuDevice::CreateWeights(size_t d, size_t padded_outputs) {
  // Memory that is not there would be missed only when it is written, by the kernel's killer.
  constexpr uint64_t kMebibyte = uint64_t{1} << 20;
  const uint64_t available = AvailableMemory();
  if (d != 0 && padded_outputs > available / d) {
    return Status(Code::kResourceExhausted,
                  "weights [" + std::to_string(padded_outputs) + ", " + std::to_string(d) +
                      "] need " + std::to_string(padded_outputs * uint64_t{d} / kMebibyte) +
                      " MiB, and this machine has " + std::to_string(available / kMebibyte) +
                      " MiB left");
  }
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
  constexpr int kMaxOrdinal = 1023;
  const Status bad(
      Code::kInvalidArgument,
      "no such device: '" + text + "' (auto, cpu, cuda, cuda:N, several as cuda:0,1, or cuda:all)");
  DeviceSpec spec;
  if (text == "cpu") return spec;
  spec.kind = text == "auto" ? Kind::kAuto : Kind::kCuda;
  if (text == "auto" || text == "cuda") return spec;
  if (!text.starts_with(kCudaPrefix)) return bad;
  spec.gpus.clear();
  if (text == "cuda:all") return spec;
  std::string_view rest = std::string_view(text).substr(kCudaPrefix.size());
  while (true) {
    int ordinal = -1;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), ordinal);
    if (error != std::errc() || ordinal < 0 || ordinal > kMaxOrdinal) return bad;
    if (std::ranges::find(spec.gpus, ordinal) != spec.gpus.end())
      return Status(Code::kInvalidArgument,
                    "'" + text + "' names GPU " + std::to_string(ordinal) + " twice");
    spec.gpus.push_back(ordinal);
    rest.remove_prefix(static_cast<size_t>(end - rest.data()));
    if (rest.empty()) return spec;
    if (rest.front() != ',') return bad;
    rest.remove_prefix(1);
  }
}

namespace {

// The GPUs of `spec`, each tested, and together again. With kAuto those that cannot be used are
// left out, and the error is the first one's if none is left.
Result<std::unique_ptr<Device>> CreateCudaDevices(const DeviceSpec& spec) {
  const bool automatic = spec.kind == DeviceSpec::Kind::kAuto;
  std::vector<int> ordinals = spec.gpus;
  if (automatic || ordinals.empty()) {
    TALARIA_ASSIGN_OR_RETURN(const int count, CountCudaDevices());
    ordinals.resize(static_cast<size_t>(count));
    std::iota(ordinals.begin(), ordinals.end(), 0);
  }
  std::vector<std::unique_ptr<Device>> parts;
  Status first;
  for (const int ordinal : ordinals) {
    auto gpu = Tested(CreateCudaDevice(ordinal));
    if (gpu.ok()) {
      parts.push_back(std::move(gpu).value());
      continue;
    }
    if (!automatic) return gpu.status();
    if (ordinals.size() > 1)
      LogWarning("GPU " + std::to_string(ordinal) + " is left out: " + gpu.status().ToString());
    if (first.ok()) first = gpu.status();
  }
  if (parts.empty()) return first;
  if (parts.size() == 1) return std::move(parts[0]);
  return Tested(CreateSplitDevice(std::move(parts)));
}

}  // namespace

Result<std::unique_ptr<Device>> CreateDevice(const DeviceSpec& spec) {
  if (spec.kind != DeviceSpec::Kind::kCpu) {
    auto cuda = CreateCudaDevices(spec);
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
