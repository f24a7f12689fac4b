#include "talaria/cvm/mask_batch.h"

#include <time.h>

#include <algorithm>
#include <array>
#include <cmath>
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

// Columns that are generated and tested at once. Their rows, 196 KB a batch, are still in the cache
// for the test, and a request to stop is seen within milliseconds.
constexpr size_t kSliceColumns = 128;

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
  uint64_t error[ring::kDegree];  // E . u, canonical
};

// All secrets of one batch while it is made.
struct BatchSecrets {
  ring::NttSecret s;
  TestSums sums;
};

}  // namespace

uint64_t LooksRandom(const ring::NttSecret& s, std::span<const int8_t> errors) {
  uint64_t squares = 0;
  for (const int8_t e : errors) squares += static_cast<uint64_t>(e * e);
  const double count = static_cast<double>(errors.size()), mean = 10.5 * count;
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
  SecretMemory secrets;  // BatchSecrets [4]
  SecretMemory errors;   // int8 [4][256][widest group, to a multiple of 32]
  SecretMemory scratch;  // of ring::GenerateRows
  double self_test_seconds = 0;

  // s and E of every batch; `errors_of` are their errors.
  Status Draw(size_t error_stride, std::span<BatchSecrets> batches,
              std::span<int8_t* const> errors_of) {
    for (size_t b = 0; b < batches.size(); ++b) {
      SecretKey<32> key;
      TALARIA_RETURN_IF_ERROR(entropy(key.Expose()));
      ring::AesCtrStream secret_stream(key.Expose(), kSecretStream);
      for (ring::Polynomial& s : batches[b].s.s) {
        ring::SampleTernary(secret_stream, s);
        ring::ForwardNtt(s);
      }
      ring::AesCtrStream error_stream(key.Expose(), kErrorStream);
      ring::SampleError(isa, error_stream, {errors_of[b], ring::kDegree * error_stride});
    }
    return OkStatus();
  }

  // rows [., first_column ...] of every batch from `columns` columns of `matrix`, with the products
  // of the rows with `x` added to what sums_of() names. kCancelled.
  template <class SumsOf>
  Status MakeRows(const uint8_t* matrix, size_t columns, size_t first_column, size_t error_stride,
                  std::span<const ring::BatchOutput> outputs, const uint64_t* x, SumsOf sums_of,
                  const std::atomic<bool>& cancel) {
    for (size_t c = 0; c < columns; c += kSliceColumns) {
      if (cancel.load(std::memory_order_relaxed)) return Status(Code::kCancelled, "stopped");
      const size_t n = std::min(kSliceColumns, columns - c);
      ring::GenerateRows(isa, matrix + c / kBlockColumns * kBlockBytes, n, first_column + c,
                         error_stride, outputs, scratch.Expose());
      const double start = ThreadCpuSeconds();
      for (size_t b = 0; b < outputs.size(); ++b) {
        AddPanelProducts(isa, outputs[b].rows + ring::RowPanelsOffset(0, first_column + c),
                         ring::RoundUp(n, kPanelColumns), x + c, sums_of(b));
      }
      self_test_seconds += ThreadCpuSeconds() - start;
    }
    return OkStatus();
  }

  Status Make(const MaskedGroup& group, std::span<const BatchRows> batches,
              const std::atomic<bool>& cancel) {
    const size_t stride = ring::RoundUp(group.d, kPanelColumns);
    const std::span<BatchSecrets> secret = secrets.Expose<BatchSecrets>().first(batches.size());
    int8_t* errors_of[ring::kMaxBatchesPerPass];
    ring::BatchOutput masks[ring::kMaxBatchesPerPass], unmasks[ring::kMaxBatchesPerPass];
    for (size_t b = 0; b < batches.size(); ++b) {
      errors_of[b] = errors.Expose<int8_t>().data() + b * ring::kDegree * stride;
      masks[b] = {&secret[b].s, errors_of[b], batches[b].mask};
      unmasks[b] = {&secret[b].s, nullptr, batches[b].unmask};
    }
    TALARIA_RETURN_IF_ERROR(Draw(stride, secret, {errors_of, batches.size()}));

    const uint64_t* const u = group.u.Expose<uint64_t>().data();
    const uint64_t* const v = group.v.Expose<uint64_t>().data();
    const SecretMemory& a = model.public_matrices.at(group.d);
    TALARIA_RETURN_IF_ERROR(MakeRows(
        a.Expose().data(), group.d, 0, stride, {masks, batches.size()}, u,
        [&](size_t b) { return secret[b].sums.mask; }, cancel));
    for (size_t m = 0; m < group.hints.size(); ++m) {
      const size_t offset = group.member_offsets[m];
      TALARIA_RETURN_IF_ERROR(MakeRows(
          group.hints[m].Expose().data(), group.member_outputs[m], offset, 0,
          {unmasks, batches.size()}, v + offset, [&](size_t b) { return secret[b].sums.unmask; },
          cancel));
    }

    const double start = ThreadCpuSeconds();
    uint64_t difference = 0;
    for (size_t b = 0; b < batches.size(); ++b) {
      TestSums& sums = secret[b].sums;
      difference |= ~LooksRandom(secret[b].s, {errors_of[b], ring::kDegree * stride});
      AddErrorProducts(errors_of[b], stride, group.d, u, sums.error);
      for (size_t row = 0; row < ring::kDegree; ++row) {
        const uint64_t noiseless = ring::SubMod(ring::Reduce128(sums.mask[row]), sums.error[row]);
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
  size_t widest = 0;
  for (const MaskedGroup& group : model.groups) widest = std::max<size_t>(widest, group.d);
  const size_t error_bytes =
      ring::kMaxBatchesPerPass * ring::kDegree * ring::RoundUp(widest, kPanelColumns);
  std::unique_ptr<BatchGenerator> generator(new BatchGenerator());
  generator->impl_.reset(new Impl{model, isa, std::move(entropy), {}, {}, {}});
  Impl& impl = *generator->impl_;
  TALARIA_ASSIGN_OR_RETURN(
      impl.secrets, SecretMemory::Create(ring::kMaxBatchesPerPass * sizeof(BatchSecrets), lock));
  TALARIA_ASSIGN_OR_RETURN(impl.errors, SecretMemory::Create(error_bytes + ring::kSlack, lock));
  TALARIA_ASSIGN_OR_RETURN(impl.scratch, SecretMemory::Create(ring::BatchScratchBytes(), lock));
  return generator;
}

Status BatchGenerator::Generate(uint32_t group_index, std::span<const BatchRows> batches,
                                const std::atomic<bool>& cancel) {
  TALARIA_CHECK(!batches.empty() && batches.size() <= ring::kMaxBatchesPerPass &&
                group_index < impl_->model.groups.size());
  const MaskedGroup& group = impl_->model.groups[group_index];
  const Status status = impl_->Make(group, batches, cancel);
  Wipe(impl_->secrets.Expose().data(), batches.size() * sizeof(BatchSecrets));
  Wipe(impl_->errors.Expose().data(),
       batches.size() * ring::kDegree * ring::RoundUp(group.d, kPanelColumns));
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
