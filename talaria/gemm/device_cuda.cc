#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "talaria/gemm/cuda/library.h"
#include "talaria/gemm/device.h"
#include "talaria/gemm/product.h"

namespace talaria::gemm {
namespace {

namespace fs = std::filesystem;
using cuda::Library;
using cuda::ToStatus;
constexpr const char* kLibrary = "libtalaria-cuda.so";
constexpr const char* kLibraryVariable = "TALARIA_CUDA_LIBRARY";
constexpr size_t kResidueBytes = 6;

// $TALARIA_CUDA_LIBRARY, else beside the program or in ../lib of there.
Result<std::string> FindLibrary() {
  if (const char* path = std::getenv(kLibraryVariable); path != nullptr && *path != 0)
    return std::string(path);
  std::error_code error;
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const fs::path& path : {folder / kLibrary, folder.parent_path() / "lib" / kLibrary}) {
    if (fs::exists(path, error)) return path.string();
  }
  return Status(Code::kUnavailable,
                std::string(kLibrary) + " is neither in " + folder.string() + " nor in " +
                    (folder.parent_path() / "lib").string() +
                    ": build it with the preset cuda (doc/gpu.md), name it in " + kLibraryVariable +
                    ", or use --device cpu");
}

Result<Library> LoadLibrary() {
  TALARIA_ASSIGN_OR_RETURN(const std::string path, FindLibrary());
  return Library::Load(path);
}

class CudaWeights final : public DeviceWeights {
 public:
  CudaWeights(const Library& api, talaria_cuda_weights* weights, size_t d, size_t padded_outputs)
      : api_(api), weights_(weights), d_(d), padded_outputs_(padded_outputs) {}
  ~CudaWeights() override { api_.remove_weights(weights_); }

  Status SetColumns(size_t first, std::span<const int8_t> weights) override {
    if (weights.size() % d_ != 0) return {Code::kInvalidArgument, "weights end inside a column"};
    const size_t count = weights.size() / d_;
    // What does not fit 32 bits fits no matrix either; the library says the rest.
    if (first > padded_outputs_ || count > padded_outputs_ - first)
      return {Code::kInvalidArgument, "columns " + std::to_string(first) + " + " +
                                          std::to_string(count) + " do not fit " +
                                          std::to_string(padded_outputs_)};
    if (std::ranges::find(weights, int8_t{-128}) != weights.end())
      return {Code::kCorrupt, "a weight of -128 (the range is -127..127)"};
    talaria_cuda_error error{};
    return ToStatus(api_.set_columns(weights_, static_cast<uint32_t>(first),
                                     static_cast<uint32_t>(count), weights.data(), &error),
                    error);
  }

  size_t max_rows() const override { return api_.max_rows(weights_); }

  Status Multiply(std::span<const RowBlock> blocks) override {
    rows_.clear();
    for (const RowBlock& block : blocks) {
      TALARIA_CHECK(block.planes.size() == block.rows * kPlanes * PadInputs(d_));
      TALARIA_CHECK(block.out.size() == block.rows * padded_outputs_ * kResidueBytes);
      rows_.push_back({block.planes.data(), block.rows, block.out.data()});
    }
    talaria_cuda_error error{};
    return ToStatus(api_.multiply(weights_, rows_.data(), rows_.size(), &error), error);
  }

 private:
  const Library api_;
  talaria_cuda_weights* const weights_;
  const size_t d_, padded_outputs_;
  std::vector<talaria_cuda_rows> rows_;  // of the call under way
};

class CudaDevice final : public Device {
 public:
  CudaDevice(const Library& api, talaria_cuda* gpu, int ordinal, const talaria_cuda_info& info)
      : api_(api),
        gpu_(gpu),
        short_name_("cuda:" + std::to_string(ordinal)),
        name_(short_name_ + " (" + info.name + ", " + std::to_string(info.memory_bytes >> 30) +
              " GiB)") {}
  ~CudaDevice() override { api_.destroy(gpu_); }
  std::string name() const override { return name_; }
  std::vector<Memory> memory() const override {
    talaria_cuda_info info{};
    talaria_cuda_error error{};
    Memory out{.device = short_name_, .weight_bytes = 0, .free_bytes = std::nullopt};
    if (api_.describe(gpu_, &info, &error) == TALARIA_CUDA_OK) {
      out.weight_bytes = info.weight_bytes;
      out.free_bytes = info.free_bytes;
    }
    return {out};
  }

  Result<std::unique_ptr<DeviceWeights>> CreateWeights(size_t d, size_t padded_outputs) override {
    if (d == 0 || d > kMaxInputs || padded_outputs == 0 || padded_outputs % kOutputUnit != 0 ||
        padded_outputs > UINT32_MAX) {
      return Status(Code::kInvalidArgument, "a matrix of " + std::to_string(d) + " inputs and " +
                                                std::to_string(padded_outputs) +
                                                " padded outputs (1 to 65536; a multiple of 32)");
    }
    talaria_cuda_weights* weights = nullptr;
    talaria_cuda_error error{};
    TALARIA_RETURN_IF_ERROR(
        ToStatus(api_.add_weights(gpu_, static_cast<uint32_t>(d),
                                  static_cast<uint32_t>(padded_outputs), &weights, &error),
                 error));
    return std::unique_ptr<DeviceWeights>(
        std::make_unique<CudaWeights>(api_, weights, d, padded_outputs));
  }

 private:
  const Library api_;
  talaria_cuda* const gpu_;
  const std::string short_name_, name_;
};

// SelfTestDevice has few rows, with which two of the three kernels run. This is for the third,
// which a GPU of up to 200 multiprocessors takes from 17 rows of so many outputs on (ChooseShape).
Status CheckManyRows(Device& device) {
  constexpr size_t kD = 64, kOutputs = 25600, kRows = 17;
  std::vector<int8_t> w(kD * kOutputs);
  std::vector<uint8_t> planes(kRows * kPlanes * kD);
  uint32_t state = 1;
  const auto next = [&state] { return (state = state * 1664525 + 1013904223) >> 16; };
  for (int8_t& weight : w) weight = static_cast<int8_t>(static_cast<int>(next() % 255) - 127);
  for (uint8_t& digit : planes) digit = static_cast<uint8_t>(next());
  std::vector<uint8_t> expected(kRows * kOutputs * kResidueBytes), got(expected.size());
  ReferenceProduct(w, kD, planes, kRows, expected);
  TALARIA_ASSIGN_OR_RETURN(const auto weights, device.CreateWeights(kD, kOutputs));
  TALARIA_RETURN_IF_ERROR(weights->SetColumns(0, w));
  const RowBlock rows{planes, kRows, got};
  TALARIA_RETURN_IF_ERROR(weights->Multiply({&rows, 1}));
  if (got == expected) return OkStatus();
  return {Code::kUnsupported, "the products of " + device.name() +
                                  " differ from the reference: nothing may be served with it (try "
                                  "another --device, and look at its driver and its memory)"};
}

}  // namespace

Result<int> CountCudaDevices() {
  TALARIA_ASSIGN_OR_RETURN(const Library api, LoadLibrary());
  int count = 0;
  talaria_cuda_error error{};
  TALARIA_RETURN_IF_ERROR(ToStatus(api.count(&count, &error), error));
  return count;
}

Result<std::unique_ptr<Device>> CreateCudaDevice(int ordinal) {
  TALARIA_ASSIGN_OR_RETURN(const Library api, LoadLibrary());
  talaria_cuda* gpu = nullptr;
  talaria_cuda_error error{};
  TALARIA_RETURN_IF_ERROR(ToStatus(api.create(ordinal, &gpu, &error), error));
  talaria_cuda_info info{};
  if (const int code = api.describe(gpu, &info, &error); code != TALARIA_CUDA_OK) {
    api.destroy(gpu);
    return ToStatus(code, error);
  }
  std::unique_ptr<Device> device = std::make_unique<CudaDevice>(api, gpu, ordinal, info);
  TALARIA_RETURN_IF_ERROR(CheckManyRows(*device));
  return device;
}

}  // namespace talaria::gemm
