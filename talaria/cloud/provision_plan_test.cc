#include "talaria/cloud/provision_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

namespace talaria::cloud {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

// A source file's head and the uses of its tensors.
struct Model {
  std::vector<model::GgufTensor> tensors;
  GraphUses uses;
  uint32_t order = 0;
  std::string architecture = "llama";

  void Tensor(const std::string& name, std::vector<uint64_t> shape, uint32_t type = 0) {
    model::GgufTensor t;
    t.name = name;
    t.type = type;
    t.dimensions = static_cast<uint32_t>(shape.size());
    std::copy(shape.begin(), shape.end(), t.shape);
    tensors.push_back(t);
  }
  WeightUse& Use(const std::string& name, const std::string& operation, uint32_t input = 0) {
    WeightUse use;
    use.operation = operation;
    use.f32_input = operation == "MUL_MAT";
    use.input = input;
    use.order = ++order;
    return uses.weights[name].emplace_back(use);
  }
  Result<Plan> Make(const PlanOptions& options = {}) {
    std::vector<uint8_t> keys;
    ByteWriter out(keys);
    const std::string key = "general.architecture";
    out.U64(key.size());
    out.Raw(AsBytes(key));
    out.U32(8);
    out.U64(architecture.size());
    out.Raw(AsBytes(architecture));
    std::vector<model::GgufTensor> copy = tensors;
    const std::vector<uint8_t> head = model::EncodeGgufHeader(3, 1, keys, 32, copy);
    const auto header = model::ParseGgufHeader(head, uint64_t{1} << 40);
    EXPECT_TRUE(header.ok()) << header.status().ToString();
    return MakePlan(*header, head, uses, options);
  }
};

// One layer: q, k, v from one input, the output projection, a head.
Model OneLayer() {
  Model m;
  m.Tensor("token_embd.weight", {256, 1000});
  m.Tensor("blk.0.attn_k.weight", {256, 128});
  m.Tensor("blk.0.attn_norm.weight", {256});
  m.Tensor("blk.0.attn_q.weight", {256, 256}, 8);
  m.Tensor("blk.0.attn_v.weight", {256, 130});
  m.Tensor("blk.0.attn_output.weight", {256, 256});
  m.Tensor("output.weight", {256, 1000});
  m.Use("token_embd.weight", "GET_ROWS");
  m.Use("blk.0.attn_norm.weight", "MUL");
  m.Use("blk.0.attn_q.weight", "MUL_MAT", 7);
  m.Use("blk.0.attn_k.weight", "MUL_MAT", 7);
  m.Use("blk.0.attn_v.weight", "MUL_MAT", 7);
  m.Use("blk.0.attn_output.weight", "MUL_MAT", 8);
  m.Use("output.weight", "MUL_MAT", 9);
  return m;
}

std::vector<std::vector<std::string>> Groups(const Plan& plan) {
  std::vector<std::vector<std::string>> out;
  for (const model::Group& group : plan.manifest.groups) {
    out.emplace_back();
    for (const model::Matrix& matrix : group.matrices) out.back().push_back(matrix.name);
  }
  return out;
}

// The reason why OneLayer()'s attn_output stays after `change`.
std::string Reason(const std::function<void(Model&)>& change) {
  Model m = OneLayer();
  change(m);
  const auto plan = m.Make();
  EXPECT_TRUE(plan.ok()) << plan.status().ToString();
  for (const std::string& line : plan->kept) {
    if (line.starts_with("blk.0.attn_output.weight: ")) return line.substr(line.find(' ') + 1);
  }
  return "offloaded";
}

TEST(ProvisionPlanTest, GroupsFollowTheGraphAndNotTheFile) {
  const auto plan = OneLayer().Make();
  ASSERT_TRUE(plan.ok()) << plan.status().ToString();
  EXPECT_EQ(Groups(*plan),
            (std::vector<std::vector<std::string>>{
                {"blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"},
                {"blk.0.attn_output.weight"},
                {"output.weight"}}));
  EXPECT_EQ(plan->sources, (std::vector<size_t>{3, 1, 4, 5, 6}));
  EXPECT_EQ(plan->manifest.groups[0].d, 256u);
  EXPECT_EQ(plan->manifest.groups[0].matrices[2].o, 130u);
  EXPECT_THAT(plan->kept, Contains("token_embd.weight: only looked up"));
  EXPECT_THAT(plan->kept, Contains("blk.0.attn_norm.weight: a vector"));
}

TEST(ProvisionPlanTest, SkeletonHasTheSameTensorsWithHoles) {
  Model m = OneLayer();
  const auto plan = m.Make();
  ASSERT_TRUE(plan.ok());
  const auto header = model::ParseGgufHeader(plan->skeleton_head, plan->manifest.skeleton_bytes);
  ASSERT_TRUE(header.ok()) << header.status().ToString();
  EXPECT_EQ(header->architecture, "llama");
  ASSERT_EQ(header->tensors.size(), m.tensors.size());
  for (size_t i = 0; i < m.tensors.size(); ++i) {
    const bool hole = i != 0 && i != 2;
    EXPECT_EQ(header->tensors[i].name, m.tensors[i].name);
    EXPECT_EQ(header->tensors[i].type, hole ? model::kGgufTypeI8 : m.tensors[i].type);
    EXPECT_EQ(plan->skeleton[i].hole, hole);
    EXPECT_EQ(plan->skeleton[i].file_offset, header->data_offset + header->tensors[i].offset);
  }
  // attn_k alone; q, v, output and head in a row are one.
  ASSERT_EQ(plan->manifest.holes.size(), 2u);
  EXPECT_EQ(plan->manifest.holes[0].bytes, 256u * 128);
  EXPECT_EQ(plan->manifest.holes[1].bytes, 256u * (256 + 130 + 256 + 1000));
  EXPECT_EQ(plan->manifest.holes[1].offset + plan->manifest.holes[1].bytes,
            plan->manifest.skeleton_bytes);
}

TEST(ProvisionPlanTest, TiedHeadStaysWholeInTheSkeleton) {
  Model m = OneLayer();
  m.tensors.pop_back();
  m.uses.weights.erase("output.weight");
  m.Use("token_embd.weight", "MUL_MAT", 9);
  const auto plan = m.Make();
  ASSERT_TRUE(plan.ok()) << plan.status().ToString();
  const model::Matrix& head = plan->manifest.groups.back().matrices[0];
  EXPECT_EQ(head.name, "token_embd.weight");
  EXPECT_EQ(head.role, model::Role::kTiedHead);
  EXPECT_FALSE(plan->skeleton[0].hole);
  // In bitnet's graph the product takes the embedding itself, which never reaches a plug-in.
  m.architecture = "bitnet";
  const auto local = m.Make();
  ASSERT_TRUE(local.ok());
  EXPECT_THAT(local->kept,
              Contains(HasSubstr("token_embd.weight: the embedding itself is the head")));
}

TEST(ProvisionPlanTest, SaysWhyAMatrixStays) {
  const std::string name = "blk.0.attn_output.weight";
  const auto tensor = [&](Model& m) -> model::GgufTensor& { return m.tensors[5]; };
  EXPECT_EQ(Reason([](Model&) {}), "offloaded");
  EXPECT_EQ(Reason([&](Model& m) { m.Use(name, "GET_ROWS"); }), "used by GET_ROWS");
  EXPECT_EQ(Reason([&](Model& m) { m.Use(name, "ADD").view = true; }),
            "used by ADD through a view");
  EXPECT_EQ(Reason([&](Model& m) { m.Use(name, "MUL_MAT", 8).source = 1; }), "used by MUL_MAT");
  EXPECT_EQ(Reason([&](Model& m) { m.Use(name, "MUL_MAT", 12); }),
            "used by 2 products of one evaluation");
  EXPECT_EQ(Reason([&](Model& m) { m.uses.weights[name][0].view = true; }),
            "multiplied by through a view");
  EXPECT_EQ(Reason([&](Model& m) { m.uses.weights[name][0].f32_input = false; }),
            "its input is not F32");
  EXPECT_EQ(Reason([&](Model& m) { m.uses.weights.erase(name); }), "not used by the graph");
  EXPECT_EQ(Reason([&](Model& m) { tensor(m).shape[1] = 127; }), "smaller than 128");
  EXPECT_EQ(Reason([&](Model& m) { tensor(m).shape[1] = 1; }), "a vector");
  EXPECT_EQ(Reason([&](Model& m) { tensor(m).shape[0] = 65537; }),
            "too large for the exact product");
  EXPECT_EQ(Reason([&](Model& m) { tensor(m).type = model::kGgufTypeI8; }),
            "its type cannot be dequantised");
  EXPECT_EQ(Reason([&](Model& m) {
              tensor(m).dimensions = 3;
              tensor(m).shape[2] = 2;
            }),
            "has 3 dimensions");
  Model bias = OneLayer();
  bias.Tensor("blk.0.attn_q.bias", {256, 256});
  bias.Use("blk.0.attn_q.bias", "MUL_MAT", 20);
  EXPECT_THAT(bias.Make()->kept, Contains("blk.0.attn_q.bias: not a weight by its name"));
}

TEST(ProvisionPlanTest, KeepsWhatTheProviderNames) {
  const auto plan = OneLayer().Make({.keep_local = {"^output", "attn_[kv]"}});
  ASSERT_TRUE(plan.ok()) << plan.status().ToString();
  EXPECT_EQ(Groups(*plan), (std::vector<std::vector<std::string>>{{"blk.0.attn_q.weight"},
                                                                  {"blk.0.attn_output.weight"}}));
  EXPECT_THAT(plan->kept, Contains("output.weight: kept by '^output'"));
  const Status no_regex = OneLayer().Make({.keep_local = {"("}}).status();
  EXPECT_EQ(no_regex.code(), Code::kInvalidArgument);
  EXPECT_THAT(no_regex.message(), HasSubstr("not a regular expression"));
  const Status no_effect = OneLayer().Make({.keep_local = {"attn_x"}}).status();
  EXPECT_EQ(no_effect.code(), Code::kInvalidArgument);
  EXPECT_THAT(no_effect.message(), HasSubstr("fits no tensor"));
}

TEST(ProvisionPlanTest, RefusesExpertsAndEmptyPlans) {
  Model experts = OneLayer();
  experts.uses.chooses_experts = true;
  EXPECT_EQ(experts.Make().status().code(), Code::kUnsupported);
  EXPECT_THAT(experts.Make().status().message(), HasSubstr("mixture of experts"));
  const Status nothing = OneLayer().Make({.keep_local = {}, .min_dimension = 5000}).status();
  EXPECT_EQ(nothing.code(), Code::kUnsupported);
  EXPECT_THAT(nothing.message(), HasSubstr("no matrix"));
}

TEST(CombineEvaluationsTest, GroupsThatDifferComeApart) {
  Model prompt = OneLayer(), decoding = OneLayer();
  decoding.uses.weights["blk.0.attn_v.weight"][0].input = 33;
  prompt.uses = CombineEvaluations(prompt.uses, decoding.uses);
  const auto plan = prompt.Make();
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(Groups(*plan)[0],
            (std::vector<std::string>{"blk.0.attn_q.weight", "blk.0.attn_k.weight"}));
  EXPECT_EQ(Groups(*plan)[1], (std::vector<std::string>{"blk.0.attn_v.weight"}));
}

TEST(CombineEvaluationsTest, UsesOfOneEvaluationCount) {
  const std::string name = "blk.0.attn_output.weight";
  EXPECT_EQ(Reason([&](Model& m) {
              Model decoding = OneLayer();
              decoding.Use(name, "CPY");
              m.uses = CombineEvaluations(m.uses, decoding.uses);
            }),
            "used by CPY");
  EXPECT_EQ(Reason([&](Model& m) {
              Model decoding = OneLayer();
              decoding.Use(name, "MUL_MAT", 40);
              m.uses = CombineEvaluations(m.uses, decoding.uses);
            }),
            "used by 2 products of one evaluation");
  Model prompt = OneLayer(), same = OneLayer();
  prompt.uses = CombineEvaluations(prompt.uses, same.uses);
  EXPECT_EQ(Groups(*prompt.Make()), Groups(*same.Make()));
}

}  // namespace
}  // namespace talaria::cloud
