// Preloaded into llama.cpp's test-llama-archs, which makes small models of most architectures but,
// in a build with dynamic back ends, loads none itself: loads the one named by
// TALARIA_TEST_CPU_BACKEND before main().
#include <cstdlib>

#include "ggml-backend.h"

namespace {
struct Loader {
  Loader() {
    if (const char* path = std::getenv("TALARIA_TEST_CPU_BACKEND")) ggml_backend_load(path);
  }
};
const Loader loader;
}  // namespace
