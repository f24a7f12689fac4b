// talaria-cvm from configuration to answers, with a cloud and a llama-server of our own making
// around it: everything between them is real, the launcher, the sandbox and the channel included.
#include "talaria/cvm/serve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>

#include "talaria/cvm/gateway_testing.h"
#include "talaria/cvm/testing/fake_cloud.h"
#include "talaria/cvm/testing/synthetic_model.h"

namespace talaria::cvm {
namespace {

using testing::Clock;
using testing::FakeCloud;
using ::testing::HasSubstr;
using testing::RawStream;
using testing::Reply;
using testing::Request;
using ::testing::StartsWith;
using testing::SyntheticModel;

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

class ServeTest : public ::testing::Test {
 protected:
  // The launcher forks, so it comes before every thread.
  ServeTest() : launcher_(std::move(*Launcher::Create())), model_(SyntheticModel::Make(1)) {}

  void MakeModel(const std::string& name) {
    model_.manifest.model_name = name;
    model_.Seal();
    cloud_ = std::make_unique<FakeCloud>(model_);
    config_.cloud_endpoint = cloud_->endpoint();
    config_.cloud_plaintext = config_.server_plaintext = true;
    config_.identity = ToHex(model_.identity());
    config_.idle_timeout_ms = 500;
    config_.listen = "unix:" + folder_.path() + "/front.sock";
    config_.llama_server = TALARIA_FAKE_ENGINE;
    config_.plugin = TALARIA_FAKE_ENGINE;  // any file: this engine loads none
    config_.run_dir = folder_.path() + "/run";
  }
  Status CreateServer() {
    ServeOptions options;
    options.config = config_;
    options.platform = {.simulated_tee = true, .isa = DetectIsa()};
    options.on_ready = [this](const std::string& address, const model::Manifest&) {
      const std::lock_guard lock(mutex_);
      ready_address_ = address;
      changed_.notify_all();
    };
    TALARIA_ASSIGN_OR_RETURN(server_, Server::Create(std::move(options), std::move(launcher_)));
    return OkStatus();
  }
  // Run() in a thread, until it is ready or ended.
  void StartAndWait() {
    const Status created = CreateServer();
    ASSERT_TRUE(created.ok()) << created.ToString();
    thread_ = std::thread([this] {
      Status result = server_->Run();
      const std::lock_guard lock(mutex_);
      result_ = std::move(result);
      changed_.notify_all();
    });
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60),
                                  [this] { return !ready_address_.empty() || result_; }));
  }
  Status WaitForEnd() {
    if (thread_.joinable()) thread_.join();
    return result_.value_or(OkStatus());
  }
  std::string Exchange(const std::string& request) {
    RawStream client = RawStream::To(config_.listen);
    EXPECT_TRUE(client.Write(request));
    return client.ReadMessage(20000);
  }
  static std::string Completion(const std::string& body) {
    return "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: "
           "application/json\r\nContent-Length: " +
           std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  void TearDown() override {
    if (server_) server_->Stop();
    (void)WaitForEnd();
    server_.reset();
    // Nothing is left, however it ended.
    EXPECT_FALSE(Exists(folder_.path() + "/run"));
    EXPECT_FALSE(Exists(folder_.path() + "/front.sock"));
  }

  TempFolder folder_;
  std::unique_ptr<Launcher> launcher_;
  SyntheticModel model_;
  std::unique_ptr<FakeCloud> cloud_;
  Config config_;
  std::unique_ptr<Server> server_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string ready_address_;
  std::optional<Status> result_;
  std::thread thread_;
};

constexpr const char* kReadyz = "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n";

TEST_F(ServeTest, ServesMaskedCompletionsAndStopsCleanly) {
  MakeModel("tiny");
  StartAndWait();
  ASSERT_EQ(ready_address_, config_.listen) << result_->ToString();
  EXPECT_THAT(Exchange(kReadyz), StartsWith("HTTP/1.1 200 "));
  const std::string first = Exchange(Completion(R"({"prompt":"x"})"));
  EXPECT_THAT(first, StartsWith("HTTP/1.1 200 "));
  // Another mask, the same product.
  EXPECT_EQ(Exchange(Completion(R"({"prompt":"y"})")), first);
  EXPECT_GE(cloud_->CountRequests(wire::Type::kMultiply), 3u);  // the probe and two requests
  server_->Stop();
  EXPECT_EQ(WaitForEnd().code(), Code::kCancelled);
}

TEST_F(ServeTest, AFailedCheckEndsTheSession) {
  MakeModel("tiny");
  StartAndWait();
  ASSERT_FALSE(ready_address_.empty()) << result_->ToString();
  cloud_->SetHook([](const Request& request, Reply& reply) {
    if (request.type == wire::Type::kMultiply) *reply.residue(0) ^= 1;
  });
  EXPECT_THAT(Exchange(Completion(R"({"prompt":"x"})")), StartsWith("HTTP/1.1 50"));
  EXPECT_THAT(Exchange(kReadyz), StartsWith("HTTP/1.1 503 "));
  EXPECT_EQ(WaitForEnd().code(), Code::kSessionEnded);
}

TEST_F(ServeTest, ALieDuringTheProbeNeverGetsReady) {
  MakeModel("tiny");
  cloud_->SetHook([](const Request& request, Reply& reply) {
    if (request.type == wire::Type::kMultiply) *reply.residue(3) ^= 0x80;
  });
  StartAndWait();
  EXPECT_EQ(WaitForEnd().code(), Code::kSessionEnded);
  EXPECT_TRUE(ready_address_.empty());
}

TEST_F(ServeTest, ALostCloudFailsTheRequestAndTheNextOneWorks) {
  MakeModel("tiny");
  StartAndWait();
  ASSERT_FALSE(ready_address_.empty()) << result_->ToString();
  cloud_->Stop();
  EXPECT_THAT(Exchange(Completion("{}")), StartsWith("HTTP/1.1 500 "));
  EXPECT_THAT(Exchange(kReadyz), StartsWith("HTTP/1.1 200 "));
  cloud_->Start();
  EXPECT_THAT(Exchange(Completion("{}")), StartsWith("HTTP/1.1 200 "));
}

TEST_F(ServeTest, TheEndOfTheEngineIsTheEnd) {
  MakeModel("tiny");
  StartAndWait();
  ASSERT_FALSE(ready_address_.empty()) << result_->ToString();
  EXPECT_THAT(Exchange(Completion(R"({"prompt":"die now"})")), StartsWith("HTTP/1.1 502 "));
  const Status end = WaitForEnd();
  EXPECT_EQ(end.code(), Code::kUnavailable);
  EXPECT_THAT(end.message(), HasSubstr("code 3"));
  EXPECT_THAT(Exchange(kReadyz), StartsWith("HTTP/1.1 503 "));
}

TEST_F(ServeTest, AnEngineThatExitsAtOnceIsReported) {
  MakeModel("exits");
  StartAndWait();
  const Status end = WaitForEnd();
  EXPECT_EQ(end.code(), Code::kUnavailable);
  EXPECT_THAT(end.message(), HasSubstr("code 7"));
}

TEST_F(ServeTest, AnEngineWithoutAllMatricesNeverGetsReady) {
  MakeModel("never lands");
  StartAndWait();
  EXPECT_EQ(WaitForEnd().code(), Code::kInternal);
  EXPECT_TRUE(ready_address_.empty());
}

TEST_F(ServeTest, AnotherModelThanThePinnedOneEndsTheSession) {
  MakeModel("tiny");
  config_.identity = std::string(64, 'b');
  StartAndWait();
  EXPECT_EQ(WaitForEnd().code(), Code::kSessionEnded);
}

TEST_F(ServeTest, NoCloudIsUnavailable) {
  MakeModel("tiny");
  cloud_->Stop();
  StartAndWait();
  EXPECT_EQ(WaitForEnd().code(), Code::kUnavailable);
}

TEST_F(ServeTest, StopsInTheMiddleOfSetUp) {
  MakeModel("tiny");
  config_.idle_timeout_ms = 60'000;
  std::atomic<bool> stalled{false};
  cloud_->SetHook([&](const Request& request, Reply& reply) {
    if (request.type != wire::Type::kFetch || request.number < 5) return;
    reply.frame.clear();
    reply.then = Reply::Then::kStall;
    stalled = true;
  });
  ASSERT_TRUE(CreateServer().ok());
  thread_ = std::thread([this] { result_ = server_->Run(); });
  while (!stalled) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_THAT(Exchange("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Exchange(kReadyz), HasSubstr("\"stage\":\"model\""));
  EXPECT_THAT(Exchange(Completion("{}")), StartsWith("HTTP/1.1 503 "));
  const auto start = Clock::now();
  server_->Stop();
  EXPECT_EQ(WaitForEnd().code(), Code::kCancelled);
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(5));
}

TEST_F(ServeTest, MissingPartsAreNamedBeforeAnythingStarts) {
  MakeModel("tiny");
  config_.plugin = "/nonexistent/plugin.so";
  const Status status = CreateServer();
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("/nonexistent/plugin.so"));
  EXPECT_EQ(cloud_->connections(), 0u);
}

TEST_F(ServeTest, ThePlanHasTheNumbers) {
  MakeModel("tiny");
  auto plan = PlanServe(config_, true);
  ASSERT_TRUE(plan.ok()) << plan.status().ToString();
  EXPECT_TRUE(plan->fits.ok()) << plan->fits.ToString();
  EXPECT_THAT(plan->text, HasSubstr("tiny"));
  EXPECT_THAT(plan->text, HasSubstr(config_.identity));
  EXPECT_THAT(plan->text, HasSubstr("mask pools"));
  config_.pool_bytes = 1;
  EXPECT_EQ(PlanServe(config_, true)->fits.code(), Code::kResourceExhausted);
  config_.pool_bytes = uint64_t{1} << 49;
  EXPECT_EQ(PlanServe(config_, true)->fits.code(), Code::kResourceExhausted);
  config_.pool_bytes = 0;
  config_.identity = "any";
  EXPECT_TRUE(PlanServe(config_, true).ok());
  config_.identity = std::string(64, 'c');
  EXPECT_FALSE(PlanServe(config_, true).ok());
  cloud_->Stop();
  EXPECT_EQ(PlanServe(config_, true).status().code(), Code::kUnavailable);
}

}  // namespace
}  // namespace talaria::cvm
