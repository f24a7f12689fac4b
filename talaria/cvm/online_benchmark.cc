// Nanoseconds per element of what happens to a row online: one thread, the pool row in cache
// (argument 0) or pools in memory that are wiped as they are read (argument 1). Every configuration
// is compared with the portable path before it is timed.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "talaria/cvm/certificate.h"
#include "talaria/cvm/online.h"
#include "talaria/ring/layout.h"

namespace talaria::cvm {
namespace {

constexpr int kDeltaLog2 = 18;
constexpr size_t kMemoryBytes = size_t{160} << 20;  // beyond the caches

struct Pools {
  size_t columns, pool_bytes, count;
  uint8_t* base;
  Pools(size_t columns_of_row, bool in_memory)
      : columns(columns_of_row),
        pool_bytes(ring::RowPanelsBytes(columns_of_row)),
        count(in_memory ? std::max<size_t>(2, kMemoryBytes / pool_bytes) : 1) {
    base = static_cast<uint8_t*>(
        mmap(nullptr, Size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    madvise(base, Size(), MADV_HUGEPAGE);
    std::memset(base, 1, Size());  // canonical residues
  }
  ~Pools() { munmap(base, Size()); }
  Pools(const Pools&) = delete;
  Pools& operator=(const Pools&) = delete;
  size_t Size() const { return pool_bytes * count + ring::kSlack; }
  // Rows of different pools one after another, as the layers of a model take them.
  uint8_t* Row(size_t turn) const {
    return base + turn % count * pool_bytes + turn / count % ring::kDegree * ring::kPanelRowBytes;
  }
};

struct Inputs {
  std::vector<float> x, scales, out;
  std::vector<uint64_t> u;
  std::vector<uint8_t> planes, residues;
  explicit Inputs(size_t n) : x(n), scales(n, 1e-3f), out(n), u(n), planes(6 * n), residues(6 * n) {
    std::mt19937_64 random(1);
    for (float& value : x)
      value = static_cast<float>(static_cast<int>(random() % 65535) - 32767) * 0.01f;
    for (uint64_t& value : u) value = random() % ring::kQ;
    for (size_t i = 0; i < n; ++i) ring::StoreResidue(&residues[6 * i], random() % ring::kQ);
  }
};

void Report(benchmark::State& state, size_t n) {
  state.counters["ns_per_element"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * static_cast<double>(n) * 1e-9,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

MaskedRow MaskOnce(Isa isa, Inputs& in, uint8_t* mask, bool wipe, size_t vectors) {
  const uint64_t* u[] = {in.u.data(), in.u.data()};
  return MaskRow(isa, in.x.data(), in.x.size(), in.x.size(), 0xffffffff, 100.0f, kDeltaLog2, mask,
                 ring::kPanelBytes, wipe, u, vectors, in.planes.data());
}

void Norms(benchmark::State& state, Isa isa, size_t n) {
  Inputs in(n);
  for (auto _ : state) benchmark::DoNotOptimize(NormsOf(isa, in.x.data(), n));
  Report(state, n);
}

void Mask(benchmark::State& state, Isa isa, size_t n, bool in_memory, size_t vectors) {
  Inputs in(n);
  const Pools pools(n, in_memory);
  const MaskedRow want = MaskOnce(Isa::kPortable, in, pools.Row(0), false, vectors);
  const std::vector<uint8_t> planes = in.planes;
  if (MaskOnce(isa, in, pools.Row(0), false, vectors).dot != want.dot || in.planes != planes)
    state.SkipWithError("differs");
  size_t turn = 0;
  for (auto _ : state)
    benchmark::DoNotOptimize(MaskOnce(isa, in, pools.Row(turn++), in_memory, vectors));
  Report(state, n);
}

void Check(benchmark::State& state, Isa isa, size_t n, size_t vectors) {
  Inputs in(n);
  const uint64_t* v[] = {in.u.data(), in.u.data()};
  const CheckedRow want = CheckRow(Isa::kPortable, in.residues.data(), n, v, vectors);
  if (CheckRow(isa, in.residues.data(), n, v, vectors).dot != want.dot)
    state.SkipWithError("differs");
  for (auto _ : state) benchmark::DoNotOptimize(CheckRow(isa, in.residues.data(), n, v, vectors));
  Report(state, n);
}

void UnmaskOnce(Isa isa, Inputs& in, uint8_t* unmask, bool wipe) {
  UnmaskRow(isa, in.residues.data(), in.out.size(), unmask, ring::kPanelBytes, wipe, kDeltaLog2,
            0.01f, in.scales.data(), in.out.data());
}

void Unmask(benchmark::State& state, Isa isa, size_t n, bool in_memory) {
  Inputs in(n);
  const Pools pools(n, in_memory);
  UnmaskOnce(Isa::kPortable, in, pools.Row(0), false);
  const std::vector<float> want = in.out;
  UnmaskOnce(isa, in, pools.Row(0), false);
  if (in.out != want) state.SkipWithError("differs");
  size_t turn = 0;
  for (auto _ : state) {
    UnmaskOnce(isa, in, pools.Row(turn++), in_memory);
    benchmark::DoNotOptimize(in.out.data());
  }
  Report(state, n);
}

void Scale(benchmark::State& state) {
  const Certificate certificate = *Certificate::Compute({127, 576 * 40, 576 * 2000}, 576);
  RowNorms norms{3.5, 700, 1100, 0xffffffff};
  for (auto _ : state) {
    benchmark::DoNotOptimize(norms);
    benchmark::DoNotOptimize(certificate.ScaleFor(norms));
  }
}
BENCHMARK(Scale);

void Weights(benchmark::State& state) {
  std::vector<int8_t> weights(576 * 16384, 77);
  for (auto _ : state) {
    WeightNorms norms;
    benchmark::DoNotOptimize(norms.Add(weights, 576).ok());
  }
  Report(state, weights.size());
}
BENCHMARK(Weights);

const bool kRegistered = [] {
  for (const Isa isa : SupportedIsas()) {
    const std::string suffix = "/" + std::string(IsaName(isa)) + "/";
    for (const size_t n : {576, 4096}) {
      const std::string size = suffix + std::to_string(n);
      benchmark::RegisterBenchmark(("Norms" + size).c_str(), Norms, isa, n);
      benchmark::RegisterBenchmark(("MaskWithoutDot/in_cache" + size).c_str(), Mask, isa, n, false,
                                   size_t{0});
      benchmark::RegisterBenchmark(("Mask/in_cache" + size).c_str(), Mask, isa, n, false,
                                   size_t{2});
      benchmark::RegisterBenchmark(("Mask/memory_wiped" + size).c_str(), Mask, isa, n, true,
                                   size_t{2});
      benchmark::RegisterBenchmark(("Check/one_vector" + size).c_str(), Check, isa, n, size_t{1});
      benchmark::RegisterBenchmark(("Check/two_vectors" + size).c_str(), Check, isa, n, size_t{2});
      benchmark::RegisterBenchmark(("Unmask/in_cache" + size).c_str(), Unmask, isa, n, false);
      benchmark::RegisterBenchmark(("Unmask/memory_wiped" + size).c_str(), Unmask, isa, n, true);
    }
  }
  return true;
}();

}  // namespace
}  // namespace talaria::cvm
