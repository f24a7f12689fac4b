// The probes of gateway_probe.cc against a scripted llama-server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "talaria/cvm/gateway.h"
#include "talaria/cvm/gateway_testing.h"

namespace talaria::cvm {
namespace {

using testing::Clock;
using testing::FakeServer;
using testing::RawStream;
using ::testing::StartsWith;
using testing::WithLength;

class ProbeTest : public ::testing::Test {
 protected:
  TempFolder folder_;
  std::string socket_ = folder_.path() + "/up.sock";
};

TEST_F(ProbeTest, HealthNeedsA200) {
  EXPECT_EQ(ProbeHealth(socket_, 1000).code(), Code::kUnavailable);
  std::atomic<bool> loaded{false};
  FakeServer server(socket_, [&](RawStream& stream, const std::string& request) {
    EXPECT_THAT(request, StartsWith("GET /health HTTP/1.1\r\n"));
    (void)stream.Write(
        WithLength(loaded ? "HTTP/1.1 200 OK" : "HTTP/1.1 503 Service Unavailable", "{}"));
  });
  EXPECT_EQ(ProbeHealth(socket_, 1000).code(), Code::kUnavailable);
  loaded = true;
  EXPECT_TRUE(ProbeHealth(socket_, 1000).ok());
}

TEST_F(ProbeTest, CompletionNeedsATokenAndA200) {
  EXPECT_EQ(ProbeCompletion(socket_, 1000).code(), Code::kUnavailable);
  std::string status = "200 OK",
              body = R"({"choices":[{"text":" 4"}],"usage":{"completion_tokens":1}})";
  FakeServer server(socket_, [&](RawStream& stream, const std::string& request) {
    EXPECT_THAT(request, StartsWith("POST /v1/completions HTTP/1.1\r\n"));
    (void)stream.Write(WithLength("HTTP/1.1 " + status, body));
  });
  EXPECT_TRUE(ProbeCompletion(socket_, 1000).ok());
  for (const char* bad : {"", "{}", "[]", R"({"usage":{"completion_tokens":0}})",
                          R"({"usage":{"completion_tokens":"1"}})", R"({"usage":1})", "nonsense"}) {
    body = bad;
    EXPECT_EQ(ProbeCompletion(socket_, 1000).code(), Code::kInternal) << bad;
  }
  status = "500 Internal Server Error";
  EXPECT_EQ(ProbeCompletion(socket_, 1000).code(), Code::kInternal);
}

TEST_F(ProbeTest, ASilentServerRunsIntoTheTimeLimit) {
  FakeServer server(socket_, [](RawStream& stream, const std::string&) { stream.ReadToEnd(3000); });
  const auto start = Clock::now();
  EXPECT_EQ(ProbeCompletion(socket_, 100).code(), Code::kUnavailable);
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(2));
}

}  // namespace
}  // namespace talaria::cvm
