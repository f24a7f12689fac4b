// Masked rows of a real CVM, as talaria-cloud-lab recorded them (doc/recording.md), with the
// answers that a cloud owes.
#ifndef TALARIA_BENCH_RECORDING_H_
#define TALARIA_BENCH_RECORDING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "talaria/base/result.h"
#include "talaria/model/store.h"

namespace talaria::bench {

struct Recording {
  struct Call {
    uint32_t group = 0;
    std::vector<uint8_t> planes;    // [rows][6][d_padded]
    std::vector<uint8_t> expected;  // [rows][o_padded] x 6
  };
  uint32_t rows = 1;  // of each call
  size_t groups = 0;
  uint64_t recorded_rows = 0;  // of all groups
  std::vector<Call> calls;     // [versions][groups], a pass over the model each

  // Calls of `rows` recorded rows each, in the order of each group's file, from its beginning again
  // where it has fewer. The answers are the oracle's (gemm::ReferenceProduct), so that a cloud's
  // mistake is not recorded as right. kCorrupt: a group without rows or with half of one; kIo.
  static Result<Recording> Read(const std::string& folder, const model::Store& store, uint32_t rows,
                                size_t versions);
};

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_RECORDING_H_
