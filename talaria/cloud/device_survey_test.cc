// Over a CUDA runtime on the CPU (gemm/cuda/testing/fake_cuda): which devices are named, and why
// others are not.
#include "talaria/cloud/device_survey.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>

namespace talaria::cloud {
namespace {

using ::testing::HasSubstr;

class DeviceSurveyTest : public ::testing::Test {
 protected:
  void SetUp() override { setenv("TALARIA_CUDA_LIBRARY", TALARIA_FAKE_CUDA_LIBRARY, 1); }
  void TearDown() override {
    unsetenv("TALARIA_FAKE_CUDA");
    unsetenv("TALARIA_CUDA_LIBRARY");
  }
  static std::vector<std::string> Arguments(const DeviceList& list) {
    std::vector<std::string> out;
    for (const FoundDevice& found : list.devices) out.push_back(found.argument);
    return out;
  }
  static model::Manifest Shapes(uint32_t d, uint32_t o) {
    model::Manifest manifest;
    for (int i = 0; i < 2; ++i) {
      model::Group& group = manifest.groups.emplace_back();
      group.d = d;
      group.matrices.resize(1);
      group.matrices[0].o = o;
    }
    return manifest;
  }
};

TEST_F(DeviceSurveyTest, WithoutALibraryOnlyTheProcessor) {
  setenv("TALARIA_CUDA_LIBRARY", "/nonexistent/libtalaria-cuda.so", 1);
  const DeviceList list = ListDevices(2);
  EXPECT_EQ(Arguments(list), std::vector<std::string>{"cpu"});
  EXPECT_TRUE(list.devices[0].status.ok());
  EXPECT_THAT(list.devices[0].name, HasSubstr("2 threads"));
  EXPECT_GT(list.devices[0].free_bytes.value_or(0), uint64_t{1} << 20);
  EXPECT_EQ(list.gpus.code(), Code::kUnavailable);
  EXPECT_THAT(list.gpus.message(), HasSubstr("/nonexistent"));
}

TEST_F(DeviceSurveyTest, OneGpuIsNotSeveral) {
  const DeviceList list = ListDevices(1);
  EXPECT_EQ(Arguments(list), (std::vector<std::string>{"cpu", "cuda:0"}));
  EXPECT_TRUE(list.gpus.ok());
  EXPECT_EQ(list.devices[1].name, "cuda:0 (Fake GPU, 4 GiB)");
  EXPECT_GT(list.devices[1].free_bytes.value_or(0), uint64_t{3} << 30);
}

TEST_F(DeviceSurveyTest, OneThatComputesWronglyIsNamedWithTheReason) {
  setenv("TALARIA_FAKE_CUDA", "gpus=2,wrong,only=1", 1);
  const DeviceList list = ListDevices(1);
  EXPECT_EQ(Arguments(list), (std::vector<std::string>{"cpu", "cuda:0", "cuda:1", "cuda:all"}));
  EXPECT_TRUE(list.devices[1].status.ok());
  for (int broken : {2, 3}) {
    EXPECT_EQ(list.devices[broken].status.code(), Code::kUnsupported);
    EXPECT_THAT(list.devices[broken].status.message(), HasSubstr("differ from the reference"));
    EXPECT_TRUE(list.devices[broken].name.empty());
  }
}

TEST_F(DeviceSurveyTest, EveryDeviceIsMeasured) {
  setenv("TALARIA_FAKE_CUDA", "gpus=2", 1);
  for (const FoundDevice& found : ListDevices(2).devices) {
    SCOPED_TRACE(found.argument);
    const auto passes = MeasurePasses(found.spec, Shapes(70, 33));
    ASSERT_TRUE(passes.ok()) << passes.status().ToString();
    ASSERT_EQ(passes->size(), 3u);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ((*passes)[i].rows, (std::array<uint32_t, 3>{1, 16, 256})[i]);
      EXPECT_GT((*passes)[i].seconds, 0);
    }
  }
}

TEST_F(DeviceSurveyTest, AModelThatDoesNotFitIsRefusedOnEachDevice) {
  setenv("TALARIA_FAKE_CUDA", "memory=100", 1);
  const auto small = ListDevices(1);
  const Status gpu = MeasurePasses(small.devices[1].spec, Shapes(8192, 8192)).status();
  EXPECT_EQ(gpu.code(), Code::kResourceExhausted);
  EXPECT_THAT(gpu.message(), HasSubstr("64 MiB of GPU 0"));
  // 256 TiB, on the processor.
  const Status cpu = MeasurePasses(small.devices[0].spec, Shapes(65536, 0xffffff00)).status();
  EXPECT_EQ(cpu.code(), Code::kResourceExhausted);
  EXPECT_THAT(cpu.message(), HasSubstr("268435440 MiB, and this machine has"));
}

}  // namespace
}  // namespace talaria::cloud
