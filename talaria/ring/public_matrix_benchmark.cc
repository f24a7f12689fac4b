#include "talaria/ring/public_matrix.h"

#include <benchmark/benchmark.h>

#include <vector>

namespace talaria::ring {
namespace {

void BM_ExpandPublicMatrix(benchmark::State& state) {
  constexpr uint32_t kColumns = 576;
  std::vector<uint8_t> matrix(ModuleMatrixBytes(kColumns));
  for (auto _ : state) {
    ExpandPublicMatrix(Digest{1}, 0, kColumns, matrix);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(matrix.size()));
}
BENCHMARK(BM_ExpandPublicMatrix)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace talaria::ring
