// One suite for every device: what each has to compute, whichever it is. $TALARIA_TEST_DEVICES, a
// list with spaces, says which are tried: cpu (the default), cuda, cuda:1, cuda:0,1, ... and
// cpu+cpu or cuda+cuda: such devices as one, where a machine has only one of them. One that is
// named and not there is a failure. With $TALARIA_TEST_TIMES=1 the shapes of models are timed too,
// once they were right, and tried with more rows.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <sstream>

#include "talaria/gemm/device.h"
#include "talaria/gemm/product_testing.h"

namespace talaria::gemm {
namespace {

constexpr uint8_t kGuard = 0xee;
constexpr size_t kGuardBytes = 64;

std::vector<std::string> WantedDevices() {
  const char* list = std::getenv("TALARIA_TEST_DEVICES");
  std::istringstream in(list == nullptr || *list == 0 ? "cpu" : list);
  std::vector<std::string> out;
  for (std::string name; in >> name;) out.push_back(name);
  return out;
}

Result<std::unique_ptr<Device>> Create(const std::string& name) {
  if (name.find('+') != std::string::npos) {
    std::vector<std::unique_ptr<Device>> parts;
    std::istringstream in(name);
    for (std::string part; std::getline(in, part, '+');) {
      TALARIA_ASSIGN_OR_RETURN(parts.emplace_back(), Create(part));
    }
    return CreateSplitDevice(std::move(parts));
  }
  TALARIA_ASSIGN_OR_RETURN(DeviceSpec spec, DeviceSpec::Parse(name));
  spec.threads = 2;
  spec.isa = DetectIsa();
  return CreateDevice(spec);
}

// Made once: a GPU takes a second to start.
Device* DeviceOf(const std::string& name) {
  // Never destroyed: a driver may be gone by then.
  static auto* const devices = new std::map<std::string, std::unique_ptr<Device>>;
  if (const auto found = devices->find(name); found != devices->end()) return found->second.get();
  auto device = Create(name);
  EXPECT_TRUE(device.ok()) << device.status().ToString();
  if (!device.ok()) return nullptr;
  std::printf("%s is %s\n", name.c_str(), (*device)->name().c_str());
  return ((*devices)[name] = std::move(device).value()).get();
}

class EveryDevice : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    device_ = DeviceOf(GetParam());
    if (device_ == nullptr) FAIL() << "there is no " << GetParam();
  }

  std::unique_ptr<DeviceWeights> Resident(std::span<const int8_t> weights, size_t d) {
    auto made = device_->CreateWeights(d, PadOutputs(weights.size() / d));
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    if (!made.ok()) return nullptr;
    const Status status = (*made)->SetColumns(0, weights);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return std::move(made).value();
  }

  // As many calls as max_rows() asks for, each with guards around its output, at odd addresses.
  static std::vector<uint8_t> Multiplied(DeviceWeights& weights, size_t d, size_t padded_outputs,
                                         Bytes planes, size_t rows) {
    const size_t in_row = kPlanes * PadInputs(d), out_row = padded_outputs * 6;
    std::vector<uint8_t> all;
    for (size_t row = 0; row < rows;) {
      const size_t now = std::min(rows - row, weights.max_rows());
      std::vector<uint8_t> guarded(now * out_row + 2 * kGuardBytes + 1, kGuard);
      const auto out = MutableBytes(guarded).subspan(kGuardBytes + 1, now * out_row);
      const RowBlock block{planes.subspan(row * in_row, now * in_row), now, out};
      const Status status = weights.Multiply({&block, 1});
      EXPECT_TRUE(status.ok()) << status.ToString();
      const auto is_guard = [](uint8_t b) { return b == kGuard; };
      EXPECT_TRUE(std::all_of(guarded.begin(), guarded.begin() + kGuardBytes + 1, is_guard));
      EXPECT_TRUE(std::all_of(guarded.end() - kGuardBytes, guarded.end(), is_guard));
      all.insert(all.end(), out.begin(), out.end());
      row += now;
    }
    return all;
  }

  static void ExpectSame(Bytes got, Bytes expected, size_t padded_outputs) {
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size() / 6; ++i) {
      ASSERT_EQ(ring::LoadResidue(got.data() + 6 * i), ring::LoadResidue(expected.data() + 6 * i))
          << "row " << i / padded_outputs << " output " << i % padded_outputs;
    }
  }

  void Check(std::span<const int8_t> weights, size_t d, Bytes planes, size_t rows) {
    SCOPED_TRACE("d " + std::to_string(d) + " o " + std::to_string(weights.size() / d) + " n " +
                 std::to_string(rows));
    const size_t padded = PadOutputs(weights.size() / d);
    const auto resident = Resident(weights, d);
    ASSERT_NE(resident, nullptr);
    std::vector<uint8_t> expected(rows * padded * 6);
    ReferenceProduct(weights, d, planes, rows, expected);
    ExpectSame(Multiplied(*resident, d, padded, planes, rows), expected, padded);
  }

  void CheckRandom(size_t d, size_t outputs, size_t rows) {
    Check(RandomWeights(outputs, d, d * 31 + outputs), d,
          DigitPlanes(RandomResidues(rows, d, rows), d), rows);
  }

  // Of one call after another, host to host, the median microseconds; five of them at least.
  static double MedianUs(DeviceWeights& weights, const RowBlock& block) {
    using Clock = std::chrono::steady_clock;
    std::vector<double> us;
    for (double total = 0; us.size() < 5 || (total < 1e5 && us.size() < 1000); total += us.back()) {
      const auto start = Clock::now();
      EXPECT_TRUE(weights.Multiply({&block, 1}).ok());
      us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
    }
    const auto middle = us.begin() + static_cast<ptrdiff_t>(us.size() / 2);
    std::nth_element(us.begin(), middle, us.end());
    return *middle;
  }

  Device* device_ = nullptr;
};

TEST_P(EveryDevice, EveryDepth) {
  for (size_t d : {1, 20, 63, 64, 65, 500, 512, 513, 576, 1088, 4096}) CheckRandom(d, 33, 3);
}

TEST_P(EveryDevice, EveryWidth) {
  for (size_t outputs : {1, 31, 32, 33, 64, 96, 127, 128, 129, 960}) CheckRandom(70, outputs, 5);
}

TEST_P(EveryDevice, OneTo1024Rows) {
  for (size_t rows : {1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 32, 33, 64, 100, 255, 256, 257, 1024})
    CheckRandom(65, 65, rows);
}

// Enough outputs that every kernel of a GPU has its turn, with a rest in every direction.
TEST_P(EveryDevice, ManyOutputs) {
  for (size_t rows : {1, 7, 18, 35}) CheckRandom(70, 25600 + 40, rows);
}

// Every output of the first and the last row; then, if wanted, the time. The weights of one matrix,
// again and again: on a processor small ones stay in its cache (product_benchmark has cold ones).
TEST_P(EveryDevice, ShapesOfModels) {
  const char* const wanted = std::getenv("TALARIA_TEST_TIMES");
  const bool timed = wanted != nullptr && *wanted == '1';
  if (timed)
    std::printf("%-20s %13s %5s %10s %9s %9s\n", "device", "d x outputs", "rows", "call us",
                "weights/s", "int8 ops/s");
  for (const auto& [d, outputs] :
       {std::pair<size_t, size_t>{576, 3072}, {1536, 576}, {4096, 6144}}) {
    const auto weights = RandomWeights(outputs, d, d);
    const auto resident = Resident(weights, d);
    ASSERT_NE(resident, nullptr);
    for (size_t rows : {1, 4, 16, 64, 256, 1024}) {
      if (rows > (timed ? resident->max_rows() : 4)) break;
      SCOPED_TRACE(std::to_string(d) + " x " + std::to_string(outputs) + ", rows " +
                   std::to_string(rows));
      const size_t in_row = kPlanes * PadInputs(d), out_row = outputs * 6;
      const auto planes = DigitPlanes(RandomResidues(rows, d, rows), d);
      std::vector<uint8_t> out(rows * out_row), expected(out_row);
      const RowBlock block{planes, rows, out};
      ASSERT_TRUE(resident->Multiply({&block, 1}).ok());
      for (size_t row : {size_t{0}, rows - 1}) {
        ReferenceProduct(weights, d, Bytes(planes).subspan(row * in_row, in_row), 1, expected);
        ExpectSame(Bytes(out).subspan(row * out_row, out_row), expected, outputs);
      }
      if (!timed) continue;
      const double us = MedianUs(*resident, block);
      const double each = static_cast<double>(d * outputs);
      std::printf("%-20s %5zu x %5zu %5zu %10.1f %7.1f G %7.2f T\n", GetParam().c_str(), d, outputs,
                  rows, us, each / us * 1e-3, 12 * each * static_cast<double>(rows) / us * 1e-6);
      std::fflush(stdout);
    }
  }
}

TEST_P(EveryDevice, LargestSums) {
  for (size_t d : {size_t{1}, size_t{576}, kMaxInputs}) {
    for (int weight : {-127, 127}) {
      for (int digit : {0, 127, 128, 255}) {  // 255: values above q count modulo q
        const std::vector<int8_t> weights(3 * d, static_cast<int8_t>(weight));
        Check(weights, d,
              std::vector<uint8_t>(2 * kPlanes * PadInputs(d), static_cast<uint8_t>(digit)), 2);
      }
    }
  }
}

TEST_P(EveryDevice, ValuesAboveTheModulus) {
  constexpr size_t kD = 70;
  const auto weights = RandomWeights(40, kD, 5);
  std::vector<uint64_t> x(20 * kD);
  for (size_t i = 0; i < x.size(); ++i) x[i] = ring::kQ - 2 + i % 16385;  // up to 2^48 - 1
  Check(weights, kD, DigitPlanes(x, kD), 20);
}

TEST_P(EveryDevice, PaddingDigitsDoNotMatter) {
  constexpr size_t kD = 33;
  const auto x = RandomResidues(3, kD, 6);
  const auto weights = Resident(RandomWeights(40, kD, 7), kD);
  ASSERT_NE(weights, nullptr);
  EXPECT_EQ(Multiplied(*weights, kD, 64, DigitPlanes(x, kD, 0x00), 3),
            Multiplied(*weights, kD, 64, DigitPlanes(x, kD, 0xff), 3));
}

TEST_P(EveryDevice, RowsOfSeveralRequestsInOneCall) {
  constexpr size_t kD = 200, kOutputs = 70, kPadded = 96;
  const auto source = RandomWeights(kOutputs, kD, 1);
  const auto weights = Resident(source, kD);
  ASSERT_NE(weights, nullptr);
  for (const std::vector<size_t>& sizes : std::vector<std::vector<size_t>>{
           {1, 1}, {3, 1, 40, 2}, std::vector<size_t>(64, 1), {1, 300, 1, 100}}) {
    std::vector<std::vector<uint8_t>> planes, out;
    std::vector<RowBlock> blocks;
    size_t rows = 0;
    for (const size_t size : sizes) {
      rows += size;
      planes.push_back(DigitPlanes(RandomResidues(size, kD, 10 + planes.size()), kD));
      out.emplace_back(size * kPadded * 6, 0xff);
    }
    ASSERT_LE(rows, weights->max_rows());
    for (size_t i = 0; i < sizes.size(); ++i) blocks.push_back({planes[i], sizes[i], out[i]});
    ASSERT_TRUE(weights->Multiply(blocks).ok());
    for (size_t i = 0; i < sizes.size(); ++i) {
      std::vector<uint8_t> expected(out[i].size());
      ReferenceProduct(source, kD, planes[i], sizes[i], expected);
      ExpectSame(out[i], expected, kPadded);
    }
  }
}

// The most rows that a call may have, of an output so wide that a device may take them in parts.
TEST_P(EveryDevice, AsManyRowsAsACallTakes) {
  constexpr size_t kD = 64, kOutputs = 49152;
  const auto source = RandomWeights(kOutputs, kD, 21);
  const auto weights = Resident(source, kD);
  ASSERT_NE(weights, nullptr);
  const size_t rows = weights->max_rows();
  const auto planes = DigitPlanes(RandomResidues(rows, kD, 22), kD);
  const auto got = Multiplied(*weights, kD, kOutputs, planes, rows);
  // The oracle for some of the rows: all would take a minute.
  const size_t in_row = kPlanes * kD, out_row = kOutputs * 6;
  for (size_t row : {size_t{0}, size_t{1}, rows / 4, rows / 2 + 1, rows - 1}) {
    std::vector<uint8_t> expected(out_row);
    ReferenceProduct(source, kD, Bytes(planes).subspan(row * in_row, in_row), 1, expected);
    ExpectSame(Bytes(got).subspan(row * out_row, out_row), expected, kOutputs);
  }
}

TEST_P(EveryDevice, ColumnsInPiecesEqualColumnsAtOnce) {
  constexpr size_t kD = 100, kOutputs = 200;
  const auto weights = RandomWeights(kOutputs, kD, 9);
  const auto planes = DigitPlanes(RandomResidues(5, kD, 10), kD);
  auto made = device_->CreateWeights(kD, PadOutputs(kOutputs));
  ASSERT_TRUE(made.ok());
  const std::span<const int8_t> all(weights);
  // Out of order, the last one not a multiple of 32, one of them twice.
  ASSERT_TRUE((*made)->SetColumns(160, all.subspan(160 * kD)).ok());
  ASSERT_TRUE((*made)->SetColumns(32, RandomWeights(64, kD, 11)).ok());
  ASSERT_TRUE((*made)->SetColumns(0, all.subspan(0, 96 * kD)).ok());
  ASSERT_TRUE((*made)->SetColumns(96, all.subspan(96 * kD, 64 * kD)).ok());
  ASSERT_TRUE((*made)->SetColumns(224, {}).ok());
  std::vector<uint8_t> expected(5 * 224 * 6);
  ReferenceProduct(weights, kD, planes, 5, expected);
  ExpectSame(Multiplied(**made, kD, 224, planes, 5), expected, 224);
}

TEST_P(EveryDevice, ColumnsNeverSetAreZeroAndTheRestOfAPieceBecomesZero) {
  constexpr size_t kD = 64;
  auto made = device_->CreateWeights(kD, 96);
  ASSERT_TRUE(made.ok());
  ASSERT_TRUE((*made)->SetColumns(32, RandomWeights(32, kD, 12)).ok());
  ASSERT_TRUE((*made)->SetColumns(32, std::vector<int8_t>(kD, 1)).ok());
  const auto planes = DigitPlanes(std::vector<uint64_t>(kD, 3), kD);
  const auto out = Multiplied(**made, kD, 96, planes, 1);
  for (size_t c = 0; c < 96; ++c)
    EXPECT_EQ(ring::LoadResidue(out.data() + 6 * c), c == 32 ? 3 * kD : 0) << c;
}

TEST_P(EveryDevice, WeightsComeAndGo) {
  constexpr size_t kD = 1000, kOutputs = 100;
  const auto first = RandomWeights(kOutputs, kD, 30);
  const auto planes = DigitPlanes(RandomResidues(2, kD, 31), kD);
  const auto kept = Resident(first, kD);
  ASSERT_NE(kept, nullptr);
  for (uint64_t i = 0; i < 5; ++i) ASSERT_NE(Resident(RandomWeights(3000, kD, i), kD), nullptr);
  std::vector<uint8_t> expected(2 * 128 * 6);
  ReferenceProduct(first, kD, planes, 2, expected);
  ExpectSame(Multiplied(*kept, kD, 128, planes, 2), expected, 128);
}

TEST_P(EveryDevice, WhatDoesNotFitIsRefusedAndChangesNothing) {
  EXPECT_EQ(device_->CreateWeights(0, 32).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(device_->CreateWeights(kMaxInputs + 1, 32).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(device_->CreateWeights(64, 0).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(device_->CreateWeights(64, 33).status().code(), Code::kInvalidArgument);
  constexpr size_t kD = 10;
  const auto good = RandomWeights(64, kD, 16);
  const auto weights = Resident(good, kD);
  ASSERT_NE(weights, nullptr);
  const std::vector<int8_t> more(330, 1);
  const std::span<const int8_t> all(more);
  EXPECT_EQ(weights->SetColumns(0, all.first(15)).code(), Code::kInvalidArgument);
  EXPECT_EQ(weights->SetColumns(16, all.first(10)).code(), Code::kInvalidArgument);
  EXPECT_EQ(weights->SetColumns(32, all).code(), Code::kInvalidArgument);
  EXPECT_EQ(weights->SetColumns(96, all.first(10)).code(), Code::kInvalidArgument);
  EXPECT_EQ(weights->SetColumns(SIZE_MAX / 32 * 32, all.first(10)).code(), Code::kInvalidArgument);
  auto bad = RandomWeights(64, kD, 17);
  bad.back() = -128;
  const Status corrupt = weights->SetColumns(0, bad);
  EXPECT_EQ(corrupt.code(), Code::kCorrupt);
  EXPECT_THAT(corrupt.message(), ::testing::HasSubstr("-128"));
  const auto planes = DigitPlanes(RandomResidues(1, kD, 18), kD);
  std::vector<uint8_t> expected(64 * 6);
  ReferenceProduct(good, kD, planes, 1, expected);
  ExpectSame(Multiplied(*weights, kD, 64, planes, 1), expected, 64);
}

INSTANTIATE_TEST_SUITE_P(Devices, EveryDevice, ::testing::ValuesIn(WantedDevices()),
                         [](const auto& param) {
                           std::string name = param.param;
                           for (const char c : {':', ',', '+'})
                             std::replace(name.begin(), name.end(), c, '_');
                           return name;
                         });

}  // namespace
}  // namespace talaria::gemm
