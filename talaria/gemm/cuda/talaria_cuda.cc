#include "talaria/gemm/cuda/talaria_cuda.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <set>

#include "talaria/gemm/cuda/kernels.h"

using namespace talaria::gemm::cuda;

namespace {

constexpr size_t kInBytes = size_t{8} << 20;    // of a slot; the widest row has 384 KiB
constexpr size_t kOutBytes = size_t{16} << 20;  // of a slot; the widest row has 12 MiB
constexpr uint32_t kMaxInputs = 65536;
constexpr uint32_t kMaxOutputs = uint32_t{1} << 21;
constexpr size_t kSlotsPerCall = 4;  // of rows in one call: some 64 MB of residues
constexpr int kOldestCapability = 80;

static_assert(kInBytes >= size_t{6} * kMaxInputs && kOutBytes >= size_t{6} * kMaxOutputs);
static_assert(kInBytes >= size_t{32} * kMaxInputs, "32 columns of weights are staged there");

__attribute__((format(printf, 3, 4))) int Fail(talaria_cuda_error* error, int code,
                                               const char* format, ...) {
  if (error != nullptr) {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(error->text, sizeof(error->text), format, arguments);
    va_end(arguments);
  }
  return code;
}

// One of two stations of a product: while one is on the wire, the other computes.
struct Slot {
  cudaStream_t stream = nullptr;
  uint8_t *host_in = nullptr, *host_out = nullptr;  // locked, for copies beside the computation
  uint8_t *in = nullptr, *out = nullptr;            // the GPU's
  size_t first_row = 0, rows = 0;                   // under way, of the call; none: 0
};

}  // namespace

struct talaria_cuda {
  int ordinal = 0;
  cudaDeviceProp properties{};
  std::mutex mutex;  // guards all below, and every use of the GPU
  Slot slots[2];
  std::set<talaria_cuda_weights*> weights;
  bool lost = false;
  talaria_cuda_error lost_because{};
};

struct talaria_cuda_weights {
  talaria_cuda* gpu;
  uint32_t d, padded_outputs, units;
  uint8_t* packed;  // product_layout.h
  size_t bytes() const { return size_t{DeviceOutputs(padded_outputs)} * units * kUnitInputs; }
  size_t in_row() const { return size_t{units} * kUnitInputs * kPlaneCount; }
  size_t out_row() const { return size_t{padded_outputs} * 6; }
  // Whole blocks of rows where they fit, so that none is half empty.
  size_t slot_rows() const {
    const size_t rows = std::min(kInBytes / in_row(), kOutBytes / out_row());
    return rows < ManyRows::kRows ? rows : rows / ManyRows::kRows * ManyRows::kRows;
  }
};

namespace {

// What a failed call means. Running out of memory leaves the GPU usable; anything else may be the
// late report of a kernel that failed, after which no result counts.
int Report(talaria_cuda* gpu, cudaError_t e, const char* what, talaria_cuda_error* error) {
  if (e == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // does not stick
    return Fail(error, TALARIA_CUDA_OUT_OF_MEMORY, "%s: the GPU's memory is full", what);
  }
  Fail(&gpu->lost_because, TALARIA_CUDA_LOST,
       "GPU %d (%s) failed: %s: %s (%s); restart this program, and see nvidia-smi and the kernel's "
       "log (dmesg) for Xid messages if it happens again",
       gpu->ordinal, gpu->properties.name, what, cudaGetErrorString(e), cudaGetErrorName(e));
  gpu->lost = true;
  return Fail(error, TALARIA_CUDA_LOST, "%s", gpu->lost_because.text);
}

// At the start of every call.
int Enter(talaria_cuda* gpu, talaria_cuda_error* error) {
  if (gpu->lost) return Fail(error, TALARIA_CUDA_LOST, "%s", gpu->lost_because.text);
  if (const cudaError_t e = cudaSetDevice(gpu->ordinal); e != cudaSuccess)
    return Report(gpu, e, "selecting it", error);
  return TALARIA_CUDA_OK;
}

cudaError_t CreateSlot(Slot& slot) {
  cudaError_t e = cudaStreamCreateWithFlags(&slot.stream, cudaStreamNonBlocking);
  if (e == cudaSuccess) e = cudaMallocHost(&slot.host_in, kInBytes);
  if (e == cudaSuccess) e = cudaMallocHost(&slot.host_out, kOutBytes);
  if (e == cudaSuccess) e = cudaMalloc(&slot.in, kInBytes);
  if (e == cudaSuccess) e = cudaMalloc(&slot.out, kOutBytes);
  return e;
}

void FreeSlot(Slot& slot) {
  if (slot.stream != nullptr) cudaStreamSynchronize(slot.stream);
  cudaFree(slot.out);
  cudaFree(slot.in);
  cudaFreeHost(slot.host_out);
  cudaFreeHost(slot.host_in);
  if (slot.stream != nullptr) cudaStreamDestroy(slot.stream);
}

// The driver's answer before there is a GPU to name.
int FirstError(cudaError_t e, talaria_cuda_error* error) {
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (e == cudaErrorNoDevice)
    return Fail(error, TALARIA_CUDA_NO_DEVICE,
                "the NVIDIA driver finds no GPU; see nvidia-smi, and in a container whether it was "
                "given one (--gpus all); or use --device cpu");
  if (driver == 0)
    return Fail(error, TALARIA_CUDA_NO_DRIVER,
                "there is no NVIDIA driver (libcuda.so.1) on this machine: install one for CUDA "
                "%d.%d or later, in a container start it with --gpus all, or use --device cpu",
                runtime / 1000, runtime % 1000 / 10);
  if (e == cudaErrorInsufficientDriver)
    return Fail(error, TALARIA_CUDA_NO_DRIVER,
                "the NVIDIA driver is for CUDA %d.%d, and this program needs %d.%d or later: "
                "update the driver, or use --device cpu",
                driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
  return Fail(error, TALARIA_CUDA_NO_DRIVER,
              "the NVIDIA driver does not answer: %s (%s); see "
              "nvidia-smi",
              cudaGetErrorString(e), cudaGetErrorName(e));
}

int Prepare(talaria_cuda* gpu, talaria_cuda_error* error) {
  const int ordinal = gpu->ordinal;
  cudaError_t e = cudaGetDeviceProperties(&gpu->properties, ordinal);
  if (e == cudaSuccess) e = cudaSetDevice(ordinal);
  if (e == cudaErrorMemoryAllocation)
    return Fail(error, TALARIA_CUDA_OUT_OF_MEMORY, "GPU %d has no memory left for a context",
                ordinal);
  if (e != cudaSuccess)
    return Fail(error, TALARIA_CUDA_LOST, "GPU %d cannot be used: %s (%s); see nvidia-smi", ordinal,
                cudaGetErrorString(e), cudaGetErrorName(e));
  const cudaDeviceProp& p = gpu->properties;
  if (p.major * 10 + p.minor < kOldestCapability)
    return Fail(error, TALARIA_CUDA_UNSUPPORTED,
                "GPU %d (%s) has compute capability %d.%d, and the int8 products need 8.0 (Ampere) "
                "or later: choose another with --device cuda:N, or use --device cpu",
                ordinal, p.name, p.major, p.minor);
  e = PrepareKernels();
  if (e == cudaErrorNoKernelImageForDevice || e == cudaErrorInvalidDeviceFunction ||
      e == cudaErrorUnsupportedPtxVersion || e == cudaErrorInvalidPtx)
    return Fail(
        error, TALARIA_CUDA_UNSUPPORTED,
        "libtalaria-cuda.so has no code for GPU %d (%s, compute capability %d.%d): build it "
        "with -DCMAKE_CUDA_ARCHITECTURES=%d%d (doc/gpu.md)",
        ordinal, p.name, p.major, p.minor, p.major, p.minor);
  for (Slot& slot : gpu->slots) {
    if (e == cudaSuccess) e = CreateSlot(slot);
  }
  if (e == cudaErrorMemoryAllocation)
    return Fail(
        error, TALARIA_CUDA_OUT_OF_MEMORY,
        "no memory for staging on GPU %d (%s): %zu MiB there, and as much of this machine's, "
        "locked (ulimit -l); see nvidia-smi for who holds the GPU's",
        ordinal, p.name, 2 * (kInBytes + kOutBytes) >> 20);
  if (e != cudaSuccess) return Report(gpu, e, "starting", error);
  return TALARIA_CUDA_OK;
}

// Copies rows [first, first + rows) of the call between its blocks and a slot.
template <class F>
void ForRows(const talaria_cuda_rows* blocks, size_t first, size_t rows, F copy) {
  size_t skipped = 0;  // rows of the blocks before
  for (size_t done = 0; done < rows; ++blocks) {
    const size_t begin = first + done - skipped;
    if (begin < blocks->rows) {
      const size_t now = std::min(blocks->rows - begin, rows - done);
      copy(*blocks, begin, now, done);
      done += now;
    }
    skipped += blocks->rows;
  }
}

// Waits for a slot's rows and hands them out.
int Finish(talaria_cuda_weights* w, Slot& slot, const talaria_cuda_rows* blocks,
           talaria_cuda_error* error) {
  if (slot.rows == 0) return TALARIA_CUDA_OK;
  const size_t rows = slot.rows, out_row = w->out_row();
  slot.rows = 0;
  if (const cudaError_t e = cudaStreamSynchronize(slot.stream); e != cudaSuccess)
    return Report(w->gpu, e, "a product", error);
  ForRows(blocks, slot.first_row, rows,
          [&](const talaria_cuda_rows& block, size_t begin, size_t count, size_t at) {
            std::memcpy(block.out + begin * out_row, slot.host_out + at * out_row, count * out_row);
          });
  return TALARIA_CUDA_OK;
}

int Begin(talaria_cuda_weights* w, Slot& slot, const talaria_cuda_rows* blocks, size_t first,
          size_t rows, talaria_cuda_error* error) {
  const size_t in_row = w->in_row();
  ForRows(blocks, first, rows,
          [&](const talaria_cuda_rows& block, size_t begin, size_t count, size_t at) {
            std::memcpy(slot.host_in + at * in_row, block.planes + begin * in_row, count * in_row);
          });
  cudaError_t e =
      cudaMemcpyAsync(slot.in, slot.host_in, rows * in_row, cudaMemcpyHostToDevice, slot.stream);
  if (e == cudaSuccess) {
    e = StartProduct({.weights = w->packed,
                      .planes = slot.in,
                      .out = slot.out,
                      .units = w->units,
                      .rows = static_cast<uint32_t>(rows),
                      .padded_outputs = w->padded_outputs},
                     w->gpu->properties.multiProcessorCount, slot.stream);
  }
  if (e == cudaSuccess) {
    e = cudaMemcpyAsync(slot.host_out, slot.out, rows * w->out_row(), cudaMemcpyDeviceToHost,
                        slot.stream);
  }
  if (e != cudaSuccess) return Report(w->gpu, e, "a product", error);
  slot.first_row = first;
  slot.rows = rows;
  return TALARIA_CUDA_OK;
}

// After an error nothing of the call may be under way, whatever it is.
void Drain(talaria_cuda* gpu) {
  for (Slot& slot : gpu->slots) {
    cudaStreamSynchronize(slot.stream);
    slot.rows = 0;
  }
}

}  // namespace

extern "C" {

int talaria_cuda_abi(void) { return TALARIA_CUDA_ABI; }

int talaria_cuda_count(int* count, talaria_cuda_error* error) {
  *count = 0;
  if (const cudaError_t e = cudaGetDeviceCount(count); e != cudaSuccess || *count == 0)
    return FirstError(e == cudaSuccess ? cudaErrorNoDevice : e, error);
  return TALARIA_CUDA_OK;
}

int talaria_cuda_create(int ordinal, talaria_cuda** gpu, talaria_cuda_error* error) {
  *gpu = nullptr;
  int count = 0;
  if (const int code = talaria_cuda_count(&count, error); code != TALARIA_CUDA_OK) return code;
  if (ordinal < 0 || ordinal >= count)
    return Fail(error, TALARIA_CUDA_NO_DEVICE,
                "there is no GPU %d: this machine has %d, counted from 0 (nvidia-smi -L); "
                "or use --device cpu",
                ordinal, count);
  std::unique_ptr<talaria_cuda> made(new (std::nothrow) talaria_cuda);
  if (made == nullptr) return Fail(error, TALARIA_CUDA_OUT_OF_MEMORY, "no memory");
  made->ordinal = ordinal;
  if (const int code = Prepare(made.get(), error); code != TALARIA_CUDA_OK) {
    for (Slot& slot : made->slots) FreeSlot(slot);
    return code;
  }
  *gpu = made.release();
  return TALARIA_CUDA_OK;
}

void talaria_cuda_destroy(talaria_cuda* gpu) {
  if (gpu == nullptr) return;
  while (!gpu->weights.empty()) talaria_cuda_remove_weights(*gpu->weights.begin());
  cudaSetDevice(gpu->ordinal);
  for (Slot& slot : gpu->slots) FreeSlot(slot);
  delete gpu;
}

int talaria_cuda_describe(talaria_cuda* gpu, talaria_cuda_info* info, talaria_cuda_error* error) {
  const std::lock_guard lock(gpu->mutex);
  if (const int code = Enter(gpu, error); code != TALARIA_CUDA_OK) return code;
  *info = {};
  std::snprintf(info->name, sizeof(info->name), "%s", gpu->properties.name);
  info->capability = gpu->properties.major * 10 + gpu->properties.minor;
  info->multiprocessors = gpu->properties.multiProcessorCount;
  cudaDriverGetVersion(&info->driver);
  cudaRuntimeGetVersion(&info->runtime);
  size_t free = 0, total = 0;
  if (const cudaError_t e = cudaMemGetInfo(&free, &total); e != cudaSuccess)
    return Report(gpu, e, "asking for its memory", error);
  info->memory_bytes = total;
  info->free_bytes = free;
  for (const talaria_cuda_weights* w : gpu->weights) info->weight_bytes += w->bytes();
  return TALARIA_CUDA_OK;
}

int talaria_cuda_add_weights(talaria_cuda* gpu, uint32_t d, uint32_t padded_outputs,
                             talaria_cuda_weights** weights, talaria_cuda_error* error) {
  *weights = nullptr;
  if (d == 0 || d > kMaxInputs || padded_outputs == 0 || padded_outputs % 32 != 0 ||
      padded_outputs > kMaxOutputs)
    return Fail(
        error, TALARIA_CUDA_INVALID,
        "a matrix of %u inputs and %u padded outputs (1 to 65536; a multiple of 32 up to %u)", d,
        padded_outputs, kMaxOutputs);
  const std::lock_guard lock(gpu->mutex);
  if (const int code = Enter(gpu, error); code != TALARIA_CUDA_OK) return code;
  const uint32_t units = (d + kUnitInputs - 1) / kUnitInputs;
  const size_t bytes = size_t{DeviceOutputs(padded_outputs)} * units * kUnitInputs;
  uint8_t* packed = nullptr;
  cudaError_t e = cudaMalloc(&packed, bytes);
  if (e == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    return Fail(error, TALARIA_CUDA_OUT_OF_MEMORY,
                "weights [%u, %u] need %zu MiB of GPU %d (%s), and %zu of its %zu MiB are free",
                padded_outputs, units * kUnitInputs, (bytes + 1048575) >> 20, gpu->ordinal,
                gpu->properties.name, free >> 20, total >> 20);
  }
  if (e == cudaSuccess) e = cudaMemsetAsync(packed, 0, bytes, gpu->slots[0].stream);
  if (e == cudaSuccess) e = cudaStreamSynchronize(gpu->slots[0].stream);
  if (e != cudaSuccess) {
    cudaFree(packed);
    return Report(gpu, e, "making room for weights", error);
  }
  *weights = new talaria_cuda_weights{gpu, d, padded_outputs, units, packed};
  gpu->weights.insert(*weights);
  return TALARIA_CUDA_OK;
}

void talaria_cuda_remove_weights(talaria_cuda_weights* weights) {
  if (weights == nullptr) return;
  talaria_cuda* const gpu = weights->gpu;
  const std::lock_guard lock(gpu->mutex);
  cudaSetDevice(gpu->ordinal);
  cudaFree(weights->packed);
  gpu->weights.erase(weights);
  delete weights;
}

int talaria_cuda_set_columns(talaria_cuda_weights* w, uint32_t first, uint32_t count,
                             const int8_t* columns, talaria_cuda_error* error) {
  if (first % 32 != 0 || first > w->padded_outputs || count > w->padded_outputs - first)
    return Fail(error, TALARIA_CUDA_INVALID, "columns %u + %u do not fit %u", first, count,
                w->padded_outputs);
  const std::lock_guard lock(w->gpu->mutex);
  if (const int code = Enter(w->gpu, error); code != TALARIA_CUDA_OK) return code;
  Slot& slot = w->gpu->slots[0];
  const uint32_t most = static_cast<uint32_t>(kInBytes / w->d / 32 * 32);
  for (uint32_t done = 0; done < count;) {
    const uint32_t now = std::min(most, count - done);
    const size_t bytes = size_t{now} * w->d;
    std::memcpy(slot.host_in, columns + size_t{done} * w->d, bytes);
    cudaError_t e =
        cudaMemcpyAsync(slot.in, slot.host_in, bytes, cudaMemcpyHostToDevice, slot.stream);
    if (e == cudaSuccess) {
      e = StartPacking(reinterpret_cast<const int8_t*>(slot.in), w->d, first + done, now, w->packed,
                       slot.stream);
    }
    if (e == cudaSuccess) e = cudaStreamSynchronize(slot.stream);
    if (e != cudaSuccess) return Report(w->gpu, e, "loading weights", error);
    done += now;
  }
  return TALARIA_CUDA_OK;
}

size_t talaria_cuda_max_rows(const talaria_cuda_weights* weights) {
  return kSlotsPerCall * weights->slot_rows();
}

int talaria_cuda_multiply(talaria_cuda_weights* w, const talaria_cuda_rows* blocks, size_t count,
                          talaria_cuda_error* error) {
  const size_t slot_rows = w->slot_rows(), most = kSlotsPerCall * slot_rows;
  size_t rows = 0;
  for (size_t i = 0; i < count; ++i) {
    if (blocks[i].rows == 0 || blocks[i].rows > most - rows)
      return Fail(error, TALARIA_CUDA_INVALID, "a product of no rows, or of more than %zu", most);
    rows += blocks[i].rows;
  }
  if (rows == 0) return Fail(error, TALARIA_CUDA_INVALID, "a product of no rows");
  const std::lock_guard lock(w->gpu->mutex);
  if (const int code = Enter(w->gpu, error); code != TALARIA_CUDA_OK) return code;
  Slot* const slots = w->gpu->slots;
  int code = TALARIA_CUDA_OK;
  size_t turn = 0;
  for (size_t first = 0; first < rows && code == TALARIA_CUDA_OK; first += slot_rows, ++turn) {
    Slot& slot = slots[turn % 2];
    code = Finish(w, slot, blocks, error);
    if (code == TALARIA_CUDA_OK)
      code = Begin(w, slot, blocks, first, std::min(slot_rows, rows - first), error);
  }
  for (size_t i = 0; i < 2 && code == TALARIA_CUDA_OK; ++i)
    code = Finish(w, slots[(turn + i) % 2], blocks, error);
  if (code != TALARIA_CUDA_OK) Drain(w->gpu);
  return code;
}

int talaria_cuda_measure(talaria_cuda_weights* const* weights, size_t count, uint32_t rows,
                         uint32_t repetitions, double* microseconds, talaria_cuda_error* error) {
  if (count == 0 || rows == 0 || repetitions == 0)
    return Fail(error, TALARIA_CUDA_INVALID, "nothing to measure");
  talaria_cuda* const gpu = weights[0]->gpu;
  for (size_t i = 0; i < count; ++i) {
    if (weights[i]->gpu != gpu || weights[i]->d != weights[0]->d ||
        weights[i]->padded_outputs != weights[0]->padded_outputs)
      return Fail(error, TALARIA_CUDA_INVALID, "matrices of several shapes or GPUs");
  }
  const std::lock_guard lock(gpu->mutex);
  if (const int code = Enter(gpu, error); code != TALARIA_CUDA_OK) return code;
  const cudaStream_t stream = gpu->slots[0].stream;
  const size_t in_bytes = rows * weights[0]->in_row();
  uint8_t *in = nullptr, *out = nullptr;
  cudaEvent_t start = nullptr, stop = nullptr;
  cudaError_t e = cudaMalloc(&in, in_bytes);
  if (e == cudaSuccess) e = cudaMalloc(&out, rows * weights[0]->out_row());
  if (e == cudaSuccess) e = cudaEventCreate(&start);
  if (e == cudaSuccess) e = cudaEventCreate(&stop);
  if (e == cudaSuccess) e = StartFilling(in, in_bytes, stream);
  size_t turn = 0;
  const auto multiply = [&] {
    if (e == cudaSuccess) {
      e = StartProduct({.weights = weights[turn++ % count]->packed,
                        .planes = in,
                        .out = out,
                        .units = weights[0]->units,
                        .rows = rows,
                        .padded_outputs = weights[0]->padded_outputs},
                       gpu->properties.multiProcessorCount, stream);
    }
  };
  const auto warm =
      std::chrono::steady_clock::now() + std::chrono::milliseconds(TALARIA_CUDA_WARM_MS);
  do {
    for (uint32_t i = 0; i < repetitions / 4 + 1; ++i) multiply();
    if (e == cudaSuccess) e = cudaStreamSynchronize(stream);
  } while (e == cudaSuccess && std::chrono::steady_clock::now() < warm);
  for (int i = 0; i < 3; ++i) multiply();  // so that the first one timed follows another
  if (e == cudaSuccess) e = cudaEventRecord(start, stream);
  for (uint32_t i = 0; i < repetitions; ++i) multiply();
  if (e == cudaSuccess) e = cudaEventRecord(stop, stream);
  float milliseconds = 0;
  if (e == cudaSuccess) e = cudaEventSynchronize(stop);
  if (e == cudaSuccess) e = cudaEventElapsedTime(&milliseconds, start, stop);
  if (start != nullptr) cudaEventDestroy(start);
  if (stop != nullptr) cudaEventDestroy(stop);
  cudaFree(out);
  cudaFree(in);
  if (e != cudaSuccess) return Report(gpu, e, "measuring", error);
  *microseconds = 1e3 * milliseconds / repetitions;
  return TALARIA_CUDA_OK;
}

}  // extern "C"
