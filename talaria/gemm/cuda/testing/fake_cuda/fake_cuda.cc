#include <pthread.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "talaria/gemm/cuda/kernels.h"

struct FakeStream {
  int gpu;
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

// The GPU that this thread has chosen.
// Not thread_local: the leak checker stumbles over that in a loaded library.
pthread_key_t CurrentKey() {
  static const pthread_key_t key = [] {
    pthread_key_t made{};
    if (pthread_key_create(&made, nullptr) != 0) std::abort();
    return made;
  }();
  return key;
}
int Current() {
  return static_cast<int>(reinterpret_cast<intptr_t>(pthread_getspecific(CurrentKey())));
}
void SetCurrent(int gpu) {
  if (pthread_setspecific(CurrentKey(), reinterpret_cast<void*>(intptr_t{gpu})) != 0) std::abort();
}

// The same, unless it is another GPU's.
std::optional<std::string> SettingOf(int gpu, const char* name) {
  const auto only = Setting("only");
  if (only && std::strtol(only->c_str(), nullptr, 10) != gpu) return std::nullopt;
  return Setting(name);
}

struct Gpu {
  std::map<void*, size_t> memory;
  size_t used = 0;
  long waits = 0;
  bool lost = false;
};
struct Machine {
  std::mutex mutex;  // guards all below
  std::map<int, Gpu> gpus;
  FakeCudaCounts counts{};
};
Machine& TheMachine() {
  static Machine* const machine = new Machine;  // a GPU outlives the statics of programs
  return *machine;
}
int Gpus() {
  const auto gpus = Setting("gpus");
  return gpus ? static_cast<int>(std::strtol(gpus->c_str(), nullptr, 10)) : 1;
}
size_t TotalBytes(int gpu) {
  const auto mebibytes = SettingOf(gpu, "memory");
  return (mebibytes ? std::strtoull(mebibytes->c_str(), nullptr, 10) : kDefaultMebibytes) << 20;
}
// A test that takes the setting back has a new GPU.
cudaError_t AliveLocked(int number) {
  Gpu& gpu = TheMachine().gpus[number];
  if (!SettingOf(number, "lost").has_value()) gpu.lost = false, gpu.waits = 0;
  return gpu.lost ? cudaErrorIllegalAddress : cudaSuccess;
}
cudaError_t Alive() {
  const std::lock_guard lock(TheMachine().mutex);
  return AliveLocked(Current());
}
// A kernel starts on a stream of the GPU that the thread has chosen, or not at all.
cudaError_t Launch(cudaStream_t stream, std::function<void()> kernel) {
  if (stream->gpu != Current()) return cudaErrorInvalidValue;
  stream->work.push_back(std::move(kernel));
  return Alive();
}
void Count(uint64_t FakeCudaCounts::*what) {
  const std::lock_guard lock(TheMachine().mutex);
  ++(TheMachine().counts.*what);
}

}  // namespace

void talaria_fake_cuda_counts(FakeCudaCounts* counts) {
  const std::lock_guard lock(TheMachine().mutex);
  *counts = TheMachine().counts;
}
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
  *count = Gpus();
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
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int gpu) {
  const bool old = SettingOf(gpu, "old-gpu").has_value();
  *properties = {"Fake GPU", old ? 7 : 9, old ? 5 : 0, 16};
  return Alive();
}
cudaError_t cudaSetDevice(int gpu) {
  SetCurrent(gpu);
  return Alive();
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const std::lock_guard lock(TheMachine().mutex);
  *total = TotalBytes(Current());
  *free = *total - TheMachine().gpus[Current()].used;
  return AliveLocked(Current());
}
cudaError_t FakeMalloc(void** to, size_t bytes, bool of_gpu) {
  const std::lock_guard lock(TheMachine().mutex);
  Gpu& gpu = TheMachine().gpus[Current()];
  if (AliveLocked(Current()) != cudaSuccess) return cudaErrorIllegalAddress;
  if (of_gpu && bytes > TotalBytes(Current()) - gpu.used) return cudaErrorMemoryAllocation;
  *to = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  if (*to == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*to, 0xc5, bytes);
  if (of_gpu) {
    gpu.memory[*to] = bytes;
    gpu.used += bytes;
  }
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  const std::lock_guard lock(TheMachine().mutex);
  for (auto& [number, gpu] : TheMachine().gpus) {
    if (const auto found = gpu.memory.find(memory); found != gpu.memory.end()) {
      gpu.used -= found->second;
      gpu.memory.erase(found);
    }
  }
  std::free(memory);
  return AliveLocked(Current());
}
cudaError_t cudaFreeHost(void* memory) {
  std::free(memory);
  return Alive();
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  stream->work.push_back([=] { std::memset(to, value, bytes); });
  return Alive();
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  Count(kind == cudaMemcpyHostToDevice ? &FakeCudaCounts::copies_in : &FakeCudaCounts::copies_out);
  stream->work.push_back([=] { std::memcpy(to, from, bytes); });
  return Alive();
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new FakeStream{Current(), {}};
  return Alive();
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Count(&FakeCudaCounts::waits);
  while (SettingOf(stream->gpu, "hang").has_value())
    std::this_thread::sleep_for(std::chrono::seconds(1));
  bool lost = false;
  {
    const std::lock_guard lock(TheMachine().mutex);
    Gpu& gpu = TheMachine().gpus[stream->gpu];
    const auto setting = SettingOf(stream->gpu, "lost");
    if (setting && ++gpu.waits >= std::strtol(setting->c_str(), nullptr, 10)) gpu.lost = true;
    lost = gpu.lost;
  }
  for (const auto& work : stream->work) {
    if (!lost) work();
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

// The weights as they were given, [tiles * kTileOutputs][units * kUnitInputs], read off the layout.
__attribute__((no_sanitize("thread"))) void Unpack(const uint8_t* packed, uint32_t tiles,
                                                   uint32_t units, int8_t* columns) {
  const size_t inputs = size_t{units} * kUnitInputs;
  for (uint32_t tile = 0; tile < tiles; ++tile) {
    for (uint32_t unit = 0; unit < units; ++unit) {
      const uint8_t* chunks = packed + (size_t{tile} * units + unit) * kTileUnitBytes;
      for (uint32_t word = 0; word < kTileUnitBytes / 4; ++word) {
        const uint32_t half = word / 128, lane = word / 4 % 32;
        const uint32_t output = tile * kTileOutputs + WordOutput(lane, word % 4);
        const uint32_t input = unit * kUnitInputs + WordInput(half, lane, word % 4);
        std::memcpy(columns + output * inputs + input, chunks + size_t{word} * 4, 4);
      }
    }
  }
}
__attribute__((no_sanitize("thread"))) int32_t Dot(const int8_t* column, const uint8_t* digits,
                                                   size_t inputs) {
  int32_t sum = 0;
  for (size_t i = 0; i < inputs; ++i) sum += int32_t{column[i]} * digits[i];
  return sum;
}

void Multiply(const ProductArgs& args) {
  const uint32_t tiles = args.padded_outputs / kTileOutputs;
  const size_t inputs = size_t{args.units} * kUnitInputs, row_bytes = kPlaneCount * inputs;
  // Of copies: the thread sanitizer sees each byte read once, and need not follow the arithmetic.
  const std::vector<uint8_t> weights(args.weights,
                                     args.weights + size_t{tiles} * args.units * kTileUnitBytes);
  const std::vector<uint8_t> planes(args.planes, args.planes + args.rows * row_bytes);
  std::vector<int8_t> columns(weights.size());
  Unpack(weights.data(), tiles, args.units, columns.data());
  for (uint32_t row = 0; row < args.rows; ++row) {
    for (uint32_t output = 0; output < args.padded_outputs; ++output) {
      int32_t sums[kPlaneCount];
      for (uint32_t plane = 0; plane < kPlaneCount; ++plane)
        sums[plane] = Dot(columns.data() + output * inputs,
                          planes.data() + row * row_bytes + plane * inputs, inputs);
      const uint64_t residue = Recombine(sums);
      std::memcpy(args.out + (size_t{row} * args.padded_outputs + output) * 6, &residue, 6);
    }
  }
}

}  // namespace

cudaError_t PrepareKernels() {
  return SettingOf(Current(), "no-code").has_value() ? cudaErrorNoKernelImageForDevice : Alive();
}
cudaError_t StartProduct(const ProductArgs& args, int, cudaStream_t stream) {
  Count(&FakeCudaCounts::kernels);
  return Launch(stream, [=] {
    Multiply(args);
    if (SettingOf(stream->gpu, "wrong").has_value()) args.out[0] ^= 1;
  });
}
cudaError_t StartPacking(const int8_t* columns, uint32_t d, uint32_t first, uint32_t count,
                         uint8_t* weights, cudaStream_t stream) {
  return Launch(stream, [=] {
    const uint32_t tile_chunks = (d + kUnitInputs - 1) / kUnitInputs * 64;
    for (uint32_t tile = first / kTileOutputs; tile < first / kTileOutputs + (count + 31) / 32 * 2;
         ++tile) {
      for (uint32_t chunk = 0; chunk < tile_chunks; ++chunk) {
        const Words words = PackedChunk(columns, d, first, count, tile, chunk);
        std::memcpy(weights + (size_t{tile} * tile_chunks + chunk) * 16, &words, 16);
      }
    }
  });
}
cudaError_t StartFilling(uint8_t* to, size_t bytes, cudaStream_t stream) {
  return Launch(stream, [=] { std::memset(to, 0x5a, bytes); });
}

}  // namespace talaria::gemm::cuda
