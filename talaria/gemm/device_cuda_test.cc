// Everything that keeps a GPU from being used, as an operator meets it: the real adapter and the
// real library over a CUDA runtime that fails as told (cuda/testing/fake_cuda). What a GPU has to
// compute is device_suite_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

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
    return CreateDevice({.kind = DeviceSpec::Kind::kCuda, .ordinal = ordinal}).status();
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
