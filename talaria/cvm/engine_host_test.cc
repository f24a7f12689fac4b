#include "talaria/cvm/engine_host.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pmmintrin.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xmmintrin.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

namespace talaria::cvm {
namespace {

// No masks: the session under this test does not draw any.
class NoMasks final : public MaskSource {
 public:
  Status Draw(uint32_t, uint32_t, std::vector<RowTicket>&) override {
    return Status(Code::kCancelled, "no masks");
  }
  MaskStats stats() const override { return {}; }
  void Poison() override {}
};

// Answers every product with 1000 group + 100 member + row, or with what it is told.
class ScriptedSession final : public Session {
 public:
  using Session::Session;
  Result<MultiplyResult> Multiply(uint32_t group, uint32_t rows, const float* x, size_t x_stride,
                                  std::span<float* const> outputs) override {
    flushes_ = (_mm_getcsr() & 0x8040) == 0x8040;
    ++calls_;
    if (answer_ != Code::kOk) return Status(answer_, "scripted");
    const uint32_t d = group == 0 ? 8 : 16;
    EXPECT_EQ(x_stride, d);
    EXPECT_EQ(outputs.size(), group == 0 ? 2u : 1u);
    for (uint32_t i = 0; i < rows * d; ++i) EXPECT_EQ(x[i], static_cast<float>(i % d));
    for (size_t m = 0; m < outputs.size(); ++m) {
      const uint32_t o = group == 1 ? 20 : m == 0 ? 5 : 7;
      for (uint32_t r = 0; r < rows; ++r) {
        for (uint32_t j = 0; j < o; ++j)
          outputs[m][r * o + j] = static_cast<float>(1000 * group + 100 * m + r);
      }
    }
    return MultiplyResult{finite_};
  }
  std::atomic<uint32_t> calls_{0};
  std::atomic<bool> flushes_{false};
  Code answer_ = Code::kOk;  // before the child starts
  bool finite_ = true;
};

class EngineHostTest : public testing::Test {
 protected:
  void SetUp() override {
    launcher_ = Launcher::Create().value();
    model_.manifest.groups.resize(2);
    model_.manifest.groups[0].d = 8;
    model_.manifest.groups[1].d = 16;
    const auto matrix = [](const char* name, model::Role role, uint32_t o) {
      model::Matrix m;
      m.name = name;
      m.role = role;
      m.o = o;
      return m;
    };
    model_.manifest.groups[0].matrices = {matrix("blk.0.attn_q.weight", model::Role::kLinear, 5),
                                          matrix("blk.0.attn_k.weight", model::Role::kLinear, 7)};
    model_.manifest.groups[1].matrices = {matrix("token_embd.weight", model::Role::kTiedHead, 20)};
    link_ = CloudLink::Create({.endpoint = "unix:/nonexistent"}).value();
    session_ = std::make_unique<ScriptedSession>(model_, *link_, masks_, SessionOptions{});
  }
  std::unique_ptr<EngineHost> Start(std::vector<std::string> arguments) {
    EngineOptions options;
    options.program = TALARIA_ENGINE_HOST_TEST_CHILD;
    options.arguments = std::move(arguments);
    options.plugin = "/nonexistent/plugin.so";
    options.sandbox_policy = SandboxPolicy::kWarnIfImpossible;
    auto host = EngineHost::Start(model_, *session_, *launcher_, options);
    EXPECT_TRUE(host.ok()) << host.status().ToString();
    return host.ok() ? std::move(*host) : nullptr;
  }
  static void Eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 1000 && !condition(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_TRUE(condition());
  }
  // A process of one thread when the launcher is made: so it is the first.
  std::unique_ptr<Launcher> launcher_;
  MaskedModel model_;
  NoMasks masks_;
  std::unique_ptr<CloudLink> link_;
  std::unique_ptr<ScriptedSession> session_;
};

TEST_F(EngineHostTest, DescribesTheManifest) {
  const engine::ChannelModel description = DescribeModel(model_.manifest);
  ASSERT_EQ(description.groups.size(), 2u);
  EXPECT_EQ(description.groups[0].d, 8u);
  EXPECT_EQ(description.groups[0].members[1].name, "blk.0.attn_k.weight");
  EXPECT_EQ(description.groups[0].members[1].o, 7u);
  EXPECT_EQ(description.groups[1].members[0].role, 1);
}

TEST_F(EngineHostTest, CarriesRowsToTheSessionAndProductsBack) {
  auto host = Start({"multiply"});
  ASSERT_NE(host, nullptr);
  const Result<int> exit = host->Wait(20000);
  ASSERT_TRUE(exit.ok()) << exit.status().ToString();
  EXPECT_EQ(*exit, 0);
  EXPECT_EQ(session_->calls_, 100u);
  EXPECT_TRUE(session_->flushes_) << "denormals";
  EXPECT_TRUE(host->all_matrices_landed());
  Eventually([&] { return !host->running(); });
  EXPECT_FALSE(session_->poisoned()) << "a child that ends is no reason";
}

TEST_F(EngineHostTest, MapsErrors) {
  const struct {
    Code code;
    engine::CallStatus status;
  } cases[] = {{Code::kUnavailable, engine::CallStatus::kFailed},
               {Code::kSessionEnded, engine::CallStatus::kEnded},
               {Code::kCancelled, engine::CallStatus::kEnded},
               {Code::kInternal, engine::CallStatus::kEnded}};
  for (const auto& c : cases) {
    session_->answer_ = c.code;
    auto host = Start({"status", std::to_string(static_cast<int>(c.status))});
    ASSERT_NE(host, nullptr);
    EXPECT_EQ(host->Wait(20000).value(), 0) << CodeName(c.code);
  }
  session_->answer_ = Code::kOk;
  session_->finite_ = false;
  auto host = Start({"status", "1"});
  ASSERT_NE(host, nullptr);
  EXPECT_EQ(host->Wait(20000).value(), 0);
}

TEST_F(EngineHostTest, ARefusalEndsTheSessionAndTheChild) {
  auto host = Start({"refuse"});
  ASSERT_NE(host, nullptr);
  EXPECT_EQ(host->Wait(20000).value(), 128 + SIGKILL);
  EXPECT_TRUE(session_->poisoned());
  EXPECT_FALSE(host->all_matrices_landed());
}

TEST_F(EngineHostTest, ABrokenProtocolEndsTheSessionAndTheChild) {
  auto host = Start({"break"});
  ASSERT_NE(host, nullptr);
  EXPECT_EQ(host->Wait(20000).value(), 128 + SIGKILL);
  EXPECT_TRUE(session_->poisoned());
  EXPECT_EQ(session_->calls_, 0u);
}

TEST_F(EngineHostTest, TheSkeletonIsInheritedReadOnly) {
  model_.skeleton = Fd(memfd_create("skeleton", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(write(model_.skeleton.get(), "skeleton", 8), 8);
  ASSERT_EQ(fcntl(model_.skeleton.get(), F_ADD_SEALS,
                  F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL),
            0);
  auto host = Start({"skeleton"});
  ASSERT_NE(host, nullptr);
  EXPECT_EQ(host->Wait(20000).value(), 0);
}

TEST_F(EngineHostTest, DestroyingItKillsTheChild) {
  auto host = Start({"sleep"});
  ASSERT_NE(host, nullptr);
  EXPECT_EQ(host->Wait(50).status().code(), Code::kUnavailable);
  EXPECT_TRUE(host->running());
  host.reset();
  EXPECT_EQ(launcher_->Wait(0).value(), 128 + SIGKILL);
}

TEST_F(EngineHostTest, AProgramThatDoesNotExist) {
  EngineOptions options;
  options.program = "/nonexistent/llama-server";
  options.plugin = "/nonexistent/plugin.so";
  options.sandbox_policy = SandboxPolicy::kWarnIfImpossible;
  EXPECT_EQ(EngineHost::Start(model_, *session_, *launcher_, options).status().code(), Code::kIo);
  options.program.clear();
  EXPECT_EQ(EngineHost::Start(model_, *session_, *launcher_, options).status().code(),
            Code::kInvalidArgument);
}

}  // namespace
}  // namespace talaria::cvm
