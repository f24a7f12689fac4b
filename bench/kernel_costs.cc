#include "bench/kernel_costs.h"

#include <sys/random.h>
#include <atomic>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "talaria/cvm/mask_batch.h"
#include "talaria/cvm/online.h"
#include "talaria/gemm/product.h"
#include "talaria/gemm/product_memory.h"
#include "talaria/gemm/product_testing.h"
#include "talaria/ring/layout.h"
#include "talaria/wire/messages.h"

namespace talaria::bench {
namespace {

constexpr int kDeltaLog2 = 18;

// From seconds per call to calls a second.
Summary Rate(const Summary& seconds, double per_call) {
  Summary s;
  s.median = per_call / seconds.median;
  s.min = per_call / seconds.max;
  s.max = per_call / seconds.min;
  s.spread = seconds.spread;
  return s;
}

template <class T>
void Keep(const T& value) {
  asm volatile("" : : "g"(&value) : "memory");
}

void AddThousand() {
  uint64_t x = 0;
  for (int i = 0; i < 125; ++i) {
    asm volatile(
        "add $1, %0\n add $1, %0\n add $1, %0\n add $1, %0\n"
        "add $1, %0\n add $1, %0\n add $1, %0\n add $1, %0"
        : "+r"(x));
  }
}

#if defined(__x86_64__)
// 4,000 each, sixteen independent ones in turn.
#define TALARIA_SIXTEEN(instruction)                                                               \
  for (int i = 0; i < 250; ++i) {                                                                  \
    asm volatile(                                                                                  \
        instruction                                                                                \
        " %%zmm16, %%zmm17, %%zmm0\n" instruction " %%zmm16, %%zmm17, %%zmm1\n" instruction        \
        " %%zmm16, %%zmm17, %%zmm2\n" instruction " %%zmm16, %%zmm17, %%zmm3\n" instruction        \
        " %%zmm16, %%zmm17, %%zmm4\n" instruction " %%zmm16, %%zmm17, %%zmm5\n" instruction        \
        " %%zmm16, %%zmm17, %%zmm6\n" instruction " %%zmm16, %%zmm17, %%zmm7\n" instruction        \
        " %%zmm16, %%zmm17, %%zmm8\n" instruction " %%zmm16, %%zmm17, %%zmm9\n" instruction        \
        " %%zmm16, %%zmm17, %%zmm10\n" instruction " %%zmm16, %%zmm17, %%zmm11\n" instruction      \
        " %%zmm16, %%zmm17, %%zmm12\n" instruction " %%zmm16, %%zmm17, %%zmm13\n" instruction      \
        " %%zmm16, %%zmm17, %%zmm14\n" instruction " %%zmm16, %%zmm17, %%zmm15"                    \
        :                                                                                          \
        :                                                                                          \
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
          "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                                            \
  }
void FourThousandIfma() {
  TALARIA_SIXTEEN("vpmadd52luq")
  asm volatile("vzeroupper");
}
void FourThousandVnni() {
  TALARIA_SIXTEEN("vpdpbusd")
  asm volatile("vzeroupper");
}
#undef TALARIA_SIXTEEN
#endif

Summary MeasureReading(const Timing& timing) {
  const auto read = PrepareReading(timing.cold_bytes, timing.cold_bytes);
  if (!read.ok()) return {};
  return Rate(TimeCalls(timing, 1, *read), static_cast<double>(timing.cold_bytes) * 1e-9);
}

// Values do not matter to the time; canonical residues do to the contracts.
void FillResidues(std::span<uint8_t> out) {
  std::mt19937_64 random(1);
  const size_t first = std::min(out.size() / 6 * 6, size_t{98304});
  for (size_t at = 0; at < first; at += 6) ring::StoreResidue(out.data() + at, random() >> 17);
  for (size_t at = first; at < out.size(); at += first)
    std::memcpy(out.data() + at, out.data(), std::min(first, out.size() - at));
}

Result<SecretMemory> Matrix(size_t columns) {
  TALARIA_ASSIGN_OR_RETURN(SecretMemory memory,
                           SecretMemory::Create(ring::ModuleMatrixBytes(columns) + ring::kSlack,
                                                LockPolicy::kWarnIfImpossible));
  FillResidues(memory.Expose());
  return memory;
}

// Groups of one matrix [d x o] whose hints together do not fit a cache. Their check vectors are
// zero, which the self-test of a batch accepts and its time does not notice.
Status MakeModel(size_t d, size_t o, size_t cold_bytes, cvm::MaskedModel& model) {
  const auto d32 = static_cast<uint32_t>(d), o32 = static_cast<uint32_t>(o);
  TALARIA_ASSIGN_OR_RETURN(model.public_matrices[d32], Matrix(d));
  model.groups.resize(std::max<size_t>(1, cold_bytes / ring::ModuleMatrixBytes(o)));
  for (cvm::MaskedGroup& group : model.groups) {
    group.d = d32;
    group.d_padded = cvm::PaddedInputs(d32);
    group.o_padded = o32;
    group.member_outputs = {o32};
    group.member_offsets = {0};
    constexpr auto kLock = LockPolicy::kWarnIfImpossible;
    TALARIA_ASSIGN_OR_RETURN(
        group.u, SecretMemory::Create(cvm::kMaxCheckVectors * group.d_padded * 8, kLock));
    TALARIA_ASSIGN_OR_RETURN(group.v, SecretMemory::Create(cvm::kMaxCheckVectors * o * 8, kLock));
    TALARIA_ASSIGN_OR_RETURN(SecretMemory hints, Matrix(o));
    group.hints.push_back(std::move(hints));
  }
  return OkStatus();
}

// `self_test_ns`, unless null, is the self-test's part of the mean.
Result<Summary> MeasureGeneration(cvm::MaskedModel& model, Isa isa, size_t batches,
                                  std::span<const cvm::BatchRows> rows, const Timing& timing,
                                  double* self_test_ns) {
  const auto entropy = [](std::span<uint8_t, 32> key) {
    return getrandom(key.data(), key.size(), 0) == static_cast<ssize_t>(key.size())
               ? OkStatus()
               : Status(Code::kIo, "getrandom");
  };
  TALARIA_ASSIGN_OR_RETURN(
      const auto generator,
      cvm::BatchGenerator::Create(model, isa, LockPolicy::kWarnIfImpossible, entropy));
  const std::atomic<bool> cancel = false;
  const double elements =
      static_cast<double>(ring::kDegree * batches * (model.groups[0].d + model.groups[0].o_padded));
  Status status;
  uint32_t turn = 0;
  const Summary seconds = TimeCalls(timing, 1e9 / elements, [&] {
    const Status made = generator->Generate(turn++ % static_cast<uint32_t>(model.groups.size()),
                                            rows.first(batches), cancel);
    if (!made.ok()) status = made;
  });
  if (!status.ok()) return status;
  if (self_test_ns != nullptr)
    *self_test_ns = generator->self_test_seconds() * 1e9 / (elements * static_cast<double>(turn));
  return seconds;
}

struct OnlineInputs {
  std::vector<float> x, scales, out;
  std::vector<uint8_t> planes, residues;
  const uint64_t* u[cvm::kMaxCheckVectors];
  const uint64_t* v[cvm::kMaxCheckVectors];
};

// Rows of different batches one after another, as the layers of a model take them.
uint8_t* RowOf(uint8_t* first_batch, size_t batch_bytes, size_t batches, size_t turn) {
  return first_batch + turn % batches * batch_bytes +
         turn / batches % ring::kDegree * ring::kPanelRowBytes;
}

cvm::MaskedRow Mask(Isa isa, const cvm::MaskedGroup& group, OnlineInputs& in, uint8_t* mask,
                    bool wipe) {
  const cvm::RowNorms norms = cvm::NormsOf(isa, in.x.data(), group.d);
  return cvm::MaskRow(isa, in.x.data(), group.d, group.d_padded, norms.finite_mask, 3000.0f,
                      kDeltaLog2, mask, ring::kPanelBytes, wipe, in.u, cvm::kMaxCheckVectors,
                      in.planes.data());
}

}  // namespace

MachineRates MeasureMachine(const Timing& timing) {
  MachineRates rates;
  rates.read_gb_per_second = MeasureReading(timing);
  rates.clock_ghz = Rate(TimeCalls(timing, 1, AddThousand), 1000 * 1e-9);
#if defined(__x86_64__)
  if (DetectIsa() >= Isa::kAvx512) {
    rates.ifma_per_ns = Rate(TimeCalls(timing, 1, FourThousandIfma), 4000 * 1e-9);
    rates.vnni_per_ns = Rate(TimeCalls(timing, 1, FourThousandVnni), 4000 * 1e-9);
  }
#endif
  return rates;
}

Result<CvmCosts> MeasureCvm(Isa isa, size_t d, size_t o, const Timing& timing) {
  cvm::MaskedModel model;
  TALARIA_RETURN_IF_ERROR(MakeModel(d, o, timing.cold_bytes, model));
  const cvm::MaskedGroup& group = model.groups[0];
  const size_t mask_bytes = ring::RowPanelsBytes(group.d_padded) + ring::kSlack,
               unmask_bytes = ring::RowPanelsBytes(o) + ring::kSlack;
  const size_t batches =
      std::max(ring::kMaxBatchesPerPass, timing.cold_bytes / (mask_bytes + unmask_bytes));
  TALARIA_ASSIGN_OR_RETURN(SecretMemory masks, SecretMemory::Create(batches * mask_bytes,
                                                                    LockPolicy::kWarnIfImpossible));
  TALARIA_ASSIGN_OR_RETURN(
      SecretMemory unmasks,
      SecretMemory::Create(batches * unmask_bytes, LockPolicy::kWarnIfImpossible));
  uint8_t *const mask = masks.Expose().data(), *const unmask = unmasks.Expose().data();
  std::vector<cvm::BatchRows> rows;
  for (size_t b = 0; b < ring::kMaxBatchesPerPass; ++b)
    rows.push_back({mask + b * mask_bytes, unmask + b * unmask_bytes});

  CvmCosts costs;
  TALARIA_ASSIGN_OR_RETURN(costs.generate_four_ns,
                           MeasureGeneration(model, isa, ring::kMaxBatchesPerPass, rows, timing,
                                             &costs.self_test_four_ns));
  TALARIA_ASSIGN_OR_RETURN(costs.generate_ns,
                           MeasureGeneration(model, isa, 1, rows, timing, nullptr));
  FillResidues(masks.Expose());
  FillResidues(unmasks.Expose());

  OnlineInputs in;
  in.x.resize(d);
  in.scales.assign(o, 1e-3f);
  in.out.resize(o + ring::kPanelColumns);
  in.planes.resize(6 * group.d_padded);
  in.residues.resize(6 * o + ring::kSlack);
  FillResidues(in.residues);
  std::mt19937_64 random(2);
  for (float& value : in.x)
    value = static_cast<float>(static_cast<int>(random() % 2001) - 1000) * 1e-3f;
  for (size_t i = 0; i < cvm::kMaxCheckVectors; ++i) {
    in.u[i] = group.u.Expose<uint64_t>().data() + i * group.d_padded;
    in.v[i] = group.v.Expose<uint64_t>().data() + i * o;
  }
  Mask(Isa::kPortable, group, in, mask, false);
  const std::vector<uint8_t> expected = in.planes;
  Mask(isa, group, in, mask, false);
  if (in.planes != expected) return Status(Code::kInternal, "the mask kernel disagrees");

  const double inputs = static_cast<double>(d), outputs = static_cast<double>(o);
  size_t turn = 0;
  costs.mask_ns = TimeCalls(timing, 1e9 / inputs, [&] {
    Keep(Mask(isa, group, in, RowOf(mask, mask_bytes, batches, turn++), true));
  });
  costs.check_ns = TimeCalls(timing, 1e9 / outputs, [&] {
    Keep(cvm::CheckRow(isa, in.residues.data(), o, in.v, cvm::kMaxCheckVectors));
  });
  costs.unmask_ns = TimeCalls(timing, 1e9 / outputs, [&] {
    cvm::UnmaskRow(isa, in.residues.data(), o, RowOf(unmask, unmask_bytes, batches, turn++),
                   ring::kPanelBytes, true, kDeltaLog2, 0.01f, in.scales.data(), in.out.data());
  });
  return costs;
}

Result<Call> PrepareReading(size_t bytes, size_t cold_bytes) {
  typedef uint64_t Line __attribute__((vector_size(64)));
  const size_t pieces = std::max<size_t>(1, cold_bytes / bytes);
  const std::shared_ptr<int8_t> memory = gemm::AllocateWeights(pieces * bytes);
  if (memory == nullptr)
    return Status(Code::kResourceExhausted, "no memory to measure reading with");
  std::memset(memory.get(), 1, pieces * bytes);  // untouched pages are all one page of zeros
  return Call([memory, bytes, pieces, turn = size_t{0}]() mutable {
    const Line* const lines = reinterpret_cast<const Line*>(memory.get() + ++turn % pieces * bytes);
    Line sums[2] = {};
    for (size_t i = 0; i + 1 < bytes / sizeof(Line); i += 2) {
      __builtin_prefetch(lines + i + 128, 0, 2);
      __builtin_prefetch(lines + i + 129, 0, 2);
      sums[0] ^= lines[i];
      sums[1] ^= lines[i + 1];
    }
    Keep(sums);
  });
}

Result<Call> PrepareProduct(Isa isa, size_t d, size_t o, size_t rows, size_t cold_bytes) {
  // 128 different columns, again and again.
  const size_t different = std::min<size_t>(o, 128);
  const std::vector<int8_t> weights = gemm::RandomWeights(different, d, 1);
  struct Inputs {
    std::vector<gemm::PackedWeights> copies;
    std::vector<uint8_t> planes, out, scratch;
    gemm::ThreadTeam team{1};
    size_t turn = 0;
  };
  const auto in = std::make_shared<Inputs>();
  const size_t count = cold_bytes / (d * o) + 2;
  for (size_t i = 0; i < count; ++i) {
    TALARIA_ASSIGN_OR_RETURN(auto packed, gemm::PackedWeights::Create(isa, d, gemm::PadOutputs(o)));
    for (size_t column = 0; column < o; column += different) {
      TALARIA_RETURN_IF_ERROR(
          packed.SetColumns(column, std::span(weights).first(std::min(different, o - column) * d)));
    }
    in->copies.push_back(std::move(packed));
  }
  in->planes = gemm::DigitPlanes(gemm::RandomResidues(rows, d, 2), d);
  in->out.resize(rows * gemm::PadOutputs(o) * 6);
  std::vector<uint8_t> expected(32 * 6);
  gemm::Product(in->copies[0], in->planes, rows, in->out, in->scratch, in->team);
  gemm::ReferenceProduct(std::span(weights).first(32 * d), d,
                         Bytes(in->planes).first(gemm::kPlanes * gemm::PadInputs(d)), 1, expected);
  if (!std::equal(expected.begin(), expected.end(), in->out.begin()))
    return Status(Code::kInternal, "the product disagrees with the oracle");
  return Call([in, rows] {
    gemm::Product(in->copies[++in->turn % in->copies.size()], in->planes, rows, in->out,
                  in->scratch, in->team);
  });
}

Result<Summary> MeasureProduct(Isa isa, size_t d, size_t o, size_t rows, const Timing& timing) {
  TALARIA_ASSIGN_OR_RETURN(const Call call, PrepareProduct(isa, d, o, rows, timing.cold_bytes));
  return TimeCalls(timing, 1e6, call);
}

double WireBytesUp(size_t d, size_t rows) {
  return static_cast<double>(wire::kFrameHeaderBytes + wire::kCallHeaderBytes +
                             rows * 6 * gemm::PadInputs(d));
}
double WireBytesDown(size_t o, size_t rows) {
  return static_cast<double>(wire::kFrameHeaderBytes + wire::kCallHeaderBytes +
                             rows * 6 * gemm::PadOutputs(o));
}

}  // namespace talaria::bench
