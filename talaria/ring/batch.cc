#include "talaria/ring/batch.h"

#include <cstring>

#include "talaria/base/result.h"
#include "talaria/ring/batch_kernels.h"
#include "talaria/ring/batch_portable.h"

namespace talaria::ring {
namespace {

using internal::Pass;

constexpr uint64_t kTwo52 = uint64_t{1} << 52;

// The scratch, for four batches: the vectors of one block (an AVX-512 vector is 64 bytes), the
// secrets as words, the secrets as pairs of doubles.
constexpr size_t kValuesBytes = kMaxBatchesPerPass * kDegree * 64;
constexpr size_t kSecretWordsBytes = kMaxBatchesPerPass * kSecretSize * sizeof(uint64_t);
constexpr size_t kHalvesBytes = 2 * kSecretWordsBytes;  // for AVX2
static_assert(sizeof(Polynomial) <= kValuesBytes);

constexpr size_t Reverse8(size_t x) {
  x = (x & 0x0f) << 4 | (x & 0xf0) >> 4;
  x = (x & 0x33) << 2 | (x & 0xcc) >> 2;
  return (x & 0x55) << 1 | (x & 0xaa) >> 1;
}

// q^-1 mod 2^52, by Newton's iteration.
constexpr uint64_t InverseOfQ() {
  uint64_t inverse = 1;
  for (int i = 0; i < 6; ++i) inverse *= 2 - kQ * inverse;
  return inverse & (kTwo52 - 1);
}

template <class Roots, class MakeRoot>
Roots MakeRoots(MakeRoot make) {
  const uint64_t psi_inverse = InvMod(Psi());
  Roots roots;
  uint64_t power = 1;
  for (auto& root : roots.root) {
    root = make(power);
    power = MulMod(power, psi_inverse);
  }
  return roots;
}

// Natural order, one polynomial after the other -> the order in which a kernel reads.
void ArrangeSecrets(std::span<const NttSecret> secrets, uint64_t factor, uint64_t* out) {
  for (size_t position = 0; position < kDegree; ++position) {
    const size_t slot = Reverse8(position);
    for (size_t i = 0; i < kRank; ++i) {
      for (const NttSecret& secret : secrets) *out++ = MulMod(secret.s[i][slot], factor);
    }
  }
}

// Kernels work on blocks of 8 columns; this zeroes the rest of the last panel.
void ZeroRestOfPanel(size_t columns, std::span<const BatchOutput> outputs) {
  const size_t used = RoundUp(columns, kBlockColumns) % kPanelColumns;
  if (used == 0) return;
  for (const BatchOutput& output : outputs) {
    for (size_t row = 0; row < kDegree; ++row) {
      std::memset(output.rows + RowPanelsOffset(row, RoundUp(columns, kBlockColumns)), 0,
                  (kPanelColumns - used) * kResidueBytes);
    }
  }
}

}  // namespace

namespace internal {

const IfmaRoots& GetIfmaRoots() {
  static const IfmaRoots roots = MakeRoots<IfmaRoots>([](uint64_t power) {
    const uint64_t w = MulMod(power, kTwo52 % kQ);
    return internal::IfmaRoot{w, w * InverseOfQ() & (kTwo52 - 1)};
  });
  return roots;
}

const FmaRoots& GetFmaRoots() {
  static const FmaRoots roots = MakeRoots<FmaRoots>([](uint64_t power) {
    const double w = static_cast<double>(Centred(power));  // exact: below 2^47
    return internal::FmaRoot{w, w / static_cast<double>(kQ)};
  });
  return roots;
}

}  // namespace internal

size_t RowGenerator::ScratchBytes() { return kValuesBytes + kSecretWordsBytes + kHalvesBytes; }

RowGenerator::RowGenerator(Isa isa, std::span<const NttSecret> secrets, std::span<uint8_t> scratch)
    : isa_(isa), secrets_(secrets), scratch_(scratch) {
  TALARIA_CHECK(!secrets.empty() && secrets.size() <= kMaxBatchesPerPass);
  TALARIA_CHECK(scratch.size() >= ScratchBytes());
  TALARIA_CHECK(reinterpret_cast<uintptr_t>(scratch.data()) % 64 == 0);
  if (isa == Isa::kPortable) return;
  uint64_t* const words = reinterpret_cast<uint64_t*>(scratch.data() + kValuesBytes);
  const uint64_t inverse_degree = InvMod(kDegree);
  if (isa >= Isa::kAvx512) {
    // 2^52 is what the Montgomery reduction of the inner product takes away.
    ArrangeSecrets(secrets, MulMod(inverse_degree, kTwo52 % kQ), words);
  } else {
    ArrangeSecrets(secrets, inverse_degree, words);
    // Pairs of 24-bit halves as doubles.
    double* const halves =
        reinterpret_cast<double*>(scratch.data() + kValuesBytes + kSecretWordsBytes);
    for (size_t i = 0; i < secrets.size() * kSecretSize; ++i) {
      halves[2 * i] = static_cast<double>(static_cast<int32_t>(words[i] & 0xffffff));
      halves[2 * i + 1] = static_cast<double>(static_cast<int32_t>(words[i] >> 24));
    }
  }
}

void RowGenerator::Generate(const uint8_t* matrix, size_t columns, size_t error_stride,
                            std::span<const BatchOutput> outputs) const {
  TALARIA_CHECK(outputs.size() == secrets_.size());
  if (columns == 0) return;
  if (isa_ == Isa::kPortable) {
    for (const BatchOutput& output : outputs) {  // the columns between `columns` and a block's end
      for (size_t c = columns; c < RoundUp(columns, kBlockColumns); ++c) {
        for (size_t row = 0; row < kDegree; ++row)
          StoreResidue(output.rows + RowPanelsOffset(row, c), 0);
      }
    }
    internal::GeneratePortable(matrix, columns, error_stride, secrets_, outputs,
                               *reinterpret_cast<Polynomial*>(scratch_.data()));
  } else {
    Pass pass{};
    pass.matrix = matrix;
    pass.columns = columns;
    pass.error_stride = error_stride;
    pass.batches = outputs.size();
    for (size_t b = 0; b < outputs.size(); ++b) {
      pass.error[b] = outputs[b].error;
      pass.rows[b] = outputs[b].rows;
    }
    pass.values = scratch_.data();
    pass.secrets = reinterpret_cast<const uint64_t*>(scratch_.data() + kValuesBytes);
    pass.halves =
        reinterpret_cast<const double*>(scratch_.data() + kValuesBytes + kSecretWordsBytes);
    isa_ >= Isa::kAvx512 ? internal::GenerateAvx512(pass) : internal::GenerateAvx2(pass);
  }
  ZeroRestOfPanel(columns, outputs);
}

}  // namespace talaria::ring
