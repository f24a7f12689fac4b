#include "talaria/gemm/product.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <thread>

#include "talaria/gemm/product_kernels.h"
#include "talaria/gemm/product_memory.h"
#include "talaria/gemm/product_selftest.h"
#include "talaria/gemm/product_testing.h"

namespace talaria::gemm {
namespace {

using ::testing::HasSubstr;

constexpr uint8_t kGuard = 0xee;
constexpr size_t kGuardBytes = 64;

// The residue at `index` of an output.
uint64_t At(Bytes out, size_t index) { return ring::LoadResidue(out.data() + 6 * index); }

PackedWeights Pack(Isa isa, std::span<const int8_t> weights, size_t d) {
  auto packed = PackedWeights::Create(isa, d, PadOutputs(weights.size() / d));
  EXPECT_TRUE(packed.ok()) << packed.status().ToString();
  EXPECT_TRUE(packed->SetColumns(0, weights).ok());
  return std::move(packed).value();
}

// Runs the product into a buffer with guards on both sides, at an odd address.
std::vector<uint8_t> Multiplied(const PackedWeights& weights, Bytes planes, size_t rows,
                                ThreadTeam& team) {
  const size_t bytes = rows * weights.padded_outputs() * 6;
  std::vector<uint8_t> guarded(bytes + 2 * kGuardBytes + 1, kGuard), scratch;
  const auto out = MutableBytes(guarded).subspan(kGuardBytes + 1, bytes);
  Product(weights, planes, rows, out, scratch, team);
  const auto is_guard = [](uint8_t b) { return b == kGuard; };
  EXPECT_TRUE(std::all_of(guarded.begin(), guarded.begin() + kGuardBytes + 1, is_guard))
      << "wrote before the output";
  EXPECT_TRUE(std::all_of(guarded.end() - kGuardBytes, guarded.end(), is_guard))
      << "wrote past the output";
  return {out.begin(), out.end()};
}

std::vector<uint8_t> Oracle(std::span<const int8_t> weights, size_t d, Bytes planes, size_t rows) {
  std::vector<uint8_t> out(rows * PadOutputs(weights.size() / d) * 6, kGuard);
  ReferenceProduct(weights, d, planes, rows, out);
  return out;
}

// Where two outputs first differ: a whole dump says nothing.
::testing::AssertionResult SameResidues(Bytes got, Bytes expected, size_t padded_outputs) {
  if (got.size() != expected.size()) return ::testing::AssertionFailure() << "sizes differ";
  for (size_t i = 0; i < got.size() / 6; ++i) {
    if (At(got, i) != At(expected, i)) {
      return ::testing::AssertionFailure()
             << "row " << i / padded_outputs << " output " << i % padded_outputs << ": "
             << At(got, i) << " instead of " << At(expected, i);
    }
  }
  return ::testing::AssertionSuccess();
}

// ---- the oracle

TEST(ReferenceProduct, EqualsHandComputedCells) {
  // Two inputs, two outputs, one row: x = (q - 1, 5), columns (1, 2) and (-127, 3).
  const std::vector<int8_t> weights = {1, 2, -127, 3};
  const std::vector<uint64_t> x = {ring::kQ - 1, 5};
  const auto out = Oracle(weights, 2, DigitPlanes(x, 2), 1);
  EXPECT_EQ(At(out, 0), 9u);          // -1 + 10
  EXPECT_EQ(At(out, 1), 127u + 15u);  // (-1)(-127) + 15
  for (size_t c = 2; c < 32; ++c) EXPECT_EQ(At(out, c), 0u) << c;
}

TEST(ReferenceProduct, EqualsModularArithmeticStepByStep) {
  // Independent: every product and every sum is reduced at once, by the ring's own functions.
  constexpr size_t kD = 7, kOutputs = 5, kRows = 3;
  const auto weights = RandomWeights(kOutputs, kD, 1);
  const auto x = RandomResidues(kRows, kD, 2);
  const auto out = Oracle(weights, kD, DigitPlanes(x, kD), kRows);
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t c = 0; c < kOutputs; ++c) {
      uint64_t sum = 0;
      for (size_t k = 0; k < kD; ++k) {
        sum = ring::AddMod(sum, ring::MulMod(x[r * kD + k], ring::FromSigned(weights[c * kD + k])));
      }
      EXPECT_EQ(At(out, r * 32 + c), sum) << r << " " << c;
    }
  }
}

// ---- every kernel against the oracle

struct Shape {
  size_t d, outputs, rows;
};

class EveryIsa : public ::testing::TestWithParam<Isa> {
 protected:
  // Random values, on teams of 1, 2 and 3 unless one is named.
  void CheckRandom(Shape s) {
    for (ThreadTeam* team : {&one_, &two_, &three_}) CheckRandom(s, *team);
  }
  void CheckRandom(Shape s, ThreadTeam& team) {
    SCOPED_TRACE("d " + std::to_string(s.d) + " o " + std::to_string(s.outputs) + " n " +
                 std::to_string(s.rows));
    const auto weights = RandomWeights(s.outputs, s.d, s.d * 31 + s.outputs);
    const auto planes = DigitPlanes(RandomResidues(s.rows, s.d, s.rows), s.d);
    const auto expected = Oracle(weights, s.d, planes, s.rows);
    const PackedWeights packed = Pack(GetParam(), weights, s.d);
    EXPECT_TRUE(
        SameResidues(Multiplied(packed, planes, s.rows, team), expected, packed.padded_outputs()))
        << team.size() << " threads";
  }
  ThreadTeam one_{1}, two_{2}, three_{3};
};

TEST_P(EveryIsa, RandomValuesOfEveryDepth) {
  for (size_t d : {1, 20, 63, 64, 65, 512, 513, 576, 1088, 1536, 4096}) {
    for (size_t rows : {1, 2, 3}) CheckRandom({d, 33, rows});
  }
}

TEST_P(EveryIsa, RandomValuesOfEveryWidth) {
  for (size_t outputs : {1, 7, 31, 32, 33, 64, 960}) {
    for (size_t rows : {1, 2, 5, 16}) CheckRandom({20, outputs, rows});
  }
}

TEST_P(EveryIsa, RandomValuesOfManyRows) {
  for (size_t rows : {1, 2, 3, 4, 5, 6, 7, 16, 17, 65, 300}) CheckRandom({65, 65, rows});
  CheckRandom({576, 960, 3});
}

TEST_P(EveryIsa, FullDepth) {
  CheckRandom({kMaxInputs, 3, 1});
  CheckRandom({kMaxInputs - 5, 2, 3});
}

// More rows than a chunk of 6 MB holds, with an odd rest: chunks and their borders.
TEST_P(EveryIsa, RowsAreCutIntoChunks) {
  constexpr size_t kD = 16384;  // 32 or 64 rows are a chunk
  for (size_t rows : {33, 65, 129}) CheckRandom({kD, 1, rows}, two_);
}

// Blocks of rows and runs of inputs, each with a rest.
TEST_P(EveryIsa, RowsAndInputsInBlocks) {
  for (size_t rows : {31, 34, 35, 37, 71}) CheckRandom({2100, 40, rows}, one_);
}

TEST_P(EveryIsa, LargestSums) {
  for (size_t d : {size_t{1}, size_t{512}, size_t{576}, size_t{1024}, size_t{4096}, kMaxInputs}) {
    const size_t outputs = d < kMaxInputs ? 33 : 1;
    const size_t padded_outputs = PadOutputs(outputs);
    for (int weight : {-127, 127}) {
      for (uint64_t residue :
           {uint64_t{0}, ring::kQ - 1, uint64_t{0x7fff7fff7fff}, uint64_t{0x800080008000}}) {
        if (residue != 0 && residue != ring::kQ - 1 && d > 1024)
          continue;  // the signs of 16-bit digits; long
        const std::vector<int8_t> weights(outputs * d, static_cast<int8_t>(weight));
        const std::vector<uint64_t> x(3 * d, residue);
        const auto got = Multiplied(Pack(GetParam(), weights, d), DigitPlanes(x, d, 0xff), 3, two_);
        const uint64_t expected =
            ring::MulMod(ring::MulMod(residue, ring::FromSigned(weight)), static_cast<uint64_t>(d));
        for (size_t i = 0; i < 3 * padded_outputs; ++i) {
          ASSERT_EQ(At(got, i), i % padded_outputs < outputs ? expected : 0u)
              << "d " << d << " weight " << weight << " x " << residue;
        }
      }
    }
  }
}

// A peer may send digits of values in [q, 2^48): they count modulo q, on every path alike.
TEST_P(EveryIsa, ValuesAboveTheModulus) {
  constexpr size_t kD = 70;
  const auto weights = RandomWeights(40, kD, 5);
  const std::vector<uint8_t> planes(2 * kPlanes * PadInputs(kD), 0xff);
  const auto got = Multiplied(Pack(GetParam(), weights, kD), planes, 2, one_);
  EXPECT_TRUE(SameResidues(got, Oracle(weights, kD, planes, 2), 64));
  for (size_t i = 0; i < got.size() / 6; ++i) EXPECT_LT(At(got, i), ring::kQ);
}

TEST_P(EveryIsa, PaddingDigitsDoNotMatter) {
  constexpr size_t kD = 33;
  const auto x = RandomResidues(3, kD, 6);
  const PackedWeights packed = Pack(GetParam(), RandomWeights(40, kD, 7), kD);
  EXPECT_EQ(Multiplied(packed, DigitPlanes(x, kD, 0x00), 3, one_),
            Multiplied(packed, DigitPlanes(x, kD, 0xff), 3, one_));
}

TEST_P(EveryIsa, NoRowsIsNoWork) {
  const PackedWeights packed = Pack(GetParam(), RandomWeights(32, 64, 8), 64);
  EXPECT_TRUE(Multiplied(packed, {}, 0, two_).empty());
}

// ---- setting columns

TEST_P(EveryIsa, ColumnsInPiecesEqualColumnsAtOnce) {
  constexpr size_t kD = 100, kOutputs = 200;
  const auto weights = RandomWeights(kOutputs, kD, 9);
  const auto planes = DigitPlanes(RandomResidues(5, kD, 10), kD);
  auto packed = PackedWeights::Create(GetParam(), kD, PadOutputs(kOutputs));
  ASSERT_TRUE(packed.ok());
  const std::span<const int8_t> all(weights);
  // Out of order, the last one not a multiple of 32, one of them twice.
  ASSERT_TRUE(packed->SetColumns(160, all.subspan(160 * kD)).ok());
  ASSERT_TRUE(packed->SetColumns(32, RandomWeights(64, kD, 11)).ok());
  ASSERT_TRUE(packed->SetColumns(0, all.subspan(0, 96 * kD)).ok());
  ASSERT_TRUE(packed->SetColumns(96, all.subspan(96 * kD, 64 * kD)).ok());
  EXPECT_TRUE(SameResidues(Multiplied(*packed, planes, 5, two_), Oracle(weights, kD, planes, 5),
                           packed->padded_outputs()));
}

TEST_P(EveryIsa, ColumnsNeverSetAreZero) {
  constexpr size_t kD = 64;
  auto packed = PackedWeights::Create(GetParam(), kD, 96);
  ASSERT_TRUE(packed.ok());
  ASSERT_TRUE(packed->SetColumns(32, RandomWeights(1, kD, 12)).ok());
  const auto planes = DigitPlanes(RandomResidues(1, kD, 13), kD);
  const auto out = Multiplied(*packed, planes, 1, one_);
  for (size_t c = 0; c < 96; ++c) EXPECT_EQ(At(out, c) == 0, c != 32) << c;
}

TEST_P(EveryIsa, ThreadsMaySetDisjointColumns) {
  constexpr size_t kD = 300, kOutputs = 128;
  const auto weights = RandomWeights(kOutputs, kD, 14);
  const auto planes = DigitPlanes(RandomResidues(2, kD, 15), kD);
  auto packed = PackedWeights::Create(GetParam(), kD, kOutputs);
  ASSERT_TRUE(packed.ok());
  const std::span<const int8_t> all(weights);
  std::thread other([&] { EXPECT_TRUE(packed->SetColumns(64, all.subspan(64 * kD)).ok()); });
  EXPECT_TRUE(packed->SetColumns(0, all.subspan(0, 64 * kD)).ok());
  other.join();
  EXPECT_TRUE(
      SameResidues(Multiplied(*packed, planes, 2, one_), Oracle(weights, kD, planes, 2), kOutputs));
}

TEST_P(EveryIsa, AWeightOfMinus128IsRefusedAndChangesNothing) {
  constexpr size_t kD = 64;
  const auto good = RandomWeights(64, kD, 16);
  PackedWeights packed = Pack(GetParam(), good, kD);
  auto bad = RandomWeights(64, kD, 17);
  bad.back() = -128;
  const Status status = packed.SetColumns(0, bad);
  EXPECT_EQ(status.code(), Code::kCorrupt);
  EXPECT_THAT(status.message(), HasSubstr("-128"));
  const auto planes = DigitPlanes(RandomResidues(1, kD, 18), kD);
  EXPECT_TRUE(SameResidues(Multiplied(packed, planes, 1, one_), Oracle(good, kD, planes, 1), 64));
}

TEST_P(EveryIsa, ColumnsThatDoNotFitAreRefused) {
  auto packed = PackedWeights::Create(GetParam(), 10, 64);
  ASSERT_TRUE(packed.ok());
  const std::vector<int8_t> weights(330, 1);
  const std::span<const int8_t> all(weights);
  EXPECT_EQ(packed->SetColumns(0, all.subspan(0, 15)).code(),
            Code::kInvalidArgument);  // half a column
  EXPECT_EQ(packed->SetColumns(16, all.subspan(0, 10)).code(),
            Code::kInvalidArgument);                                      // not at a multiple of 32
  EXPECT_EQ(packed->SetColumns(32, all).code(), Code::kInvalidArgument);  // one too many
  EXPECT_EQ(packed->SetColumns(96, all.subspan(0, 10)).code(),
            Code::kInvalidArgument);  // past the end
  EXPECT_EQ(packed->SetColumns(SIZE_MAX / 32 * 32, all).code(),
            Code::kInvalidArgument);  // no overflow
  EXPECT_TRUE(packed->SetColumns(64, {}).ok());
}

TEST_P(EveryIsa, MeasuresAreKept) {
  auto packed = PackedWeights::Create(GetParam(), 100, 64);
  ASSERT_TRUE(packed.ok());
  EXPECT_EQ(packed->isa(), GetParam());
  EXPECT_EQ(packed->d(), 100u);
  EXPECT_EQ(packed->padded_inputs(), 128u);
  EXPECT_EQ(packed->padded_outputs(), 64u);
}

INSTANTIATE_TEST_SUITE_P(Isas, EveryIsa, ::testing::ValuesIn(SupportedIsas()),
                         [](const auto& param) { return std::string(IsaName(param.param)); });

TEST(PackedWeights, ImpossibleShapesAreRefused) {
  EXPECT_EQ(PackedWeights::Create(Isa::kPortable, 0, 32).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(PackedWeights::Create(Isa::kPortable, kMaxInputs + 1, 32).status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(PackedWeights::Create(Isa::kPortable, 64, 0).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(PackedWeights::Create(Isa::kPortable, 64, 33).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(PackedWeights::Create(Isa::kPortable, 64, SIZE_MAX / 32 * 32).status().code(),
            Code::kInvalidArgument);
  // 2^48 bytes: more than any machine maps.
  EXPECT_EQ(PackedWeights::Create(Isa::kPortable, kMaxInputs, size_t{1} << 32).status().code(),
            Code::kResourceExhausted);
}

TEST(PackedWeights, AnInstructionSetThatIsNotHereIsRefused) {
  if (DetectIsa() == Isa::kAmx) GTEST_SKIP() << "this processor has them all";
  EXPECT_EQ(PackedWeights::Create(Isa::kAmx, 64, 32).status().code(), Code::kInvalidArgument);
}

// ---- the memory under the weights

TEST(AllocateWeights, PiecesAreZeroAlignedAndApart) {
  // Two that fill a region, one that begins the next, one that stands alone.
  const std::vector<size_t> sizes = {1,          4096,       300'000,   1'700'000,
                                     15'000'000, 15'000'000, 5'000'000, 17'000'000};
  constexpr size_t kStep = 499;  // every page is looked at
  std::vector<std::shared_ptr<int8_t>> pieces;
  for (size_t size : sizes) {
    pieces.push_back(AllocateWeights(size));
    ASSERT_NE(pieces.back(), nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(pieces.back().get()) % 4096, 0u);
    for (size_t i = 0; i < size; i += kStep) {
      ASSERT_EQ(pieces.back().get()[i], 0);
      pieces.back().get()[i] = static_cast<int8_t>(pieces.size());
    }
  }
  for (size_t p = 0; p < pieces.size(); ++p) {
    for (size_t i = 0; i < sizes[p]; i += kStep)
      ASSERT_EQ(pieces[p].get()[i], static_cast<int8_t>(p + 1));
  }
}

TEST(AllocateWeights, MoreThanThereIsGivesNull) {
  EXPECT_EQ(AllocateWeights(SIZE_MAX - 5), nullptr);
}

// ---- the self-test

TEST(SelfTestedIsa, AcceptsEveryKernelOfThisProcessor) {
  for (Isa isa : SupportedIsas()) EXPECT_EQ(SelfTestedIsa(isa), isa) << IsaName(isa);
}

TEST(SelfTestedIsa, NeverReturnsMoreThanTheProcessorHas) {
  EXPECT_EQ(SelfTestedIsa(Isa::kAmx), DetectIsa());
}

// Kernels that are wrong in ways seen or feared. Each is the portable one with one fault.
void OneBitOff(const PanelRun& run) {
  kPortableKernel.multiply(run);
  run.out[0] ^= 1;
}
void LastRowMissing(const PanelRun& run) {
  PanelRun shorter = run;
  if (shorter.rows > 1) --shorter.rows;
  kPortableKernel.multiply(shorter);
}
void SaturatingWeights(const int8_t* columns, size_t d, size_t count, int8_t* panel) {
  std::vector<int8_t> clipped(columns, columns + count * d);
  for (int8_t& w : clipped) w = std::clamp<int8_t>(w, -126, 126);
  kPortableKernel.pack_panel(clipped.data(), d, count, panel);
}

TEST(SelfTestedIsa, ABrokenKernelIsRejectedAndTheNextBestTaken) {
  Kernel bit = kPortableKernel, row = kPortableKernel, saturating = kPortableKernel;
  bit.name = "one-bit-off";
  bit.multiply = OneBitOff;
  row.name = "last-row-missing";
  row.multiply = LastRowMissing;
  saturating.name = "saturating";
  saturating.pack_panel = SaturatingWeights;
  for (const Kernel* broken : {&bit, &row, &saturating}) {
    EXPECT_FALSE(KernelAgrees({Isa::kPortable, broken})) << broken->name;
    // The name of the instruction set is only a name here: all of these are portable code.
    const KernelChoice table[] = {{Isa::kPortable, &kPortableKernel}, {DetectIsa(), broken}};
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(SelfTestedIsa(DetectIsa(), table), Isa::kPortable);
    EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr(broken->name));
  }
}

TEST(SelfTestedIsaDeathTest, EndsTheProgramWhenNothingAgrees) {
  Kernel broken = kPortableKernel;
  broken.multiply = OneBitOff;
  const KernelChoice table[] = {{Isa::kPortable, &broken}};
  EXPECT_DEATH((void)SelfTestedIsa(Isa::kPortable, table), "no product kernel agrees");
}

TEST(ProductDeathTest, BuffersOfTheWrongSizeEndTheProgram) {
  const PackedWeights packed = Pack(Isa::kPortable, RandomWeights(32, 64, 19), 64);
  ThreadTeam team(1);
  std::vector<uint8_t> planes(kPlanes * 64), out(32 * 6), scratch;
  EXPECT_DEATH(Product(packed, Bytes(planes).subspan(1), 1, out, scratch, team), "planes");
  EXPECT_DEATH(Product(packed, planes, 1, MutableBytes(out).subspan(1), scratch, team), "out");
}

}  // namespace
}  // namespace talaria::gemm
