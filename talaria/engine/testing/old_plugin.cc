// A ggml backend of another API version, which llama.cpp does not load and goes on without.
#include <ggml-backend-impl.h>

extern "C" __attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init(void) {
  static ggml_backend_reg reg{};
  reg.api_version = GGML_BACKEND_API_VERSION - 1;
  return &reg;
}
