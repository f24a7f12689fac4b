#include "talaria/cvm/mask_batch.h"

#include <time.h>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "talaria/base/log.h"
#include "talaria/cvm/check_math.h"
#include "talaria/ring/aes_ctr.h"
#include "talaria/ring/batch.h"
#include "talaria/ring/layout.h"
#include "talaria/ring/sampler.h"

namespace talaria::cvm {
namespace {

using ring::kBlockBytes;
using ring::kBlockColumns;
using ring::kPanelColumns;

// Domains of the two streams under one key: the high half of the counter block.
constexpr uint64_t kSecretStream = 1;
constexpr uint64_t kErrorStream = 2;

// Columns that are made at once: errors are drawn, rows made, tested and then stored. Their rows,
// 196 KB a batch, stay in the core's own cache meanwhile, and a request to stop is seen within
// milliseconds.
constexpr size_t kSliceColumns = 128;
constexpr size_t kSliceBytes =
    ring::RoundUp(ring::RowPanelsBytes(kSliceColumns) + ring::kSlack, 64);
constexpr size_t kSliceErrors = ring::kDegree * kSliceColumns;

// To memory, past the caches: a row is read long after it was made, and a line that is written
// whole need not be read first. `bytes`: a multiple of 16; both are 16-byte aligned.
void StorePastCaches(uint8_t* to, const uint8_t* from, size_t bytes) {
#if defined(__x86_64__)
  for (size_t i = 0; i < bytes; i += sizeof(__m128i)) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm_load_si128(reinterpret_cast<const __m128i*>(from + i)));
  }
#else
  std::memcpy(to, from, bytes);
#endif
}
// Before another thread is told of what was stored, and before it is wiped.
void FinishStores() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

double ThreadCpuSeconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// The sampler of this instruction set against the plain one, under a fixed key.
bool SamplerAgrees(Isa isa) {
  constexpr size_t kSamples = 4096;
  const std::array<uint8_t, 32> key{1, 2, 3};
  std::vector<int8_t> fast(kSamples), plain(kSamples);
  ring::AesCtrStream fast_stream(key, kErrorStream), plain_stream(key, kErrorStream);
  ring::SampleError(isa, fast_stream, fast);
  ring::SampleError(Isa::kPortable, plain_stream, plain);
  return fast == plain;
}

// Both sides of the self-test of one batch.
struct TestSums {
  WideSum unmask[ring::kDegree];  // U . v
  WideSum mask[ring::kDegree];    // M . u
  WideSum error[ring::kDegree];   // (E + kErrorOffset) . u
  uint64_t squares;               // of the errors
};

// All that is secret while a pass is made.
struct PassSecrets {
  ring::NttSecret s[ring::kMaxBatchesPerPass];
  TestSums sums[ring::kMaxBatchesPerPass];
  alignas(64) uint8_t slice_rows[ring::kMaxBatchesPerPass][kSliceBytes];
  alignas(64) int8_t slice_errors[ring::kMaxBatchesPerPass][kSliceErrors];
};

}  // namespace

uint64_t LooksRandom(const ring::NttSecret& s, uint64_t squares, size_t errors) {
  const double count = static_cast<double>(errors), mean = 10.5 * count;
  const double slack = 16 * std::sqrt(2 * 10.5 * 10.5 * count);
  bool good = std::abs(static_cast<double>(squares) - mean) <= slack;
  for (const ring::Polynomial& polynomial : s.s) {
    uint64_t varies = 0;
    for (const uint64_t value : polynomial) varies |= value ^ polynomial[0];
    good &= varies != 0;
  }
  return uint64_t{0} - static_cast<uint64_t>(good);
}

struct BatchGenerator::Impl {
  const MaskedModel& model;
  Isa isa;
  Entropy entropy;
  SecretMemory secrets;  // PassSecrets
  SecretMemory scratch;  // of ring::RowGenerator
  double self_test_seconds = 0;

  // The secret of every batch, and the stream of its errors.
  Status Draw(std::span<ring::NttSecret> secret, std::vector<ring::AesCtrStream>& error_streams) {
    for (ring::NttSecret& batch : secret) {
      SecretKey<32> key;
      TALARIA_RETURN_IF_ERROR(entropy(key.Expose()));
      ring::AesCtrStream secret_stream(key.Expose(), kSecretStream);
      for (ring::Polynomial& s : batch.s) {
        ring::SampleTernary(secret_stream, s);
        ring::ForwardNtt(s);
      }
      error_streams.emplace_back(key.Expose(), kErrorStream);
    }
    return OkStatus();
  }

  // Columns [0, columns) of `matrix` become columns of the rows at `to`, one pointer a batch.
  // error_streams: one a batch, or none for rows without errors. x: the vector of the self-test.
  // kCancelled.
  Status MakeRows(const ring::RowGenerator& generator, const uint8_t* matrix, size_t columns,
                  const uint64_t* x, std::span<uint8_t* const> to,
                  std::span<ring::AesCtrStream> error_streams, const std::atomic<bool>& cancel) {
    PassSecrets& pass = secrets.Expose<PassSecrets>()[0];
    for (size_t c = 0; c < columns; c += kSliceColumns) {
      if (cancel.load(std::memory_order_relaxed)) return Status(Code::kCancelled, "stopped");
      const size_t n = std::min(kSliceColumns, columns - c),
                   stride = ring::RoundUp(n, kPanelColumns);
      ring::BatchOutput slices[ring::kMaxBatchesPerPass];
      for (size_t b = 0; b < to.size(); ++b) {
        slices[b] = {nullptr, pass.slice_rows[b]};
        if (error_streams.empty()) continue;
        slices[b].error = pass.slice_errors[b];
        ring::SampleError(isa, error_streams[b], {pass.slice_errors[b], ring::kDegree * stride});
      }
      generator.Generate(matrix + c / kBlockColumns * kBlockBytes, n, stride, {slices, to.size()});
      const double start = ThreadCpuSeconds();
      for (size_t b = 0; b < to.size(); ++b) {
        TestSums& sums = pass.sums[b];
        AddPanelProducts(isa, pass.slice_rows[b], stride, x + c,
                         error_streams.empty() ? sums.unmask : sums.mask);
        if (error_streams.empty()) continue;
        AddErrorProducts(isa, pass.slice_errors[b], stride, n, x + c, sums.error);
        sums.squares += SumOfSquares(isa, {pass.slice_errors[b], ring::kDegree * stride});
      }
      self_test_seconds += ThreadCpuSeconds() - start;
      for (size_t b = 0; b < to.size(); ++b)
        StorePastCaches(to[b] + ring::RowPanelsOffset(0, c), pass.slice_rows[b],
                        ring::RowPanelsBytes(n));
    }
    return OkStatus();
  }

  Status Make(const MaskedGroup& group, std::span<const BatchRows> batches,
              const std::atomic<bool>& cancel) {
    PassSecrets& pass = secrets.Expose<PassSecrets>()[0];
    const std::span<ring::NttSecret> secret = std::span(pass.s).first(batches.size());
    std::vector<ring::AesCtrStream> error_streams;
    TALARIA_RETURN_IF_ERROR(Draw(secret, error_streams));
    const ring::RowGenerator generator(isa, secret, scratch.Expose());

    const uint64_t* const u = group.u.Expose<uint64_t>().data();
    const uint64_t* const v = group.v.Expose<uint64_t>().data();
    uint8_t* to[ring::kMaxBatchesPerPass];
    for (size_t b = 0; b < batches.size(); ++b) to[b] = batches[b].mask;
    TALARIA_RETURN_IF_ERROR(MakeRows(generator, model.public_matrices.at(group.d).Expose().data(),
                                     group.d, u, {to, batches.size()}, error_streams, cancel));
    for (size_t m = 0; m < group.hints.size(); ++m) {
      const size_t offset = group.member_offsets[m];
      for (size_t b = 0; b < batches.size(); ++b)
        to[b] = batches[b].unmask + ring::RowPanelsOffset(0, offset);
      TALARIA_RETURN_IF_ERROR(MakeRows(generator, group.hints[m].Expose().data(),
                                       group.member_outputs[m], v + offset, {to, batches.size()},
                                       {}, cancel));
    }
    return Test(group, batches.size());
  }

  Status Test(const MaskedGroup& group, size_t batches) {
    const double start = ThreadCpuSeconds();
    const PassSecrets& pass = secrets.Expose<PassSecrets>()[0];
    uint64_t u_sum = 0;
    for (const uint64_t u : group.u.Expose<uint64_t>().first(group.d))
      u_sum = ring::AddMod(u_sum, u);
    const uint64_t offset = ring::MulMod(u_sum, kErrorOffset);
    uint64_t difference = 0;
    for (size_t b = 0; b < batches; ++b) {
      const TestSums& sums = pass.sums[b];
      difference |= ~LooksRandom(pass.s[b], sums.squares,
                                 ring::kDegree * ring::RoundUp(group.d, kPanelColumns));
      for (size_t row = 0; row < ring::kDegree; ++row) {
        const uint64_t error = ring::SubMod(ring::Reduce128(sums.error[row]), offset);
        const uint64_t noiseless = ring::SubMod(ring::Reduce128(sums.mask[row]), error);
        difference |= noiseless ^ ring::Reduce128(sums.unmask[row]);
      }
    }
    self_test_seconds += ThreadCpuSeconds() - start;
    if (difference == 0) return OkStatus();
    LogError("a mask batch failed its self-test: memory or a kernel is faulty");
    return Status(Code::kSessionEnded, "the session has ended");
  }
};

BatchGenerator::BatchGenerator() = default;
BatchGenerator::~BatchGenerator() = default;

Result<std::unique_ptr<BatchGenerator>> BatchGenerator::Create(const MaskedModel& model, Isa isa,
                                                               LockPolicy lock, Entropy entropy) {
  if (!SamplerAgrees(isa))
    return Status(Code::kInternal,
                  "the error sampler of this processor differs from the plain one");
  std::unique_ptr<BatchGenerator> generator(new BatchGenerator());
  generator->impl_.reset(new Impl{model, isa, std::move(entropy), {}, {}});
  Impl& impl = *generator->impl_;
  TALARIA_ASSIGN_OR_RETURN(impl.secrets, SecretMemory::Create(sizeof(PassSecrets), lock));
  TALARIA_ASSIGN_OR_RETURN(impl.scratch,
                           SecretMemory::Create(ring::RowGenerator::ScratchBytes(), lock));
  return generator;
}

Status BatchGenerator::Generate(uint32_t group_index, std::span<const BatchRows> batches,
                                const std::atomic<bool>& cancel) {
  TALARIA_CHECK(!batches.empty() && batches.size() <= ring::kMaxBatchesPerPass &&
                group_index < impl_->model.groups.size());
  const MaskedGroup& group = impl_->model.groups[group_index];
  const Status status = impl_->Make(group, batches, cancel);
  FinishStores();
  impl_->secrets.Clear();
  impl_->scratch.Clear();
  if (!status.ok()) {
    for (const BatchRows& rows : batches) {
      Wipe(rows.mask, ring::RowPanelsBytes(group.d_padded));
      Wipe(rows.unmask, ring::RowPanelsBytes(group.o_padded));
    }
  }
  return status;
}

double BatchGenerator::self_test_seconds() const { return impl_->self_test_seconds; }

}  // namespace talaria::cvm
