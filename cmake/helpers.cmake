# talaria_library(name SOURCES ... DEPS ...): a static library target talaria_<name>.
function(talaria_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(talaria_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(talaria_${name} PUBLIC talaria_flags ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
endfunction()

# talaria_unoptimised(file.cc ...): with a sanitizer, a file full of others' templates (Asio, Beast, JSON, CLI11, GoogleTest) is
# compiled with -O0, in half the time. Nothing in it is hot, and the sanitizer sees more of it rather than less.
function(talaria_unoptimised)
  if(TALARIA_SANITIZE)
    set_source_files_properties(${ARGN} PROPERTIES COMPILE_OPTIONS -O0)
  endif()
endfunction()

# talaria_program(name SOURCES ... DEPS ...): build/<preset>/bin/<name>.
function(talaria_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  talaria_unoptimised(${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE talaria_flags ${ARG_DEPS})
endfunction()

# What the tests labelled `fast` need: all that a sanitizer's build has to build (scripts/test).
if(TALARIA_BUILD_TESTS)
  add_custom_target(fast_tests)
endif()

# talaria_test(file_test.cc [LABEL fast|slow] [TIMEOUT s] [SINGLE_THREADED] [UNSANITIZED] DEPS ...): one GoogleTest program, one ctest entry.
# SINGLE_THREADED: parsers, verification and kernels. Nothing in the program starts a thread (tests/single_threaded_test.py
# looks at what it links), so there is no race to find: it is not built for the thread sanitizer, for the others it is.
# UNSANITIZED: loads the plug-in into a program without sanitizers, which cannot load a sanitized one.
function(talaria_test source)
  if(NOT TALARIA_BUILD_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "SINGLE_THREADED;UNSANITIZED" "LABEL;TIMEOUT" "DEPS;ARGS;EXTRA_SOURCES" ${ARGN})
  if(NOT ARG_LABEL)
    set(ARG_LABEL fast)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  set_property(GLOBAL APPEND PROPERTY TALARIA_TEST_SOURCES ${CMAKE_CURRENT_SOURCE_DIR}/${source})
  if((ARG_SINGLE_THREADED AND TALARIA_SANITIZE STREQUAL "thread") OR (ARG_UNSANITIZED AND TALARIA_SANITIZE))
    return()
  endif()
  cmake_path(GET source STEM stem)
  file(RELATIVE_PATH dir ${CMAKE_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  string(REGEX REPLACE "^talaria/" "" dir ${dir})
  string(REPLACE "/" "_" prefix ${dir})
  set(target ${prefix}_${stem})
  add_executable(${target} ${source} ${ARG_EXTRA_SOURCES})
  talaria_unoptimised(${source})
  target_link_libraries(${target} PRIVATE talaria_flags ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${target} COMMAND ${target} ${ARG_ARGS})
  set_tests_properties(${target} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT}
    ENVIRONMENT "TALARIA_TESTDATA=${CMAKE_SOURCE_DIR}/testdata;TALARIA_BUILD_DIR=${CMAKE_BINARY_DIR};TALARIA_LLAMA_DIR=${TALARIA_LLAMA_DIR}")
  if(ARG_LABEL STREQUAL "fast")
    add_dependencies(fast_tests ${target})
  endif()
  if(ARG_SINGLE_THREADED)
    set_property(GLOBAL APPEND PROPERTY TALARIA_SINGLE_THREADED_TESTS ${CMAKE_BINARY_DIR}/tests/${target})
  endif()
endfunction()

# talaria_benchmark(file_benchmark.cc DEPS ...): one Google Benchmark program in build/<preset>/benchmarks.
function(talaria_benchmark source)
  if(NOT TALARIA_BUILD_BENCHMARKS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  cmake_path(GET source STEM stem)
  file(RELATIVE_PATH dir ${CMAKE_SOURCE_DIR}/talaria ${CMAKE_CURRENT_SOURCE_DIR})
  string(REPLACE "/" "_" prefix ${dir})
  set(target ${prefix}_${stem})
  add_executable(${target} ${source})
  target_link_libraries(${target} PRIVATE talaria_flags ${ARG_DEPS} benchmark::benchmark benchmark::benchmark_main)
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/benchmarks)
endfunction()

# talaria_kernel_flags(file.cc -mavx2 ...): a kernel file, always optimised, and the only place with an -m flag.
function(talaria_kernel_flags source)
  set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "-O3;${ARGN}")
endfunction()

# A *_test.cc that nobody registered is an error, not a test that silently never runs.
function(talaria_check_all_tests_registered)
  if(NOT TALARIA_BUILD_TESTS)
    return()
  endif()
  file(GLOB_RECURSE found CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/talaria/*_test.cc ${CMAKE_SOURCE_DIR}/apps/*_test.cc
       ${CMAKE_SOURCE_DIR}/bench/*_test.cc ${CMAKE_SOURCE_DIR}/fuzz/*_test.cc ${CMAKE_SOURCE_DIR}/tests/*_test.cc)
  get_property(known GLOBAL PROPERTY TALARIA_TEST_SOURCES)
  foreach(file ${found})
    if(NOT file IN_LIST known)
      message(FATAL_ERROR "${file} is not registered with talaria_test()")
    endif()
  endforeach()
endfunction()
