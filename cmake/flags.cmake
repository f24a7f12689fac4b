# The one list of compiler and linker flags. Nothing else in the tree sets any, except a kernel file that names its
# instruction set with talaria_kernel_flags (cmake/helpers.cmake).
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g1")

add_library(talaria_flags INTERFACE)
# -ffp-contract=off: sigma and the unmasked result must be the same bits on every path (doc/masking.md).
target_compile_options(talaria_flags INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor -Woverloaded-virtual -Wundef -Wno-ignored-attributes
  -ffp-contract=off -fno-omit-frame-pointer -fstack-protector-strong)
target_include_directories(talaria_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_link_options(talaria_flags INTERFACE -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed)
if(TALARIA_SANITIZE)
  target_compile_options(talaria_flags INTERFACE -fsanitize=${TALARIA_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(talaria_flags INTERFACE -fsanitize=${TALARIA_SANITIZE})
elseif(CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
  target_compile_options(talaria_flags INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -D_GLIBCXX_ASSERTIONS)
endif()
if(TALARIA_SIMULATED_TEE)
  target_compile_definitions(talaria_flags INTERFACE TALARIA_SIMULATED_TEE=1)
  set(TALARIA_SIMULATED_LIBRARY talaria_attest_simulated) # of the few who may link it; empty otherwise
endif()

# The GPU's library: compute capability 8.0 is the oldest with the instructions it uses; 80-virtual is code that the driver
# compiles for what came after the last of these.
if(TALARIA_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90-real 100-real 120-real 80-virtual)
  endif()
  set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
  set(CMAKE_CUDA_FLAGS_RELWITHDEBINFO "-O3")
  set(CMAKE_CUDA_FLAGS_DEBUG "-O3")
  add_library(talaria_cuda_flags INTERFACE)
  target_compile_options(talaria_cuda_flags INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -fstack-protector-strong> $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>)
  target_include_directories(talaria_cuda_flags INTERFACE ${CMAKE_SOURCE_DIR})
  target_link_options(talaria_cuda_flags INTERFACE -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed -static-libgcc -static-libstdc++)
endif()
