// Where the cloud's products are computed: the processor, a GPU, or several. A device keeps the
// weights of groups resident and multiplies masked rows by them, exactly, mod q: shapes and byte
// layouts are those of product.h.
//
//   CreateDevice ─▶ SelfTestDevice ─▶ CreateWeights, SetColumns (start) ─▶ Multiply ... (serving)
//
// Threads: SetColumns may be called from several threads at once on disjoint columns. Multiply is
// called from any thread, but by one at a time over all weights of a device; the caller sees to it,
// so a device may keep one stream, one staging buffer and one scratch. (A CUDA device therefore
// makes its context current in every call.)
#ifndef TALARIA_GEMM_DEVICE_H_
#define TALARIA_GEMM_DEVICE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/cpu.h"
#include "talaria/base/result.h"

namespace talaria::gemm {

// The rows of one request, in its own buffers: a product may take rows of several requests, and
// gathers and scatters itself, so that nobody copies twice.
struct RowBlock {
  Bytes planes;      // [rows][6][padded_inputs]
  size_t rows = 0;   // >= 1
  MutableBytes out;  // [rows][padded_outputs] x 6 bytes; not aligned; every byte is written
};

// The weights of one group [padded_outputs][d], resident on a device. They die before it.
class DeviceWeights {
 public:
  virtual ~DeviceWeights() = default;
  // As PackedWeights::SetColumns: columns [first, first + weights.size() / d) from column-major
  // int8 [outputs][d]. first is a multiple of 32; the rest of the last 32 columns touched becomes
  // zero, and so are columns that nobody sets. The span may die when the call returns. kCorrupt
  // for a weight of -128, kInvalidArgument for half a column or columns out of range,
  // kResourceExhausted, kUnavailable. Never after the first Multiply.
  virtual Status SetColumns(size_t first, std::span<const int8_t> weights) = 0;
  // The most rows of one Multiply, all blocks together; >= 1, fixed. Other connections wait for
  // that long, so it is a few (at most some tens of) milliseconds of work, and what the device has
  // scratch memory for; not less than what keeps it busy.
  virtual size_t max_rows() const = 0;
  // Y = X * W mod q for every block; returns when all `out` are written and nothing of the call is
  // under way. At least one block, 1 to max_rows() rows together; buffers of another size are our
  // own bug. Never a wrong product: what is not certain is an error, and then nobody reads `out`.
  //   kResourceExhausted: no memory for this call. The device lives; a smaller call may succeed.
  //   kUnavailable: the device is lost. Every later call says so too.
  virtual Status Multiply(std::span<const RowBlock> blocks) = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  // For logs: "cpu (avx512, 16 threads)", "cuda:0 (NVIDIA H200, 139 GiB)".
  virtual std::string name() const = 0;
  // For logs: what is where now. Of several GPUs one each.
  struct Memory {
    std::string device;  // "cpu", "cuda:0"
    uint64_t weight_bytes = 0;
    std::optional<uint64_t> free_bytes;  // of its memory; none if it does not say
  };
  virtual std::vector<Memory> memory() const = 0;
  // Room for a group, all zero. kInvalidArgument for shapes that product.h does not allow;
  // kResourceExhausted when the device's memory is short: the message says how much was asked for
  // and how much there is; kUnavailable.
  virtual Result<std::unique_ptr<DeviceWeights>> CreateWeights(size_t d, size_t padded_outputs) = 0;
};

// What the operator wants, as `talaria-cloud serve --device` has it.
struct DeviceSpec {
  enum class Kind {
    kAuto,  // all GPUs that can be used, else the processor; the log says which, and why
    kCpu,
    kCuda,
  } kind = Kind::kCpu;
  std::vector<int> gpus = {0};  // of kCuda, as CUDA counts them; empty: all that there are
  int threads = 2;              // of the processor's products, the caller's included; >= 1
  Isa isa = Isa::kPortable;     // of the processor: an upper bound; the self-test decides

  // "auto", "cpu", "cuda" (the first GPU), "cuda:1", "cuda:0,1" or "cuda:all" into kind and gpus.
  // kInvalidArgument.
  static Result<DeviceSpec> Parse(const std::string& text);
};

// A device that has passed SelfTestDevice. kUnavailable: there is no such device, or its library is
// not installed, and the message names the way out; kUnsupported: its products are wrong, or it is
// too old. With kAuto neither: GPUs that cannot be used are left out, and without any it falls back
// to the processor.
Result<std::unique_ptr<Device>> CreateDevice(const DeviceSpec& spec);

// Multiplies on fixed shapes, the largest sums that exist and several blocks in one call among
// them, and compares with ReferenceProduct. kUnsupported for a device that disagrees: nothing may
// be served with it. Or the device's own error. Its weights are freed again. Takes some 30 ms.
Status SelfTestDevice(Device& device);

// The processor's: PackedWeights and a ThreadTeam.
std::unique_ptr<Device> CreateCpuDevice(int threads, Isa isa);

// A GPU's, through the library libtalaria-cuda.so, which is looked for beside the program and
// loaded only here (device_cuda.cc). kUnavailable: no library, no driver or no such GPU;
// kUnsupported: a library of another version, or a GPU that is too old.
Result<std::unique_ptr<Device>> CreateCudaDevice(int ordinal);
// How many GPUs there are; >= 1. Errors as above.
Result<int> CountCudaDevices();

// One device of several (at least one): every matrix's outputs are cut into even slices, one a
// device, rows go to all, and the products run at the same time. The bits are those of one device.
// One that is lost is all lost; its message names it.
std::unique_ptr<Device> CreateSplitDevice(std::vector<std::unique_ptr<Device>> parts);

}  // namespace talaria::gemm

#endif  // TALARIA_GEMM_DEVICE_H_
