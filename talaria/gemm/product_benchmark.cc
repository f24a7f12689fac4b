// The product on SmolLM2-135M's shapes and on one of an 8B model, weights cold: calls rotate over
// more than 200 MB of copies. Beside it, reading the same weights once from memory, which is what
// one row is bound by.
//   GMAC/s counts six-plane products (48-bit values are six u8 digits), so that it compares with
//   the processor's int8 peak; GB/s counts weights.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>

#include "talaria/gemm/product_memory.h"
#include "talaria/gemm/product_testing.h"

namespace talaria::gemm {
namespace {

constexpr size_t kColdBytes = size_t{208} << 20;

struct Shape {
  size_t d, outputs;
};
constexpr Shape kShapes[] = {{576, 960},  {576, 576},   {576, 3072},
                             {1536, 576}, {576, 49152}, {4096, 6144}};

// The copies of one shape for one kernel. Only the last one asked for is kept: benchmarks run in
// order.
struct Weights {
  Isa isa{};
  Shape shape{};
  std::vector<int8_t> source;
  std::vector<PackedWeights> copies;
};

const Weights& WeightsFor(Isa isa, Shape shape) {
  static Weights kept;
  if (!kept.copies.empty() && kept.isa == isa && kept.shape.d == shape.d &&
      kept.shape.outputs == shape.outputs) {
    return kept;
  }
  kept.copies.clear();
  kept.isa = isa;
  kept.shape = shape;
  kept.source = RandomWeights(shape.outputs, shape.d, 1);
  const size_t count = kColdBytes / kept.source.size() + 2;
  for (size_t i = 0; i < count; ++i) {
    auto packed = PackedWeights::Create(isa, shape.d, PadOutputs(shape.outputs));
    if (!packed.ok() || !packed->SetColumns(0, kept.source).ok()) std::abort();
    kept.copies.push_back(std::move(packed).value());
  }
  return kept;
}

// The first row against the oracle, on the columns of one panel, before anything is timed.
bool FirstPanelAgrees(const Weights& weights, Bytes planes, Bytes out) {
  const size_t d = weights.shape.d;
  std::vector<uint8_t> expected(32 * 6);
  ReferenceProduct(std::span(weights.source).first(32 * d), d, planes.first(kPlanes * PadInputs(d)),
                   1, expected);
  return std::equal(expected.begin(), expected.end(), out.begin());
}

void MaskedProduct(benchmark::State& state, Isa isa, Shape shape, size_t rows, int threads) {
  const Weights& weights = WeightsFor(isa, shape);
  const auto planes = DigitPlanes(RandomResidues(rows, shape.d, 2), shape.d);
  std::vector<uint8_t> out(rows * PadOutputs(shape.outputs) * 6), scratch;
  ThreadTeam team(threads);
  Product(weights.copies[0], planes, rows, out, scratch, team);
  if (!FirstPanelAgrees(weights, planes, out)) {
    state.SkipWithError("disagrees with the oracle");
    return;
  }
  size_t next = 0;
  for (auto _ : state) {
    Product(weights.copies[++next % weights.copies.size()], planes, rows, out, scratch, team);
    benchmark::ClobberMemory();
  }
  const double bytes = static_cast<double>(shape.d * shape.outputs);
  const double calls = static_cast<double>(state.iterations());
  state.counters["GMAC/s"] = benchmark::Counter(6e-9 * bytes * static_cast<double>(rows) * calls,
                                                benchmark::Counter::kIsRate);
  state.counters["GB/s"] = benchmark::Counter(1e-9 * bytes * calls, benchmark::Counter::kIsRate);
}

// One thread, from the same huge pages: as fast as this core reads.
void ReadWeightsOnce(benchmark::State& state, Shape shape) {
  typedef uint64_t Line __attribute__((vector_size(64)));
  const size_t bytes = shape.d * shape.outputs;
  const size_t copies = kColdBytes / bytes + 2;
  const std::shared_ptr<int8_t> memory = AllocateWeights(bytes * copies);
  if (memory == nullptr) std::abort();
  std::fill_n(memory.get(), bytes * copies,
              int8_t{1});  // untouched pages are all one page of zeros
  size_t next = 0;
  for (auto _ : state) {
    const Line* from = reinterpret_cast<const Line*>(memory.get() + ++next % copies * bytes);
    Line sums[2] = {};
    for (size_t i = 0; i + 1 < bytes / sizeof(Line); i += 2) {
      __builtin_prefetch(from + i + 128, 0, 2);  // as the kernels do: 8 KB ahead
      __builtin_prefetch(from + i + 129, 0, 2);
      sums[0] ^= from[i];
      sums[1] ^= from[i + 1];
    }
    benchmark::DoNotOptimize(sums);
  }
  state.counters["GB/s"] = benchmark::Counter(
      1e-9 * static_cast<double>(bytes) * static_cast<double>(state.iterations()),
      benchmark::Counter::kIsRate);
}

void RegisterAll() {
  for (Shape shape : kShapes) {
    const std::string size = std::to_string(shape.d) + "x" + std::to_string(shape.outputs);
    benchmark::RegisterBenchmark(("memory/" + size).c_str(), [shape](benchmark::State& s) {
      ReadWeightsOnce(s, shape);
    })->UseRealTime();
  }
  const std::vector<Isa> isas = SupportedIsas();
  for (auto isa = isas.rbegin(); isa != isas.rend(); ++isa) {
    for (Shape shape : kShapes) {
      for (size_t rows : {1, 4, 64, 256, 2048}) {
        if (rows == 2048 && shape.outputs > 960)
          continue;  // provisioning's rows of A_d; long for the large shapes
        for (int threads : {1, 2}) {
          const std::string name = std::string(IsaName(*isa)) + "/" + std::to_string(shape.d) +
                                   "x" + std::to_string(shape.outputs) +
                                   "/rows:" + std::to_string(rows) +
                                   "/threads:" + std::to_string(threads);
          benchmark::RegisterBenchmark(name.c_str(), [isa = *isa, shape, rows,
                                                      threads](benchmark::State& s) {
            MaskedProduct(s, isa, shape, rows, threads);
          })->UseRealTime();
        }
      }
    }
  }
}

const bool kRegistered = (RegisterAll(), true);

}  // namespace
}  // namespace talaria::gemm
