// The int8 product of the best library here, oneDNN, to hold ours against. The library is looked
// for at build time, and only benchmarks link it.
#ifndef TALARIA_BENCH_LIBRARY_PRODUCT_H_
#define TALARIA_BENCH_LIBRARY_PRODUCT_H_

#include <cstddef>
#include <string>

#include "bench/time_calls.h"
#include "talaria/base/result.h"

namespace talaria::bench {

struct LibraryProduct {
  Call call;         // one thread, other weights at every call
  std::string name;  // library, version and the implementation that it chose
};

// u8 [rows][d] times int8 [d x o] to int32, weights already in the layout that the library likes
// best, in copies of `cold_bytes` together. kUnsupported: not found at build time. kInternal: sums
// that are wrong. kUnavailable: the library's own error.
Result<LibraryProduct> PrepareLibraryProduct(size_t d, size_t o, size_t rows, size_t cold_bytes);

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_LIBRARY_PRODUCT_H_
