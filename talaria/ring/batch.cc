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
constexpr size_t kHalvesBytes = 2 * kSecretWordsBytes;
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
void ArrangeSecrets(std::span<const BatchOutput> batches, uint64_t factor, uint64_t* out) {
  for (size_t position = 0; position < kDegree; ++position) {
    const size_t slot = Reverse8(position);
    for (size_t i = 0; i < kRank; ++i) {
      for (const BatchOutput& batch : batches) {
        *out++ = MulMod(batch.secret->s[i][slot], factor);
      }
    }
  }
}

// Kernels work on blocks of 8 columns; this zeroes the rest of the last panel.
void ZeroRestOfPanel(size_t columns, size_t first_column, std::span<const BatchOutput> batches) {
  const size_t used = RoundUp(columns, kBlockColumns) % kPanelColumns;
  if (used == 0) return;
  const size_t first_unused = first_column + RoundUp(columns, kBlockColumns);
  for (const BatchOutput& batch : batches) {
    for (size_t row = 0; row < kDegree; ++row) {
      std::memset(batch.rows + RowPanelsOffset(row, first_unused), 0,
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

size_t BatchScratchBytes() { return kValuesBytes + kSecretWordsBytes + kHalvesBytes; }

void GenerateRows(Isa isa, const uint8_t* matrix, size_t columns, size_t first_column,
                  size_t error_stride, std::span<const BatchOutput> batches,
                  std::span<uint8_t> scratch) {
  TALARIA_CHECK(!batches.empty() && batches.size() <= kMaxBatchesPerPass);
  TALARIA_CHECK(first_column % kPanelColumns == 0);
  TALARIA_CHECK(scratch.size() >= BatchScratchBytes());
  TALARIA_CHECK(reinterpret_cast<uintptr_t>(scratch.data()) % 64 == 0);
  if (columns == 0) return;

  if (isa == Isa::kPortable) {
    for (const BatchOutput& batch : batches) {  // the columns between `columns` and a block's end
      for (size_t c = columns; c < RoundUp(columns, kBlockColumns); ++c) {
        for (size_t row = 0; row < kDegree; ++row) {
          StoreResidue(batch.rows + RowPanelsOffset(row, first_column + c), 0);
        }
      }
    }
    internal::GeneratePortable(matrix, columns, first_column, error_stride, batches,
                               *reinterpret_cast<Polynomial*>(scratch.data()));
  } else {
    const uint64_t inverse_degree = InvMod(kDegree);
    uint64_t* const secrets = reinterpret_cast<uint64_t*>(scratch.data() + kValuesBytes);
    Pass pass{};
    pass.matrix = matrix;
    pass.columns = columns;
    pass.error_stride = error_stride;
    pass.batches = batches.size();
    for (size_t b = 0; b < batches.size(); ++b) {
      pass.error[b] = batches[b].error == nullptr ? nullptr : batches[b].error + first_column;
      pass.rows[b] = batches[b].rows + RowPanelsOffset(0, first_column);
    }
    pass.secrets = secrets;
    pass.values = scratch.data();
    pass.halves = reinterpret_cast<double*>(scratch.data() + kValuesBytes + kSecretWordsBytes);
    if (isa >= Isa::kAvx512) {
      // 2^52 is what the Montgomery reduction of the inner product takes away.
      ArrangeSecrets(batches, MulMod(inverse_degree, kTwo52 % kQ), secrets);
      internal::GenerateAvx512(pass);
    } else {
      ArrangeSecrets(batches, inverse_degree, secrets);
      internal::GenerateAvx2(pass);
    }
  }
  ZeroRestOfPanel(columns, first_column, batches);
}

}  // namespace talaria::ring
