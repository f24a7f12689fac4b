#include "bench/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace talaria::bench {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

Rates RatesOf(double every) {
  Rates r;
  for (Rate* rate : {&r.mask_ns, &r.open_ns, &r.generate_ns, &r.call_wall_us, &r.call_cpu_us,
                     &r.encrypt_ns, &r.read_gb, &r.plain_decode_gmac, &r.plain_prompt_gmac,
                     &r.engine_decode_us, &r.engine_prompt_us, &r.cloud_read_gb, &r.cloud_gmac})
    *rate = {every, "test"};
  return r;
}

// One layer with one matrix of 64 x 32, and no head.
ModelShape Tiny() {
  ModelShape shape;
  shape.name = "tiny";
  shape.layers = 1;
  shape.width = 576;
  shape.kv_width = 0;
  shape.product_bytes = 2048;
  shape.groups = {{64, {32}, 1, false}};
  return shape;
}

TEST(Plan, SmolLm2ByHand) {
  const auto shape = ShapeOf("smollm2", 8);
  ASSERT_TRUE(shape.ok());
  EXPECT_EQ(RoundTrips(*shape), 30u * 4 + 1);
  // A layer: 576 x (192 + 192 + 576) + 576 x 576 + 576 x 3072 + 1536 x 576; the head 576 x 49152.
  const double layer = 576.0 * 960 + 576.0 * 576 + 576.0 * 3072 + 1536.0 * 576;
  EXPECT_EQ(shape->product_bytes, 30 * layer + 576.0 * 49152);
  const Estimate e = MakeEstimate(*shape, RatesOf(1), {});
  EXPECT_EQ(e.round_trips, 121u);
  EXPECT_EQ(e.weights, 30 * layer + 576.0 * 49152);
  // 6 bytes an element and 21 of headers a message: the README's 0.59 MB up and 1.23 MB down.
  EXPECT_EQ(e.bytes_up, 121 * 21 + 6.0 * (30 * (576 * 3 + 1536) + 576));
  EXPECT_EQ(e.bytes_down, 121 * 21 + 6.0 * (30 * (960 + 576 + 3072 + 576) + 49152));
  EXPECT_NEAR(e.bytes_up, 0.59e6, 0.005e6);
  EXPECT_NEAR(e.bytes_down, 1.23e6, 0.005e6);
  // 12,288 bytes per output column.
  EXPECT_NEAR(e.hints_gb, 12288e-9 * (30 * 5184 + 49152), 1e-9);
}

TEST(Plan, HintsOfTheEightBillionByHand) {
  const auto shape = ShapeOf("8b", 4.89);
  ASSERT_TRUE(shape.ok());
  const Estimate e = MakeEstimate(*shape, RatesOf(1), {});
  EXPECT_EQ(e.round_trips, 32u * 4 + 1);
  EXPECT_NEAR(e.hints_gb, 12288e-9 * (32 * (6144 + 4096 + 28672 + 4096) + 128256), 1e-9);
  EXPECT_NEAR(e.hints_gb, 18.5, 0.05);  // the README's figure
  EXPECT_NEAR(e.weights, 7.5e9, 0.01e9);
}

// Every part of one step, by hand.
TEST(Plan, AStepByHand) {
  Rates rates = RatesOf(1);
  const Deployment deployment = {.cores = 2,
                                 .gbit = 8,  // a byte a nanosecond
                                 .rtt_ms = 0.5,
                                 .cloud_cores = 1,
                                 .context = 0,
                                 .prompt = 1};
  const Estimate e = MakeEstimate(Tiny(), rates, deployment);
  const double up = 21 + 6 * 64, down = 21 + 6 * 32;
  EXPECT_EQ(e.bytes_up, up);
  EXPECT_EQ(e.bytes_down, down);
  EXPECT_NEAR(e.step.network, 0.5, 1e-12);
  EXPECT_NEAR(e.step.bytes, (up + down) * 1e-6, 1e-12);
  EXPECT_NEAR(e.step.product, 2048e-6, 1e-12);                     // 2,048 weights at 1 GB/s
  EXPECT_NEAR(e.step.call, 1e-3 + 2 * (up + down) * 1e-6, 1e-12);  // 1 us, and both sides' TLS
  EXPECT_NEAR(e.step.kernels, (64 + 32) * 1e-6, 1e-12);
  EXPECT_NEAR(e.step.masks_cpu, (64 + 32) * 1e-6, 1e-12);
  EXPECT_NEAR(e.step.engine, 1e-3, 1e-12);  // one layer of width 576
  EXPECT_FALSE(e.step.masks_bound);
  const double step = 0.5 + (up + down) * 3e-6 + 2048e-6 + 2e-3 + 96e-6;
  EXPECT_NEAR(e.talaria.decode, 1e3 / step, 1e-6);
  EXPECT_NEAR(e.talaria.decode_cpu_ms, 1e-3 + (up + down) * 1e-6 + 192e-6 + 1e-3, 1e-12);
  // Alone: 2,048 products or bytes at one a nanosecond on two cores, and the engine's microsecond.
  EXPECT_NEAR(e.alone.decode, 1e3 / (1024e-6 + 1e-3), 1e-6);
  EXPECT_NEAR(e.alone.decode_cpu_ms, 2048e-6 + 1e-3, 1e-12);
}

TEST(Plan, MasksBoundAStepWhenTheCoresAreTooFew) {
  Rates rates = RatesOf(1);
  rates.generate_ns.value = 1e6;  // 96 elements: 96 ms on one core
  const Estimate e = MakeEstimate(Tiny(), rates, {.cores = 1, .cloud_cores = 1, .context = 0});
  EXPECT_TRUE(e.step.masks_bound);
  EXPECT_NEAR(e.talaria.decode, 1e3 / 96, 0.01);
  EXPECT_THAT(e.reasons, Contains(HasSubstr("making masks bounds decoding")));
}

TEST(Plan, UsersShareRoundTrips) {
  Deployment deployment = {.gbit = 10, .rtt_ms = 1, .context = 0};
  const Estimate one = MakeEstimate(Tiny(), RatesOf(1), deployment);
  deployment.users = 8;
  const Estimate eight = MakeEstimate(Tiny(), RatesOf(1), deployment);
  EXPECT_NEAR(eight.talaria.decode / one.talaria.decode, 8, 0.2);
  EXPECT_EQ(eight.round_trips, one.round_trips);
}

TEST(Plan, AllTokensOfAPromptShareAMessageOf256Rows) {
  // 512 tokens are two messages; the head has one row and one message.
  ModelShape shape = Tiny();
  shape.groups.push_back({64, {32}, 1, true});
  const Deployment deployment = {.gbit = 0, .rtt_ms = 1000, .context = 0, .prompt = 512};
  const Estimate e = MakeEstimate(shape, RatesOf(1), deployment);
  EXPECT_NEAR(e.talaria.prompt, 512 / 3.0, 0.1);
}

TEST(Plan, AFarCloudAndASmallModelDoNotPay) {
  const Estimate e = MakeEstimate(Tiny(), RatesOf(1), {.gbit = 1, .rtt_ms = 50, .context = 0});
  EXPECT_THAT(e.verdict, HasSubstr("everything inside the confidential VM is faster"));
  EXPECT_THAT(e.reasons, Contains(HasSubstr("round trips")));
}

TEST(Plan, AFastCloudNearAFewSlowCoresPays) {
  Rates rates = RatesOf(1);
  rates.plain_decode_gmac.value = rates.plain_prompt_gmac.value = 1e-3;
  const Estimate e = MakeEstimate(Tiny(), rates, {.context = 0});
  EXPECT_EQ(e.verdict, "Talaria pays");
}

TEST(Plan, TheCloudsOwnFiguresReplaceItsCores) {
  const Deployment deployment = {.cloud_gb = 2, .cloud_gmac = 1024, .context = 0};
  EXPECT_NEAR(MakeEstimate(Tiny(), RatesOf(1), deployment).step.product, 1024e-6, 1e-12);
}

// The estimate of a measured run is that run: 50 tokens/s and 9 ms of CPU.
TEST(Plan, WhatIsNotExplainedIsChargedToRoundTrips) {
  const auto shape = ShapeOf("smollm2", 5);
  ASSERT_TRUE(shape.ok());
  Rates rates = RatesOf(10);
  rates.encrypt_ns.value = 0.1;
  const Rates charged = ChargeCalls(*shape, rates, {50, 9, 2, 2, "a run"});
  const Estimate e = MakeEstimate(*shape, charged, {.cores = 2, .cloud_cores = 2, .context = 256});
  EXPECT_NEAR(e.talaria.decode, 50, 1e-6);
  EXPECT_NEAR(e.talaria.decode_cpu_ms, 9, 1e-6);
  EXPECT_EQ(charged.call_wall_us.source, "a run");
  // A run that is faster than the parts changes nothing.
  EXPECT_EQ(ChargeCalls(*shape, rates, {1e6, 0, 2, 2, "a run"}).call_wall_us.value, 10);
}

model::GgufTensor Tensor(const std::string& name, uint64_t d, uint64_t o) {
  model::GgufTensor tensor;
  tensor.name = name;
  tensor.dimensions = o > 1 ? 2 : 1;
  tensor.shape[0] = d;
  tensor.shape[1] = o;
  tensor.bytes = d * o;
  return tensor;
}

model::GgufHeader TwoLayers() {
  model::GgufHeader header;
  header.architecture = "llama";
  header.tensors = {Tensor("token_embd.weight", 256, 1000), Tensor("output_norm.weight", 256, 1)};
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    header.tensors.push_back(Tensor(layer + "attn_norm.weight", 256, 1));
    header.tensors.push_back(Tensor(layer + "attn_q.weight", 256, 256));
    header.tensors.push_back(Tensor(layer + "attn_k.weight", 256, 128));
    header.tensors.push_back(Tensor(layer + "attn_v.weight", 256, 128));
    header.tensors.push_back(Tensor(layer + "attn_output.weight", 256, 256));
    header.tensors.push_back(Tensor(layer + "ffn_gate.weight", 256, 512));
    header.tensors.push_back(Tensor(layer + "ffn_up.weight", 256, 512));
    header.tensors.push_back(Tensor(layer + "ffn_down.weight", 512, 256));
  }
  return header;
}

TEST(PlanShape, GroupsOfAGguf) {
  const auto shape = ShapeOfGguf(TwoLayers());
  ASSERT_TRUE(shape.ok()) << shape.status().ToString();
  EXPECT_EQ(shape->layers, 2u);
  EXPECT_EQ(shape->width, 256u);
  EXPECT_EQ(shape->kv_width, 128u);
  EXPECT_EQ(RoundTrips(*shape), 9u);
  ASSERT_EQ(shape->groups.size(), 5u);
  EXPECT_EQ(shape->groups[0].outputs, (std::vector<uint32_t>{128, 128, 256}));
  EXPECT_EQ(shape->groups[0].count, 2u);
  EXPECT_TRUE(shape->groups[4].head);  // the embedding, tied
  EXPECT_EQ(PaddedOutputs(shape->groups[4]), 1024);
  const double layer = 256.0 * 512 + 256 * 256 + 256 * 1024 + 512 * 256;
  EXPECT_EQ(shape->product_bytes, 2 * layer + 256000);
  EXPECT_EQ(shape->kept_bytes, 256000 + 3 * 256);  // the embedding and three norms
  EXPECT_TRUE(shape->notes.empty());
}

TEST(PlanShape, AHeadOfItsOwnAndUnknownNames) {
  model::GgufHeader header = TwoLayers();
  header.tensors.push_back(Tensor("output.weight", 256, 1000));
  header.tensors.push_back(Tensor("blk.0.odd.weight", 256, 256));
  const auto shape = ShapeOfGguf(header);
  ASSERT_TRUE(shape.ok());
  EXPECT_EQ(RoundTrips(*shape), 10u);
  EXPECT_THAT(shape->notes, Contains(HasSubstr("odd")));
  EXPECT_EQ(shape->kept_bytes, 256000 + 3 * 256);
}

TEST(PlanShape, RefusesWhatTalariaRefuses) {
  model::GgufHeader header = TwoLayers();
  header.tensors.push_back(Tensor("blk.0.ffn_down_exps.weight", 256, 256));
  EXPECT_EQ(ShapeOfGguf(header).status().code(), Code::kUnsupported);
  EXPECT_THAT(ShapeOfGguf(header).status().message(), HasSubstr("mixture of experts"));
  EXPECT_EQ(ShapeOfGguf({}).status().code(), Code::kUnsupported);
  EXPECT_EQ(ShapeOf("9b", 4).status().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace talaria::bench
