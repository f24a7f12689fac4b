#include "talaria/ring/sampler.h"

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

namespace talaria::ring {
namespace {

AesCtrStream Stream() { return AesCtrStream(std::array<uint8_t, 32>{1, 2, 3}, 0); }

void BM_KeyStream(benchmark::State& state) {
  AesCtrStream stream = Stream();
  std::vector<uint8_t> bytes(1 << 16);
  for (auto _ : state) {
    stream.Next(bytes);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(bytes.size()));
}
BENCHMARK(BM_KeyStream);

void BM_SampleError(benchmark::State& state, Isa isa) {
  AesCtrStream stream = Stream();
  std::vector<int8_t> errors(1 << 16);
  for (auto _ : state) {
    SampleError(isa, stream, errors);
    benchmark::ClobberMemory();
  }
  state.counters["ns_per_sample"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * (1 << 16) / 1e9,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

// A whole secret: eight polynomials, and their NTT.
void BM_Secret(benchmark::State& state) {
  AesCtrStream stream = Stream();
  Polynomial s;
  for (auto _ : state) {
    for (int i = 0; i < kRank; ++i) {
      SampleTernary(stream, s);
      ForwardNtt(s);
      benchmark::DoNotOptimize(s);
    }
  }
}
BENCHMARK(BM_Secret)->Unit(benchmark::kMicrosecond);

void BM_SampleResidues(benchmark::State& state) {
  AesCtrStream stream = Stream();
  std::vector<uint64_t> residues(1 << 14);
  for (auto _ : state) {
    SampleResidues(stream, residues);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(residues.size()));
}
BENCHMARK(BM_SampleResidues);

const bool kRegistered = [] {
  for (const Isa isa : SupportedIsas()) {
    const std::string name = "SampleError/" + std::string(IsaName(isa));
    benchmark::RegisterBenchmark(name.c_str(),
                                 [=](benchmark::State& s) { BM_SampleError(s, isa); });
  }
  return true;
}();

}  // namespace
}  // namespace talaria::ring
