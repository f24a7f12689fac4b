# Every third-party library, with the reason in doc/dependencies.md.
find_package(Threads REQUIRED)
find_package(OpenSSL 3.0 REQUIRED COMPONENTS Crypto SSL)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(CLI11 REQUIRED)
find_package(Boost 1.74 REQUIRED) # headers only: Asio and Beast
find_path(TOMLPLUSPLUS_INCLUDE_DIR toml++/toml.h REQUIRED)
find_library(SECCOMP_LIBRARY seccomp REQUIRED)

# llama.cpp is built once, outside this tree, by scripts/setup (cmake/pins.sh holds its version and hash).
set(TALARIA_LLAMA_DIR "" CACHE PATH "llama.cpp as scripts/setup built it: include/, lib/ and bin/")
if(NOT TALARIA_LLAMA_DIR)
  execute_process(COMMAND ${CMAKE_SOURCE_DIR}/scripts/setup --print-llama-dir OUTPUT_VARIABLE TALARIA_LLAMA_DIR_DEFAULT
                  OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(TALARIA_LLAMA_DIR ${TALARIA_LLAMA_DIR_DEFAULT})  # not cached: it follows scripts/setup
endif()
if(NOT EXISTS ${TALARIA_LLAMA_DIR}/include/ggml-backend-impl.h)
  message(FATAL_ERROR "llama.cpp was not found in '${TALARIA_LLAMA_DIR}'. Run ./scripts/setup first: it builds the pinned version.")
endif()
foreach(lib ggml-base ggml llama)
  add_library(llamacpp_${lib} SHARED IMPORTED)
  set_target_properties(llamacpp_${lib} PROPERTIES IMPORTED_LOCATION ${TALARIA_LLAMA_DIR}/lib/lib${lib}.so
    IMPORTED_LINK_DEPENDENT_LIBRARIES "" INTERFACE_INCLUDE_DIRECTORIES ${TALARIA_LLAMA_DIR}/include)
endforeach()
target_link_libraries(llamacpp_ggml INTERFACE llamacpp_ggml-base)
target_link_libraries(llamacpp_llama INTERFACE llamacpp_ggml)

if(TALARIA_BUILD_TESTS)
  find_package(GTest REQUIRED)
  find_path(RAPIDCHECK_INCLUDE_DIR rapidcheck.h REQUIRED)
  find_library(RAPIDCHECK_LIBRARY rapidcheck REQUIRED)
endif()
if(TALARIA_BUILD_BENCHMARKS)
  find_package(benchmark REQUIRED)
  # Optional. Not by its CMake package: Debian's asks for OpenCL's headers, which nothing here needs.
  find_path(ONEDNN_INCLUDE_DIR dnnl.hpp)
  find_library(ONEDNN_LIBRARY dnnl)
  find_package(OpenMP) # whose runtime library sets oneDNN's number of threads
endif()

if(TALARIA_CUDA)
  enable_language(CUDA)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20) # nvcc knows it since 12.0, CMake 3.25 does not know that
  find_package(CUDAToolkit 12.8 REQUIRED)
endif()
