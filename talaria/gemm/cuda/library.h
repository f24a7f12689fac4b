// libtalaria-cuda.so, loaded into this program: the functions of talaria_cuda.h.
#ifndef TALARIA_GEMM_CUDA_LIBRARY_H_
#define TALARIA_GEMM_CUDA_LIBRARY_H_

#include <string>

#include "talaria/base/result.h"
#include "talaria/gemm/cuda/talaria_cuda.h"

namespace talaria::gemm::cuda {

struct Library {
  decltype(&talaria_cuda_abi) abi;
  decltype(&talaria_cuda_count) count;
  decltype(&talaria_cuda_create) create;
  decltype(&talaria_cuda_destroy) destroy;
  decltype(&talaria_cuda_describe) describe;
  decltype(&talaria_cuda_add_weights) add_weights;
  decltype(&talaria_cuda_remove_weights) remove_weights;
  decltype(&talaria_cuda_set_columns) set_columns;
  decltype(&talaria_cuda_max_rows) max_rows;
  decltype(&talaria_cuda_multiply) multiply;
  decltype(&talaria_cuda_measure) measure;

  // It is never unloaded: the driver has threads of its own. kUnavailable: it cannot be loaded;
  // kUnsupported: it is of another version than this program.
  static Result<Library> Load(const std::string& path);
};

// What a function of the library returned.
Status ToStatus(int code, const talaria_cuda_error& error);

}  // namespace talaria::gemm::cuda

#endif  // TALARIA_GEMM_CUDA_LIBRARY_H_
