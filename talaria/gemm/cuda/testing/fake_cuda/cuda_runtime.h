// The few functions of the CUDA runtime that talaria_cuda.cc calls, on the CPU (fake_cuda.cc): so
// that its staging, its errors and everything above it are tested where there is no GPU. Streams
// run late: what was asked for happens when somebody waits for the stream, so that a buffer used
// again too early shows. $TALARIA_FAKE_CUDA, a list with commas, makes it fail:
//   no-driver, old-driver, no-gpu, old-gpu, no-code   at the start
//   memory=N                                           the GPU has N MiB
//   lost=N                                             the Nth wait for a stream fails, and all
//                                                      later calls
//   hang                                               no wait for a stream ever ends
//   wrong                                              products have one wrong bit
//   gpus=N                                             there are N GPUs
//   only=N                                             old-gpu, no-code, memory, lost, hang and
//                                                      wrong are GPU N's alone
#ifndef TALARIA_GEMM_CUDA_TESTING_FAKE_CUDA_CUDA_RUNTIME_H_
#define TALARIA_GEMM_CUDA_TESTING_FAKE_CUDA_CUDA_RUNTIME_H_

#include <cstddef>
#include <cstdint>

enum cudaError_t {
  cudaSuccess,
  cudaErrorInvalidValue,
  cudaErrorMemoryAllocation,
  cudaErrorInsufficientDriver,
  cudaErrorNoDevice,
  cudaErrorNoKernelImageForDevice,
  cudaErrorInvalidDeviceFunction,
  cudaErrorUnsupportedPtxVersion,
  cudaErrorInvalidPtx,
  cudaErrorIllegalAddress,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount;
};
struct FakeStream;
using cudaStream_t = FakeStream*;
struct FakeEvent;
using cudaEvent_t = FakeEvent*;
constexpr unsigned cudaStreamNonBlocking = 1;

// What all GPUs were asked for since the start. A test finds the function in the library.
struct FakeCudaCounts {
  uint64_t copies_in, copies_out, kernels, waits;
};
extern "C" __attribute__((visibility("default"))) void talaria_fake_cuda_counts(
    FakeCudaCounts* counts);

const char* cudaGetErrorString(cudaError_t error);
const char* cudaGetErrorName(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int ordinal);
cudaError_t cudaSetDevice(int ordinal);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t FakeMalloc(void** to, size_t bytes, bool of_gpu);
template <class T>
cudaError_t cudaMalloc(T** to, size_t bytes) {
  return FakeMalloc(reinterpret_cast<void**>(to), bytes, true);
}
template <class T>
cudaError_t cudaMallocHost(T** to, size_t bytes) {
  return FakeMalloc(reinterpret_cast<void**>(to), bytes, false);
}
cudaError_t cudaFree(void* memory);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t stop);
cudaError_t cudaEventDestroy(cudaEvent_t event);

#endif  // TALARIA_GEMM_CUDA_TESTING_FAKE_CUDA_CUDA_RUNTIME_H_
