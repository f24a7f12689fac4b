// The plug-in inside libllama in this process: a hollow model must give what the whole model gives,
// whatever the batch, and a product that fails must never become an answer. One process, one
// plug-in, so the tests share a model and come in a fixed order.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <set>

#include "talaria/engine/testing/model_runner.h"
#include "talaria/engine/testing/tiny_model.h"

namespace talaria::engine {
namespace {

using testing::HollowModel;
using testing::ModelRunner;
using testing::ModelRunnerOptions;
using testing::ProductView;

std::string LlamaDir() {
  const char* dir = std::getenv("TALARIA_LLAMA_DIR");
  return dir == nullptr ? "" : dir;
}

// Records the calls that pass through it.
class Recorder {
 public:
  ChannelServer::Handler Around(ChannelServer::Handler inner) {
    return [this, inner = std::move(inner)](const CallView& call) {
      {
        const std::lock_guard lock(mutex_);
        calls_.emplace_back(call.group, call.rows);
      }
      return inner(call);
    };
  }
  std::vector<std::pair<uint32_t, uint32_t>> Take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(calls_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<std::pair<uint32_t, uint32_t>> calls_;  // (group, rows)
};

const std::vector<int32_t> kTokens{1, 40, 41, 200, 17, 99, 3, 250, 40};

class PluginTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    char pattern[] = "/tmp/talaria-plugin-test-XXXXXX";
    folder_ = new std::filesystem::path(mkdtemp(pattern));
    const std::string whole = *folder_ / "whole.gguf", hollow = *folder_ / "hollow.gguf";
    ASSERT_TRUE(testing::WriteTinyModel(whole, {.seed = 7}).ok());
    Result<HollowModel> model = testing::MakeHollow(whole, hollow);
    ASSERT_TRUE(model.ok()) << model.status().ToString();
    model_ = new HollowModel(std::move(*model));
    recorder_ = new Recorder;

    ModelRunnerOptions options;
    options.llama_dir = LlamaDir();
    options.model_path = whole;
    options.flash_attention = false;
    // Before the plug-in is loaded: it would take the whole model's matrices too.
    auto plain = ModelRunner::Create(options);
    ASSERT_TRUE(plain.ok()) << plain.status().ToString();
    auto expected = (*plain)->Run(kTokens, true);
    ASSERT_TRUE(expected.ok());
    expected_ = new std::vector<float>(expected->logits);
    plain->reset();

    options.model_path = hollow;
    options.plugin = TALARIA_PLUGIN;
    options.channel = model_->channel;
    options.handler = recorder_->Around(testing::FloatProducts(*model_));
    options.micro_batch = 6;  // so that nine tokens are two evaluations
    auto runner = ModelRunner::Create(options);
    ASSERT_TRUE(runner.ok()) << runner.status().ToString();
    runner_ = runner->release();
  }
  static void TearDownTestSuite() {
    delete runner_;
    if (folder_ != nullptr) std::filesystem::remove_all(*folder_);
  }
  void SetUp() override {
    ASSERT_NE(runner_, nullptr);
    runner_->SetHandler(Good());
    recorder_->Take();
  }
  static ChannelServer::Handler Good() {
    return recorder_->Around(testing::FloatProducts(*model_));
  }
  // Float sums in another order than llama.cpp's: 64 and 96 terms through two layers.
  static void ExpectClose(const std::vector<float>& logits) {
    ASSERT_EQ(logits.size(), expected_->size());
    float largest = 0;
    for (size_t i = 0; i < logits.size(); ++i)
      largest = std::max(largest, std::fabs(logits[i] - (*expected_)[i]));
    EXPECT_LT(largest, 2e-2f);
  }

  static std::filesystem::path* folder_;
  static HollowModel* model_;
  static Recorder* recorder_;
  static std::vector<float>* expected_;
  static ModelRunner* runner_;
};
std::filesystem::path* PluginTest::folder_ = nullptr;
HollowModel* PluginTest::model_ = nullptr;
Recorder* PluginTest::recorder_ = nullptr;
std::vector<float>* PluginTest::expected_ = nullptr;
ModelRunner* PluginTest::runner_ = nullptr;

TEST_F(PluginTest, GivesWhatTheWholeModelGives) {
  const auto out = runner_->Run(kTokens, true);
  ASSERT_TRUE(out.ok()) << out.status().ToString();
  ExpectClose(out->logits);
  EXPECT_THAT(runner_->events(), ::testing::ElementsAre(ChildEvent::kAllMatricesLanded));
}

TEST_F(PluginTest, OneCallPerGroupAndEvaluation) {
  ASSERT_TRUE(runner_->Run(kTokens, true).ok());
  const auto calls = recorder_->Take();
  // Two evaluations, of 6 and of 3 rows, each with 4 groups in each of 2 layers, and the head.
  ASSERT_EQ(calls.size(), 18u);
  for (size_t i = 0; i < calls.size(); ++i) {
    EXPECT_EQ(calls[i].first, i % 9);
    EXPECT_EQ(calls[i].second, i < 9 ? 6u : 3u);
  }
}

// The schedule depends on the number of tokens, never on which ones they are.
TEST_F(PluginTest, CallsDependOnCountsOnly) {
  ASSERT_TRUE(runner_->Run(kTokens, false).ok());
  const auto calls = recorder_->Take();
  const std::vector<int32_t> same(kTokens.size(), 5);
  ASSERT_TRUE(runner_->Run(same, false).ok());
  EXPECT_EQ(recorder_->Take(), calls);
}

TEST_F(PluginTest, EvaluationsWithoutOutputsDoNotAskTheHead) {
  ASSERT_TRUE(runner_->Run(kTokens, false).ok());
  std::vector<uint32_t> head_rows;
  for (const auto& [group, rows] : recorder_->Take()) {
    EXPECT_GT(rows, 0u);
    if (group == 8) head_rows.push_back(rows);
  }
  EXPECT_THAT(head_rows, ::testing::ElementsAre(1u)) << "only the last token has logits";
}

TEST_F(PluginTest, DecodingTokenByTokenGivesTheSame) {
  auto out = runner_->Run(std::span(kTokens).first(1), true);
  ASSERT_TRUE(out.ok());
  std::vector<float> logits = out->logits;
  for (size_t i = 1; i < kTokens.size(); ++i) {
    out = runner_->Continue(kTokens[i]);
    ASSERT_TRUE(out.ok());
    logits.insert(logits.end(), out->logits.begin(), out->logits.end());
  }
  ExpectClose(logits);
}

TEST_F(PluginTest, EveryProductIsTheChannels) {
  std::vector<ProductView> seen;
  runner_->SetProductCallback([&](const ProductView& product) { seen.push_back(product); });
  const auto out = runner_->Run(std::span(kTokens).first(5), true);
  runner_->SetProductCallback({});
  ASSERT_TRUE(out.ok());
  ExpectClose([&] {
    std::vector<float> all = out->logits;
    all.insert(all.end(), expected_->begin() + static_cast<long>(all.size()), expected_->end());
    return all;
  }());
  size_t ours = 0;
  for (const ProductView& product : seen) {
    for (size_t g = 0; g < model_->channel.groups.size(); ++g) {
      for (size_t m = 0; m < model_->channel.groups[g].members.size(); ++m) {
        if (model_->channel.groups[g].members[m].name != product.weight) continue;
        ++ours;
        const std::vector<float>& w = model_->weights[g][m];
        for (uint32_t r = 0; r < product.rows; ++r) {
          for (uint32_t j = 0; j < product.o; ++j) {
            double sum = 0;
            for (uint32_t i = 0; i < product.d; ++i)
              sum += double{product.input[r * product.d + i]} * double{w[j * product.d + i]};
            ASSERT_NEAR(product.output[r * product.o + j], sum, 1e-5 * (1 + std::fabs(sum)))
                << product.weight;
          }
        }
      }
    }
  }
  EXPECT_EQ(ours, 15u) << "seven matrices in each of two layers, and the head";
}

// The session lives: this evaluation fails, the next is computed afresh.
TEST_F(PluginTest, AFailedCallFailsTheEvaluationAtOnce) {
  for (const uint32_t at : {0u, 1u, 3u, 8u}) {
    runner_->SetHandler(recorder_->Around([at](const CallView& call) {
      return call.group == at ? CallStatus::kFailed : testing::FloatProducts(*model_)(call);
    }));
    EXPECT_EQ(runner_->Run(kTokens, true).status().code(), Code::kUnavailable);
    EXPECT_EQ(recorder_->Take().size(), at + 1) << "nothing is sent after a failure";
    runner_->SetHandler(Good());
    const auto out = runner_->Run(kTokens, true);
    ASSERT_TRUE(out.ok());
    ExpectClose(out->logits);
    recorder_->Take();
  }
}

// A row that is not finite must not show: the schedule runs to the end of the evaluation, which
// then fails.
TEST_F(PluginTest, NotFiniteFailsAtTheEndOfTheEvaluation) {
  const auto six = std::span(kTokens).first(6);
  ASSERT_TRUE(runner_->Run(six, true).ok());
  const auto schedule = recorder_->Take();
  for (const uint32_t at : {0u, 2u, 8u}) {
    runner_->SetHandler(recorder_->Around([at](const CallView& call) {
      const CallStatus status = testing::FloatProducts(*model_)(call);
      return call.group == at ? CallStatus::kNotFinite : status;
    }));
    EXPECT_EQ(runner_->Run(six, true).status().code(), Code::kUnavailable) << at;
    EXPECT_EQ(recorder_->Take(), schedule) << at;
  }
  runner_->SetHandler(Good());
  const auto out = runner_->Run(kTokens, true);
  ASSERT_TRUE(out.ok());
  ExpectClose(out->logits);
}

// The last product of an evaluation without outputs is a head of no rows; it still ends the
// evaluation.
TEST_F(PluginTest, NotFiniteFailsAnEvaluationWithoutOutputs) {
  // On the heap: the two sides meet in shared memory that is mapped twice, so the thread sanitizer
  // does not see that the handler is done with a variable of this frame.
  const auto evaluation = std::make_shared<std::atomic<int>>(0);
  runner_->SetHandler([evaluation](const CallView& call) {
    const CallStatus status = testing::FloatProducts(*model_)(call);
    if (call.group == 0) ++*evaluation;
    return *evaluation == 1 ? CallStatus::kNotFinite
                            : status;  // in the first of two, which has no outputs
  });
  EXPECT_EQ(runner_->Run(kTokens, false).status().code(), Code::kUnavailable);
  EXPECT_EQ(evaluation->load(), 1) << "the second was not begun";
}

// Last: there is no way back from the end of a session.
TEST_F(PluginTest, ZAnEndedSessionAnswersNothingEver) {
  runner_->SetHandler([](const CallView&) { return CallStatus::kEnded; });
  EXPECT_EQ(runner_->Run(kTokens, true).status().code(), Code::kUnavailable);
  runner_->SetHandler(Good());
  EXPECT_EQ(runner_->Run(kTokens, true).status().code(), Code::kUnavailable);
  EXPECT_THAT(recorder_->Take(), ::testing::IsEmpty());
}

[[maybe_unused]] const bool kReserved = [] {
  ModelRunner::ReserveDescriptors();
  return true;
}();

}  // namespace
}  // namespace talaria::engine
