#include "talaria/gemm/cuda/library.h"

#include <dlfcn.h>

namespace talaria::gemm::cuda {
namespace {

template <class F>
bool Find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  return function != nullptr;
}

}  // namespace

Result<Library> Library::Load(const std::string& path) {
  void* const so = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (so == nullptr) {
    const char* why = dlerror();
    return Status(Code::kUnavailable, "the library for GPUs cannot be loaded: " +
                                          std::string(why == nullptr ? path : why) +
                                          "; or use --device cpu");
  }
  Library l{};
  if (!Find(so, "talaria_cuda_abi", l.abi) || l.abi() != TALARIA_CUDA_ABI ||
      !Find(so, "talaria_cuda_count", l.count) || !Find(so, "talaria_cuda_create", l.create) ||
      !Find(so, "talaria_cuda_destroy", l.destroy) ||
      !Find(so, "talaria_cuda_describe", l.describe) ||
      !Find(so, "talaria_cuda_add_weights", l.add_weights) ||
      !Find(so, "talaria_cuda_remove_weights", l.remove_weights) ||
      !Find(so, "talaria_cuda_set_columns", l.set_columns) ||
      !Find(so, "talaria_cuda_max_rows", l.max_rows) ||
      !Find(so, "talaria_cuda_multiply", l.multiply) ||
      !Find(so, "talaria_cuda_measure", l.measure)) {
    return Status(Code::kUnsupported, path + " is of another version than this program (" +
                                          std::to_string(TALARIA_CUDA_ABI) +
                                          "): install both from one build");
  }
  return l;
}

Status ToStatus(int code, const talaria_cuda_error& error) {
  switch (code) {
    case TALARIA_CUDA_OK:
      return OkStatus();
    case TALARIA_CUDA_NO_DRIVER:
    case TALARIA_CUDA_NO_DEVICE:
    case TALARIA_CUDA_LOST:
      return {Code::kUnavailable, error.text};
    case TALARIA_CUDA_UNSUPPORTED:
      return {Code::kUnsupported, error.text};
    case TALARIA_CUDA_OUT_OF_MEMORY:
      return {Code::kResourceExhausted, error.text};
    case TALARIA_CUDA_INVALID:
      return {Code::kInvalidArgument, error.text};
  }
  return {Code::kInternal, "the library for GPUs returned an error that it does not have"};
}

}  // namespace talaria::gemm::cuda
