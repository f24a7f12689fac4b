// One device of several: the bits of one, whatever the shapes, and what happens when one of them
// fails. That it computes what every device has to: device_suite_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <mutex>

#include "talaria/gemm/device.h"
#include "talaria/gemm/product.h"
#include "talaria/gemm/product_testing.h"

namespace talaria::gemm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr size_t kResidueBytes = 6;

// The processor, with a script that may fail a product and a word about what it was asked for.
class ScriptedDevice final : public Device {
 public:
  explicit ScriptedDevice(std::string name) : name_(std::move(name)) {}
  std::string name() const override { return name_; }
  std::vector<Memory> memory() const override {
    return {{name_, honest_->memory()[0].weight_bytes, 5}};
  }
  Result<std::unique_ptr<DeviceWeights>> CreateWeights(size_t d, size_t padded_outputs) override {
    if (!creation.ok()) return creation;
    outputs.push_back(padded_outputs);
    TALARIA_ASSIGN_OR_RETURN(auto weights, honest_->CreateWeights(d, padded_outputs));
    return std::unique_ptr<DeviceWeights>(std::make_unique<Weights>(*this, std::move(weights)));
  }

  std::vector<size_t> outputs;  // of each matrix that it has had a share of
  std::function<Status()> script;
  Status creation;
  size_t max_rows = 64, products = 0;

 private:
  struct Weights final : DeviceWeights {
    Weights(ScriptedDevice& d, std::unique_ptr<DeviceWeights> weights)
        : device(d), honest(std::move(weights)) {}
    Status SetColumns(size_t first, std::span<const int8_t> w) override {
      return honest->SetColumns(first, w);
    }
    size_t max_rows() const override { return device.max_rows; }
    Status Multiply(std::span<const RowBlock> blocks) override {
      ++device.products;
      if (device.script) TALARIA_RETURN_IF_ERROR(device.script());
      return honest->Multiply(blocks);
    }
    ScriptedDevice& device;
    std::unique_ptr<DeviceWeights> honest;
  };
  const std::string name_;
  const std::unique_ptr<Device> honest_ = CreateCpuDevice(1, Isa::kPortable);
};

// A device of `n` scripted ones, which stay within reach.
struct Split {
  explicit Split(size_t n) {
    std::vector<std::unique_ptr<Device>> all;
    for (size_t i = 0; i < n; ++i) {
      auto part = std::make_unique<ScriptedDevice>("part " + std::to_string(i));
      parts.push_back(part.get());
      all.push_back(std::move(part));
    }
    device = CreateSplitDevice(std::move(all));
  }
  std::vector<ScriptedDevice*> parts;
  std::unique_ptr<Device> device;
};

std::vector<uint8_t> Multiplied(DeviceWeights& weights, size_t padded_outputs, Bytes planes,
                                size_t rows) {
  std::vector<uint8_t> out(rows * padded_outputs * kResidueBytes, 0xee);
  const RowBlock block{planes, rows, out};
  const Status status = weights.Multiply({&block, 1});
  EXPECT_TRUE(status.ok()) << status.ToString();
  return out;
}

TEST(SplitDeviceTest, TheBitsOfOneDeviceForEveryWidthAndNumberOfDevices) {
  constexpr size_t kD = 70, kRows = 3;
  const auto planes = DigitPlanes(RandomResidues(kRows, kD, 1), kD);
  const auto one = CreateCpuDevice(1, Isa::kPortable);
  for (const size_t n : {1, 2, 3, 5, 8}) {
    Split split(n);
    for (const size_t outputs : {1, 31, 33, 64, 65, 97, 127, 160, 201, 513}) {
      SCOPED_TRACE(std::to_string(n) + " devices, " + std::to_string(outputs) + " outputs");
      const size_t padded = PadOutputs(outputs);
      const auto source = RandomWeights(outputs, kD, outputs);
      auto alone = one->CreateWeights(kD, padded).value();
      auto weights = split.device->CreateWeights(kD, padded).value();
      for (DeviceWeights* w : {alone.get(), weights.get()})
        ASSERT_TRUE(w->SetColumns(0, source).ok());
      EXPECT_EQ(Multiplied(*weights, padded, planes, kRows),
                Multiplied(*alone, padded, planes, kRows));
    }
  }
}

TEST(SplitDeviceTest, SlicesAreEvenAndASmallMatrixLeavesSomeWithoutOne) {
  Split split(3);
  const auto large = split.device->CreateWeights(64, 32 * 7).value();
  const auto small = split.device->CreateWeights(64, 64).value();
  EXPECT_THAT(split.parts[0]->outputs, ElementsAre(96u, 32u));
  EXPECT_THAT(split.parts[1]->outputs, ElementsAre(64u, 32u));
  EXPECT_THAT(split.parts[2]->outputs, ElementsAre(64u));
  (void)Multiplied(*small, 64, DigitPlanes(RandomResidues(1, 64, 1), 64), 1);
  EXPECT_EQ(split.parts[2]->products, 0u);
  // What each holds is told apart.
  EXPECT_EQ(split.device->name(), "part 0 + part 1 + part 2");
  const auto memory = split.device->memory();
  ASSERT_EQ(memory.size(), 3u);
  EXPECT_EQ(memory[0].weight_bytes, 64u * 128);
  EXPECT_EQ(memory[2].device, "part 2");
  EXPECT_EQ(memory[2].weight_bytes, 64u * 64);
  EXPECT_EQ(memory[2].free_bytes, 5u);
}

TEST(SplitDeviceTest, ACallTakesAsManyRowsAsTheSmallestOne) {
  Split split(3);
  split.parts[1]->max_rows = 7;
  EXPECT_EQ(split.device->CreateWeights(64, 96).value()->max_rows(), 7u);
  EXPECT_EQ(split.device->CreateWeights(64, 32).value()->max_rows(), 64u);  // the first's alone
}

// Each waits for the others: one after the other it would never end.
TEST(SplitDeviceTest, AllMultiplyAtTheSameTime) {
  Split split(3);
  std::mutex mutex;
  std::condition_variable changed;
  int inside = 0;
  for (ScriptedDevice* part : split.parts) {
    part->script = [&] {
      std::unique_lock lock(mutex);
      ++inside;
      changed.notify_all();
      changed.wait(lock, [&] { return inside >= 3; });
      return OkStatus();
    };
  }
  const auto weights = split.device->CreateWeights(64, 96).value();
  (void)Multiplied(*weights, 96, DigitPlanes(RandomResidues(1, 64, 1), 64), 1);
  EXPECT_EQ(inside, 3);
}

TEST(SplitDeviceTest, OneThatIsShortOfMemoryFailsTheCallAndTheNextOneIsRight) {
  constexpr size_t kD = 64, kOutputs = 96;
  Split split(3);
  const auto source = RandomWeights(kOutputs, kD, 1);
  const auto weights = split.device->CreateWeights(kD, kOutputs).value();
  ASSERT_TRUE(weights->SetColumns(0, source).ok());
  const auto planes = DigitPlanes(RandomResidues(2, kD, 2), kD);
  std::vector<uint8_t> out(2 * kOutputs * kResidueBytes), expected(out.size());
  ReferenceProduct(source, kD, planes, 2, expected);
  split.parts[1]->script = [] { return Status(Code::kResourceExhausted, "part 1 is full"); };
  const RowBlock block{planes, 2, out};
  const Status status = weights->Multiply({&block, 1});
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_EQ(status.message(), "part 1 is full");
  split.parts[1]->script = nullptr;
  EXPECT_EQ(Multiplied(*weights, kOutputs, planes, 2), expected);
  // And what a matrix needs and does not get is the part's own message.
  split.parts[2]->creation = {Code::kResourceExhausted, "part 2 has no room"};
  const auto refused = split.device->CreateWeights(kD, kOutputs).status();
  EXPECT_EQ(refused.code(), Code::kResourceExhausted);
  EXPECT_EQ(refused.message(), "part 2 has no room");
  EXPECT_EQ(Multiplied(*weights, kOutputs, planes, 2), expected);
}

TEST(SplitDeviceTest, OneThatIsLostIsAllLostForEveryMatrix) {
  Split split(3);
  const auto large = split.device->CreateWeights(64, 96).value();
  const auto small = split.device->CreateWeights(64, 32).value();  // the first's alone
  const auto planes = DigitPlanes(RandomResidues(1, 64, 1), 64);
  std::vector<uint8_t> out(96 * kResidueBytes), small_out(32 * kResidueBytes);
  // Beside one that is only short of memory.
  split.parts[0]->script = [] { return Status(Code::kResourceExhausted, "part 0 is full"); };
  split.parts[2]->script = [] { return Status(Code::kUnavailable, "part 2 fell off the bus"); };
  const RowBlock block{planes, 1, out}, small_block{planes, 1, small_out};
  const Status first = large->Multiply({&block, 1});
  EXPECT_EQ(first.code(), Code::kUnavailable);
  EXPECT_EQ(first.message(), "part 2 fell off the bus");
  for (ScriptedDevice* part : split.parts) part->script = nullptr;
  const size_t products = split.parts[0]->products;
  for (const Status& later : {large->Multiply({&block, 1}), small->Multiply({&small_block, 1}),
                              small->SetColumns(0, RandomWeights(1, 64, 1)),
                              split.device->CreateWeights(64, 32).status()}) {
    EXPECT_EQ(later.code(), Code::kUnavailable);
    EXPECT_EQ(later.message(), first.message());
  }
  EXPECT_EQ(split.parts[0]->products, products);
}

TEST(SplitDeviceTest, TheSelfTestFindsOneThatLies) {
  class Liar final : public Device {
   public:
    std::string name() const override { return "liar"; }
    std::vector<Memory> memory() const override { return honest_->memory(); }
    Result<std::unique_ptr<DeviceWeights>> CreateWeights(size_t d, size_t padded) override {
      TALARIA_ASSIGN_OR_RETURN(auto weights, honest_->CreateWeights(d, padded));
      return std::unique_ptr<DeviceWeights>(std::make_unique<Weights>(std::move(weights)));
    }

   private:
    struct Weights final : DeviceWeights {
      explicit Weights(std::unique_ptr<DeviceWeights> weights) : honest(std::move(weights)) {}
      Status SetColumns(size_t first, std::span<const int8_t> w) override {
        return honest->SetColumns(first, w);
      }
      size_t max_rows() const override { return honest->max_rows(); }
      Status Multiply(std::span<const RowBlock> blocks) override {
        const Status status = honest->Multiply(blocks);
        blocks.back().out[0] ^= 1;
        return status;
      }
      std::unique_ptr<DeviceWeights> honest;
    };
    const std::unique_ptr<Device> honest_ = CreateCpuDevice(1, Isa::kPortable);
  };
  std::vector<std::unique_ptr<Device>> parts;
  parts.push_back(CreateCpuDevice(1, Isa::kPortable));
  parts.push_back(std::make_unique<Liar>());
  const Status status = SelfTestDevice(*CreateSplitDevice(std::move(parts)));
  EXPECT_EQ(status.code(), Code::kUnsupported);
  EXPECT_THAT(status.message(), HasSubstr("liar differ from the reference"));
}

}  // namespace
}  // namespace talaria::gemm
