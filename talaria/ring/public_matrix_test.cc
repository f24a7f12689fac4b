#include "talaria/ring/public_matrix.h"

#include <gtest/gtest.h>

#include <vector>

#include "talaria/ring/aes_ctr.h"

// Golden values come from an independent computation (Python's hashlib and the openssl program).
namespace talaria::ring {
namespace {

Digest CountingBytes() {
  Digest digest{};
  for (size_t i = 0; i < digest.size(); ++i) digest[i] = static_cast<uint8_t>(i);
  return digest;
}

std::vector<uint8_t> Expand(const Digest& key, uint32_t first_column, uint32_t columns) {
  std::vector<uint8_t> matrix(ModuleMatrixBytes(columns) + kSlack, 0xee);
  ExpandPublicMatrix(key, first_column, columns,
                     MutableBytes(matrix).first(ModuleMatrixBytes(columns)));
  for (size_t i = ModuleMatrixBytes(columns); i < matrix.size(); ++i) EXPECT_EQ(matrix[i], 0xee);
  return matrix;
}

// The words of one column in stream order: element i, then slot.
std::vector<uint64_t> Column(const std::vector<uint8_t>& matrix, size_t column) {
  std::vector<uint64_t> words;
  for (size_t i = 0; i < kRank; ++i) {
    for (size_t slot = 0; slot < kDegree; ++slot) {
      words.push_back(LoadResidue(matrix.data() + ModuleMatrixOffset(column, slot, i)));
    }
  }
  return words;
}

std::string DigestOfWords(const std::vector<uint64_t>& words) {
  std::vector<uint8_t> bytes(words.size() * kResidueBytes);
  for (size_t i = 0; i < words.size(); ++i)
    StoreResidue(bytes.data() + kResidueBytes * i, words[i]);
  return ToHex(Sha256Of(bytes));
}

TEST(PublicMatrix, KeyIsGolden) {
  EXPECT_EQ(ToHex(PublicMatrixKey(1, CountingBytes(), 576)),
            "72edaeb176aca3154c992ed304f98a9abc6102cd5ed31e747e1cf860b7b5c959");
}

TEST(PublicMatrix, KeyDependsOnEveryInput) {
  const Digest key = PublicMatrixKey(1, CountingBytes(), 576);
  Digest other = CountingBytes();
  other[31] ^= 1;
  EXPECT_NE(key, PublicMatrixKey(2, CountingBytes(), 576));
  EXPECT_NE(key, PublicMatrixKey(1, CountingBytes(), 577));
  EXPECT_NE(key, PublicMatrixKey(1, other, 576));
}

TEST(PublicMatrix, ColumnsAreGolden) {
  const std::vector<uint8_t> matrix = Expand(PublicMatrixKey(1, CountingBytes(), 576), 0, 576);
  const std::vector<uint64_t> first = Column(matrix, 0);
  EXPECT_EQ(first[0], 0x4bdf29708c44u);
  EXPECT_EQ(first[1], 0x86f3f108e236u);
  EXPECT_EQ(first[256], 0x8fcf4ffa5367u);  // element 1, slot 0
  EXPECT_EQ(first[2047], 0xa9edab6643b9u);
  EXPECT_EQ(DigestOfWords(first),
            "04febe51af4678436dbef0021c4cf2a865bc6394ec4901f660b205227e3ca154");
  EXPECT_EQ(DigestOfWords(Column(matrix, 5)),
            "f3fbbd74eb0817d7363fec098f94fca9d7fcecdb8ecda04ae23c27362575850e");
  EXPECT_EQ(DigestOfWords(Column(matrix, 575)),
            "4aee15f2ef7093daeb1e7efd09fe2708938c8f4b3da6fec75cc142b9acf71bc1");
}

// A word >= q comes once in 2^34. These three columns of the key 00 01 .. 1f, found by search, have
// one each; `word` is its index in the stream.
struct Skip {
  uint32_t column;
  size_t word;
  uint64_t next_word;  // takes its place
  uint64_t last;       // word 2048 of the stream
  const char* digest;
};
constexpr Skip kSkips[] = {
    {6855375, 951, 0xfb588a7186a9, 0x8249b9e0cfce,
     "215238f85f98845d49cfab8fdaac0d7ca33dbaa1ccffcaec4b5ad2e85701bda9"},
    {9607539, 383, 0x1dbba7d9f7a7, 0x493147aaf117,
     "4413f28e13bd22b6da38eb1fe49229590acb5a07f477c0f3b96dc67f0e6284d4"},
    {14257560, 779, 0x7525300cb2a0, 0xc58d0866b45b,
     "eebccebf85edeebde9e81da4cfd466b1bad289ad51cdfd5563d22a6897a5d3aa"},
};

TEST(PublicMatrix, SkipsWordsNotBelowQ) {
  for (const Skip& skip : kSkips) {
    std::vector<uint8_t> stream(kHintBytesPerColumn);
    AesCtrStream(CountingBytes(), skip.column).Next(stream);
    ASSERT_GE(LoadResidue(stream.data() + kResidueBytes * skip.word), kQ);

    const uint32_t first = skip.column / 8 * 8;
    const std::vector<uint8_t> matrix = Expand(CountingBytes(), first, 8);
    const std::vector<uint64_t> words = Column(matrix, skip.column % 8);
    EXPECT_EQ(words[skip.word - 1], LoadResidue(stream.data() + kResidueBytes * (skip.word - 1)));
    EXPECT_EQ(words[skip.word], skip.next_word);
    EXPECT_EQ(words[2047], skip.last);
    EXPECT_EQ(DigestOfWords(words), skip.digest);
    // The other columns of the block, which was done twice.
    for (uint32_t c = 0; c < 8; ++c) {
      if (first + c == skip.column) continue;
      AesCtrStream(CountingBytes(), first + c).Next(stream);
      const std::vector<uint64_t> others = Column(matrix, c);
      for (size_t i = 0; i < others.size(); ++i) {
        ASSERT_EQ(others[i], LoadResidue(stream.data() + kResidueBytes * i));
      }
    }
  }
}

TEST(PublicMatrix, ColumnsComeInAnyOrderAndPaddingIsZero) {
  const Digest key = CountingBytes();
  const std::vector<uint8_t> all = Expand(key, 0, 40);
  for (const uint32_t columns : {1u, 7u, 8u, 9u, 16u}) {
    const std::vector<uint8_t> part = Expand(key, 24, columns);
    for (uint32_t c = 0; c < columns; ++c) EXPECT_EQ(Column(part, c), Column(all, 24 + c));
    for (uint32_t c = columns; c < RoundUp(columns, 8); ++c) {
      EXPECT_EQ(Column(part, c), std::vector<uint64_t>(kSecretSize, 0));
    }
  }
  // A skip in a block that is not full.
  const std::vector<uint8_t> edge = Expand(key, 14257560, 1);
  EXPECT_EQ(DigestOfWords(Column(edge, 0)), kSkips[2].digest);
  for (size_t c = 1; c < 8; ++c) EXPECT_EQ(Column(edge, c), std::vector<uint64_t>(kSecretSize, 0));
}

// A made-up stream: which of its words are skipped is a function of the word's index.
template <class Skipped>
std::vector<uint64_t> SampleFrom(Skipped skipped, size_t* consumed) {
  size_t position = 0;
  std::vector<uint64_t> out(kSecretSize);
  SampleColumn(
      [&](MutableBytes bytes) {
        for (uint8_t& byte : bytes) {
          const uint64_t index = position / kResidueBytes;
          const uint64_t word = skipped(index) ? kQ + index % kFold : index;
          byte = static_cast<uint8_t>(word >> (8 * (position % kResidueBytes)));
          ++position;
        }
      },
      std::span<uint64_t, kSecretSize>(out.data(), kSecretSize));
  *consumed = position;
  return out;
}

TEST(SampleColumn, SkipsForcedRuns) {
  const std::vector<bool (*)(uint64_t)> patterns = {
      [](uint64_t) { return false; },
      [](uint64_t i) { return i == 0; },
      [](uint64_t i) { return i == 2047; },
      [](uint64_t i) { return i % 2 == 0; },
      [](uint64_t i) { return i < 5000; },
      [](uint64_t i) { return i >= 100 && i < 10000; },
      [](uint64_t i) { return i % 3 != 0 || (i >= 2000 && i < 2200); },
  };
  for (const auto skipped : patterns) {
    std::vector<uint64_t> expected;
    uint64_t index = 0;
    for (; expected.size() < kSecretSize; ++index) {
      if (!skipped(index)) expected.push_back(index);
    }
    size_t consumed = 0;
    EXPECT_EQ(SampleFrom(skipped, &consumed), expected);
    EXPECT_EQ(consumed, index * kResidueBytes);  // not a byte more than it needs
  }
}

// The border of the rule: q - 1 is taken, q and 2^48 - 1 are not.
TEST(SampleColumn, TakesQMinusOneOnly) {
  const uint64_t words[] = {kQ - 1, kQ, kMask48, 5};
  size_t position = 0;
  std::vector<uint64_t> out(kSecretSize);
  SampleColumn(
      [&](MutableBytes bytes) {
        for (uint8_t& byte : bytes) {
          byte = static_cast<uint8_t>(words[position / 6 % 4] >> (8 * (position % 6)));
          ++position;
        }
      },
      std::span<uint64_t, kSecretSize>(out.data(), kSecretSize));
  for (size_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i], i % 2 == 0 ? kQ - 1 : 5);
}

}  // namespace
}  // namespace talaria::ring
