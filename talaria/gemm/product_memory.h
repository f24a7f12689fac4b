// Memory for packed weights: huge pages, shared by many matrices. Internal to talaria/gemm.
#ifndef TALARIA_GEMM_PRODUCT_MEMORY_H_
#define TALARIA_GEMM_PRODUCT_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>

namespace talaria::gemm {

// Zeroed, 64-byte aligned, freed with its last owner; null when memory is short. Pieces are cut one
// after the other from regions of at least 32 MB, because a small model's matrices (0.3 to 2 MB)
// would each fill a huge page badly. A region goes back to the system when the last of its pieces
// dies. Thread-safe.
std::shared_ptr<int8_t> AllocateWeights(size_t bytes);

}  // namespace talaria::gemm

#endif  // TALARIA_GEMM_PRODUCT_MEMORY_H_
