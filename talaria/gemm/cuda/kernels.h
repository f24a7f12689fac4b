// The kernels of the GPU's product, as functions that launch them on a stream. Internal to the
// library.
#ifndef TALARIA_GEMM_CUDA_KERNELS_H_
#define TALARIA_GEMM_CUDA_KERNELS_H_

#include <cuda_runtime.h>

#include "talaria/gemm/cuda/product_kernel.h"

namespace talaria::gemm::cuda {

// Once per GPU: the kernels may use their shared memory. cudaErrorNoKernelImageForDevice: the
// library has no code for this GPU.
cudaError_t PrepareKernels();
// Starts a product. All pointers are the GPU's and 16-byte aligned.
cudaError_t StartProduct(const ProductArgs& args, int multiprocessors, cudaStream_t stream);
// Starts the packing of columns [first, first + count), and of zeros up to the next multiple of 32,
// into `weights`. `columns` is the GPU's, int8 [count][d].
cudaError_t StartPacking(const int8_t* columns, uint32_t d, uint32_t first, uint32_t count,
                         uint8_t* weights, cudaStream_t stream);
// Fills with digits that look random. A multiple of 4 bytes.
cudaError_t StartFilling(uint8_t* to, size_t bytes, cudaStream_t stream);

}  // namespace talaria::gemm::cuda

#endif  // TALARIA_GEMM_CUDA_KERNELS_H_
