#include "talaria/ring/public_matrix.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "talaria/base/result.h"
#include "talaria/ring/aes_ctr.h"

namespace talaria::ring {
namespace {

constexpr size_t kColumnBytes = kHintBytesPerColumn;  // of stream, if no word is skipped
constexpr size_t kLoadSlack = 2;                      // words are read eight bytes at a time

// The definition of a column. Everything is public: branches may depend on it.
template <class Source>
void SampleWords(Source&& next, std::span<uint64_t, kSecretSize> out) {
  uint8_t buffer[kColumnBytes];  // a whole number of words, so no word crosses its end
  size_t accepted = 0;
  while (accepted < out.size()) {
    const size_t wanted = (out.size() - accepted) * kResidueBytes;
    next(MutableBytes(buffer, wanted));
    for (size_t at = 0; at < wanted; at += kResidueBytes) {
      const uint64_t word = LoadResidue(buffer + at);
      if (word < kQ) out[accepted++] = word;
    }
  }
}

// Eight columns' streams [8][2048 words] -> one block [slot][i][8 columns]. True if some word is
// >= q (once in 2^20 blocks); the block is then wrong and to be done the slow way.
bool Interleave(const uint8_t* const streams[kBlockColumns], uint8_t* block) {
  uint64_t sums = 0;
  for (size_t slot = 0; slot < kDegree; ++slot) {
    for (size_t i = 0; i < kRank; ++i) {
      const size_t at = (i * kDegree + slot) * kResidueBytes;
      // Each store's two upper bytes are overwritten by the next column's.
      for (size_t c = 0; c < kBlockColumns; ++c, block += kResidueBytes) {
        const uint64_t word = LoadLe<uint64_t>(streams[c] + at) & kMask48;
        sums |= word + kFold;  // reaches 2^48 exactly when word >= q
        if (c + 1 < kBlockColumns) {
          std::memcpy(block, &word, 8);
        } else {
          StoreResidue(block, word);
        }
      }
    }
  }
  return sums > kMask48;
}

}  // namespace

Digest PublicMatrixKey(uint32_t profile_id, const Digest& core_digest, uint32_t d) {
  std::vector<uint8_t> message;
  ByteWriter writer(message);
  writer.Raw(AsBytes("talaria/A/v1"));
  writer.U32(profile_id);
  writer.Raw(core_digest);
  writer.U32(d);
  return Sha256Of(message);
}

void SampleColumn(const std::function<void(MutableBytes)>& next,
                  std::span<uint64_t, kSecretSize> out) {
  SampleWords(next, out);
}

void ExpandPublicMatrix(const Digest& key, uint32_t first_column, uint32_t columns,
                        MutableBytes out) {
  TALARIA_CHECK(first_column % kBlockColumns == 0 && out.size() >= ModuleMatrixBytes(columns));
  AesCtrStream stream(key, first_column);
  // Zero where the last block has no column. 98 KB: stays in the L2 cache with the block it makes.
  std::vector<uint8_t> words(kBlockColumns * kColumnBytes + kLoadSlack);
  const uint8_t* streams[kBlockColumns];
  for (size_t c = 0; c < kBlockColumns; ++c) streams[c] = words.data() + c * kColumnBytes;

  for (size_t first = 0; first < columns; first += kBlockColumns) {
    const size_t present = std::min<size_t>(kBlockColumns, columns - first);
    for (size_t c = 0; c < present; ++c) {
      stream.Restart(first_column + first + c);
      stream.Next(MutableBytes(words.data() + c * kColumnBytes, kColumnBytes));
    }
    if (present < kBlockColumns) {
      std::memset(words.data() + present * kColumnBytes, 0,
                  (kBlockColumns - present) * kColumnBytes);
    }
    uint8_t* const block = out.data() + first / kBlockColumns * kBlockBytes;
    if (!Interleave(streams, block)) continue;

    for (size_t c = 0; c < present; ++c) {
      uint64_t column[kSecretSize];
      stream.Restart(first_column + first + c);
      SampleWords([&stream](MutableBytes bytes) { stream.Next(bytes); }, column);
      for (size_t i = 0; i < kRank; ++i) {
        for (size_t slot = 0; slot < kDegree; ++slot) {
          StoreResidue(block + ModuleMatrixOffset(c, slot, i), column[i * kDegree + slot]);
        }
      }
    }
  }
}

}  // namespace talaria::ring
