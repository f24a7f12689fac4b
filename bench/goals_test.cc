#include "bench/goals.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "bench/compare.h"

namespace talaria::bench {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;

const Goal& Named(std::string_view name) {
  for (const Goal& goal : Goals())
    if (name == goal.name) return goal;
  ADD_FAILURE() << "no goal " << name;
  return Goals()[0];
}

GoalResult Measured(std::string_view name, std::vector<double> samples) {
  return {&Named(name), std::move(samples), OkStatus(), ""};
}

GoalResult Without(std::string_view name, Code code, const char* why) {
  return {&Named(name), {}, Status(code, why), ""};
}

Verdict Of(std::string_view name, std::vector<double> samples) {
  return Judge(Measured(name, std::move(samples)));
}

std::vector<std::string> Names(const Result<std::vector<const Goal*>>& goals) {
  std::vector<std::string> names;
  EXPECT_TRUE(goals.ok()) << goals.status().ToString();
  if (goals.ok())
    for (const Goal* goal : *goals) names.emplace_back(goal->name);
  return names;
}

Results Parsed(const std::vector<GoalResult>& results, int pairs) {
  auto parsed = ParseResults(Json{{"goals", GoalsJson(results)}, {"pairs", pairs}}.dump());
  EXPECT_TRUE(parsed.ok()) << parsed.status().ToString();
  return std::move(parsed).value();
}

TEST(Goals, HigherIsBetter) {  // decode/unix: 0.5, 0.9
  EXPECT_EQ(Of("decode/unix", {0.9}), Verdict::kDream);
  EXPECT_EQ(Of("decode/unix", {0.89}), Verdict::kReached);
  EXPECT_EQ(Of("decode/unix", {0.5}), Verdict::kReached);
  EXPECT_EQ(Of("decode/unix", {0.499}), Verdict::kMissed);
}

TEST(Goals, LowerIsBetter) {  // provision: 60 s, 15 s
  EXPECT_EQ(Of("provision", {15}), Verdict::kDream);
  EXPECT_EQ(Of("provision", {15.1}), Verdict::kReached);
  EXPECT_EQ(Of("provision", {60}), Verdict::kReached);
  EXPECT_EQ(Of("provision", {60.1}), Verdict::kMissed);
}

TEST(Goals, TheMedianIsJudged) {
  EXPECT_EQ(Of("decode/unix", {0.1, 0.6, 0.7}), Verdict::kReached);
  EXPECT_EQ(Of("provision", {1, 70, 80}), Verdict::kMissed);
}

TEST(Goals, EveryDreamIsBeyondItsGoalAndEveryNameIsOne) {
  std::set<std::string> names;
  for (const Goal& goal : Goals()) {
    EXPECT_TRUE(names.insert(goal.name).second) << goal.name;
    if (goal.better == Better::kHigher) {
      EXPECT_GT(goal.dream, goal.reach) << goal.name;
    } else {
      EXPECT_LT(goal.dream, goal.reach) << goal.name;
    }
  }
}

TEST(Goals, WhatThisMachineCannotMeasureIsNoFailure) {
  const GoalResult absent = Without("generate/avx512", Code::kUnsupported, "no avx512"),
                   small = Without("layer-70b/decode/q8_0", Code::kResourceExhausted, "memory"),
                   failed = Without("setup", Code::kUnavailable, "a program failed"),
                   good = Measured("provision", {20}), bad = Measured("setup", {31});
  EXPECT_EQ(Judge(absent), Verdict::kNotMeasured);
  EXPECT_EQ(Judge(small), Verdict::kNotMeasured);
  EXPECT_EQ(Judge(failed), Verdict::kFailed);
  using List = std::vector<GoalResult>;
  EXPECT_EQ(GoalsExitCode(List{good, absent, small}), 0);
  EXPECT_EQ(GoalsExitCode(List{good, bad, absent}), kMissedExit);
  EXPECT_EQ(GoalsExitCode(List{good, bad, failed}), kFailedExit);
  EXPECT_EQ(GoalsExitCode(List{absent, small}), kFailedExit);  // nothing is no success
  EXPECT_EQ(GoalsExitCode(List{}), kFailedExit);
  // A row that was said to be fine, and has no number.
  EXPECT_EQ(Judge(Measured("setup", {})), Verdict::kFailed);
}

TEST(Goals, TheTableSaysWhyThereIsNoNumber) {
  testing::internal::CaptureStdout();
  PrintGoals(std::vector<GoalResult>{
      Measured("decode/unix", {0.7, 0.72, 0.74}), Measured("setup", {31}),
      Without("generate/avx512", Code::kUnsupported, "this processor has no avx512"),
      Without("provision", Code::kUnavailable, "a program failed")});
  const std::string table = testing::internal::GetCapturedStdout();
  EXPECT_THAT(table, HasSubstr("decode/unix                0.72    5.6 %"));
  EXPECT_THAT(table, HasSubstr("setup                        31         -     1    <= 30"));
  EXPECT_THAT(table, HasSubstr(">= 0.5    0.9  reached\n"));
  EXPECT_THAT(table, HasSubstr("<= 30      8  NOT REACHED\n"));
  EXPECT_THAT(table, HasSubstr("not measured: this processor has no avx512\n"));
  EXPECT_THAT(table, HasSubstr("FAILED: unavailable: a program failed\n"));
  EXPECT_THAT(table, HasSubstr("1 goals reached, 0 of them the dream; 1 not reached, 1 not "
                               "measured here, 1 failed."));
}

TEST(Goals, RowsAreChosenByNameOrFirstPart) {
  EXPECT_EQ(Names(ChooseGoals({}, {})).size(), Goals().size());
  EXPECT_EQ(Names(ChooseGoals({"decode"}, {})),
            (std::vector<std::string>{"decode/same-host", "decode/unix", "decode/tcp"}));
  EXPECT_EQ(Names(ChooseGoals({"setup", "cpu"}, {"cpu/prompt"})),
            (std::vector<std::string>{"cpu/decode", "setup"}));  // in the table's order
  EXPECT_EQ(Names(ChooseGoals({}, {"layer-70b"})).size(), Goals().size() - 4);
  for (const char* word : {"dec", "decode/", "product", ""}) {
    const auto refused = ChooseGoals({word}, {});
    ASSERT_FALSE(refused.ok()) << word;
    EXPECT_EQ(refused.status().code(), Code::kInvalidArgument);
    EXPECT_THAT(refused.status().message(), HasSubstr("decode/unix"));  // what there is
  }
  EXPECT_THAT(ChooseGoals({"setup"}, {"setup"}).status().message(), HasSubstr("leaves no row"));
}

TEST(Goals, CompareReadsTheFile) {
  const Results results =
      Parsed({Measured("decode/unix", {0.7, 0.72, 0.74}), Measured("layer-8b/decode/q8_0", {0.1}),
              Without("generate/avx512", Code::kUnsupported, "no avx512")},
             3);
  EXPECT_EQ(results.kind, "goals");
  EXPECT_EQ(results.runs, 3);
  ASSERT_EQ(results.metrics.size(), 2);  // no goal, and nothing for what was not measured
  EXPECT_EQ(results.metrics[0].name, "goals/decode/unix/ratio");
  EXPECT_EQ(results.metrics[0].median, 0.72);
  EXPECT_EQ(results.metrics[0].low, 0.7);
  EXPECT_EQ(results.metrics[0].high, 0.74);
  EXPECT_EQ(results.metrics[0].runs, 3);
  EXPECT_EQ(results.metrics[1].name, "goals/layer-8b/decode/q8_0/cvm_cpu_ratio");
}

TEST(Goals, CompareKnowsEveryRowsBetterDirection) {
  const std::vector<double> low(7, 1.0), high(7, 2.0);
  for (const Goal& goal : Goals()) {
    const auto c = CompareResults(Parsed({Measured(goal.name, low)}, 7),
                                  Parsed({Measured(goal.name, high)}, 7), false);
    ASSERT_TRUE(c.ok()) << c.status().ToString();
    ASSERT_EQ(c->changes.size(), 1) << goal.name;
    EXPECT_EQ(c->changes[0].finding,
              goal.better == Better::kHigher ? Finding::kBetter : Finding::kWorse)
        << goal.name;
  }
}

TEST(Goals, CompareDoesNotJudgeRowsOfFewRuns) {
  const auto both = [](double decode, double layer) {
    return Parsed({Measured("decode/unix", std::vector<double>(7, decode)),
                   Measured("layer-70b/decode/q8_0", std::vector<double>(3, layer))},
                  7);
  };
  const auto c = CompareResults(both(0.7, 0.05), both(0.6, 0.08), false);
  ASSERT_TRUE(c.ok());
  ASSERT_EQ(c->changes.size(), 2);
  EXPECT_EQ(c->changes[0].finding, Finding::kWorse);
  EXPECT_EQ(c->changes[1].finding, Finding::kNotJudged);
  EXPECT_EQ(c->regressions, 1);
}

}  // namespace
}  // namespace talaria::bench
