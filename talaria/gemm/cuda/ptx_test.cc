// The kernels as nvcc compiled them, run from their PTX (testing/ptx.h) against the oracle:
// weights are packed by the kernel for that, rows are multiplied by each of the three shapes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "talaria/gemm/cuda/product_kernel.h"
#include "talaria/gemm/cuda/testing/ptx.h"
#include "talaria/gemm/product_testing.h"

namespace talaria::gemm::cuda {
namespace {

using testing::PtxError;
using testing::PtxMachine;
using testing::PtxModule;

constexpr uint32_t kPlainThreads = 256;

const std::string& Text() {
  static const std::string text = [] {
    std::ifstream file(TALARIA_PTX_FILE);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }();
  return text;
}
const PtxModule& Module() {
  static const PtxModule module(Text());
  return module;
}

// As kernels.cu names it.
template <class S>
std::string NameOf() {
  std::string name = "MultiplyRowsINS1_5ShapeI";
  for (uint32_t n : {S::kGroups, S::kTiles, S::kWarpsM, S::kWarpsN, S::kWarpsK, S::kStages})
    name += "Lj" + std::to_string(n) + "E";
  return name;
}

std::vector<Words> Packed(PtxMachine& machine, std::span<const int8_t> weights, uint32_t d) {
  const auto outputs = static_cast<uint32_t>(weights.size() / d);
  const auto units = static_cast<uint32_t>(PadInputs(d) / kUnitInputs);
  std::vector<Words> packed(size_t{DeviceOutputs(outputs)} / kTileOutputs * units * 64);
  machine.Allow(weights.data(), weights.size());
  machine.AllowWriting(packed.data(), packed.size() * 16);
  // As StartPacking() does: up to the next multiple of 32.
  const uint64_t chunks = uint64_t{(outputs + 31) / 32 * 2} * units * 64;
  machine.Launch(Module().Find("PackColumns"),
                 static_cast<uint32_t>((chunks + kPlainThreads - 1) / kPlainThreads), 0,
                 {PtxMachine::Pass(weights.data()), PtxMachine::Pass(d),
                  PtxMachine::Pass(uint32_t{0}), PtxMachine::Pass(outputs), PtxMachine::Pass(units),
                  PtxMachine::Pass(chunks), PtxMachine::Pass(packed.data())});
  return packed;
}

// Whether `module`'s kernel of shape S makes of these rows what the oracle does.
template <class S>
bool IsRight(const PtxModule& module, uint32_t d, uint32_t outputs, uint32_t rows, uint64_t seed) {
  const auto weights = RandomWeights(outputs, d, seed);
  const auto planes = DigitPlanes(RandomResidues(rows, d, seed + 1), d);
  const auto padded = static_cast<uint32_t>(PadOutputs(outputs));
  std::vector<uint8_t> expected(size_t{rows} * padded * 6);
  ReferenceProduct(weights, d, planes, rows, expected);

  PtxMachine machine(seed);
  const std::vector<Words> packed = Packed(machine, weights, d);
  std::vector<Words> in(planes.size() / 16), out(expected.size() / 16);
  std::memcpy(in.data(), planes.data(), planes.size());
  machine.Allow(in.data(), planes.size());
  machine.AllowWriting(out.data(), expected.size());
  const ProductArgs args{.weights = reinterpret_cast<const uint8_t*>(packed.data()),
                         .planes = reinterpret_cast<const uint8_t*>(in.data()),
                         .out = reinterpret_cast<uint8_t*>(out.data()),
                         .units = static_cast<uint32_t>(PadInputs(d) / kUnitInputs),
                         .rows = rows,
                         .padded_outputs = padded};
  const testing::PtxKernel& kernel = module.Find(NameOf<S>());
  EXPECT_EQ(kernel.threads, S::kThreads);
  machine.Launch(kernel, static_cast<uint32_t>(Blocks<S>(rows, padded)), S::kSharedBytes,
                 {PtxMachine::Pass(args)});
  return std::memcmp(out.data(), expected.data(), expected.size()) == 0;
}

template <class S>
class PtxProduct : public ::testing::Test {};
using Shapes = ::testing::Types<FewRows, SomeRows, ManyRows>;
TYPED_TEST_SUITE(PtxProduct, Shapes);

TYPED_TEST(PtxProduct, AgreesWithTheOracle) {
  using S = TypeParam;
  uint64_t seed = 1;
  const auto check = [&](uint32_t d, uint32_t outputs, uint32_t rows) {
    EXPECT_TRUE(IsRight<S>(Module(), d, outputs, rows, ++seed))
        << "d " << d << " outputs " << outputs << " rows " << rows;
  };
  // Fewer units of inputs than a ring has stages, as many, and more; rests in every direction.
  for (uint32_t d : {1u, 64u, 70u, 64 * S::kWarpsK * (S::kStages - 1),
                     64 * S::kWarpsK * (2 * S::kStages + 1) - 60})
    check(d, 33, 1);
  check(200, S::kOutputs + 40, S::kRows + 1);
  check(130, 2 * S::kOutputs, 2 * S::kRows);
}

TEST(Ptx, FillsDigits) {
  constexpr uint64_t kWords = 300;
  std::vector<uint32_t> words(kWords);
  PtxMachine machine(1);
  machine.AllowWriting(words.data(), kWords * 4);
  machine.Launch(Module().Find("FillDigits"), 2, 0,
                 {PtxMachine::Pass(words.data()), PtxMachine::Pass(kWords)});
  for (uint64_t i = 0; i < kWords; ++i) {
    uint64_t z = (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    ASSERT_EQ(words[i], static_cast<uint32_t>(z >> 27)) << i;
  }
}

// The interpreter notices what it is there for: PTX with one thing changed.
PtxModule Changed(const std::string& from, const std::string& to) {
  std::string text = Text();
  size_t changes = 0;
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size(), ++changes)
    text.replace(at, from.size(), to);
  EXPECT_GT(changes, 0u) << from;
  return PtxModule(text);
}
bool EverRight(const PtxModule& module) {
  constexpr uint32_t kD = kUnitInputs * FewRows::kWarpsK * (2 * FewRows::kStages + 2);
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    if (!IsRight<FewRows>(module, kD, 40, 3, seed)) return false;
  }
  return true;
}

TEST(Ptx, AMissingWaitIsNoticed) {
  const std::string wait = "cp.async.wait_group ";
  EXPECT_FALSE(EverRight(Changed(wait + std::to_string(FewRows::kStages - 2) + ";",
                                 wait + std::to_string(FewRows::kStages - 1) + ";")));
}

TEST(Ptx, AMissingBarrierIsNoticed) {
  EXPECT_FALSE(EverRight(Changed("bar.sync \t0;", "mov.u32 \t%r1, %r1;")));
}

TEST(Ptx, WhatIsNotKnownIsNamed) {
  const PtxModule changed = Changed("s32.s8.u8.s32", "s32.s8.s8.s32");
  try {
    EverRight(changed);
    FAIL();
  } catch (const PtxError& e) {
    EXPECT_THAT(e.what(), ::testing::HasSubstr("unknown instruction: mma.sync"));
  }
}

TEST(Ptx, AnAccessOutsideOfTheMemoryIsNoticed) {
  std::vector<uint32_t> words(8);
  PtxMachine machine(1);
  machine.AllowWriting(words.data(), 28);
  const auto launch = [&](uint64_t count) {
    machine.Launch(Module().Find("FillDigits"), 1, 0,
                   {PtxMachine::Pass(words.data()), PtxMachine::Pass(count)});
  };
  launch(7);
  EXPECT_THROW(launch(8), PtxError);
  machine.Allow(words.data(), 28);
  EXPECT_THROW(launch(7), PtxError);
}

}  // namespace
}  // namespace talaria::gemm::cuda
