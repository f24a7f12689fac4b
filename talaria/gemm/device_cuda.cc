#include "talaria/gemm/device.h"

namespace talaria::gemm {

Result<std::unique_ptr<Device>> CreateCudaDevice(int /*ordinal*/) {
  return Status(Code::kUnavailable, "this build has no GPU support; use --device cpu");
}

}  // namespace talaria::gemm
