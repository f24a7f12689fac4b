#include "talaria/gemm/cuda/kernels.h"

namespace talaria::gemm::cuda {
namespace {

constexpr uint32_t kPlainThreads = 256;

// The policy of product_kernel.h in PTX (compute capability 8.0 and later). The copies and the
// waits clobber memory, so that the compiler moves no access of shared memory across them.
struct Gpu {
  // ".cg" goes through the second cache only. With a source size of 0 nothing is read, and 16 bytes
  // of zeros are written.
  __device__ __forceinline__ void CopyAsync16(uint8_t* shared, const uint8_t* from, bool exists) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
                 "l"(__cvta_generic_to_global(from)), "r"(exists ? 16 : 0)
                 : "memory");
  }
  __device__ __forceinline__ void CommitCopies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  template <uint32_t kPending>
  __device__ __forceinline__ void WaitCopies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
  }
  __device__ __forceinline__ void BlockBarrier() { __syncthreads(); }
  __device__ __forceinline__ Words LoadShared16(const uint8_t* shared) {
    const uint4 words = *reinterpret_cast<const uint4*>(shared);
    return {words.x, words.y, words.z, words.w};
  }
  __device__ __forceinline__ void Mma(int32_t (&sums)[4], const Words& a, uint32_t b0,
                                      uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(a.w[0]), "r"(a.w[1]), "r"(a.w[2]), "r"(a.w[3]), "r"(b0), "r"(b1));
  }
};

template <class S>
__global__ void __launch_bounds__(S::kThreads, 1)
    MultiplyRows(const __grid_constant__ ProductArgs args) {
  extern __shared__ __align__(16) uint8_t shared[];
  Gpu hardware;
  ProductBlock<Gpu, S>(hardware, args, shared, blockIdx.x, threadIdx.x).Run();
}

__global__ void __launch_bounds__(kPlainThreads)
    PackColumns(const int8_t* columns, uint32_t d, uint32_t first, uint32_t count, uint32_t units,
                uint64_t chunks, uint8_t* weights) {
  const uint64_t chunk = uint64_t{blockIdx.x} * kPlainThreads + threadIdx.x;
  if (chunk >= chunks) return;
  const uint32_t tile_chunks = units * 64;
  const uint32_t tile = first / kTileOutputs + static_cast<uint32_t>(chunk / tile_chunks);
  const uint32_t in_tile = static_cast<uint32_t>(chunk % tile_chunks);
  const Words words = PackedChunk(columns, d, first, count, tile, in_tile);
  uint4* const to =
      reinterpret_cast<uint4*>(weights + (uint64_t{tile} * tile_chunks + in_tile) * 16);
  *to = make_uint4(words.w[0], words.w[1], words.w[2], words.w[3]);
}

__global__ void __launch_bounds__(kPlainThreads) FillDigits(uint32_t* to, uint64_t words) {
  const uint64_t i = uint64_t{blockIdx.x} * kPlainThreads + threadIdx.x;
  if (i >= words) return;
  uint64_t z = (i + 1) * 0x9e3779b97f4a7c15u;  // SplitMix64
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  to[i] = static_cast<uint32_t>(z >> 27);
}

uint32_t PlainBlocks(uint64_t threads) {
  return static_cast<uint32_t>((threads + kPlainThreads - 1) / kPlainThreads);
}

template <class S>
cudaError_t Prepare() {
  return cudaFuncSetAttribute(MultiplyRows<S>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              S::kSharedBytes);
}

template <class S>
cudaError_t Start(const ProductArgs& args, cudaStream_t stream) {
  const uint64_t blocks = Blocks<S>(args.rows, args.padded_outputs);
  if (blocks == 0 || blocks > 0x7fffffffu) return cudaErrorInvalidConfiguration;
  if (uint64_t{args.rows} * args.units * (kPlaneCount * kUnitInputs) > kMostPlaneBytes)
    return cudaErrorInvalidValue;
  MultiplyRows<S><<<static_cast<uint32_t>(blocks), S::kThreads, S::kSharedBytes, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace

cudaError_t PrepareKernels() {
  if (const cudaError_t e = Prepare<FewRows>(); e != cudaSuccess) return e;
  if (const cudaError_t e = Prepare<SomeRows>(); e != cudaSuccess) return e;
  return Prepare<ManyRows>();
}

cudaError_t StartProduct(const ProductArgs& args, int multiprocessors, cudaStream_t stream) {
  switch (ChooseShape(args.rows, args.padded_outputs, multiprocessors)) {
    case ShapeChoice::kFewRows:
      return Start<FewRows>(args, stream);
    case ShapeChoice::kSomeRows:
      return Start<SomeRows>(args, stream);
    case ShapeChoice::kManyRows:
      return Start<ManyRows>(args, stream);
  }
  return cudaErrorInvalidValue;
}

cudaError_t StartPacking(const int8_t* columns, uint32_t d, uint32_t first, uint32_t count,
                         uint8_t* weights, cudaStream_t stream) {
  const uint32_t units = (d + kUnitInputs - 1) / kUnitInputs;
  const uint64_t chunks = uint64_t{(count + 31) / 32 * 2} * units * 64;
  PackColumns<<<PlainBlocks(chunks), kPlainThreads, 0, stream>>>(columns, d, first, count, units,
                                                                 chunks, weights);
  return cudaGetLastError();
}

cudaError_t StartFilling(uint8_t* to, size_t bytes, cudaStream_t stream) {
  FillDigits<<<PlainBlocks(bytes / 4), kPlainThreads, 0, stream>>>(reinterpret_cast<uint32_t*>(to),
                                                                   bytes / 4);
  return cudaGetLastError();
}

}  // namespace talaria::gemm::cuda
