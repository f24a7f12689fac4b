#include "talaria/gemm/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "talaria/gemm/product_testing.h"

namespace talaria::gemm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(DeviceSpecTest, WhatTheCommandLineHas) {
  EXPECT_EQ(DeviceSpec::Parse("auto")->kind, DeviceSpec::Kind::kAuto);
  EXPECT_EQ(DeviceSpec::Parse("cpu")->kind, DeviceSpec::Kind::kCpu);
  EXPECT_EQ(DeviceSpec::Parse("cuda")->kind, DeviceSpec::Kind::kCuda);
  EXPECT_EQ(DeviceSpec::Parse("cuda:7")->kind, DeviceSpec::Kind::kCuda);
  EXPECT_THAT(DeviceSpec::Parse("cuda")->gpus, ElementsAre(0));
  EXPECT_THAT(DeviceSpec::Parse("cuda:7")->gpus, ElementsAre(7));
  EXPECT_THAT(DeviceSpec::Parse("cuda:2,0,11")->gpus, ElementsAre(2, 0, 11));
  EXPECT_THAT(DeviceSpec::Parse("cuda:all")->gpus, IsEmpty());
  for (const char* bad :
       {"", "gpu", "CPU", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cuda:99999999999", "cpu:0",
        "cuda:0,", "cuda:,0", "cuda:0,,1", "cuda:0, 1", "cuda:0,all", "cuda:0,cuda:1", "cuda,0"}) {
    const auto spec = DeviceSpec::Parse(bad);
    ASSERT_EQ(spec.status().code(), Code::kInvalidArgument) << bad;
    EXPECT_THAT(spec.status().message(),
                HasSubstr("auto, cpu, cuda, cuda:N, several as cuda:0,1, or cuda:all"));
  }
  const auto twice = DeviceSpec::Parse("cuda:1,0,1");
  ASSERT_EQ(twice.status().code(), Code::kInvalidArgument);
  EXPECT_EQ(twice.status().message(), "'cuda:1,0,1' names GPU 1 twice");
}

TEST(CpuDeviceTest, RowsOfSeveralRequestsEqualTheOracle) {
  constexpr size_t kD = 200, kOutputs = 70, kPadded = 96;
  const auto source = RandomWeights(kOutputs, kD, 1);
  for (const Isa isa : SupportedIsas()) {
    const auto device = CreateCpuDevice(2, isa);
    EXPECT_THAT(device->name(), HasSubstr(std::string(IsaName(isa))));
    auto weights = device->CreateWeights(kD, kPadded);
    ASSERT_TRUE(weights.ok());
    ASSERT_TRUE((*weights)->SetColumns(0, source).ok());
    for (const std::vector<size_t>& sizes : std::vector<std::vector<size_t>>{
             {1}, {1, 1}, {3, 1, 40, 2}, std::vector<size_t>(32, 1), {64}}) {
      std::vector<std::vector<uint8_t>> planes, out;
      for (const size_t rows : sizes) {
        planes.push_back(DigitPlanes(RandomResidues(rows, kD, 10 + planes.size()), kD));
        out.emplace_back(rows * kPadded * 6, 0xff);
      }
      std::vector<RowBlock> blocks;
      for (size_t i = 0; i < sizes.size(); ++i) blocks.push_back({planes[i], sizes[i], out[i]});
      ASSERT_TRUE((*weights)->Multiply(blocks).ok());
      for (size_t i = 0; i < sizes.size(); ++i) {
        std::vector<uint8_t> expected(out[i].size());
        ReferenceProduct(source, kD, planes[i], sizes[i], expected);
        EXPECT_EQ(out[i], expected) << "block " << i << " of " << sizes.size();
      }
    }
  }
}

TEST(CpuDeviceTest, ShapesThatDoNotExistAreRefused) {
  const auto device = CreateCpuDevice(1, Isa::kPortable);
  EXPECT_EQ(device->CreateWeights(0, 32).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(device->CreateWeights(64, 33).status().code(), Code::kInvalidArgument);
  auto weights = device->CreateWeights(64, 32);
  ASSERT_TRUE(weights.ok());
  EXPECT_EQ((*weights)->SetColumns(32, std::vector<int8_t>(64)).code(), Code::kInvalidArgument);
  EXPECT_EQ((*weights)->SetColumns(0, std::vector<int8_t>(64, -128)).code(), Code::kCorrupt);
  EXPECT_EQ((*weights)->max_rows(), 512u);
}

// What kind of lie a device tells. The right answers come from the processor.
enum class Lie { kNone, kOneBit, kOnlyWithSeveralBlocks, kOnlyAtFullDepth, kNothingWritten };

class LyingDevice final : public Device {
 public:
  explicit LyingDevice(Lie lie) : lie_(lie), honest_(CreateCpuDevice(1, Isa::kPortable)) {}
  std::string name() const override { return "liar"; }
  std::vector<Memory> memory() const override { return honest_->memory(); }
  Result<std::unique_ptr<DeviceWeights>> CreateWeights(size_t d, size_t padded_outputs) override {
    auto weights = honest_->CreateWeights(d, padded_outputs);
    if (!weights.ok()) return weights.status();
    return std::unique_ptr<DeviceWeights>(
        std::make_unique<Weights>(lie_, d, std::move(weights).value()));
  }

 private:
  struct Weights final : DeviceWeights {
    Weights(Lie the_lie, size_t inputs, std::unique_ptr<DeviceWeights> weights)
        : lie(the_lie), d(inputs), honest(std::move(weights)) {}
    Status SetColumns(size_t first, std::span<const int8_t> w) override {
      return honest->SetColumns(first, w);
    }
    size_t max_rows() const override { return 16; }
    Status Multiply(std::span<const RowBlock> blocks) override {
      if (lie == Lie::kNothingWritten) return OkStatus();
      const Status status = honest->Multiply(blocks);
      if (lie == Lie::kOneBit || (lie == Lie::kOnlyAtFullDepth && d == kMaxInputs) ||
          (lie == Lie::kOnlyWithSeveralBlocks && blocks.size() > 1)) {
        blocks.back().out[0] ^= 1;
      }
      return status;
    }
    Lie lie;
    size_t d;
    std::unique_ptr<DeviceWeights> honest;
  };
  Lie lie_;
  std::unique_ptr<Device> honest_;
};

TEST(SelfTestDeviceTest, AcceptsTheHonestAndFindsEveryLie) {
  LyingDevice honest(Lie::kNone);
  EXPECT_TRUE(SelfTestDevice(honest).ok());
  for (const Lie lie :
       {Lie::kOneBit, Lie::kOnlyWithSeveralBlocks, Lie::kOnlyAtFullDepth, Lie::kNothingWritten}) {
    LyingDevice device(lie);
    const Status status = SelfTestDevice(device);
    EXPECT_EQ(status.code(), Code::kUnsupported) << static_cast<int>(lie);
    EXPECT_THAT(status.message(), HasSubstr("the products of liar differ from the reference"));
  }
}

TEST(CreateDeviceTest, TheProcessorIsAlwaysThere) {
  DeviceSpec spec;
  spec.isa = DetectIsa();
  spec.threads = 2;
  auto device = CreateDevice(spec);
  ASSERT_TRUE(device.ok()) << device.status().ToString();
  EXPECT_THAT((*device)->name(), HasSubstr("2 threads"));
  spec.kind = DeviceSpec::Kind::kAuto;
  ASSERT_TRUE(CreateDevice(spec).ok());
}

TEST(CreateDeviceTest, AGpuThatIsNotThereIsAnErrorThatNamesTheWayOut) {
  DeviceSpec spec;
  spec.kind = DeviceSpec::Kind::kCuda;
  spec.gpus = {1000};
  const auto device = CreateDevice(spec);
  EXPECT_EQ(device.status().code(), Code::kUnavailable);
  EXPECT_THAT(device.status().message(), HasSubstr("--device cpu"));
}

}  // namespace
}  // namespace talaria::gemm
