// Everything that keeps a GPU from being used, as an operator meets it: the real adapter and the
// real library over a CUDA runtime that fails as told (cuda/testing/fake_cuda). What a GPU has to
// compute is device_suite_test.cc.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "talaria/gemm/cuda/testing/fake_cuda/cuda_runtime.h"
#include "talaria/gemm/device.h"
#include "talaria/gemm/product_testing.h"

namespace talaria::gemm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class CudaDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override { setenv("TALARIA_CUDA_LIBRARY", TALARIA_FAKE_CUDA_LIBRARY, 1); }
  void TearDown() override {
    unsetenv("TALARIA_FAKE_CUDA");
    unsetenv("TALARIA_CUDA_LIBRARY");
  }
  static Status Refusal(const char* failure, int ordinal = 0) {
    setenv("TALARIA_FAKE_CUDA", failure, 1);
    return CreateDevice({.kind = DeviceSpec::Kind::kCuda, .gpus = {ordinal}}).status();
  }
};

TEST_F(CudaDeviceTest, NamesTheGpuAndItsMemory) {
  const auto device = CreateDevice({.kind = DeviceSpec::Kind::kCuda});
  ASSERT_TRUE(device.ok()) << device.status().ToString();
  EXPECT_EQ((*device)->name(), "cuda:0 (Fake GPU, 4 GiB)");
}

TEST_F(CudaDeviceTest, NoLibrary) {
  setenv("TALARIA_CUDA_LIBRARY", "/nonexistent/libtalaria-cuda.so", 1);
  const Status status = Refusal("");
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("/nonexistent/libtalaria-cuda.so"), HasSubstr("--device cpu")));
}

TEST_F(CudaDeviceTest, ALibraryOfSomethingElse) {
  setenv("TALARIA_CUDA_LIBRARY", "libc.so.6", 1);
  const Status status = Refusal("");
  EXPECT_EQ(status.code(), Code::kUnsupported);
  EXPECT_THAT(status.message(), HasSubstr("of another version"));
}

TEST_F(CudaDeviceTest, NoDriver) {
  const Status status = Refusal("no-driver");
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("no NVIDIA driver"), HasSubstr("CUDA 13.0"),
                                      HasSubstr("--gpus all"), HasSubstr("--device cpu")));
}

TEST_F(CudaDeviceTest, AnOldDriver) {
  const Status status = Refusal("old-driver");
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("for CUDA 12.4"), HasSubstr("needs 13.0"),
                                      HasSubstr("update the driver")));
}

TEST_F(CudaDeviceTest, NoGpu) {
  const Status status = Refusal("no-gpu");
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("finds no GPU"), HasSubstr("--device cpu")));
}

TEST_F(CudaDeviceTest, NoGpuOfThatNumber) {
  const Status status = Refusal("", 3);
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("no GPU 3"), HasSubstr("has 1"), HasSubstr("--device cpu")));
}

TEST_F(CudaDeviceTest, AnOldGpu) {
  const Status status = Refusal("old-gpu");
  EXPECT_EQ(status.code(), Code::kUnsupported);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("Fake GPU"), HasSubstr("7.5"), HasSubstr("8.0"),
                                      HasSubstr("--device cpu")));
}

TEST_F(CudaDeviceTest, AGpuWithoutCodeInTheLibrary) {
  const Status status = Refusal("no-code");
  EXPECT_EQ(status.code(), Code::kUnsupported);
  EXPECT_THAT(status.message(), HasSubstr("-DCMAKE_CUDA_ARCHITECTURES=90"));
}

TEST_F(CudaDeviceTest, AGpuThatIsFull) {
  const Status status = Refusal("memory=40");
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("48 MiB"), HasSubstr("nvidia-smi")));
}

TEST_F(CudaDeviceTest, WeightsThatDoNotFitAreRefusedAndTheRestGoesOn) {
  setenv("TALARIA_FAKE_CUDA", "memory=100", 1);
  auto device = CreateDevice({.kind = DeviceSpec::Kind::kCuda});
  ASSERT_TRUE(device.ok()) << device.status().ToString();
  const auto large = (*device)->CreateWeights(8192, 8192);
  EXPECT_EQ(large.status().code(), Code::kResourceExhausted);
  EXPECT_THAT(large.status().message(),
              AllOf(HasSubstr("[8192, 8192] need 64 MiB of GPU 0"), HasSubstr("52 of its 100")));
  EXPECT_TRUE(SelfTestDevice(**device).ok());
}

TEST_F(CudaDeviceTest, AGpuThatComputesWronglyIsNotUsed) {
  const Status status = Refusal("wrong");
  EXPECT_EQ(status.code(), Code::kUnsupported);
  EXPECT_THAT(status.message(), HasSubstr("differ from the reference"));
}

TEST_F(CudaDeviceTest, AGpuThatIsLostStaysLost) {
  auto device = CreateDevice({.kind = DeviceSpec::Kind::kCuda});
  ASSERT_TRUE(device.ok());
  constexpr size_t kD = 64;
  auto weights = (*device)->CreateWeights(kD, 32);
  ASSERT_TRUE(weights.ok());
  const auto planes = DigitPlanes(RandomResidues(1, kD, 1), kD);
  std::vector<uint8_t> out(32 * 6);
  const RowBlock block{planes, 1, out};
  ASSERT_TRUE((*weights)->Multiply({&block, 1}).ok());
  setenv("TALARIA_FAKE_CUDA", "lost=1", 1);
  const Status first = (*weights)->Multiply({&block, 1});
  EXPECT_EQ(first.code(), Code::kUnavailable);
  EXPECT_THAT(first.message(), AllOf(HasSubstr("GPU 0 (Fake GPU) failed"),
                                     HasSubstr("illegal memory access"), HasSubstr("restart")));
  unsetenv("TALARIA_FAKE_CUDA");  // a runtime that answers again does not bring it back
  for (const Status& later :
       {(*weights)->Multiply({&block, 1}), (*weights)->SetColumns(0, RandomWeights(1, kD, 1)),
        (*device)->CreateWeights(kD, 32).status()}) {
    EXPECT_EQ(later.code(), Code::kUnavailable);
    EXPECT_EQ(later.message(), first.message());
  }
}

// Between the parts of one call: the rows of the first are done, those of the second are lost.
TEST_F(CudaDeviceTest, AGpuThatIsLostInTheMiddleOfACallFailsTheCall) {
  auto device = CreateDevice({.kind = DeviceSpec::Kind::kCuda});
  ASSERT_TRUE(device.ok());
  constexpr size_t kD = 64, kOutputs = 1 << 20;
  auto weights = (*device)->CreateWeights(kD, kOutputs);  // two rows a part
  ASSERT_TRUE(weights.ok());
  constexpr size_t kRows = 6;
  const auto planes = DigitPlanes(RandomResidues(kRows, kD, 1), kD);
  std::vector<uint8_t> out(kRows * kOutputs * 6);
  const RowBlock block{planes, kRows, out};
  setenv("TALARIA_FAKE_CUDA", "lost=2", 1);
  EXPECT_EQ((*weights)->Multiply({&block, 1}).code(), Code::kUnavailable);
}

// One copy in, one kernel, one copy out and one wait, whatever the requests: nothing is left that a
// graph would take away.
TEST_F(CudaDeviceTest, ASmallProductIsOneLaunchAndOneWait) {
  auto device = CreateDevice({.kind = DeviceSpec::Kind::kCuda});
  ASSERT_TRUE(device.ok());
  constexpr size_t kD = 4096, kOutputs = 256;
  auto weights = (*device)->CreateWeights(kD, kOutputs);
  ASSERT_TRUE(weights.ok());
  void* const library = dlopen(TALARIA_FAKE_CUDA_LIBRARY, RTLD_NOW | RTLD_NOLOAD);
  ASSERT_NE(library, nullptr);
  const auto counts = [library] {
    FakeCudaCounts now{};
    reinterpret_cast<decltype(&talaria_fake_cuda_counts)>(
        dlsym(library, "talaria_fake_cuda_counts"))(&now);
    return now;
  };
  for (const size_t requests : {1, 3, 16}) {
    const auto planes = DigitPlanes(RandomResidues(1, kD, 1), kD);
    std::vector<std::vector<uint8_t>> out(requests, std::vector<uint8_t>(kOutputs * 6));
    std::vector<RowBlock> blocks;
    for (auto& one : out) blocks.push_back({planes, 1, one});
    const FakeCudaCounts before = counts();
    ASSERT_TRUE((*weights)->Multiply(blocks).ok());
    const FakeCudaCounts after = counts();
    EXPECT_EQ(after.copies_in - before.copies_in, 1u) << requests;
    EXPECT_EQ(after.kernels - before.kernels, 1u) << requests;
    EXPECT_EQ(after.copies_out - before.copies_out, 1u) << requests;
    EXPECT_EQ(after.waits - before.waits, 1u) << requests;
  }
}

// Several GPUs. `only` says whose the failures are.
class SeveralGpusTest : public CudaDeviceTest {
 protected:
  static Result<std::unique_ptr<Device>> Create(const char* settings, const char* text) {
    setenv("TALARIA_FAKE_CUDA", settings, 1);
    return CreateDevice(DeviceSpec::Parse(text).value());
  }
};

TEST_F(SeveralGpusTest, AsNamedOrAll) {
  EXPECT_EQ((*Create("gpus=3", "cuda:2,0"))->name(),
            "cuda:2 (Fake GPU, 4 GiB) + cuda:0 (Fake GPU, 4 GiB)");
  for (const char* all : {"cuda:all", "auto"}) {
    EXPECT_EQ((*Create("gpus=2", all))->name(),
              "cuda:0 (Fake GPU, 4 GiB) + cuda:1 (Fake GPU, 4 GiB)");
  }
  EXPECT_EQ((*Create("gpus=1", "auto"))->name(), "cuda:0 (Fake GPU, 4 GiB)");
  EXPECT_EQ((*Create("gpus=2", "cuda"))->name(), "cuda:0 (Fake GPU, 4 GiB)");
}

TEST_F(SeveralGpusTest, WhatEachHolds) {
  const auto device = Create("gpus=2,memory=100,only=1", "cuda:0,1");
  ASSERT_TRUE(device.ok()) << device.status().ToString();
  const auto weights = (*device)->CreateWeights(4096, 512);
  ASSERT_TRUE(weights.ok());
  const auto memory = (*device)->memory();
  ASSERT_EQ(memory.size(), 2u);
  EXPECT_EQ(memory[0].device, "cuda:0");
  EXPECT_EQ(memory[0].weight_bytes, 4096u * 256);
  EXPECT_EQ(memory[0].free_bytes, (uint64_t{4096} - 48 - 1) << 20);
  EXPECT_EQ(memory[1].device, "cuda:1");
  EXPECT_EQ(memory[1].weight_bytes, 4096u * 256);
  EXPECT_EQ(memory[1].free_bytes, (uint64_t{100} - 48 - 1) << 20);
  const auto large = (*device)->CreateWeights(8192, 16384);  // 64 MiB each
  EXPECT_EQ(large.status().code(), Code::kResourceExhausted);
  EXPECT_THAT(large.status().message(), HasSubstr("need 64 MiB of GPU 1 (Fake GPU)"));
  EXPECT_EQ((*device)->memory()[0].weight_bytes, 4096u * 256);  // the other's share was given back
}

TEST_F(SeveralGpusTest, OneThatIsNamedAndCannotBeUsedIsAnError) {
  const Status missing = Create("gpus=2", "cuda:0,5").status();
  EXPECT_EQ(missing.code(), Code::kUnavailable);
  EXPECT_THAT(missing.message(), AllOf(HasSubstr("no GPU 5"), HasSubstr("has 2")));
  const Status old = Create("gpus=2,old-gpu,only=1", "cuda:all").status();
  EXPECT_EQ(old.code(), Code::kUnsupported);
  EXPECT_THAT(old.message(), HasSubstr("GPU 1 (Fake GPU)"));
  const Status wrong = Create("gpus=2,wrong,only=1", "cuda:0,1").status();
  EXPECT_EQ(wrong.code(), Code::kUnsupported);
  EXPECT_THAT(wrong.message(), AllOf(HasSubstr("cuda:1"), HasSubstr("differ from the reference")));
}

TEST_F(SeveralGpusTest, AutoLeavesOutWhatCannotBeUsedAndSaysSo) {
  const auto left = [](const char* settings) {
    ::testing::internal::CaptureStderr();
    const auto device = Create(settings, "auto");
    const std::string log = ::testing::internal::GetCapturedStderr();
    EXPECT_THAT(log, HasSubstr("GPU 1 is left out: ")) << settings;
    return device.ok() ? (*device)->name() : device.status().ToString();
  };
  EXPECT_EQ(left("gpus=3,only=1,wrong"), "cuda:0 (Fake GPU, 4 GiB) + cuda:2 (Fake GPU, 4 GiB)");
  EXPECT_EQ(left("gpus=2,only=1,old-gpu"), "cuda:0 (Fake GPU, 4 GiB)");
  EXPECT_EQ(left("gpus=2,only=1,memory=40"), "cuda:0 (Fake GPU, 4 GiB)");
  ::testing::internal::CaptureStderr();
  const auto device = Create("gpus=2,old-gpu", "auto");
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("products run on the processor"));
  EXPECT_THAT((*device)->name(), HasSubstr("cpu"));
}

TEST_F(SeveralGpusTest, OneThatIsLostEndsAll) {
  const auto device = Create("gpus=2", "cuda:all");
  ASSERT_TRUE(device.ok());
  constexpr size_t kD = 64;
  const auto weights = (*device)->CreateWeights(kD, 64);
  ASSERT_TRUE(weights.ok());
  const auto planes = DigitPlanes(RandomResidues(1, kD, 1), kD);
  std::vector<uint8_t> out(64 * 6);
  const RowBlock block{planes, 1, out};
  ASSERT_TRUE((*weights)->Multiply({&block, 1}).ok());
  setenv("TALARIA_FAKE_CUDA", "gpus=2,only=1,lost=1", 1);
  for (int i = 0; i < 2; ++i) {
    const Status lost = (*weights)->Multiply({&block, 1});
    EXPECT_EQ(lost.code(), Code::kUnavailable);
    EXPECT_THAT(lost.message(), AllOf(HasSubstr("GPU 1 (Fake GPU) failed"), HasSubstr("restart")));
  }
}

TEST_F(CudaDeviceTest, AutoFallsBackToTheProcessor) {
  setenv("TALARIA_FAKE_CUDA", "no-gpu", 1);
  ::testing::internal::CaptureStderr();
  const auto device = CreateDevice({.kind = DeviceSpec::Kind::kAuto});
  const std::string log = ::testing::internal::GetCapturedStderr();
  ASSERT_TRUE(device.ok());
  EXPECT_THAT((*device)->name(), HasSubstr("cpu"));
  EXPECT_THAT(log, HasSubstr("products run on the processor"));
}

}  // namespace
}  // namespace talaria::gemm
