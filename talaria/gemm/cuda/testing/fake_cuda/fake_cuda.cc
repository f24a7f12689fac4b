#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "talaria/gemm/cuda/kernels.h"

struct FakeStream {
  std::vector<std::function<void()>> work;
};
struct FakeEvent {
  FakeStream* stream = nullptr;
  std::chrono::steady_clock::time_point at;
};

namespace {

constexpr int kVersion = 13000;
constexpr size_t kDefaultMebibytes = 4096;
constexpr size_t kAlignment = 256;  // what cudaMalloc promises

// The value of `name=value` in the list, "" for a bare name, nothing if it is not there.
std::optional<std::string> Setting(const char* name) {
  const char* list = std::getenv("TALARIA_FAKE_CUDA");
  for (std::string rest = list == nullptr ? "" : list; !rest.empty();) {
    const std::string item = rest.substr(0, rest.find(','));
    rest = item.size() == rest.size() ? "" : rest.substr(item.size() + 1);
    if (item.substr(0, item.find('=')) != name) continue;
    return item.find('=') == std::string::npos ? "" : item.substr(item.find('=') + 1);
  }
  return std::nullopt;
}

struct Machine {
  std::map<void*, size_t> memory;  // of the GPU
  size_t used = 0;
  long waits = 0;
  bool lost = false;
};
Machine& TheMachine() {
  static Machine* const machine = new Machine;  // a GPU outlives the statics of programs
  return *machine;
}
size_t TotalBytes() {
  const auto mebibytes = Setting("memory");
  return (mebibytes ? std::strtoull(mebibytes->c_str(), nullptr, 10) : kDefaultMebibytes) << 20;
}
// A test that takes the setting back has a new GPU.
cudaError_t Alive() {
  Machine& machine = TheMachine();
  if (!Setting("lost").has_value()) machine.lost = false, machine.waits = 0;
  return machine.lost ? cudaErrorIllegalAddress : cudaSuccess;
}

}  // namespace

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorIllegalAddress ? "an illegal memory access was encountered"
                                          : "some other error";
}
const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorIllegalAddress ? "cudaErrorIllegalAddress" : "cudaErrorOther";
}
cudaError_t cudaGetLastError() { return Alive(); }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  if (Setting("no-driver").has_value() || Setting("old-driver").has_value())
    return cudaErrorInsufficientDriver;
  if (Setting("no-gpu").has_value()) return cudaErrorNoDevice;
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = Setting("no-driver").has_value()    ? 0
             : Setting("old-driver").has_value() ? 12040
                                                 : kVersion;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {"Fake GPU", Setting("old-gpu").has_value() ? 7 : 9,
                 Setting("old-gpu").has_value() ? 5 : 0, 16};
  return Alive();
}
cudaError_t cudaSetDevice(int) { return Alive(); }
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = TotalBytes();
  *free = *total - TheMachine().used;
  return Alive();
}
cudaError_t FakeMalloc(void** to, size_t bytes, bool of_gpu) {
  Machine& machine = TheMachine();
  if (Alive() != cudaSuccess) return cudaErrorIllegalAddress;
  if (of_gpu && bytes > TotalBytes() - machine.used) return cudaErrorMemoryAllocation;
  *to = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  if (*to == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*to, 0xc5, bytes);
  if (of_gpu) {
    machine.memory[*to] = bytes;
    machine.used += bytes;
  }
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  Machine& machine = TheMachine();
  if (const auto found = machine.memory.find(memory); found != machine.memory.end()) {
    machine.used -= found->second;
    machine.memory.erase(found);
  }
  std::free(memory);
  return Alive();
}
cudaError_t cudaFreeHost(void* memory) {
  std::free(memory);
  return Alive();
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  stream->work.push_back([=] { std::memset(to, value, bytes); });
  return Alive();
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  stream->work.push_back([=] { std::memcpy(to, from, bytes); });
  return Alive();
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new FakeStream;
  return Alive();
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Machine& machine = TheMachine();
  const auto lost = Setting("lost");
  if (lost && ++machine.waits >= std::strtol(lost->c_str(), nullptr, 10)) machine.lost = true;
  for (const auto& work : stream->work) {
    if (!machine.lost) work();
  }
  stream->work.clear();
  return Alive();
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return Alive();
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new FakeEvent;
  return Alive();
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->stream = stream;
  stream->work.push_back([=] { event->at = std::chrono::steady_clock::now(); });
  return Alive();
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return cudaStreamSynchronize(event->stream); }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t stop) {
  *milliseconds = std::chrono::duration<float, std::milli>(stop->at - start->at).count();
  return Alive();
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return Alive();
}

namespace talaria::gemm::cuda {
namespace {

// What the kernel computes of one row, read off its layouts one weight at a time.
// planes: [kPlaneCount, units * kUnitInputs]; sums: [tiles * kTileOutputs, kPlaneCount], zero.
__attribute__((no_sanitize("thread"))) void AddProducts(const uint8_t* weights,
                                                        const uint8_t* planes, uint32_t tiles,
                                                        uint32_t units, int32_t* sums) {
  for (uint32_t tile = 0; tile < tiles; ++tile) {
    for (uint32_t unit = 0; unit < units; ++unit) {
      const uint8_t* chunks = weights + (size_t{tile} * units + unit) * kTileUnitBytes;
      for (uint32_t byte = 0; byte < kTileUnitBytes; ++byte) {
        const uint32_t half = byte / 512, lane = byte / 16 % 32, word = byte / 4 % 4;
        const uint32_t output = tile * kTileOutputs + WordOutput(lane, word);
        const uint32_t input = unit * kUnitInputs + WordInput(half, lane, word) + byte % 4;
        for (uint32_t plane = 0; plane < kPlaneCount; ++plane) {
          sums[size_t{output} * kPlaneCount + plane] +=
              static_cast<int8_t>(chunks[byte]) *
              int32_t{planes[size_t{plane} * units * kUnitInputs + input]};
        }
      }
    }
  }
}

void Multiply(const ProductArgs& args) {
  const uint32_t tiles = args.padded_outputs / kTileOutputs;
  const size_t row_bytes = size_t{kPlaneCount} * args.units * kUnitInputs;
  // Of copies: the thread sanitizer sees each byte read once, and need not follow the arithmetic.
  const std::vector<uint8_t> weights(args.weights,
                                     args.weights + size_t{tiles} * args.units * kTileUnitBytes);
  const std::vector<uint8_t> planes(args.planes, args.planes + args.rows * row_bytes);
  std::vector<int32_t> sums(size_t{args.padded_outputs} * kPlaneCount);
  for (uint32_t row = 0; row < args.rows; ++row) {
    std::fill(sums.begin(), sums.end(), 0);
    AddProducts(weights.data(), planes.data() + row * row_bytes, tiles, args.units, sums.data());
    for (uint32_t output = 0; output < args.padded_outputs; ++output) {
      const uint64_t residue = Recombine(&sums[output * kPlaneCount]);
      std::memcpy(args.out + (size_t{row} * args.padded_outputs + output) * 6, &residue, 6);
    }
  }
  if (Setting("wrong").has_value()) args.out[0] ^= 1;
}

}  // namespace

cudaError_t PrepareKernels() {
  return Setting("no-code").has_value() ? cudaErrorNoKernelImageForDevice : Alive();
}
cudaError_t StartProduct(const ProductArgs& args, int, cudaStream_t stream) {
  stream->work.push_back([=] { Multiply(args); });
  return Alive();
}
cudaError_t StartPacking(const int8_t* columns, uint32_t d, uint32_t first, uint32_t count,
                         uint8_t* weights, cudaStream_t stream) {
  stream->work.push_back([=] {
    const uint32_t tile_chunks = (d + kUnitInputs - 1) / kUnitInputs * 64;
    for (uint32_t tile = first / kTileOutputs; tile < first / kTileOutputs + (count + 31) / 32 * 2;
         ++tile) {
      for (uint32_t chunk = 0; chunk < tile_chunks; ++chunk) {
        const Words words = PackedChunk(columns, d, first, count, tile, chunk);
        std::memcpy(weights + (size_t{tile} * tile_chunks + chunk) * 16, &words, 16);
      }
    }
  });
  return Alive();
}
cudaError_t StartFilling(uint8_t* to, size_t bytes, cudaStream_t stream) {
  stream->work.push_back([=] { std::memset(to, 0x5a, bytes); });
  return Alive();
}

}  // namespace talaria::gemm::cuda
