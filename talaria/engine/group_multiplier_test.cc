// The plug-in's logic without ggml: which calls go out, and what every product gets.
#include "talaria/engine/group_multiplier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>

#include "talaria/engine/weight_table.h"

namespace talaria::engine {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

constexpr uint32_t kQkv = 0, kOutput = 1;

// Groups: {q, k, v} with d = 6, and one of a single matrix.
ChannelModel Model() {
  return {{{6,
            {{"blk.0.attn_q.weight", 0, 5},
             {"blk.0.attn_k.weight", 0, 3},
             {"blk.0.attn_v.weight", 0, 2}}},
           {4, {{"output.weight", 0, 7}}}}};
}

float Product(uint32_t group, uint32_t member, uint32_t j, const float* x, uint32_t d) {
  float sum = 0;
  for (uint32_t i = 0; i < d; ++i)
    sum += x[i] * static_cast<float>(1 + group + member * 10 + j + i);
  return sum;
}

// Answers at once, records what it was asked.
class FakeChannel : public ChannelClient {
 public:
  const ChannelModel& model() const override { return model_; }
  uint32_t MaxRows(uint32_t) const override { return max_rows; }
  bool harden() const override { return false; }
  float* Input() override { return input_.data(); }
  const float* Output(uint32_t, uint32_t, uint32_t member) const override {
    return outputs_.at(member).data();
  }
  CallStatus Call(uint32_t group, uint32_t rows) override {
    calls.emplace_back(group, rows);
    const ChannelGroup& g = model_.groups[group];
    for (uint32_t m = 0; m < g.members.size(); ++m) {
      outputs_[m].assign(size_t{rows} * g.members[m].o, 0);
      if (status != CallStatus::kOk) continue;
      for (uint32_t r = 0; r < rows; ++r) {
        for (uint32_t j = 0; j < g.members[m].o; ++j) {
          outputs_[m][r * g.members[m].o + j] = Product(group, m, j, input_.data() + r * g.d, g.d);
        }
      }
    }
    return status;
  }
  void Notify(ChildEvent) override {}

  uint32_t max_rows = 512;
  CallStatus status = CallStatus::kOk;
  std::vector<std::pair<uint32_t, uint32_t>> calls;  // (group, rows)

 private:
  const ChannelModel model_ = Model();
  std::vector<float> input_ = std::vector<float>(512 * 16);
  std::map<uint32_t, std::vector<float>> outputs_;
};

class GroupMultiplierTest : public testing::Test {
 protected:
  std::vector<float> Input(uint32_t group, int64_t rows, uint32_t seed = 1) {
    std::mt19937 random(seed);
    std::vector<float> x(static_cast<size_t>(rows) * channel_.model().groups[group].d);
    for (float& v : x) v = static_cast<float>(random() % 100) - 50;
    return x;
  }
  MultiplyOutcome Multiply(uint32_t group, uint32_t member, const std::vector<float>& x) {
    const ChannelGroup& g = channel_.model().groups[group];
    const size_t d = g.d, o = g.members[member].o, rows = x.size() / d;
    out_.assign(rows * o, -1);
    const InputRows in{reinterpret_cast<const char*>(x.data()),
                       static_cast<int64_t>(rows),
                       1,
                       1,
                       d * 4,
                       d * 4 * rows,
                       d * 4 * rows};
    const OutputRows out{reinterpret_cast<char*>(out_.data()),
                         static_cast<int64_t>(rows),
                         1,
                         1,
                         o * 4,
                         o * 4 * rows,
                         o * 4 * rows};
    const MultiplyOutcome outcome = multiplier_.Multiply(group, member, in, out);
    if (outcome == MultiplyOutcome::kOk && channel_.status == CallStatus::kOk) {
      for (uint32_t r = 0; r < rows; ++r) {
        for (uint32_t j = 0; j < o; ++j)
          EXPECT_EQ(out_[r * o + j], Product(group, member, j, x.data() + r * d, g.d))
              << r << " " << j;
      }
    }
    return outcome;
  }
  FakeChannel channel_;
  GroupMultiplier multiplier_{channel_};
  std::vector<float> out_;
};

TEST_F(GroupMultiplierTest, OneCallServesTheWholeGroup) {
  const auto x = Input(kQkv, 2);
  for (const uint32_t member : {0u, 1u, 2u})
    EXPECT_EQ(Multiply(kQkv, member, x), MultiplyOutcome::kOk);
  EXPECT_THAT(channel_.calls, ElementsAre(Pair(kQkv, 2)));
}

TEST_F(GroupMultiplierTest, AnyMemberMayComeFirst) {
  const auto x = Input(kQkv, 3);
  for (const uint32_t member : {2u, 0u, 1u})
    EXPECT_EQ(Multiply(kQkv, member, x), MultiplyOutcome::kOk);
  EXPECT_THAT(channel_.calls, ElementsAre(Pair(kQkv, 3)));
}

TEST_F(GroupMultiplierTest, AnotherGroupInBetweenDoesNotMatter) {
  const auto x = Input(kQkv, 1);
  Multiply(kQkv, 0, x);
  Multiply(kOutput, 0, Input(kOutput, 4));
  Multiply(kQkv, 1, x);
  EXPECT_THAT(channel_.calls, ElementsAre(Pair(kQkv, 1), Pair(kOutput, 4)));
}

// The same values again are a new call: a skip would tell the cloud that they were the same.
TEST_F(GroupMultiplierTest, EqualInputsAreNeverFoundByValue) {
  const auto x = Input(kQkv, 1);
  for (int evaluation = 0; evaluation < 3; ++evaluation) {
    for (const uint32_t member : {0u, 1u, 2u})
      EXPECT_EQ(Multiply(kQkv, member, x), MultiplyOutcome::kOk);
    EXPECT_TRUE(multiplier_.EndEvaluation());
  }
  const auto y = Input(kOutput, 1);
  Multiply(kOutput, 0, y);
  Multiply(kOutput, 0, y);
  EXPECT_EQ(channel_.calls.size(), 5u);
}

TEST_F(GroupMultiplierTest, AMemberAskedAgainStartsANewCall) {
  const auto x = Input(kQkv, 1), y = Input(kQkv, 1, 2);
  Multiply(kQkv, 0, x);
  Multiply(kQkv, 1, x);
  Multiply(kQkv, 0, y);  // v of the first call is never asked for
  Multiply(kQkv, 1, y);
  Multiply(kQkv, 2, y);
  EXPECT_THAT(channel_.calls, ElementsAre(Pair(kQkv, 1), Pair(kQkv, 1)));
}

TEST_F(GroupMultiplierTest, AMemberIsServedOnceFromAReply) {
  const auto x = Input(kQkv, 1);
  Multiply(kQkv, 0, x);
  Multiply(kQkv, 1, x);
  Multiply(kQkv, 1, x);
  EXPECT_EQ(channel_.calls.size(), 2u);
}

TEST_F(GroupMultiplierTest, AnotherNumberOfRowsStartsANewCall) {
  Multiply(kQkv, 0, Input(kQkv, 4));
  Multiply(kQkv, 1, Input(kQkv, 2));
  Multiply(kQkv, 2, Input(kQkv, 2));
  EXPECT_THAT(channel_.calls, ElementsAre(Pair(kQkv, 4), Pair(kQkv, 2)));
}

TEST_F(GroupMultiplierTest, DifferentInputsWithinAGroupAreFatal) {
  const auto x = Input(kQkv, 3);
  for (const size_t at : {size_t{0}, x.size() / 2, x.size() - 1}) {
    auto y = x;
    y[at] += 1;
    EXPECT_EQ(Multiply(kQkv, 0, x), MultiplyOutcome::kOk);
    EXPECT_EQ(Multiply(kQkv, 1, y), MultiplyOutcome::kRefused);
  }
}

TEST_F(GroupMultiplierTest, NoRowsNoCall) {
  EXPECT_EQ(Multiply(kQkv, 0, {}), MultiplyOutcome::kOk);
  EXPECT_EQ(Multiply(kOutput, 0, {}), MultiplyOutcome::kOk);
  EXPECT_THAT(channel_.calls, IsEmpty());
}

TEST_F(GroupMultiplierTest, ManyRowsGoOutInPieces) {
  channel_.max_rows = 4;
  const auto x = Input(kQkv, 10);
  for (const uint32_t member : {1u, 0u, 2u})
    EXPECT_EQ(Multiply(kQkv, member, x), MultiplyOutcome::kOk);
  Multiply(kOutput, 0, Input(kOutput, 8));
  EXPECT_THAT(channel_.calls, ElementsAre(Pair(kQkv, 4), Pair(kQkv, 4), Pair(kQkv, 2),
                                          Pair(kOutput, 4), Pair(kOutput, 4)));
}

TEST_F(GroupMultiplierTest, StridedRowsInThreeDimensions) {
  // Rows (i1, i2) of a [2][3] block whose rows are 9 floats apart and whose planes are 40 floats
  // apart; out likewise.
  const uint32_t d = 6, o = 5;
  std::vector<float> x(200), y(200, -1);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7 % 31);
  const InputRows in{reinterpret_cast<const char*>(x.data()), 3, 2, 1, 9 * 4, 40 * 4, 0};
  const OutputRows out{reinterpret_cast<char*>(y.data()), 3, 2, 1, 8 * 4, 50 * 4, 0};
  ASSERT_EQ(multiplier_.Multiply(kQkv, 0, in, out), MultiplyOutcome::kOk);
  EXPECT_THAT(channel_.calls, ElementsAre(Pair(kQkv, 6)));
  for (size_t i2 = 0; i2 < 2; ++i2) {
    for (size_t i1 = 0; i1 < 3; ++i1) {
      for (uint32_t j = 0; j < o; ++j)
        EXPECT_EQ(y[i2 * 50 + i1 * 8 + j], Product(kQkv, 0, j, &x[i2 * 40 + i1 * 9], d));
      EXPECT_EQ(y[i2 * 50 + i1 * 8 + o], -1) << "written past the row";
    }
  }
}

// The schedule runs to its end, and only then the evaluation fails; the next one is not concerned.
TEST_F(GroupMultiplierTest, NotFiniteFailsAtTheEndOfTheEvaluation) {
  const auto x = Input(kQkv, 1);
  channel_.status = CallStatus::kNotFinite;
  EXPECT_EQ(Multiply(kQkv, 0, x), MultiplyOutcome::kOk);
  channel_.status = CallStatus::kOk;
  multiplier_.DropReplies();
  EXPECT_EQ(Multiply(kQkv, 0, x), MultiplyOutcome::kOk);
  EXPECT_EQ(Multiply(kOutput, 0, {}), MultiplyOutcome::kOk);
  EXPECT_FALSE(multiplier_.EndEvaluation());
  EXPECT_EQ(Multiply(kQkv, 0, x), MultiplyOutcome::kOk);
  EXPECT_TRUE(multiplier_.EndEvaluation());
}

TEST_F(GroupMultiplierTest, NotFiniteIsServedToTheWholeGroupWithoutAnotherCall) {
  const auto x = Input(kQkv, 1);
  channel_.status = CallStatus::kNotFinite;
  for (const uint32_t member : {0u, 1u, 2u})
    EXPECT_EQ(Multiply(kQkv, member, x), MultiplyOutcome::kOk);
  EXPECT_EQ(channel_.calls.size(), 1u);
  EXPECT_FALSE(multiplier_.EndEvaluation());
}

TEST_F(GroupMultiplierTest, AFailedCallLeavesNothingBehind) {
  const auto x = Input(kQkv, 1);
  Multiply(kQkv, 0, x);
  channel_.status = CallStatus::kFailed;
  EXPECT_EQ(Multiply(kOutput, 0, Input(kOutput, 1)), MultiplyOutcome::kFailed);
  channel_.status = CallStatus::kOk;
  EXPECT_EQ(Multiply(kQkv, 1, x), MultiplyOutcome::kOk);
  EXPECT_THAT(channel_.calls, ElementsAre(Pair(kQkv, 1), Pair(kOutput, 1), Pair(kQkv, 1)))
      << "the old reply was used";
}

TEST_F(GroupMultiplierTest, AnEndedSessionFailsEverything) {
  channel_.status = CallStatus::kEnded;
  EXPECT_EQ(Multiply(kQkv, 0, Input(kQkv, 1)), MultiplyOutcome::kFailed);
  EXPECT_EQ(Multiply(kQkv, 1, Input(kQkv, 1)), MultiplyOutcome::kFailed);
}

TEST(SameBytesTest, SeesEveryByte) {
  for (const size_t size :
       {size_t{0}, size_t{1}, size_t{7}, size_t{8}, size_t{9}, size_t{64}, size_t{67}}) {
    std::vector<uint8_t> a(size, 5), b(size, 5);
    EXPECT_TRUE(SameBytes(a.data(), b.data(), size));
    for (size_t i = 0; i < size; ++i) {
      b[i] ^= 0x80;
      EXPECT_FALSE(SameBytes(a.data(), b.data(), size)) << size << " " << i;
      b[i] ^= 0x80;
    }
  }
}

TEST(WeightTableTest, FindsByNameShapeAndRole) {
  ChannelModel model = Model();
  model.groups.push_back({6, {{"token_embd.weight", 1, 9}}});
  WeightTable table(model);
  const WeightRef* k = table.Find("blk.0.attn_k.weight", 6, 3);
  ASSERT_NE(k, nullptr);
  EXPECT_EQ(k->group, 0u);
  EXPECT_EQ(k->member, 1u);
  EXPECT_EQ(table.Find("blk.0.attn_k.weight", 3, 6), nullptr);
  EXPECT_EQ(table.Find("blk.0.attn_k.scale", 6, 3), nullptr);
  EXPECT_EQ(table.Find("blk.0.attn_k.weight.lora_a", 6, 3), nullptr);
  EXPECT_NE(table.Find("token_embd.weight", 6, 9), nullptr);
}

TEST(WeightTableTest, ALinearTokenEmbeddingIsNoHead) {
  WeightTable table({{{6, {{"token_embd.weight", 0, 9}}}}});
  EXPECT_EQ(table.Find("token_embd.weight", 6, 9), nullptr);
}

TEST(WeightTableTest, EveryMatrixLandsOnceUntilItIsFreed) {
  WeightTable table(Model());
  std::vector<WeightRef*> all{
      table.Find("blk.0.attn_q.weight", 6, 5), table.Find("blk.0.attn_k.weight", 6, 3),
      table.Find("blk.0.attn_v.weight", 6, 2), table.Find("output.weight", 4, 7)};
  for (WeightRef* weight : all) {
    EXPECT_FALSE(table.AllLanded());
    EXPECT_TRUE(table.Land(*weight));
    EXPECT_FALSE(table.Land(*weight));
  }
  EXPECT_TRUE(table.AllLanded());
  table.Unland(*all[2]);
  table.Unland(*all[2]);
  EXPECT_FALSE(table.AllLanded());
  EXPECT_EQ(table.landed(), 3u);
  EXPECT_TRUE(table.Land(*all[2]));
  EXPECT_TRUE(table.AllLanded());
}

}  // namespace
}  // namespace talaria::engine
