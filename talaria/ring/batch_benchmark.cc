// ns per element of RowGenerator with the matrix in memory: 16 copies of 768 columns are taken in
// turn. `best` is the fastest pass, which a busy neighbour disturbs least; `mean` is over all.
#include "talaria/ring/batch.h"

#include <benchmark/benchmark.h>
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "talaria/base/result.h"

namespace talaria::ring {
namespace {

constexpr size_t kColumns = 768;
constexpr size_t kCopies = 16;  // 151 MB, past any cache

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
template <class T>
using Buffer = std::unique_ptr<T, Free>;

template <class T>
Buffer<T> Allocate(size_t size) {
  constexpr size_t kHugePage = size_t{2} << 20;
  void* const memory = std::aligned_alloc(kHugePage, RoundUp(size, kHugePage));
  TALARIA_CHECK(memory != nullptr);
  madvise(memory, RoundUp(size, kHugePage), MADV_HUGEPAGE);
  std::memset(memory, 0, size);
  return Buffer<T>(static_cast<T*>(memory));
}

double ThreadCpuNs() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return 1e9 * static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec);
}

// Random residues below 2^47, the same in every copy.
const uint8_t* Matrices() {
  static const Buffer<uint8_t> matrices = [] {
    Buffer<uint8_t> m = Allocate<uint8_t>(kCopies * ModuleMatrixBytes(kColumns) + kSlack);
    std::mt19937_64 random(1);
    for (size_t at = 0; at < ModuleMatrixBytes(kColumns); at += kResidueBytes) {
      StoreResidue(m.get() + at, random() >> 17);
    }
    for (size_t copy = 1; copy < kCopies; ++copy) {
      std::memcpy(m.get() + copy * ModuleMatrixBytes(kColumns), m.get(),
                  ModuleMatrixBytes(kColumns));
    }
    return m;
  }();
  return matrices.get();
}

void BM_RowGenerator(benchmark::State& state, Isa isa, bool with_error, size_t batch_count) {
  const uint8_t* const matrices = Matrices();
  std::mt19937_64 random(2);
  std::vector<NttSecret> secrets(batch_count);
  std::vector<Buffer<int8_t>> errors;
  std::vector<Buffer<uint8_t>> rows;
  std::vector<BatchOutput> outputs;
  for (size_t b = 0; b < batch_count; ++b) {
    for (Polynomial& s : secrets[b].s) {
      for (uint64_t& x : s) x = random() % kQ;
    }
    errors.push_back(Allocate<int8_t>(kDegree * kColumns));
    for (size_t i = 0; i < kDegree * kColumns; ++i) {
      errors[b].get()[i] = static_cast<int8_t>(random() % 43 - 21);
    }
    rows.push_back(Allocate<uint8_t>(RowPanelsBytes(kColumns) + kSlack));
    outputs.push_back({with_error ? errors[b].get() : nullptr, rows[b].get()});
  }
  const size_t scratch_bytes = RowGenerator::ScratchBytes();
  const Buffer<uint8_t> scratch = Allocate<uint8_t>(scratch_bytes),
                        oracle_scratch = Allocate<uint8_t>(scratch_bytes);
  const RowGenerator generator(isa, secrets, {scratch.get(), scratch_bytes});
  const auto run = [&](size_t copy) {
    generator.Generate(matrices + copy * ModuleMatrixBytes(kColumns), kColumns, kColumns, outputs);
  };
  // Against the oracle before the clock starts.
  run(0);
  const std::vector<uint8_t> first(rows[0].get(), rows[0].get() + RowPanelsBytes(32));
  const RowGenerator oracle(Isa::kPortable, std::span(secrets).first(1),
                            {oracle_scratch.get(), scratch_bytes});
  oracle.Generate(matrices, 32, kColumns, std::span(outputs).first(1));
  TALARIA_CHECK(std::memcmp(first.data(), rows[0].get(), first.size()) == 0);

  size_t copy = 0;
  double best = 1e18;
  double sum = 0;
  for (auto _ : state) {
    const double start = ThreadCpuNs();
    run(++copy % kCopies);
    benchmark::ClobberMemory();
    const double elapsed = ThreadCpuNs() - start;
    best = std::min(best, elapsed);
    sum += elapsed;
  }
  const double elements = static_cast<double>(kDegree * kColumns * batch_count);
  state.counters["best"] = best / elements;
  state.counters["mean"] = sum / elements / static_cast<double>(state.iterations());
  state.SetBytesProcessed(static_cast<int64_t>(ModuleMatrixBytes(kColumns)) * state.iterations());
}

const bool kRegistered = [] {
  for (const Isa isa : SupportedIsas()) {
    for (const bool with_error : {false, true}) {
      for (const size_t batches : {1, 2, 3, 4}) {
        const std::string name = std::string("RowGenerator/") + std::string(IsaName(isa)) +
                                 (with_error ? "/mask/" : "/unmask/") + std::to_string(batches);
        auto* const b = benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& s) {
          BM_RowGenerator(s, isa, with_error, batches);
        });
        b->MeasureProcessCPUTime()->Unit(benchmark::kMillisecond);
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace talaria::ring
