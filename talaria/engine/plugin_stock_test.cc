// Stock llama.cpp programs with the plug-in, on a hollow model: what must work works, and whatever
// else happens, nothing is ever answered.
#include <ggml.h>
#include <gguf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "talaria/engine/testing/stock_program.h"
#include "talaria/engine/testing/tiny_model.h"

namespace talaria::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::HollowModel;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::StockProgram;
using testing::StockResult;

class StockTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    char pattern[] = "/tmp/talaria-stock-test-XXXXXX";
    folder_ = mkdtemp(pattern);
    ASSERT_TRUE(
        testing::WriteTinyModel(folder_ + "/whole.gguf", {.seed = 3, .tied_head = false}).ok());
    Result<HollowModel> model =
        testing::MakeHollow(folder_ + "/whole.gguf", folder_ + "/hollow.gguf");
    ASSERT_TRUE(model.ok());
    model_ = new HollowModel(std::move(*model));
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(folder_); }

  StockResult Run(const std::string& program, std::vector<std::string> arguments,
                  ChannelOptions options = {}, const std::string& plugin = TALARIA_PLUGIN) {
    StockProgram stock;
    stock.path = std::string(std::getenv("TALARIA_LLAMA_DIR")) + "/bin/" + program;
    stock.arguments = std::move(arguments);
    stock.plugin = plugin;
    auto server = ChannelServer::Create(channel_, size_t{16} << 20, options);
    EXPECT_TRUE(server.ok());
    const ChannelServer::Handler products = testing::FloatProducts(*model_);
    Result<StockResult> result =
        testing::RunStockProgram(stock, server->get(), [&](const CallView& call) {
          ++calls_;
          return handler_ ? handler_(call) : products(call);
        });
    EXPECT_TRUE(result.ok()) << result.status().ToString();
    return result.ok() ? *result : StockResult{};
  }
  StockResult Bench(ChannelOptions options = {}, const std::string& plugin = TALARIA_PLUGIN) {
    return Run("llama-bench",
               {"-m", Hollow(), "-t", "1", "-p", "8", "-n", "4", "-r", "1", "-o", "json"}, options,
               plugin);
  }
  // One greedy answer of at most six tokens, as JSON-free text on standard output.
  std::vector<std::string> Chat(const std::string& model) {
    return {"-m",     model,  "-t",          "1",           "-lm",
            "none",   "-fit", "off",         "-c",          "128",
            "-n",     "6",    "-p",          "abc",         "-st",
            "--temp", "0",    "--no-warmup", "--simple-io", "--no-display-prompt"};
  }
  static std::string Hollow() { return folder_ + "/hollow.gguf"; }

  static std::string folder_;
  static HollowModel* model_;
  ChannelModel channel_ = model_->channel;
  ChannelServer::Handler handler_;
  std::atomic<int> calls_{0};
};
std::string StockTest::folder_;
HollowModel* StockTest::model_ = nullptr;

TEST_F(StockTest, LlamaBenchRuns) {
  const StockResult result = Bench();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("\"avg_ts\""));
  EXPECT_GE(calls_.load(), 9 * 5);
  EXPECT_THAT(result.events, ::testing::Contains(ChildEvent::kAllMatricesLanded));
  EXPECT_THAT(result.events, Not(::testing::Contains(ChildEvent::kRefused)));
  EXPECT_EQ(result.served.code(), Code::kUnavailable);
}

TEST_F(StockTest, LlamaBenchRunsHardened) {
  const StockResult result = Bench({.harden_child = true});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.events, ::testing::Contains(ChildEvent::kAllMatricesLanded));
}

TEST_F(StockTest, PerplexityIsThatOfTheWholeModel) {
  std::ofstream text(folder_ + "/text");
  for (int i = 0; i < 60; ++i) text << "the quick brown fox " << i << " ";
  text.close();
  const auto arguments = [&](const std::string& model) {
    return std::vector<std::string>{
        "-m", model,  "-f", folder_ + "/text", "-c", "128", "-b", "128", "--chunks", "3", "-t",
        "1",  "-fit", "off"};
  };
  // llama.cpp logs from a thread that may lose the last lines when the program ends, so it is asked
  // until they are there.
  const auto estimate = [&](const std::string& model, const std::string& plugin) {
    constexpr std::string_view kLabel = "Final estimate: PPL = ";
    for (int attempt = 0; attempt < 30; ++attempt) {
      const StockResult result = Run("llama-perplexity", arguments(model), {}, plugin);
      EXPECT_EQ(result.exit_code, 0) << result.err;
      const size_t at = result.err.find(kLabel);
      if (at != std::string::npos) return std::atof(result.err.c_str() + at + kLabel.size());
    }
    return -1.0;
  };
  const double hollow = estimate(Hollow(), TALARIA_PLUGIN),
               whole = estimate(folder_ + "/whole.gguf", "");
  EXPECT_GT(whole, 1);
  EXPECT_NEAR(hollow, whole, 1e-3 * whole);
}

TEST_F(StockTest, WithoutThePluginTheModelCrashes) {
  for (const std::string& plugin :
       {std::string(), folder_ + "/nothing.so", std::string(TALARIA_OLD_PLUGIN)}) {
    const StockResult result = Bench({}, plugin);
    EXPECT_NE(result.exit_code, 0) << plugin;
    EXPECT_THAT(result.out, Not(HasSubstr("avg_ts"))) << plugin;
    EXPECT_THAT(result.events, IsEmpty()) << plugin;
    EXPECT_EQ(calls_, 0);
  }
}

TEST_F(StockTest, ThePluginWithoutAChannelEndsTheProgram) {
  StockProgram stock;
  stock.path = std::string(std::getenv("TALARIA_LLAMA_DIR")) + "/bin/llama-bench";
  stock.arguments = {"-m", Hollow()};
  stock.plugin = TALARIA_PLUGIN;
  const Result<StockResult> result = testing::RunStockProgram(stock, nullptr, {});
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->exit_code, 1);
  EXPECT_THAT(result->err, HasSubstr("talaria: no engine channel was inherited"));
  EXPECT_THAT(result->out, IsEmpty());
}

TEST_F(StockTest, AMatrixThatDidNotLandStopsEveryEvaluation) {
  channel_.groups.push_back({64, {{"blk.2.attn_q.weight", 0, 64}}});
  const StockResult result = Bench();
  EXPECT_NE(result.exit_code, 0);
  EXPECT_THAT(result.err, HasSubstr("only 15 of 16 matrices were loaded"));
  EXPECT_THAT(result.events, IsEmpty());
  EXPECT_EQ(calls_, 0);
}

// A hole that the channel's model does not name lands on the CPU, which has no kernel for its type.
TEST_F(StockTest, AHoleThatNobodyServesCrashes) {
  channel_.groups[3].members[0].name = "blk.0.ffn_down_elsewhere.weight";
  const StockResult result = Bench();
  EXPECT_NE(result.exit_code, 0);
  EXPECT_THAT(result.out, Not(HasSubstr("avg_ts")));
  EXPECT_THAT(result.events, IsEmpty());
}

// A manifest whose group the graph does not confirm: q and o have different inputs.
TEST_F(StockTest, AGroupThatTheGraphDoesNotConfirmIsFatal) {
  channel_.groups[0].members.push_back(channel_.groups[1].members[0]);
  channel_.groups.erase(channel_.groups.begin() + 1);
  handler_ = [](const CallView&) { return CallStatus::kOk; };
  const StockResult result = Bench();
  EXPECT_EQ(result.exit_code, 128 + SIGABRT);
  EXPECT_THAT(result.err, HasSubstr("two matrices of a group were given different inputs"));
  EXPECT_THAT(result.events, ElementsAre(ChildEvent::kAllMatricesLanded, ChildEvent::kRefused));
}

TEST_F(StockTest, FailuresAreNeverAnswers) {
  for (const CallStatus status :
       {CallStatus::kFailed, CallStatus::kEnded, CallStatus::kNotFinite}) {
    handler_ = [status](const CallView&) { return status; };
    const StockResult result = Bench();
    EXPECT_NE(result.exit_code, 0) << static_cast<int>(status);
    EXPECT_THAT(result.out, Not(HasSubstr("avg_ts")));
  }
}

// A LoRA adapter's matrices would go into the buffer of the weights that they change.
TEST_F(StockTest, LoraAdaptersAreRefused) {
  const std::string path = folder_ + "/lora.gguf";
  ggml_context* context = ggml_init({1 << 20, nullptr, false});
  gguf_context* adapter = gguf_init_empty();
  gguf_set_val_str(adapter, "general.type", "adapter");
  gguf_set_val_str(adapter, "general.architecture", "llama");
  gguf_set_val_str(adapter, "adapter.type", "lora");
  gguf_set_val_f32(adapter, "adapter.lora.alpha", 1);
  for (const auto& [name, d, o] : {std::tuple{"blk.0.attn_q.weight.lora_a", 64, 4},
                                   std::tuple{"blk.0.attn_q.weight.lora_b", 4, 64}}) {
    ggml_tensor* t = ggml_new_tensor_2d(context, GGML_TYPE_F32, d, o);
    ggml_set_name(t, name);
    for (int i = 0; i < d * o; ++i) static_cast<float*>(t->data)[i] = 0.5f;
    gguf_add_tensor(adapter, t);
  }
  ASSERT_TRUE(gguf_write_to_file(adapter, path.c_str(), false));
  gguf_free(adapter);
  ggml_free(context);

  std::vector<std::string> arguments = Chat(Hollow());
  const StockResult good = Run("llama-cli", arguments);
  EXPECT_EQ(good.exit_code, 0) << good.err;
  EXPECT_GT(calls_.load(), 0);
  calls_ = 0;
  arguments.insert(arguments.end(), {"--lora", path});
  const StockResult result = Run("llama-cli", arguments);
  EXPECT_NE(result.exit_code, 0);
  EXPECT_THAT(result.err, HasSubstr("blk.0.attn_q.weight.lora_a is not a matrix of this model"));
  EXPECT_EQ(calls_, 0);
}

TEST_F(StockTest, ASecondModelIsRefused) {
  const StockResult result =
      Run("llama-server", {"-m", Hollow(), "-md", Hollow(), "-t", "1", "-lm", "none", "-fit", "off",
                           "-c", "128", "--no-warmup", "--host", folder_ + "/server.sock"});
  EXPECT_NE(result.exit_code, 0);
  EXPECT_THAT(result.err, HasSubstr("is loaded already; it is refused"));
}

// The embedding has the name of the tied head, but this model's head is another matrix.
TEST_F(StockTest, ForcingAnotherTensorIntoOurBufferIsRefused) {
  const StockResult result = Run("llama-bench", {"-m", Hollow(), "-t", "1", "-p", "4", "-n", "0",
                                                 "-r", "1", "-ot", "token_embd=Talaria"});
  EXPECT_NE(result.exit_code, 0);
  EXPECT_THAT(result.err, HasSubstr("token_embd.weight is not a matrix of this model"));
  EXPECT_EQ(calls_, 0);
}

}  // namespace
}  // namespace talaria::engine
