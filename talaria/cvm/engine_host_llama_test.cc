// The real llama-server as the sandboxed child, with the real plug-in, on a hollow model; float
// products in place of masks.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include "talaria/base/testing/temp_folder.h"
#include "talaria/cvm/engine_host.h"
#include "talaria/cvm/gateway.h"
#include "talaria/cvm/gateway_filter.h"
#include "talaria/engine/testing/tiny_model.h"

namespace talaria::cvm {
namespace {

using engine::testing::HollowModel;

class NoMasks final : public MaskSource {
 public:
  Status Draw(uint32_t, uint32_t, std::vector<RowTicket>&) override {
    return Status(Code::kCancelled, "no masks");
  }
  MaskStats stats() const override { return {}; }
  void Poison() override {}
};

class FloatSession final : public Session {
 public:
  FloatSession(MaskedModel& model, CloudLink& link, MaskSource& masks, const HollowModel& weights)
      : Session(model, link, masks, {}), products_(engine::testing::FloatProducts(weights)) {}
  Result<MultiplyResult> Multiply(uint32_t group, uint32_t rows, const float* x, size_t,
                                  std::span<float* const> outputs) override {
    ++calls_;
    if (lost_) return Status(Code::kUnavailable, "lost");
    products_({.group = group,
               .rows = rows,
               .input = x,
               .output = outputs[0]});  // the members follow one another
    return MultiplyResult{};
  }
  std::atomic<uint32_t> calls_{0};
  std::atomic<bool> lost_{false};

 private:
  engine::ChannelServer::Handler products_;
};

class EngineHostLlamaTest : public testing::Test {
 protected:
  void SetUp() override {
    launcher_ = Launcher::Create().value();
    ASSERT_TRUE(engine::testing::WriteTinyModel(folder_ + "/whole.gguf", {.seed = 5}).ok());
    weights_ =
        engine::testing::MakeHollow(folder_ + "/whole.gguf", folder_ + "/hollow.gguf").value();
    for (const engine::ChannelGroup& group : weights_.channel.groups) {
      model::Group& g = model_.manifest.groups.emplace_back();
      g.d = group.d;
      for (const engine::ChannelMember& member : group.members) {
        model::Matrix matrix;
        matrix.name = member.name;
        matrix.role = static_cast<model::Role>(member.role);
        matrix.o = member.o;
        g.matrices.push_back(matrix);
      }
    }
    model_.skeleton = OpenForReading(folder_ + "/hollow.gguf").value();
    link_ = CloudLink::Create({.endpoint = "unix:/nonexistent"}).value();
    session_ = std::make_unique<FloatSession>(model_, *link_, masks_, weights_);
  }

  std::unique_ptr<EngineHost> Start() {
    EngineOptions options;
    options.program = std::string(std::getenv("TALARIA_LLAMA_DIR")) + "/bin/llama-server";
    options.plugin = TALARIA_PLUGIN;
    options.sandbox_policy = SandboxPolicy::kWarnIfImpossible;
    options.arguments = {"-m",           "/proc/self/fd/5",
                         "-lm",          "none",
                         "-lzm",         "off",
                         "-fit",         "off",
                         "-dev",         "none",
                         "-ngl",         "0",
                         "-c",           "128",
                         "-np",          "1",
                         "-t",           "1",
                         "-tb",          "1",
                         "--host",       socket_,
                         "--no-ui",      "--offline",
                         "--no-mmproj",  "--no-warmup",
                         "--log-disable"};
    return EngineHost::Start(model_, *session_, *launcher_, options).value();
  }
  Status WaitForHealth(EngineHost& host) {
    for (int i = 0; i < 600; ++i) {
      if (ProbeHealth(socket_, 1000).ok()) return OkStatus();
      if (host.Wait(50).ok()) return Status(Code::kUnavailable, "llama-server ended");
    }
    return Status(Code::kUnavailable, "llama-server does not answer");
  }

  std::unique_ptr<Launcher> launcher_;  // first: the process has one thread when it is made
  const TempFolder temp_;
  const std::string& folder_ = temp_.path();
  const std::string socket_ = temp_.File("llama.sock");
  HollowModel weights_;
  MaskedModel model_;
  NoMasks masks_;
  std::unique_ptr<CloudLink> link_;
  std::unique_ptr<FloatSession> session_;
};

TEST_F(EngineHostLlamaTest, ServesACompletionFromTheSandboxAndSurvivesALostCloud) {
  auto host = Start();
  const Status healthy = WaitForHealth(*host);
  ASSERT_TRUE(healthy.ok()) << healthy.ToString();
  EXPECT_TRUE(ProbeCompletion(socket_, 20000).ok());
  EXPECT_TRUE(host->all_matrices_landed());
  EXPECT_GE(session_->calls_.load(), 9u);

  session_->lost_ = true;
  EXPECT_EQ(ProbeCompletion(socket_, 20000).code(), Code::kInternal) << "an error, not an answer";
  session_->lost_ = false;
  EXPECT_TRUE(ProbeCompletion(socket_, 20000).ok()) << "computed afresh";

  session_->Poison();
  EXPECT_TRUE(host->running())
      << "poisoning is the session's; who joins them decides what becomes of the child";
  host->Kill();
  EXPECT_EQ(host->Wait(20000).value(), 128 + 9);
}

// The first line of the answer to a completion that the gateway lets through.
std::string Complete(const std::string& path, const std::string& unfiltered) {
  const Result<std::string> body = FilterBody(BodyKind::kCompletion, unfiltered, {});
  if (!body.ok()) return body.status().ToString();
  const std::string request =
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      "Connection: close\r\nContent-Length: " +
      std::to_string(body->size()) + "\r\n\r\n" + *body;
  const Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return "no connection";
  for (size_t sent = 0; sent < request.size();) {
    const ssize_t n = send(fd.get(), request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return "not sent";
    sent += static_cast<size_t>(n);
  }
  std::string answer;
  char piece[4096];
  for (ssize_t n; (n = recv(fd.get(), piece, sizeof piece, 0)) > 0;)
    answer.append(piece, static_cast<size_t>(n));
  return answer.substr(0, answer.find('\r'));
}

// A user must not end the engine of all users: llama.cpp parses by recursion, and the deepest that
// the gateway lets through fits the stack that the launcher gives.
TEST_F(EngineHostLlamaTest, SurvivesTheDeepestThatTheGatewayLetsThrough) {
  auto host = Start();
  ASSERT_TRUE(WaitForHealth(*host).ok());
  const std::string groups(kMaxGrammarGroups, '('), ends(kMaxGrammarGroups, ')');
  const std::string grammar =
      R"({"prompt":"1","max_tokens":1,"grammar":"root ::= )" + groups + "[0-9a-z]" + ends + "\"}";
  EXPECT_EQ(Complete(socket_, grammar), "HTTP/1.1 200 OK");

  // Reference after reference, and between two of them as many levels as a body may have.
  constexpr size_t kLevels = kMaxJsonDepth - 6;
  std::string open, close;
  for (size_t i = 0; i < kLevels; ++i) {
    open += R"({"type":"array","items":)";
    close += '}';
  }
  std::string schema =
      R"({"prompt":"1","max_tokens":1,"json_schema":{"$ref":"#/$defs/0","$defs":{)";
  for (size_t i = 1; i < kMaxSchemaReferences; ++i) {
    schema += '"' + std::to_string(i - 1) + "\":" + open + R"({"$ref":"#/$defs/)" +
              std::to_string(i) + "\"}" + close + ",";
  }
  schema += '"' + std::to_string(kMaxSchemaReferences - 1) + R"(":{"type":"string"}}}})";
  EXPECT_EQ(Complete(socket_, schema), "HTTP/1.1 200 OK");
  EXPECT_TRUE(ProbeCompletion(socket_, 20000).ok());
}

TEST_F(EngineHostLlamaTest, WithoutAPluginTheChildEndsAndNothingLands) {
  EngineOptions options;
  options.program = std::string(std::getenv("TALARIA_LLAMA_DIR")) + "/bin/llama-bench";
  options.plugin = folder_ + "/nothing.so";
  options.sandbox_policy = SandboxPolicy::kWarnIfImpossible;
  options.arguments = {"-m", "/proc/self/fd/5", "-t", "1", "-p", "4", "-n", "1", "-r", "1"};
  auto host = EngineHost::Start(model_, *session_, *launcher_, options).value();
  EXPECT_NE(host->Wait(20000).value(), 0);
  EXPECT_FALSE(host->all_matrices_landed());
  EXPECT_EQ(session_->calls_, 0u);
}

}  // namespace
}  // namespace talaria::cvm
