#include "talaria/cvm/mask_batch.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>

#include "talaria/cvm/check_math.h"
#include "talaria/cvm/testing/rig.h"
#include "talaria/ring/layout.h"
#include "talaria/ring/modq.h"
#include "talaria/ring/sampler.h"

namespace talaria::cvm {
namespace {

using namespace testing;

class MaskBatchTest : public ::testing::Test {
 protected:
  MaskBatchTest() : cloud_(SharedModel()), link_(MakeLink(cloud_)) {
    Result<MaskedModel> masked = SetUpModel(*link_, TestSetup(SharedModel()));
    TALARIA_CHECK(masked.ok());
    masked_ = std::move(masked).value();
  }

  std::unique_ptr<BatchGenerator> Generator(Isa isa, BatchGenerator::Entropy entropy) {
    auto made =
        BatchGenerator::Create(masked_, isa, LockPolicy::kWarnIfImpossible, std::move(entropy));
    TALARIA_CHECK(made.ok());
    return std::move(made).value();
  }

  FakeCloud cloud_;
  std::unique_ptr<CloudLink> link_;
  MaskedModel masked_;
};

// Memory for `n` batches of a group, filled with rubbish.
struct Memory {
  Memory(const MaskedGroup& group, size_t n) {
    for (size_t i = 0; i < n; ++i) {
      mask.emplace_back(ring::RowPanelsBytes(group.d_padded) + ring::kSlack, uint8_t{0xee});
      unmask.emplace_back(ring::RowPanelsBytes(group.o_padded) + ring::kSlack, uint8_t{0xee});
    }
    for (size_t i = 0; i < n; ++i) rows.push_back({mask[i].data(), unmask[i].data()});
  }
  std::vector<std::vector<uint8_t>> mask, unmask;
  std::vector<BatchRows> rows;
};

bool Wiped(const std::vector<uint8_t>& memory) {
  return std::all_of(memory.begin(), memory.end() - ring::kSlack, [](uint8_t b) { return b == 0; });
}

uint64_t At(const std::vector<uint8_t>& panels, size_t row, size_t column) {
  return ring::LoadResidue(panels.data() + ring::RowPanelsOffset(row, column));
}

// M W - U = E W for every row and output: far below Delta / 2, and not zero.
void ExpectMasks(const MaskedGroup& group, uint32_t g, const Memory& memory, size_t batch) {
  const int64_t half = int64_t{1} << (group.certificate.delta_log2 - 1);
  size_t zeros = 0, values = 0;
  for (uint32_t m = 0; m < group.member_outputs.size(); ++m) {
    const SyntheticModel::Matrix& w = SharedModel().matrix(g, m);
    for (size_t row = 0; row < ring::kDegree; row += 15) {
      for (size_t o = 0; o < w.o; o += 7) {
        uint64_t product = 0;
        for (size_t j = 0; j < w.d; ++j) {
          product = ring::AddMod(product, ring::MulMod(At(memory.mask[batch], row, j),
                                                       ring::FromSigned(w.weights[o * w.d + j])));
        }
        const int64_t error = ring::Centred(
            ring::SubMod(product, At(memory.unmask[batch], row, group.member_offsets[m] + o)));
        ASSERT_LT(std::abs(error), half);
        zeros += error == 0 ? 1 : 0;
        ++values;
      }
    }
  }
  EXPECT_LT(zeros, values / 20);
}

TEST_F(MaskBatchTest, MasksCancelUpToTheErrorOnEveryPath) {
  const std::atomic<bool> go_on{false};
  for (uint32_t g = 0; g < masked_.groups.size(); ++g) {
    for (const size_t n : {1u, 4u}) {
      std::vector<std::vector<uint8_t>> reference;
      for (const Isa isa : SupportedIsas()) {
        Memory memory(masked_.groups[g], n);
        auto generator = Generator(isa, SeededEntropy(5));
        ASSERT_TRUE(generator->Generate(g, memory.rows, go_on).ok());
        for (size_t b = 0; b < n; ++b) ExpectMasks(masked_.groups[g], g, memory, b);
        EXPECT_GT(generator->self_test_seconds(), 0);
        // Bit-identical, batch by batch, whatever the path.
        std::vector<std::vector<uint8_t>> all;
        const size_t used =
            ring::RowPanelsBytes(masked_.groups[g].d);  // what lies beyond is not written
        for (auto& panels : memory.mask)
          all.emplace_back(panels.begin(), panels.begin() + static_cast<ptrdiff_t>(used));
        all.insert(all.end(), memory.unmask.begin(), memory.unmask.end());
        if (reference.empty()) reference = all;
        EXPECT_EQ(all, reference) << IsaName(isa);
      }
      for (size_t b = 1; b < n; ++b) EXPECT_NE(reference[b], reference[0]);  // keys of their own
    }
  }
}

// The two streams of a key, and the batches of a pass, share nothing: rows of one batch tell
// nothing simple about another's.
TEST_F(MaskBatchTest, TheSameKeyGivesTheSameBatchAndOnlyThat) {
  const std::atomic<bool> go_on{false};
  Memory a(masked_.groups[0], 2), b(masked_.groups[0], 1);
  ASSERT_TRUE(Generator(DetectIsa(), SeededEntropy(6))->Generate(0, a.rows, go_on).ok());
  ASSERT_TRUE(Generator(DetectIsa(), SeededEntropy(6))->Generate(0, b.rows, go_on).ok());
  EXPECT_EQ(a.mask[0], b.mask[0]);
  EXPECT_EQ(a.unmask[0], b.unmask[0]);
  size_t equal = 0;
  for (size_t row = 0; row < ring::kDegree; ++row) {
    for (size_t c = 0; c < 128; ++c)
      equal += At(a.mask[0], row, c) == At(a.mask[1], row, c) ? 1 : 0;
  }
  EXPECT_EQ(equal, 0u);
}

// One wrong bit anywhere in what a batch is made from, or in the vectors of the test, is found, and
// nothing is left.
TEST_F(MaskBatchTest, TheSelfTestFindsAFaultAndWipes) {
  const std::atomic<bool> go_on{false};
  const auto expect_refused = [&] {
    for (const Isa isa : SupportedIsas()) {
      Memory memory(masked_.groups[0], 2);
      EXPECT_EQ(Generator(isa, SeededEntropy(7))->Generate(0, memory.rows, go_on).code(),
                Code::kSessionEnded)
          << IsaName(isa);
      for (size_t b = 0; b < 2; ++b) EXPECT_TRUE(Wiped(memory.mask[b]) && Wiped(memory.unmask[b]));
    }
  };
  uint8_t* const hint =
      masked_.groups[0].hints[2].Expose().data() + ring::ModuleMatrixOffset(32, 255, 7);
  *hint ^= 1;
  expect_refused();
  *hint ^= 1;
  uint8_t* const a =
      masked_.public_matrices.at(128).Expose().data() + ring::ModuleMatrixOffset(127, 0, 0) + 5;
  *a ^= 0x80;
  expect_refused();
  *a ^= 0x80;
  uint64_t* const v = masked_.groups[0].v.Expose<uint64_t>().data() + 95;
  *v ^= 1;
  expect_refused();
  *v ^= 1;
  Memory memory(masked_.groups[0], 2);
  EXPECT_TRUE(Generator(DetectIsa(), SeededEntropy(7))->Generate(0, memory.rows, go_on).ok());
}

TEST_F(MaskBatchTest, CancelAndFailingEntropyLeaveNothing) {
  const std::atomic<bool> cancelled{true}, go_on{false};
  Memory memory(masked_.groups[1], 3);
  EXPECT_EQ(Generator(DetectIsa(), SeededEntropy(8))->Generate(1, memory.rows, cancelled).code(),
            Code::kCancelled);
  for (size_t b = 0; b < 3; ++b) EXPECT_TRUE(Wiped(memory.mask[b]) && Wiped(memory.unmask[b]));

  int calls = 0;
  auto broken = Generator(DetectIsa(), [&](std::span<uint8_t, 32>) {
    return ++calls == 2 ? Status(Code::kResourceExhausted, "dry") : OkStatus();
  });
  EXPECT_EQ(broken->Generate(1, memory.rows, go_on).code(), Code::kResourceExhausted);
  for (size_t b = 0; b < 3; ++b) EXPECT_TRUE(Wiped(memory.mask[b]) && Wiped(memory.unmask[b]));
}

TEST(LooksRandomTest, SeesWhatTheLinearTestCannot) {
  const std::array<uint8_t, 32> key{9};
  ring::AesCtrStream stream(key, 1), error_stream(key, 2);
  ring::NttSecret secret;
  for (ring::Polynomial& s : secret.s) {
    ring::SampleTernary(stream, s);
    ring::ForwardNtt(s);
  }
  std::vector<int8_t> errors(256 * 64);
  ring::SampleError(Isa::kPortable, error_stream, errors);
  const auto looks_random = [&](const std::vector<int8_t>& e) {
    return LooksRandom(secret, SumOfSquares(Isa::kPortable, e), e.size());
  };
  EXPECT_EQ(looks_random(errors), ~uint64_t{0});

  EXPECT_EQ(looks_random(std::vector<int8_t>(errors.size(), 0)), 0u) << "no error at all";
  EXPECT_EQ(looks_random(std::vector<int8_t>(errors.size(), 1)), 0u) << "a constant error";
  std::vector<int8_t> half = errors;
  std::fill(half.begin(), half.begin() + static_cast<long>(half.size() / 2), int8_t{0});
  EXPECT_EQ(looks_random(half), 0u) << "half of the rows without an error";
  secret.s[5].fill(1);
  EXPECT_EQ(looks_random(errors), 0u) << "a constant secret polynomial";
}

}  // namespace
}  // namespace talaria::cvm
