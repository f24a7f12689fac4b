#include "talaria/cloud/hint_builder.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <random>

#include "talaria/ring/layout.h"
#include "talaria/ring/modq.h"
#include "talaria/ring/public_matrix.h"

namespace talaria::cloud {
namespace {

struct Shape {
  uint32_t d, o;
};

std::vector<int8_t> RandomWeights(uint32_t d, uint32_t o, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int8_t> weights(size_t{d} * o);
  for (int8_t& w : weights) w = static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
  return weights;
}

Result<std::vector<uint8_t>> Build(HintBuilder& builder, uint32_t d, uint32_t o,
                                   const std::vector<int8_t>& weights) {
  std::vector<uint8_t> hints;
  const auto read = [&](uint32_t first, std::span<int8_t> out) {
    std::memcpy(out.data(), weights.data() + size_t{first} * d, out.size());
    return OkStatus();
  };
  const auto sink = [&](Bytes data) {
    hints.insert(hints.end(), data.begin(), data.end());
    return OkStatus();
  };
  TALARIA_RETURN_IF_ERROR(builder.Build(d, o, read, sink));
  return hints;
}

// (A_d * W)[slot, i][column] by definition.
uint64_t Oracle(const Digest& core, uint32_t d, const std::vector<int8_t>& weights, size_t column,
                size_t slot, size_t i) {
  std::vector<uint8_t> a(ring::ModuleMatrixBytes(d));
  ring::ExpandPublicMatrix(ring::PublicMatrixKey(1, core, d), 0, d, a);
  uint64_t sum = 0;
  for (uint32_t j = 0; j < d; ++j) {
    sum = ring::AddMod(
        sum, ring::MulMod(ring::LoadResidue(a.data() + ring::ModuleMatrixOffset(j, slot, i)),
                          ring::FromSigned(weights[column * d + j])));
  }
  return sum;
}

TEST(HintBuilderTest, EqualsTheDefinitionOnEveryPath) {
  const Digest core = Sha256Of(AsBytes("core"));
  std::mt19937_64 random(3);
  for (const Isa isa : SupportedIsas()) {
    const auto device = gemm::CreateCpuDevice(2, isa);
    HintBuilder builder(*device, 1, core, 2);
    // Widths off and on the units of 8 and 64; outputs off the units of 8 and 32.
    std::vector<Shape> shapes = {{1, 1}, {61, 9}, {64, 32}, {70, 37}};
    // More than a slice of 2,048 outputs, once: the slices do not depend on the path.
    if (isa == SupportedIsas().back()) shapes.push_back({8, 2050});
    for (const Shape shape : shapes) {
      const std::vector<int8_t> weights = RandomWeights(shape.d, shape.o, shape.d);
      const auto hints = Build(builder, shape.d, shape.o, weights);
      ASSERT_TRUE(hints.ok()) << hints.status().ToString();
      ASSERT_EQ(hints->size(), ring::ModuleMatrixBytes(shape.o));
      for (int sample = 0; sample < 40; ++sample) {
        // The first and the last column among them.
        const size_t column = sample == 0 ? 0 : sample == 1 ? shape.o - 1 : random() % shape.o;
        const size_t slot = random() % 256, i = random() % 8;
        ASSERT_EQ(ring::LoadResidue(hints->data() + ring::ModuleMatrixOffset(column, slot, i)),
                  Oracle(core, shape.d, weights, column, slot, i))
            << IsaName(isa) << " " << shape.d << "x" << shape.o << " column " << column;
      }
      for (size_t column = shape.o; column < ring::RoundUp(shape.o, 8); ++column) {
        for (size_t slot = 0; slot < 256; ++slot)
          ASSERT_EQ(ring::LoadResidue(hints->data() + ring::ModuleMatrixOffset(column, slot, 7)),
                    0u);
      }
    }
  }
}

TEST(HintBuilderTest, ThreadsDoNotChangeTheBytes) {
  const std::vector<int8_t> weights = RandomWeights(130, 70, 5);
  const auto device1 = gemm::CreateCpuDevice(1, DetectIsa()),
             device3 = gemm::CreateCpuDevice(3, DetectIsa());
  HintBuilder one(*device1, 1, Sha256Of(AsBytes("core")), 1),
      three(*device3, 1, Sha256Of(AsBytes("core")), 3);
  EXPECT_EQ(*Build(one, 130, 70, weights), *Build(three, 130, 70, weights));
}

// The library of a GPU over a CUDA runtime on the CPU.
TEST(HintBuilderTest, AGpuGivesTheSameBytes) {
  setenv("TALARIA_CUDA_LIBRARY", TALARIA_FAKE_CUDA_LIBRARY, 1);
  const auto gpu = gemm::CreateDevice({.kind = gemm::DeviceSpec::Kind::kCuda});
  unsetenv("TALARIA_CUDA_LIBRARY");
  ASSERT_TRUE(gpu.ok()) << gpu.status().ToString();
  const auto cpu = gemm::CreateCpuDevice(2, DetectIsa());
  const std::vector<int8_t> weights = RandomWeights(70, 37, 6);
  HintBuilder one(**gpu, 1, Sha256Of(AsBytes("core")), 2),
      other(*cpu, 1, Sha256Of(AsBytes("core")), 2);
  EXPECT_EQ(*Build(one, 70, 37, weights), *Build(other, 70, 37, weights));
}

TEST(HintBuilderTest, PassesErrorsOn) {
  const auto device = gemm::CreateCpuDevice(1, Isa::kPortable);
  HintBuilder builder(*device, 1, Digest{}, 1);
  const std::vector<int8_t> weights = RandomWeights(8, 8, 1);
  const Status full(Code::kResourceExhausted, "disk");
  EXPECT_EQ(builder
                .Build(
                    8, 8, [&](uint32_t, std::span<int8_t>) { return full; },
                    [](Bytes) { return OkStatus(); })
                .code(),
            Code::kResourceExhausted);
  EXPECT_EQ(builder
                .Build(
                    8, 8,
                    [](uint32_t, std::span<int8_t> out) {
                      return std::memset(out.data(), 1, out.size()), OkStatus();
                    },
                    [&](Bytes) { return full; })
                .code(),
            Code::kResourceExhausted);
  // -128 is no weight.
  EXPECT_EQ(builder
                .Build(
                    8, 8,
                    [](uint32_t, std::span<int8_t> out) {
                      return std::memset(out.data(), 0x80, out.size()), OkStatus();
                    },
                    [](Bytes) { return OkStatus(); })
                .code(),
            Code::kCorrupt);
}

}  // namespace
}  // namespace talaria::cloud
