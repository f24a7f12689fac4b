// The entry point of libFuzzer for the target that CMake names.
#include <cstddef>
#include <cstdint>

#include "fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  talaria::fuzz::TALARIA_FUZZ_ENTRY({data, size});
  return 0;
}
