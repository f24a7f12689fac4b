// The GPU's kernel on an emulator (testing/emulator.h): its very code, against the oracle.
#include "talaria/gemm/cuda/product_kernel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "talaria/gemm/cuda/testing/emulator.h"
#include "talaria/gemm/product_testing.h"

namespace talaria::gemm::cuda {
namespace {

constexpr uint8_t kGuard = 0xee;
constexpr size_t kGuardBytes = 256;

// 16-byte aligned, as device memory is, with guards on both sides.
class DeviceBytes {
 public:
  explicit DeviceBytes(size_t size) : size_(size), memory_(size / 16 + 2 * kGuardBytes / 16 + 1) {
    std::memset(memory_.data(), kGuard, memory_.size() * 16);
  }
  explicit DeviceBytes(Bytes from) : DeviceBytes(from.size()) {
    std::memcpy(data(), from.data(), from.size());
  }
  uint8_t* data() { return reinterpret_cast<uint8_t*>(memory_.data()) + kGuardBytes; }
  bool GuardsStand() {
    const auto* all = reinterpret_cast<const uint8_t*>(memory_.data());
    const auto is_guard = [](uint8_t b) { return b == kGuard; };
    return std::all_of(all, all + kGuardBytes, is_guard) &&
           std::all_of(all + kGuardBytes + size_, all + memory_.size() * 16, is_guard);
  }

 private:
  size_t size_;
  std::vector<Words> memory_;
};

// As the pack kernel does: chunk after chunk.
DeviceBytes PackedWeightsOf(std::span<const int8_t> weights, uint32_t d) {
  const auto outputs = static_cast<uint32_t>(weights.size() / d);
  const uint32_t units = static_cast<uint32_t>(PadInputs(d)) / kUnitInputs;
  const uint32_t tiles = DeviceOutputs(outputs) / kTileOutputs;
  DeviceBytes packed(size_t{tiles} * units * kTileUnitBytes);
  for (uint32_t tile = 0; tile < tiles; ++tile) {
    for (uint32_t chunk = 0; chunk < units * 64; ++chunk) {
      const Words words = PackedChunk(weights.data(), d, 0, outputs, tile, chunk);
      std::memcpy(packed.data() + (size_t{tile} * units * 64 + chunk) * 16, &words, 16);
    }
  }
  return packed;
}

struct Case {
  uint32_t d, outputs, rows;
};

template <class S>
class ProductKernel : public ::testing::Test {
 protected:
  std::vector<uint8_t> Multiplied(std::span<const int8_t> weights, uint32_t d, Bytes planes,
                                  uint32_t rows, Landing landing, uint64_t seed) {
    const auto padded = static_cast<uint32_t>(PadOutputs(weights.size() / d));
    DeviceBytes packed = PackedWeightsOf(weights, d), digits(planes),
                out(size_t{rows} * padded * 6);
    const ProductArgs args{.weights = packed.data(),
                           .planes = digits.data(),
                           .out = out.data(),
                           .units = static_cast<uint32_t>(PadInputs(d)) / kUnitInputs,
                           .rows = rows,
                           .padded_outputs = padded};
    for (uint32_t block = 0; block < Blocks<S>(rows, padded); ++block) {
      EmulatedBlock emulated(S::kThreads, S::kSharedBytes, landing, seed + block);
      emulated.Run([&](uint32_t thread, EmulatedThread& hardware) {
        ProductBlock<EmulatedThread, S>(hardware, args, emulated.shared(), block, thread).Run();
      });
    }
    EXPECT_TRUE(out.GuardsStand());
    return {out.data(), out.data() + size_t{rows} * padded * 6};
  }

  void Check(Case c, std::span<const int8_t> weights, Bytes planes, Landing landing) {
    std::vector<uint8_t> expected(c.rows * PadOutputs(c.outputs) * 6);
    ReferenceProduct(weights, c.d, planes, c.rows, expected);
    const auto got = Multiplied(weights, c.d, planes, c.rows, landing, c.d + c.rows);
    for (size_t i = 0; i < got.size() / 6; ++i) {
      ASSERT_EQ(ring::LoadResidue(got.data() + 6 * i), ring::LoadResidue(expected.data() + 6 * i))
          << "d " << c.d << " o " << c.outputs << " n " << c.rows << " row "
          << i / PadOutputs(c.outputs) << " output " << i % PadOutputs(c.outputs);
    }
  }

  void CheckRandom(Case c) {
    const auto weights = RandomWeights(c.outputs, c.d, c.d * 31 + c.outputs);
    const auto planes = DigitPlanes(RandomResidues(c.rows, c.d, c.rows), c.d);
    for (Landing landing : {Landing::kAtOnce, Landing::kLate}) Check(c, weights, planes, landing);
  }
};

using EveryShape = ::testing::Types<FewRows, SomeRows, ManyRows>;
class ShapeName {
 public:
  template <class S>
  static std::string GetName(int) {
    return std::to_string(S::kOutputs) + "x" + std::to_string(S::kRows) + "rows";
  }
};
TYPED_TEST_SUITE(ProductKernel, EveryShape, ShapeName);

// Fewer units than stages, than warps that share them, as many, more, and rests.
TYPED_TEST(ProductKernel, EveryDepth) {
  for (uint32_t d : {1, 65, 256, 500, 1601}) this->CheckRandom({d, 33, 3});
}

TYPED_TEST(ProductKernel, EveryWidth) {
  for (uint32_t outputs : {1, 32, 64, 130}) this->CheckRandom({70, outputs, 2});
}

TYPED_TEST(ProductKernel, EveryNumberOfRows) {
  for (uint32_t rows : {1, 4, 5, 15, 17, 33}) this->CheckRandom({65, 33, rows});
}

TYPED_TEST(ProductKernel, LargestSums) {
  for (int weight : {-127, 127}) {
    for (int digit : {0x00, 0x7f, 0x80, 0xff}) {  // 0xff: values above q, as a peer may send
      for (uint32_t d : {1u, 1024u}) {
        const std::vector<int8_t> weights(3 * d, static_cast<int8_t>(weight));
        this->Check({d, 3, 2}, weights,
                    std::vector<uint8_t>(2 * kPlanes * PadInputs(d), static_cast<uint8_t>(digit)),
                    Landing::kLate);
      }
    }
  }
}

// The emulator ends the program if a sum leaves s32.
using FullDepth = ProductKernel<FewRows>;
TEST_F(FullDepth, SumsStayInS32) {
  constexpr uint32_t kD = kMaxInputs;
  const std::vector<int8_t> weights(kD, -127);
  Check({kD, 1, 1}, weights, std::vector<uint8_t>(kPlanes * kD, 0xff), Landing::kLate);
}

TEST(ChooseShape, FillsTheMultiprocessors) {
  for (uint32_t rows : {1, 4}) EXPECT_EQ(ChooseShape(rows, 4096, 132), ShapeChoice::kFewRows);
  for (uint32_t rows : {5, 16}) EXPECT_EQ(ChooseShape(rows, 57344, 132), ShapeChoice::kSomeRows);
  EXPECT_EQ(ChooseShape(64, 4096, 132), ShapeChoice::kSomeRows);  // 64 blocks of the other kind
  EXPECT_EQ(ChooseShape(64, 28672, 132), ShapeChoice::kManyRows);
  EXPECT_EQ(ChooseShape(256, 4096, 132), ShapeChoice::kManyRows);
}

// What has to be under way for an H200: bytes a second times the seconds until memory answers, for
// each multiprocessor. And what two blocks of it have of shared memory.
TEST(Shapes, KeepTheMemoryBusy) {
  constexpr double kUnderWay = 4.8e12 * 0.7e-6 / 132;
  constexpr uint32_t kReserved = 1024, kSharedOfMultiprocessor = 228 * 1024;
  const auto ahead = [](auto shape) {
    return double{decltype(shape)::kStages - 1} * decltype(shape)::kWeightBytes;
  };
  EXPECT_GE(ahead(FewRows()), kUnderWay);
  EXPECT_GE(2 * ahead(SomeRows()), kUnderWay);
  EXPECT_LE(2 * (FewRows::kSharedBytes + kReserved), kSharedOfMultiprocessor);
  EXPECT_LE(2 * (SomeRows::kSharedBytes + kReserved), kSharedOfMultiprocessor);
}

// The emulator sees what it is there for: kernels with a fault.
class Emulator : public ::testing::TestWithParam<Landing> {
 protected:
  // Copies 16 bytes a thread into shared memory, and hands on those of the other half's thread.
  bool Hands(bool wait, bool barrier) {
    std::vector<Words> from(64), to(64);
    for (uint32_t i = 0; i < 64; ++i) from[i].w[0] = i + 1;
    EmulatedBlock block(64, 1024, GetParam(), 1);
    block.Run([&](uint32_t thread, EmulatedThread& hardware) {
      hardware.CopyAsync16(block.shared() + 16 * thread,
                           reinterpret_cast<const uint8_t*>(&from[thread]), true);
      hardware.CommitCopies();
      if (wait) hardware.WaitCopies<0>();
      if (barrier) hardware.BlockBarrier();
      to[thread] = hardware.LoadShared16(block.shared() + 16 * (thread ^ 32));
    });
    for (uint32_t i = 0; i < 64; ++i) {
      if (to[i].w[0] != (i ^ 32) + 1) return false;
    }
    return true;
  }
};
TEST_P(Emulator, SeesAMissingBarrier) {
  EXPECT_TRUE(Hands(true, true));
  EXPECT_FALSE(Hands(true, false));
}
TEST_P(Emulator, SeesAMissingWaitWhenBytesLandLate) {
  EXPECT_EQ(Hands(false, true), GetParam() == Landing::kAtOnce);
}
INSTANTIATE_TEST_SUITE_P(Landings, Emulator, ::testing::Values(Landing::kAtOnce, Landing::kLate));

TEST(EmulatorDeathTest, AWarpThatPartsBeforeAnMmaEndsTheProgram) {
  EXPECT_DEATH(
      {
        EmulatedBlock block(32, 1024, Landing::kLate, 1);
        block.Run([](uint32_t thread, EmulatedThread& hardware) {
          int32_t sums[4] = {};
          if (thread != 7) hardware.Mma(sums, {}, 0, 0);
        });
      },
      "");
}

TEST(Recombine, EqualsWideArithmeticAtTheEdges) {
  constexpr int32_t kEdge = 65536 * 255 * 127;
  const int32_t values[] = {-kEdge, -1, 0, 1, 16383, kEdge};
  for (uint32_t code = 0; code < 46656; ++code) {  // 6^6
    int32_t sums[6];
    __int128 wide = 0;
    for (uint32_t plane = 0, rest = code; plane < 6; ++plane, rest /= 6) {
      sums[plane] = values[rest % 6];
      wide += static_cast<__int128>(sums[plane]) << (8 * plane);
    }
    wide %= kModulus;
    if (wide < 0) wide += kModulus;
    ASSERT_EQ(Recombine(sums), static_cast<uint64_t>(wide)) << code;
  }
}

// Every weight of a tile's unit has one place, and inputs agree with what the digits' threads hold.
TEST(Layout, WordsCoverATileOnce) {
  std::set<std::pair<uint32_t, uint32_t>> seen;
  for (uint32_t half = 0; half < 2; ++half) {
    for (uint32_t lane = 0; lane < 32; ++lane) {
      for (uint32_t word = 0; word < 4; ++word) {
        const uint32_t input = WordInput(half, lane, word);
        EXPECT_TRUE(seen.emplace(WordOutput(lane, word), input).second);
        // Words 0 and 1 meet b0, words 2 and 3 b1, of the digits' 16 bytes at 16 (lane % 4).
        EXPECT_EQ(input, lane % 4 * 16 + (2 * half + word / 2) * 4);
      }
    }
  }
  EXPECT_EQ(seen.size(), 256u);
}

TEST(Layout, ColumnsAreEveryPlaneOfFourRows) {
  std::set<std::pair<uint32_t, uint32_t>> seen;
  for (uint32_t column = 0; column < 24; ++column) {
    EXPECT_TRUE(seen.emplace(ColumnRow(column), ColumnPlane(column)).second);
    EXPECT_LT(ColumnRow(column), kGroupRows);
    EXPECT_LT(ColumnPlane(column), kPlaneCount);
  }
}

TEST(Layout, ColumnsArePackedFromTheirFirst) {
  constexpr uint32_t kD = 70;
  const auto weights = RandomWeights(40, kD, 3);
  for (uint32_t chunk = 0; chunk < 128; ++chunk) {
    // Outputs 16 to 31 of a matrix, given as columns from 0 on or as a piece from 16 on.
    const Words whole = PackedChunk(weights.data(), kD, 0, 40, 1, chunk);
    const Words piece = PackedChunk(weights.data() + 16 * kD, kD, 16, 24, 1, chunk);
    EXPECT_EQ(std::memcmp(&whole, &piece, sizeof(whole)), 0) << chunk;
    const Words before = PackedChunk(weights.data(), kD, 32, 8, 1, chunk);
    EXPECT_EQ(before.w[0] | before.w[1] | before.w[2] | before.w[3], 0u);
  }
}

}  // namespace
}  // namespace talaria::gemm::cuda
