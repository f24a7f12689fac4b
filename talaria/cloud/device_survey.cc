#include "talaria/cloud/device_survey.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "talaria/base/cpu.h"
#include "talaria/gemm/product.h"
#include "talaria/ring/layout.h"

namespace talaria::cloud {
namespace {

constexpr uint32_t kRowCounts[] = {1, 16, 256};
constexpr int kFewestPasses = 3, kMostPasses = 50;
constexpr double kEnoughSeconds = 1;
constexpr size_t kFillBytes = size_t{4} << 20;

FoundDevice Find(const gemm::DeviceSpec& spec, std::string argument) {
  FoundDevice found;
  found.argument = std::move(argument);
  found.spec = spec;
  const auto device = gemm::CreateDevice(spec);
  found.status = device.status();
  if (!device.ok()) return found;
  found.name = (*device)->name();
  for (const gemm::Device::Memory& memory : (*device)->memory()) {
    if (memory.free_bytes) found.free_bytes = found.free_bytes.value_or(0) + *memory.free_bytes;
  }
  return found;
}

struct Group {
  std::unique_ptr<gemm::DeviceWeights> weights;
  size_t in_row, out_row;
};

Result<std::vector<Group>> RandomGroups(gemm::Device& device, const model::Manifest& manifest) {
  std::minstd_rand random;
  std::vector<int8_t> numbers(kFillBytes);
  for (int8_t& number : numbers)
    number = static_cast<int8_t>(static_cast<int>((random() >> 8) % 255) - 127);
  std::vector<Group> groups;
  for (const model::Group& group : manifest.groups) {
    const size_t outputs = model::GroupOutputs(group);  // padded
    TALARIA_ASSIGN_OR_RETURN(auto weights, device.CreateWeights(group.d, outputs));
    // A column has at most 2^16 weights.
    const size_t step = kFillBytes / group.d / gemm::kOutputUnit * gemm::kOutputUnit;
    for (size_t first = 0; first < outputs; first += step) {
      const size_t columns = std::min(step, outputs - first);
      TALARIA_RETURN_IF_ERROR(
          weights->SetColumns(first, std::span(numbers).first(columns * group.d)));
    }
    groups.push_back({std::move(weights), gemm::kPlanes * gemm::PadInputs(group.d),
                      ring::kResidueBytes * outputs});
  }
  return groups;
}

}  // namespace

DeviceList ListDevices(int threads) {
  DeviceList list;
  gemm::DeviceSpec spec;
  spec.threads = threads;
  spec.isa = DetectIsa();
  list.devices.push_back(Find(spec, "cpu"));
  const Result<int> count = gemm::CountCudaDevices();
  if (!count.ok()) {
    list.gpus = count.status();
    return list;
  }
  spec.kind = gemm::DeviceSpec::Kind::kCuda;
  for (int gpu = 0; gpu < *count; ++gpu) {
    spec.gpus = {gpu};
    list.devices.push_back(Find(spec, "cuda:" + std::to_string(gpu)));
  }
  if (*count > 1) {
    spec.gpus.clear();
    list.devices.push_back(Find(spec, "cuda:all"));
  }
  return list;
}

Result<std::vector<PassTime>> MeasurePasses(const gemm::DeviceSpec& spec,
                                            const model::Manifest& manifest) {
  using Clock = std::chrono::steady_clock;
  TALARIA_ASSIGN_OR_RETURN(const auto device, gemm::CreateDevice(spec));
  TALARIA_ASSIGN_OR_RETURN(const std::vector<Group> groups, RandomGroups(*device, manifest));
  std::vector<PassTime> out;
  std::vector<uint8_t> in, residues;
  for (const uint32_t rows : kRowCounts) {
    for (const Group& group : groups) {
      in.resize(std::max(in.size(), rows * group.in_row), 0x5a);
      residues.resize(std::max(residues.size(), rows * group.out_row));
    }
    std::vector<double> seconds;
    double total = 0;
    while (seconds.size() < kFewestPasses ||
           (total < kEnoughSeconds && seconds.size() < kMostPasses)) {
      const auto start = Clock::now();
      for (const Group& group : groups) {
        for (size_t row = 0; row < rows;) {
          const size_t now = std::min<size_t>(rows - row, group.weights->max_rows());
          const gemm::RowBlock block{
              Bytes(in).subspan(row * group.in_row, now * group.in_row), now,
              MutableBytes(residues).subspan(row * group.out_row, now * group.out_row)};
          TALARIA_RETURN_IF_ERROR(group.weights->Multiply({&block, 1}));
          row += now;
        }
      }
      seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
      total += seconds.back();
    }
    const auto middle = seconds.begin() + static_cast<ptrdiff_t>(seconds.size() / 2);
    std::nth_element(seconds.begin(), middle, seconds.end());
    out.push_back({rows, *middle});
  }
  return out;
}

}  // namespace talaria::cloud
