#include "bench/kernel_costs.h"

#include <gtest/gtest.h>

namespace talaria::bench {
namespace {

constexpr Timing kShort = {.runs = 1, .seconds = 0, .cold_bytes = 1 << 20};

// Not how long anything takes: that every kernel runs, agrees with its oracle, and is timed.
TEST(KernelCosts, EveryKernelRunsAndAgrees) {
  for (const Isa isa : SupportedIsas()) {
    const auto cvm = MeasureCvm(isa, 64, 32, kShort);
    ASSERT_TRUE(cvm.ok()) << cvm.status().ToString();
    for (const Summary& s :
         {cvm->mask_ns, cvm->check_ns, cvm->unmask_ns, cvm->generate_ns, cvm->generate_four_ns})
      EXPECT_GT(s.median, 0);
  }
  const auto product = MeasureProduct(DetectIsa(), 512, 480, 5, kShort);
  ASSERT_TRUE(product.ok()) << product.status().ToString();
  EXPECT_GT(product->median, 0);
}

TEST(KernelCosts, TheMachineHasAClockAndMemory) {
  const MachineRates rates = MeasureMachine(kShort);
  EXPECT_GT(rates.read_gb_per_second.median, 0);
  EXPECT_GT(rates.clock_ghz.median, 0);
  EXPECT_EQ(rates.ifma_per_ns.median > 0, DetectIsa() >= Isa::kAvx512);
}

// doc/wire.md: five bytes of frame, sixteen of header, six an element; 64 and 32 wide at least.
TEST(KernelCosts, WireBytes) {
  EXPECT_EQ(WireBytesUp(576, 1), 5 + 16 + 6 * 576);
  EXPECT_EQ(WireBytesUp(100, 2), 5 + 16 + 2 * 6 * 128);
  EXPECT_EQ(WireBytesDown(100, 2), 5 + 16 + 2 * 6 * 128);
  EXPECT_EQ(WireBytesDown(40, 1), 5 + 16 + 6 * 64);
}

TEST(KernelCosts, CallsAndEncryption) {
  const CallCosts call = MeasureCall(100, 200, {.runs = 1, .seconds = 0.001});
  EXPECT_GT(call.wall_us.median, 0);
  const auto encryption = MeasureEncryption({.runs = 1, .seconds = 0.001});
  ASSERT_TRUE(encryption.ok());
  EXPECT_GT(encryption->median, 0);
}

// 16 + 2, 51 / 16, 1, 6 and 3 for eight elements.
TEST(KernelCosts, InstructionsPerElement) { EXPECT_NEAR(kIfmaPerElement, 31.1875 / 8, 1e-12); }

}  // namespace
}  // namespace talaria::bench
