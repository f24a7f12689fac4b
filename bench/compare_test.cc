#include "bench/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace talaria::bench {
namespace {

using Json = nlohmann::json;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A file that `talaria-bench end-to-end --pairs 1` wrote on a real run.
Json RealRun() {
  const char* root = std::getenv("TALARIA_TESTDATA");
  std::ifstream file(std::string(root == nullptr ? "testdata" : root) + "/bench/end_to_end.json");
  std::stringstream text;
  text << file.rdbuf();
  return Json::parse(text.str());
}

// The same with seven pairs, within 2 % of the medians.
Json SevenPairs() {
  Json json = RealRun();
  json["pairs"] = 7;
  for (auto& [work, metrics] : json["workloads"].items()) {
    for (auto& [name, metric] : metrics.items()) {
      if (!metric.is_object() || !metric.contains("median")) continue;
      metric["min"] = metric["median"].get<double>() * 0.98;
      metric["max"] = metric["median"].get<double>() * 1.02;
    }
  }
  return json;
}

void Scale(Json& metric, double factor) {
  for (const char* key : {"median", "min", "max"}) metric[key] = metric[key].get<double>() * factor;
}

Results Parsed(const Json& json) {
  auto results = ParseResults(json.dump());
  EXPECT_TRUE(results.ok()) << results.status().ToString();
  return std::move(results).value();
}

Comparison Compared(const Json& before, const Json& after) {
  auto comparison = CompareResults(Parsed(before), Parsed(after), false);
  EXPECT_TRUE(comparison.ok()) << comparison.status().ToString();
  return std::move(comparison).value();
}

Finding FindingOf(const Comparison& comparison, const std::string& name) {
  for (const Change& change : comparison.changes)
    if (change.name == name) return change.finding;
  ADD_FAILURE() << "no metric " << name;
  return Finding::kNotJudged;
}

TEST(Compare, ReadsARealFile) {
  const Results results = Parsed(RealRun());
  EXPECT_EQ(results.kind, "end-to-end");
  EXPECT_EQ(results.runs, 1);
  EXPECT_EQ(results.setting.at("model"), "tiny.gguf");
  EXPECT_TRUE(results.setting.contains("machine.cpu"));
  EXPECT_TRUE(results.setting.contains("channel"));
  int with_interval = 0;
  for (const Metric& metric : results.metrics) {
    EXPECT_FALSE(metric.name.starts_with("machine"));
    with_interval += metric.has_interval;
  }
  EXPECT_GE(with_interval, 20);  // five workloads: two speeds, their ratio, the ratio of CPU
}

TEST(Compare, SingleRunsAreShownAndNotJudged) {
  const Comparison c = Compared(RealRun(), RealRun());
  EXPECT_FALSE(c.judged);
  EXPECT_EQ(c.regressions, 0);
  EXPECT_FALSE(c.changes.empty());
  EXPECT_THAT(c.notes, Contains(HasSubstr("1 and 1 runs")));
}

TEST(Compare, TheSameFileHasNoRegression) {
  const Comparison c = Compared(SevenPairs(), SevenPairs());
  EXPECT_TRUE(c.judged);
  EXPECT_EQ(c.regressions, 0);
  EXPECT_FALSE(c.machine_changed);
  EXPECT_THAT(c.notes, IsEmpty());
  EXPECT_EQ(FindingOf(c, "workloads/decode/ratio"), Finding::kSame);
  EXPECT_EQ(FindingOf(c, "workloads/decode/plain_tokens_per_second"), Finding::kControl);
  EXPECT_EQ(FindingOf(c, "setup_seconds"), Finding::kNotJudged);
}

TEST(Compare, FindsWorseAndBetterBeyondTheNoiseOnly) {
  Json after = SevenPairs();
  Json& works = after["workloads"];
  Scale(works["decode"]["ratio"], 0.9);                      // slower
  Scale(works["decode"]["talaria_tokens_per_second"], 0.9);  // slower
  Scale(works["prompt"]["cvm_cpu_ratio"], 1.1);              // more CPU
  Scale(works["prompt"]["ratio"], 1.1);                      // faster
  Scale(works["first token"]["ratio"], 0.97);                // within both intervals
  const Comparison c = Compared(SevenPairs(), after);
  EXPECT_EQ(FindingOf(c, "workloads/decode/ratio"), Finding::kWorse);
  EXPECT_EQ(FindingOf(c, "workloads/decode/talaria_tokens_per_second"), Finding::kWorse);
  EXPECT_EQ(FindingOf(c, "workloads/prompt/cvm_cpu_ratio"), Finding::kWorse);
  EXPECT_EQ(FindingOf(c, "workloads/prompt/ratio"), Finding::kBetter);
  EXPECT_EQ(FindingOf(c, "workloads/first token/ratio"), Finding::kSame);
  EXPECT_EQ(c.regressions, 3);
  for (const Change& change : c.changes) {
    if (change.name == "workloads/decode/ratio") {
      EXPECT_NEAR(change.percent, -10, 1e-9);
    }
  }
  const Json json = Json::parse(ToJson(c));
  EXPECT_EQ(json["regressions"], 3);
  EXPECT_EQ(json["changes"].size(), c.changes.size());
}

TEST(Compare, ASlowerMachineIsNotARegression) {
  Json after = SevenPairs();
  Json& decode = after["workloads"]["decode"];
  Scale(decode["plain_tokens_per_second"], 0.5);
  Scale(decode["talaria_tokens_per_second"], 0.5);
  Comparison c = Compared(SevenPairs(), after);
  EXPECT_TRUE(c.machine_changed);
  EXPECT_EQ(FindingOf(c, "workloads/decode/talaria_tokens_per_second"), Finding::kMachine);
  EXPECT_EQ(c.regressions, 0);
  Scale(decode["ratio"], 0.8);  // both are of one session: still held against the code
  c = Compared(SevenPairs(), after);
  EXPECT_EQ(FindingOf(c, "workloads/decode/ratio"), Finding::kWorse);
  EXPECT_EQ(c.regressions, 1);
}

TEST(Compare, RefusesWhatIsNotTheSameMeasurement) {
  const auto refuses = [](auto change, bool any_machine, const char* words) {
    Json after = SevenPairs();
    change(after);
    const auto c = CompareResults(Parsed(SevenPairs()), Parsed(after), any_machine);
    ASSERT_FALSE(c.ok());
    EXPECT_EQ(c.status().code(), Code::kInvalidArgument);
    EXPECT_THAT(c.status().message(), HasSubstr(words));
  };
  refuses([](Json& j) { j["machine"]["cpu"] = "Other"; }, false, "machine.cpu");
  refuses([](Json& j) { j["machine"]["cores"] = 64; }, false, "--any-machine");
  refuses([](Json& j) { j["channel"] = "other"; }, true, "channel");
  refuses([](Json& j) { j["model"] = "/a/b/other.gguf"; }, true, "other.gguf");
  refuses([](Json& j) { j["pool_batches"] = 4; }, true, "pool_batches");
  refuses([](Json& j) { j["prompt_tokens"] = 128; }, true, "prompt_tokens");
}

TEST(Compare, AnyMachineAndAnotherFolderAreFine) {
  Json after = SevenPairs();
  after["machine"]["cpu"] = "Other";
  after["machine"]["kernel"] = "9.9";
  after["model"] = "/elsewhere/tiny.gguf";
  auto c = CompareResults(Parsed(SevenPairs()), Parsed(after), true);
  ASSERT_TRUE(c.ok()) << c.status().ToString();
  EXPECT_THAT(c->notes, Contains(HasSubstr("Other")));
}

TEST(Compare, AFileThatDoesNotNameItsModelIsNoted) {
  Json before = SevenPairs();
  before.erase("model");
  const Comparison c = Compared(before, SevenPairs());
  EXPECT_THAT(c.notes, ElementsAre(HasSubstr("model")));
}

TEST(Compare, ListsMetricsOfOneFileOnly) {
  Json after = SevenPairs();
  after["workloads"].erase("prompt");
  after["workloads"]["decode"]["joules_per_token"] = 1;
  const Comparison c = Compared(SevenPairs(), after);
  EXPECT_THAT(c.missing, Contains("workloads/prompt/ratio"));
  EXPECT_THAT(c.added, ElementsAre("workloads/decode/joules_per_token"));
}

TEST(Compare, RefusesWhatIsNoResult) {
  for (const char* text : {"", "[]", "{}", "{\"workloads\":", "{\"workloads\":{}}",
                           "{\"workloads\":{\"a\":1},\"pairs\":0}"}) {
    const auto results = ParseResults(text);
    ASSERT_FALSE(results.ok()) << text;
    EXPECT_EQ(results.status().code(), Code::kCorrupt) << text;
  }
}

TEST(Compare, AttestHasIntervalsOfItsOwn) {
  const auto file = [](double cost, double tls) {
    const auto metric = [](double median) {
      return Json{{"median_ms", median},
                  {"median_interval_ms", {median - 0.1, median + 0.1}},
                  {"p99_ms", 9}};
    };
    return Json{{"rounds", 200},
                {"handshake", {{"tls", metric(tls)}, {"beyond_tls", metric(cost)}}}};
  };
  Comparison c = Compared(file(2, 5), file(2.1, 5));
  EXPECT_EQ(FindingOf(c, "handshake/beyond_tls"), Finding::kSame);
  c = Compared(file(2, 5), file(2.3, 9));
  EXPECT_TRUE(c.machine_changed);
  EXPECT_EQ(FindingOf(c, "handshake/beyond_tls"), Finding::kWorse);  // a difference of pairs
}

TEST(Compare, PerplexityIsExact) {
  const Json before = {{"perplexity_plain", 23.1}, {"perplexity_ratio", 0.997}, {"chunks", 20}};
  Json after = before;
  EXPECT_EQ(Compared(before, after).regressions, 0);
  after["perplexity_ratio"] = 0.998;
  EXPECT_EQ(Compared(before, after).regressions, 1);
}

// By hand: 7! 7! / 14! = 1 / 3432, 3! 3! / 6! = 1 / 20, 1 / 2; 5 and 5: 1 / 252.
TEST(Compare, ChanceOfSeparation) {
  EXPECT_NEAR(ChanceOfSeparation(7, 7), 1.0 / 3432, 1e-12);
  EXPECT_NEAR(ChanceOfSeparation(5, 5), 1.0 / 252, 1e-12);
  EXPECT_NEAR(ChanceOfSeparation(3, 3), 0.05, 1e-12);
  EXPECT_NEAR(ChanceOfSeparation(1, 1), 0.5, 1e-12);
}

TEST(Compare, KnowsALayerFromAModel) {
  Json layer = SevenPairs();
  layer["shape"] = "8b";
  layer["shape_of"] = "Llama 3.1 8B";
  EXPECT_EQ(Parsed(layer).kind, "layer");
  const auto c = CompareResults(Parsed(SevenPairs()), Parsed(layer), false);
  EXPECT_EQ(c.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(c.status().message(), HasSubstr("one file is of end-to-end"));
}

TEST(Compare, MeasuresAgainWithTheBaselinesSizes) {
  auto arguments = MeasureAgain(Parsed(SevenPairs()));
  ASSERT_TRUE(arguments.ok());
  EXPECT_EQ(arguments->front(), "end-to-end");
  const auto after = [&](const char* name) {
    const auto at = std::find(arguments->begin(), arguments->end(), name);
    return at == arguments->end() ? std::string() : *(at + 1);
  };
  EXPECT_EQ(after("--pairs"), "7");
  EXPECT_EQ(after("--prompt"), "512");
  EXPECT_EQ(after("--pool-batches"), "1");
  EXPECT_THAT(after("--model"), HasSubstr("tiny.gguf"));
  const Results fidelity = Parsed({{"perplexity_ratio", 0.997}});
  EXPECT_EQ(MeasureAgain(fidelity).status().code(), Code::kUnsupported);
}

}  // namespace
}  // namespace talaria::bench
