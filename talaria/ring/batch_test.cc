#include "talaria/ring/batch.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace talaria::ring {
namespace {

constexpr uint8_t kUntouched = 0xab;
constexpr uint64_t kTwo52 = uint64_t{1} << 52;

struct Free {
  void operator()(uint8_t* memory) const { std::free(memory); }
};

// The inputs of one pass over `columns` columns.
struct Case {
  size_t columns;
  size_t first_column = 0;
  size_t error_stride = 0;
  std::vector<uint8_t> matrix;
  std::vector<NttSecret> secrets;
  std::vector<std::vector<int8_t>> errors;  // per batch; empty for none
};

using Rows = std::vector<std::vector<uint8_t>>;  // per batch, all panels and kSlack

Rows Generated(Isa isa, const Case& c) {
  const size_t panels = RowPanelsBytes(c.first_column + c.columns);
  Rows rows(c.secrets.size(), std::vector<uint8_t>(panels + kSlack, kUntouched));
  std::vector<BatchOutput> outputs;
  for (size_t b = 0; b < c.secrets.size(); ++b) {
    outputs.push_back({c.errors[b].empty() ? nullptr : c.errors[b].data() + c.first_column,
                       rows[b].data() + RowPanelsOffset(0, c.first_column)});
  }
  const size_t size = RowGenerator::ScratchBytes();
  const std::unique_ptr<uint8_t, Free> scratch(static_cast<uint8_t*>(std::aligned_alloc(64, size)));
  std::fill_n(scratch.get(), size, 0xff);
  const RowGenerator generator(isa, c.secrets, {scratch.get(), size});
  for (int again = 0; again < 2; ++again)  // the second time with what the first one left
    generator.Generate(c.matrix.data(), c.columns, c.error_stride, outputs);
  return rows;
}

using Random = std::mt19937_64;

// How the residues of a matrix, a secret and an error are drawn.
template <class MatrixResidue, class SecretResidue, class Error>
Case MakeCase(size_t columns, size_t batches, size_t first_column, bool with_error,
              MatrixResidue residue, SecretResidue secret, Error error) {
  Case c;
  c.columns = columns;
  c.first_column = first_column;
  c.error_stride = RoundUp(first_column + columns, 64);
  c.matrix.resize(ModuleMatrixBytes(columns) + kSlack, 0xff);
  // Padding columns are filled too: nothing of them may come out.
  for (size_t column = 0; column < RoundUp(columns, kBlockColumns); ++column) {
    for (size_t slot = 0; slot < kDegree; ++slot) {
      for (size_t i = 0; i < kRank; ++i) {
        StoreResidue(c.matrix.data() + ModuleMatrixOffset(column, slot, i), residue());
      }
    }
  }
  c.secrets.resize(batches);
  for (NttSecret& s : c.secrets) {
    for (Polynomial& p : s.s) {
      for (uint64_t& x : p) x = secret();
    }
  }
  c.errors.resize(batches);
  if (with_error) {
    for (auto& e : c.errors) {
      e.resize(kDegree * c.error_stride);
      for (int8_t& x : e) x = error();
    }
  }
  return c;
}

Case RandomCase(size_t columns, size_t batches, size_t first_column, bool with_error,
                uint64_t seed) {
  Random random(seed);
  return MakeCase(
      columns, batches, first_column, with_error, [&] { return random() % kQ; },
      [&] { return random() % kQ; }, [&] { return static_cast<int8_t>(random() % 43 - 21); });
}

// The definition, in quadratic time and with the processor's division.
uint64_t Definition(const Case& c, size_t batch, size_t row, size_t column) {
  static const std::vector<uint64_t> powers = [] {  // of psi
    std::vector<uint64_t> p(512, 1);
    for (size_t e = 1; e < 512; ++e) p[e] = MulMod(p[e - 1], Psi());
    return p;
  }();
  using Wide = unsigned __int128;
  uint64_t sum = 0;
  for (size_t slot = 0; slot < kDegree; ++slot) {
    Wide value = 0;
    for (size_t i = 0; i < kRank; ++i) {
      value +=
          static_cast<Wide>(LoadResidue(c.matrix.data() + ModuleMatrixOffset(column, slot, i))) *
          c.secrets[batch].s[i][slot];
    }
    const size_t exponent = (512 - (2 * slot + 1) * row % 512) % 512;
    sum = static_cast<uint64_t>((sum + value % kQ * powers[exponent]) % kQ);
  }
  uint64_t result = static_cast<uint64_t>(static_cast<Wide>(sum) * InvMod(kDegree) % kQ);
  if (!c.errors[batch].empty()) {
    const int error = c.errors[batch][row * c.error_stride + c.first_column + column];
    result =
        static_cast<uint64_t>((static_cast<int64_t>(result) + error + static_cast<int64_t>(kQ)) %
                              static_cast<int64_t>(kQ));
  }
  return result;
}

void ExpectLikeDefinition(const Case& c, const Rows& rows, size_t row_step) {
  for (size_t b = 0; b < rows.size(); ++b) {
    for (size_t column = 0; column < c.columns; ++column) {
      for (size_t row = column % row_step; row < kDegree; row += row_step) {
        ASSERT_EQ(LoadResidue(rows[b].data() + RowPanelsOffset(row, c.first_column + column)),
                  Definition(c, b, row, column))
            << "batch " << b << " row " << row << " column " << column;
      }
    }
  }
}

// Panels before the first column and bytes past the last panel stay, padding columns are zero.
void ExpectClean(const Case& c, const Rows& rows) {
  const size_t begin = c.first_column / kPanelColumns * kPanelBytes;
  const size_t end = RowPanelsBytes(c.first_column + c.columns);
  for (const std::vector<uint8_t>& bytes : rows) {
    for (size_t i = 0; i < begin; ++i) ASSERT_EQ(bytes[i], kUntouched) << i;
    for (size_t i = end; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], kUntouched) << i;
    for (size_t row = 0; row < kDegree; ++row) {
      for (size_t column = c.columns; column < RoundUp(c.columns, kPanelColumns); ++column) {
        ASSERT_EQ(LoadResidue(bytes.data() + RowPanelsOffset(row, c.first_column + column)), 0u);
      }
      for (size_t column = 0; column < c.columns; ++column) {
        ASSERT_LT(LoadResidue(bytes.data() + RowPanelsOffset(row, c.first_column + column)), kQ);
      }
    }
  }
}

void ExpectSameOnAllPaths(const Case& c, const std::string& what) {
  const Rows expected = Generated(Isa::kPortable, c);
  ExpectClean(c, expected);
  for (const Isa isa : SupportedIsas()) {
    EXPECT_TRUE(Generated(isa, c) == expected) << IsaName(isa) << ", " << what;
  }
}

TEST(RowGenerator, PortablePathEqualsTheDefinition) {
  for (const bool with_error : {false, true}) {
    const Case c = RandomCase(3, 2, 32, with_error, 1);
    ExpectLikeDefinition(c, Generated(Isa::kPortable, c), 1);
  }
  const Case wide = RandomCase(40, 1, 0, true, 2);
  ExpectLikeDefinition(wide, Generated(Isa::kPortable, wide), 64);
}

TEST(RowGenerator, AllPathsAreBitIdentical) {
  uint64_t seed = 100;
  for (const size_t columns : {1, 7, 8, 24, 32, 40, 96}) {
    for (size_t batches = 1; batches <= kMaxBatchesPerPass; ++batches) {
      for (const bool with_error : {false, true}) {
        const size_t first_column = columns == 40 ? 64 : 0;
        ++seed;
        ExpectSameOnAllPaths(RandomCase(columns, batches, first_column, with_error, seed),
                             "columns " + std::to_string(columns) + ", batches " +
                                 std::to_string(batches) + ", seed " + std::to_string(seed));
      }
    }
  }
}

TEST(RowGenerator, BatchesWithAndWithoutErrorsShareAPass) {
  Case c = RandomCase(40, 4, 0, true, 3);
  c.errors[0].clear();
  c.errors[2].clear();
  ExpectSameOnAllPaths(c, "mixed");
  ExpectLikeDefinition(c, Generated(DetectIsa(), c), 67);
}

// Every factor at its largest in the form in which a kernel multiplies: the plain residue, the
// AVX2 kernel's (times 1/256), the AVX-512 kernel's (times 2^52/256).
TEST(RowGenerator, ExtremeResidues) {
  const uint64_t secrets[] = {0, 1, kQ - 1, kQ - 256, MulMod(kQ - 256, InvMod(kTwo52 % kQ)),
                              // 2^24 - 1 in both halves, for the AVX2 kernel
                              MulMod(256, 0xfffffeffffff)};
  const uint64_t residues[] = {0, 1, kQ - 1, kMask48, 0xffffff, 0xffffff000000};
  const int errors[] = {-21, 21, -128, 127, 0};
  Random random(4);
  for (const uint64_t secret : secrets) {
    for (const uint64_t residue : residues) {
      for (const int error : errors) {
        const Case c = MakeCase(
            8, 2, 0, true, [&] { return residue; }, [&] { return secret; },
            [&] { return static_cast<int8_t>(error); });
        ExpectSameOnAllPaths(c, "secret " + std::to_string(secret) + ", residue " +
                                    std::to_string(residue) + ", error " + std::to_string(error));
      }
    }
  }
  // Mixtures of extremes reach sums that equal values cannot: the transform of a constant is thin.
  for (int repeat = 0; repeat < 200; ++repeat) {
    const Case c = MakeCase(
        8, 3, 0, true, [&] { return residues[random() % std::size(residues)]; },
        [&] { return secrets[random() % std::size(secrets)]; },
        [&] { return static_cast<int8_t>(errors[random() % std::size(errors)]); });
    ExpectSameOnAllPaths(c, "mixture " + std::to_string(repeat));
  }
  // Two values, by a pattern of the slot's bits: what the butterflies add up without cancelling.
  for (unsigned pattern = 0; pattern < 256; ++pattern) {
    unsigned count = 0;
    const Case c = MakeCase(
        8, 1, 0, false,
        [&] {
          const unsigned slot = count++ / kRank % kDegree;
          return __builtin_parity(slot & pattern) != 0 ? kQ - 1 : uint64_t{1};
        },
        [&] { return kQ - 256; }, [] { return int8_t{0}; });
    ExpectSameOnAllPaths(c, "pattern " + std::to_string(pattern));
  }
}

// Residues of hints are not trusted to be canonical: x and x + q are the same.
TEST(RowGenerator, TakesResiduesAboveQ) {
  Random random(5);
  const Case above = MakeCase(
      24, 2, 0, false, [&] { return kQ + random() % kFold; }, [&] { return random() % kQ; },
      [] { return int8_t{0}; });
  Case below = above;
  for (size_t at = 0; at < ModuleMatrixBytes(24); at += kResidueBytes) {
    StoreResidue(below.matrix.data() + at, LoadResidue(below.matrix.data() + at) - kQ);
  }
  for (const Isa isa : SupportedIsas()) {
    EXPECT_TRUE(Generated(isa, above) == Generated(isa, below)) << IsaName(isa);
  }
}

// What it is for: rows are the coefficients of sum_i s_i * a_i + e in Z_q[X] / (X^256 + 1).
TEST(RowGenerator, RowsAreCoefficientsOfTheNegacyclicProduct) {
  Random random(6);
  const auto ternary = [&] { return FromSigned(static_cast<int64_t>(random() % 3) - 1); };
  for (const int kind : {0, 1, 2, 3}) {  // random, all 1, all -1, all 0
    Case c = RandomCase(8, 1, 0, true, 7);
    Polynomial secrets[kRank];
    for (size_t i = 0; i < kRank; ++i) {
      for (uint64_t& x : secrets[i])
        x = kind == 0 ? ternary() : FromSigned(kind == 3 ? 0 : 3 - 2 * kind);
      c.secrets[0].s[i] = secrets[i];
      ForwardNtt(c.secrets[0].s[i]);
    }
    const Rows rows = Generated(Isa::kPortable, c);
    for (const size_t column : {size_t{0}, size_t{5}}) {
      Polynomial sum{};
      for (size_t i = 0; i < kRank; ++i) {
        Polynomial a;
        for (size_t slot = 0; slot < kDegree; ++slot) {
          a[slot] = LoadResidue(c.matrix.data() + ModuleMatrixOffset(column, slot, i));
        }
        InverseNtt(a);
        for (size_t j = 0; j < kDegree; ++j) {
          for (size_t k = 0; k < kDegree; ++k) {
            const uint64_t term = MulMod(secrets[i][j], a[k]);
            uint64_t& target = sum[(j + k) % kDegree];
            target = j + k < kDegree ? AddMod(target, term) : SubMod(target, term);
          }
        }
      }
      for (size_t row = 0; row < kDegree; ++row) {
        const uint64_t error = FromSigned(c.errors[0][row * c.error_stride + column]);
        ASSERT_EQ(LoadResidue(rows[0].data() + RowPanelsOffset(row, column)),
                  AddMod(sum[row], error));
      }
    }
    ExpectSameOnAllPaths(c, "kind " + std::to_string(kind));
  }
}

TEST(RowGenerator, NoColumnsWriteNothing) {
  Case c = RandomCase(8, 1, 32, false, 8);
  c.columns = 0;
  for (const Isa isa : SupportedIsas()) {
    const Rows rows = Generated(isa, c);
    for (const uint8_t byte : rows[0]) ASSERT_EQ(byte, kUntouched);
  }
}

}  // namespace
}  // namespace talaria::ring
