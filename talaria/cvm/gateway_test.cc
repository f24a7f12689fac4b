#include "talaria/cvm/gateway.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <random>

#include "talaria/cvm/gateway_testing.h"

namespace talaria::cvm {
namespace {

using testing::Clock;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using testing::FakeServer;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::RawStream;
using ::testing::StartsWith;
using testing::WithLength;

std::string Post(std::string_view path, std::string_view body,
                 std::string_view extra_headers = "") {
  return WithLength("POST " + std::string(path) +
                        " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json" +
                        std::string(extra_headers),
                    body);
}

std::string Get(std::string_view path) {
  return "GET " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n\r\n";
}

void AnswerOk(RawStream& stream, const std::string&) {
  (void)stream.Write(
      WithLength("HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nSet-Cookie: "
                 "a=b\r\nAccess-Control-Allow-Origin: *\r\n"
                 "Content-Type: application/json; charset=utf-8",
                 R"({"answer":42})"));
}

// A gateway on a Unix socket in front of a scripted llama-server.
class GatewayTest : public ::testing::Test {
 protected:
  void Start(FakeServer::Handler handler, GatewayOptions options = {}) {
    upstream_ = std::make_unique<FakeServer>(folder_.path() + "/up.sock", std::move(handler));
    StartGateway(std::move(options));
  }
  void StartGateway(GatewayOptions options) {
    if (options.listen.empty()) options.listen = "unix:" + folder_.path() + "/front.sock";
    options.upstream_socket = folder_.path() + "/up.sock";
    options.ready = [this] { return ready_.load(); };
    auto gateway = Gateway::Create(std::move(options));
    ASSERT_TRUE(gateway.ok()) << gateway.status().ToString();
    gateway_ = std::move(*gateway);
    thread_ = std::thread([this] { EXPECT_TRUE(gateway_->Run().ok()); });
  }
  void TearDown() override {
    if (gateway_) gateway_->Stop();
    if (thread_.joinable()) thread_.join();
    gateway_.reset();
    upstream_.reset();
  }
  RawStream Connect() { return RawStream::To(gateway_->address()); }
  // A request on a connection of its own; the whole answer.
  std::string Exchange(const std::string& request) {
    RawStream client = Connect();
    EXPECT_TRUE(client.Write(request));
    return client.ReadMessage();
  }

  TempFolder folder_;
  std::atomic<bool> ready_{true};
  std::unique_ptr<FakeServer> upstream_;
  std::unique_ptr<Gateway> gateway_;
  std::thread thread_;
};

TEST_F(GatewayTest, PassesAListedRouteAndItsAnswer) {
  Start(AnswerOk);
  const std::string answer = Exchange(Post("/v1/completions", R"({"prompt":"x"})"));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\n{\"answer\":42}"));
  EXPECT_THAT(answer, HasSubstr("Content-Type: application/json; charset=utf-8\r\n"));
  EXPECT_THAT(answer, HasSubstr("Cache-Control: no-store\r\n"));
  for (const char* header : {"Set-Cookie", "Server:", "Access-Control"})
    EXPECT_THAT(answer, Not(HasSubstr(header)));
}

// The exact bytes that llama-server sees: nothing of the client but the listed fields.
TEST_F(GatewayTest, TheRequestIsMadeAnew) {
  Start(AnswerOk);
  Exchange(Post("/v1/chat/completions?stream=1",
                R"({ "messages" : [], "id_slot":1, "cache_prompt":true })",
                "\r\nX-Conversation-Id: 7\r\nCookie: s=1\r\nAuthorization: Bearer "
                "k\r\nX-Forwarded-For: 1.2.3.4\r\nAccept-Encoding: gzip"));
  EXPECT_THAT(upstream_->requests(),
              ElementsAre("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAccept: "
                          "*/*\r\nContent-Type: application/json\r\n"
                          "Connection: close\r\nContent-Length: "
                          "36\r\n\r\n{\"messages\":[],\"cache_prompt\":false}"));
}

TEST_F(GatewayTest, ModelsIsAGetWithoutABody) {
  Start(AnswerOk);
  EXPECT_THAT(Exchange(Get("/v1/models")), HasSubstr("42"));
  ASSERT_EQ(upstream_->requests().size(), 1u);
  EXPECT_EQ(
      upstream_->requests()[0],
      "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(Exchange(WithLength("GET /v1/models HTTP/1.1\r\nHost: x", "{}")),
              StartsWith("HTTP/1.1 400 "));
}

TEST_F(GatewayTest, WorksOverTcp) {
  Start(AnswerOk, {.listen = "127.0.0.1:0"});
  EXPECT_THAT(gateway_->address(), StartsWith("127.0.0.1:"));
  EXPECT_NE(gateway_->address(), "127.0.0.1:0");
  EXPECT_THAT(Exchange(Post("/v1/completions", "{}")), HasSubstr("42"));
}

TEST_F(GatewayTest, RefusesWithJsonAndNothingReachesTheEngine) {
  Start(AnswerOk);
  const auto expect = [&](const std::string& request, const std::string& status) {
    const std::string answer = Exchange(request);
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 " + status + " ")) << request;
    EXPECT_THAT(answer, HasSubstr("\"error\":{\"code\":" + status + ",\"message\":\"")) << request;
  };
  expect(Get("/slots"), "404");
  expect(Get("/"), "404");
  expect(Post("/v1/chat/completions/control", "{}"), "404");
  expect(Post("/props", "{}"), "404");
  expect(Get("/v1/stream?conv_id=1"), "404");
  expect(Get("/v1/chat/completions"), "405");
  expect(Post("/v1/models", "{}"), "405");
  expect("OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: x\r\nOrigin: http://evil\r\n\r\n", "405");
  expect("DELETE /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", "405");
  expect(Post("/healthz", "{}"), "405");
  expect(Post("/v1/completions", "{\"prompt\":"), "400");
  expect(Post("/v1/completions", ""), "400");
  expect(Post("/v1/completions", "[1]"), "400");
  expect(WithLength("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain", "{}"),
         "415");
  expect(WithLength("POST /v1/completions HTTP/1.1\r\nHost: x", "{}"), "415");
  expect("nonsense\r\n\r\n", "400");
  expect("GET /v1/models HTTP/3.7\r\n\r\n", "400");
  expect("GET /v1/models HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "400");
  expect("GET /v1/models HTTP/1.1\r\nBad Header: x\r\n\r\n", "400");
  expect("GET /v1/models HTTP/1.1\r\nX: " + std::string(20000, 'x') + "\r\n\r\n", "431");
  expect(std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + "\r\n\r\n", "400");
  EXPECT_THAT(upstream_->requests(), ElementsAre());
}

// Nothing of a request is printed anywhere, and no error of ours quotes it.
TEST_F(GatewayTest, TheCanaryStaysInside) {
  ::testing::internal::CaptureStderr();
  ::testing::internal::CaptureStdout();
  Start(AnswerOk);
  const std::string answers =
      Exchange(Post("/v1/completions", R"({"prompt":"CANARY"})")) +
      Exchange(Post("/CANARY", R"({"prompt":"CANARY"})")) +
      Exchange(Post("/v1/completions", R"({"CANARY)")) +
      Exchange(Post("/v1/completions", R"({"prompt":CANARY})", "\r\nX-A: CANARY")) +
      Exchange("CANARY / HTTP/1.1\r\n\r\n") + Exchange("CANARY\r\n\r\n") +
      Exchange(Get("/v1/models?CANARY"));
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), Not(HasSubstr("CANARY")));
  EXPECT_THAT(::testing::internal::GetCapturedStdout(), Not(HasSubstr("CANARY")));
  EXPECT_THAT(answers, Not(HasSubstr("CANARY")));
}

TEST_F(GatewayTest, NoCorsHeadersForAnybody) {
  Start(AnswerOk);
  EXPECT_THAT(Exchange(Post("/v1/completions", "{}", "\r\nOrigin: http://evil")),
              Not(HasSubstr("Access-Control")));
}

TEST_F(GatewayTest, OversizedBodiesAreRefusedBeforeTheyAreRead) {
  Start(AnswerOk, {.max_body_bytes = 1000});
  EXPECT_THAT(Exchange("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: "
                       "application/json\r\nContent-Length: 1001\r\n\r\n"),
              StartsWith("HTTP/1.1 413 "));
  // Without a length, at the limit. The client is still writing and gets its answer nevertheless.
  RawStream client = Connect();
  std::string body =
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: "
      "application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 20; ++i) body += "64\r\n" + std::string(100, ' ') + "\r\n";
  (void)client.Write(body);
  EXPECT_THAT(client.ReadMessage(), StartsWith("HTTP/1.1 413 "));
  const std::string fits = "{\"prompt\":\"" + std::string(1000 - 13, 'x') + "\"}";
  ASSERT_EQ(fits.size(), 1000u);
  EXPECT_THAT(Exchange(Post("/v1/completions", fits)), StartsWith("HTTP/1.1 200 "));
  EXPECT_EQ(upstream_->requests().size(), 1u);
}

TEST_F(GatewayTest, LargeBodiesArriveWhole) {
  Start(AnswerOk);
  const std::string body =
      "{\"prompt\":\"" + std::string(5 << 20, 'y') + "\",\"cache_prompt\":false}";
  EXPECT_THAT(Exchange(Post("/v1/completions", body)), StartsWith("HTTP/1.1 200 "));
  ASSERT_EQ(upstream_->requests().size(), 1u);
  EXPECT_THAT(upstream_->requests()[0], EndsWith(body));
}

TEST_F(GatewayTest, ChunkedRequestsAndExpectContinue) {
  Start(AnswerOk);
  EXPECT_THAT(
      Exchange("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json; "
               "charset=utf-8\r\n"
               "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"pro\r\n9\r\nmpt\":\"a\"}\r\n0\r\n\r\n"),
      HasSubstr("42"));
  RawStream client = Connect();
  client.Write(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: "
      "100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_THAT(client.ReadMessage(), StartsWith("HTTP/1.1 100 Continue"));
  client.Write("{}");
  EXPECT_THAT(client.ReadMessage(), HasSubstr("42"));
}

TEST_F(GatewayTest, KeepsConnectionsAliveAndTakesPipelinedRequests) {
  Start(AnswerOk);
  RawStream client = Connect();
  for (int i = 0; i < 3; ++i) {
    client.Write(Post("/v1/completions", "{}"));
    EXPECT_THAT(client.ReadMessage(), HasSubstr("42")) << i;
  }
  client.Write(Post("/v1/completions", "{\"seed\":1}") + Get("/healthz") +
               Post("/v1/completions", "{\"seed\":2}") + Get("/slots") + Get("/readyz"));
  EXPECT_THAT(client.ReadMessage(), HasSubstr("42"));
  EXPECT_THAT(client.ReadMessage(), HasSubstr("ok"));
  EXPECT_THAT(client.ReadMessage(), HasSubstr("42"));
  EXPECT_THAT(client.ReadMessage(), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(client.ReadMessage(), HasSubstr("\"ready\":true"));
  client.Write("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(client.ReadMessage(), HasSubstr("ok"));
  client.ReadToEnd();
  EXPECT_TRUE(client.ended());
}

TEST_F(GatewayTest, NotReadyIs503UntilItIs) {
  ready_ = false;
  Start(AnswerOk, {.stage = [] { return std::string("fetching"); }});
  const std::string answer = Exchange(Post("/v1/completions", "{}"));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(answer, HasSubstr("\"type\":\"unavailable_error\""));
  EXPECT_THAT(answer, HasSubstr("Retry-After: 1\r\n"));
  EXPECT_THAT(Exchange(Get("/v1/models")), StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(Exchange(Get("/readyz")), EndsWith("{\"ready\":false,\"stage\":\"fetching\"}"));
  EXPECT_THAT(Exchange(Get("/readyz")), StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(Exchange(Get("/healthz")), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(upstream_->requests(), ElementsAre());
  ready_ = true;
  EXPECT_THAT(Exchange(Get("/readyz")), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Exchange(Post("/v1/completions", "{}")), HasSubstr("42"));
  ready_ = false;  // the session ended
  EXPECT_THAT(Exchange(Get("/readyz")), StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(Exchange(Post("/v1/completions", "{}")), StartsWith("HTTP/1.1 503 "));
}

TEST_F(GatewayTest, AMissingEngineIs502) {
  StartGateway({});
  EXPECT_THAT(Exchange(Post("/v1/completions", "{}")), StartsWith("HTTP/1.1 502 "));
}

TEST_F(GatewayTest, AnEngineThatClosesOrTalksNonsenseIs502) {
  Start([](RawStream& stream, const std::string& request) {
    if (request.find("nonsense") != std::string::npos) (void)stream.Write("nonsense\r\n\r\n");
  });
  EXPECT_THAT(Exchange(Post("/v1/completions", "{}")), StartsWith("HTTP/1.1 502 "));
  EXPECT_THAT(Exchange(Post("/v1/completions", "{\"prompt\":\"nonsense\"}")),
              StartsWith("HTTP/1.1 502 "));
}

TEST_F(GatewayTest, ErrorsOfTheEnginePassAsTheyAre) {
  Start([](RawStream& stream, const std::string&) {
    (void)stream.Write(
        WithLength("HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json",
                   R"({"error":{"code":500,"message":"Compute error."}})"));
  });
  const std::string answer = Exchange(Post("/v1/completions", "{}"));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 500 "));
  EXPECT_THAT(answer, EndsWith(R"({"error":{"code":500,"message":"Compute error."}})"));
}

void WriteChunk(RawStream& stream, const std::string& text) {
  char size[32];
  snprintf(size, sizeof size, "%zx\r\n", text.size());
  (void)stream.Write(size + text + "\r\n");
}
constexpr const char* kStreamHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

// Each event reaches the client before the engine sends the next: the engine waits for a go between
// them.
TEST_F(GatewayTest, StreamsPassEventByEvent) {
  std::atomic<int> go{0};
  Start([&](RawStream& stream, const std::string&) {
    (void)stream.Write(kStreamHead);
    for (int i = 0; i < 3; ++i) {
      while (go.load() < i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      WriteChunk(stream, "data: {\"token\":" + std::to_string(i) + "}\n\n");
    }
    (void)stream.Write("0\r\n\r\n");
  });
  RawStream client = Connect();
  client.Write(Post("/v1/chat/completions", R"({"stream":true})"));
  for (int i = 0; i < 3; ++i) {
    const std::string event = "data: {\"token\":" + std::to_string(i) + "}\n\n";
    ASSERT_THAT(client.ReadUntilText(event), HasSubstr(event));
    go = i + 1;
  }
  const std::string all = client.ReadUntilText("\r\n0\r\n\r\n");
  EXPECT_THAT(all, HasSubstr("Content-Type: text/event-stream\r\n"));
  EXPECT_THAT(all, HasSubstr("Transfer-Encoding: chunked\r\n"));
  EXPECT_THAT(all, EndsWith("\r\n0\r\n\r\n"));
  EXPECT_FALSE(client.ended());
}

TEST_F(GatewayTest, AnErrorInsideAStreamPasses) {
  Start([](RawStream& stream, const std::string&) {
    (void)stream.Write(kStreamHead);
    WriteChunk(stream, "data: {\"error\":{\"code\":500}}\n\n");
    (void)stream.Write("0\r\n\r\n");
  });
  RawStream client = Connect();
  client.Write(Post("/v1/chat/completions", R"({"stream":true})"));
  EXPECT_THAT(client.ReadUntilText("\r\n0\r\n\r\n"),
              HasSubstr("data: {\"error\":{\"code\":500}}\n\n"));
}

TEST_F(GatewayTest, AStreamThatBreaksOffHasNoEnd) {
  Start([](RawStream& stream, const std::string&) {
    (void)stream.Write(kStreamHead);
    WriteChunk(stream, "data: 1\n\n");
  });
  RawStream client = Connect();
  client.Write(Post("/v1/chat/completions", R"({"stream":true})"));
  const std::string all = client.ReadToEnd();
  EXPECT_TRUE(client.ended());
  EXPECT_THAT(all, HasSubstr("data: 1"));
  EXPECT_THAT(all, Not(HasSubstr("\r\n0\r\n\r\n")));
}

TEST_F(GatewayTest, Http10ClientsGetAPlainBodyAndTheEnd) {
  Start([](RawStream& stream, const std::string&) {
    (void)stream.Write(kStreamHead);
    WriteChunk(stream, "data: 1\n\n");
    (void)stream.Write("0\r\n\r\n");
  });
  RawStream client = Connect();
  client.Write(WithLength("POST /v1/completions HTTP/1.0\r\nContent-Type: application/json", "{}"));
  const std::string all = client.ReadToEnd();
  EXPECT_TRUE(client.ended());
  EXPECT_THAT(all, EndsWith("\r\n\r\ndata: 1\n\n"));
  EXPECT_THAT(all, Not(HasSubstr("chunked")));
}

// Whether the engine's side of the connection was closed within five seconds.
bool SawHangup(RawStream& stream) {
  stream.ReadToEnd(5000);
  return stream.ended();
}

TEST_F(GatewayTest, AClientThatLeavesBeforeTheAnswerStopsTheEngine) {
  std::atomic<int> started{0}, hung_up{0};
  Start([&](RawStream& stream, const std::string&) {
    ++started;
    hung_up += SawHangup(stream);
  });
  {
    RawStream client = Connect();
    client.Write(Post("/v1/completions", "{}"));
    while (started == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const auto deadline = Clock::now() + std::chrono::seconds(5);
  while (hung_up == 0 && Clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(hung_up, 1);
}

TEST_F(GatewayTest, AClientThatLeavesInAStreamStopsTheEngine) {
  std::atomic<int> hung_up{0};
  Start([&](RawStream& stream, const std::string&) {
    (void)stream.Write(kStreamHead);
    WriteChunk(stream, "data: 1\n\n");
    hung_up += SawHangup(stream);
  });
  {
    RawStream client = Connect();
    client.Write(Post("/v1/completions", "{}"));
    client.ReadUntilText("data: 1");
  }
  const auto deadline = Clock::now() + std::chrono::seconds(5);
  while (hung_up == 0 && Clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(hung_up, 1);
  EXPECT_THAT(Exchange(Get("/healthz")), HasSubstr("ok"));
}

TEST_F(GatewayTest, SlowHeadersBodiesAndIdlersAreCut) {
  Start(AnswerOk, {.header_timeout_ms = 200, .body_timeout_ms = 200, .idle_timeout_ms = 300});
  const auto drip = [&](const std::string& text) {
    RawStream client = Connect();
    const auto start = Clock::now();
    for (size_t i = 0; Clock::now() - start < std::chrono::seconds(5); ++i) {
      if (!client.Write(text.substr(i % text.size(), 1))) break;
      client.ReadToEnd(20);
      if (client.ended()) break;
    }
    EXPECT_TRUE(client.ended());
    EXPECT_LT(Clock::now() - start, std::chrono::seconds(4));
  };
  drip("GET /v1/models HTTP/1.1\r\nX-Long-Header: " + std::string(1000, 'x'));
  {
    RawStream client = Connect();
    client.Write(
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: "
        "application/json\r\nContent-Length: 1000\r\n\r\n{");
    client.ReadToEnd();
    EXPECT_TRUE(client.ended());
  }
  {
    RawStream client = Connect();  // says nothing at all
    client.ReadToEnd();
    EXPECT_TRUE(client.ended());
  }
  EXPECT_THAT(upstream_->requests(), ElementsAre());
}

// A client that takes nothing is cut, and the engine's connection with it.
TEST_F(GatewayTest, SlowReadersAreCut) {
  std::atomic<bool> engine_ended{false};
  Start(
      [&](RawStream& stream, const std::string&) {
        const std::string piece(64 << 10, 'z');
        (void)stream.Write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        while (stream.Write(piece)) {
        }
        engine_ended = true;
      },
      {.write_timeout_ms = 200});
  RawStream client = Connect();
  client.Write(Post("/v1/completions", "{}"));
  const auto deadline = Clock::now() + std::chrono::seconds(10);
  while (!engine_ended && Clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_TRUE(engine_ended);
}

TEST_F(GatewayTest, ASilentEngineIs502AfterItsTime) {
  Start([](RawStream& stream, const std::string&) { stream.ReadToEnd(3000); },
        {.answer_timeout_ms = 100});
  EXPECT_THAT(Exchange(Post("/v1/completions", "{}")), StartsWith("HTTP/1.1 502 "));
}

TEST_F(GatewayTest, ConnectionsBeyondTheLimitAreToldSo) {
  Start(AnswerOk, {.max_connections = 3});
  std::vector<RawStream> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(Connect());
    clients.back().Write(Get("/healthz"));
    EXPECT_THAT(clients.back().ReadMessage(), StartsWith("HTTP/1.1 200 "));
  }
  EXPECT_THAT(Connect().ReadMessage(), StartsWith("HTTP/1.1 503 "));
  clients.clear();
  const auto deadline = Clock::now() + std::chrono::seconds(5);
  std::string answer;
  do answer = Exchange(Get("/healthz"));
  while (!answer.starts_with("HTTP/1.1 200 ") && Clock::now() < deadline);
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
}

TEST_F(GatewayTest, ManyClientsAtOnceGetTheirOwnAnswers) {
  Start([](RawStream& stream, const std::string& request) {
    (void)stream.Write(WithLength("HTTP/1.1 200 OK\r\nContent-Type: application/json",
                                  request.substr(request.find("\r\n\r\n") + 4)));
  });
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      RawStream client = Connect();
      for (int i = 0; i < 25; ++i) {
        const std::string body = "{\"prompt\":\"" + std::to_string(t * 1000 + i) +
                                 std::string(static_cast<size_t>(i) * 500, 'p') +
                                 "\",\"cache_prompt\":false}";
        if (client.Write(Post("/v1/completions", body)) &&
            client.ReadMessage(20000).ends_with("\r\n\r\n" + body))
          ++right;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(right, 200);
}

TEST_F(GatewayTest, SurvivesGarbage) {
  Start(AnswerOk, {.header_timeout_ms = 100, .body_timeout_ms = 100});
  std::mt19937 rng(20240608);
  const std::string valid = Post("/v1/completions", R"({"prompt":"x"})");
  for (int round = 0; round < 150; ++round) {
    std::string bytes = valid;
    if (round % 3 == 0) bytes.resize(rng() % bytes.size());
    for (int i = 0; i < 4; ++i)
      bytes[rng() % std::max<size_t>(bytes.size(), 1)] = static_cast<char>(rng());
    RawStream client = Connect();
    (void)client.Write(bytes);
    client.ReadUntil([](const std::string& text) { return !text.empty(); }, 20);
  }
  EXPECT_THAT(Exchange(Get("/healthz")), StartsWith("HTTP/1.1 200 "));
}

TEST_F(GatewayTest, StopCutsOpenConnectionsAndRemovesTheSocket) {
  Start([](RawStream& stream, const std::string&) { stream.ReadToEnd(5000); });
  RawStream client = Connect();
  client.Write(Post("/v1/completions", "{}"));
  while (upstream_->requests().empty()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const std::string path = gateway_->address().substr(5);
  struct stat info {};
  EXPECT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  gateway_->Stop();
  thread_.join();
  gateway_.reset();
  EXPECT_NE(stat(path.c_str(), &info), 0);
  client.ReadToEnd();
  EXPECT_TRUE(client.ended());
}

TEST_F(GatewayTest, TheEndCanWaitForTheLastAnswers) {
  std::atomic<bool> go_on{false};
  Start([&](RawStream& stream, const std::string& request) {
    while (!go_on) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    AnswerOk(stream, request);
  });
  gateway_->AwaitAnswers(5000);  // nobody waits for anything
  RawStream client = Connect();
  client.Write(Post("/v1/completions", "{}"));
  while (upstream_->requests().empty()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const auto began = Clock::now();
  gateway_->AwaitAnswers(30);
  EXPECT_GE(Clock::now() - began, std::chrono::milliseconds(30)) << "one is under way";
  go_on = true;
  gateway_->AwaitAnswers(5000);
  gateway_->Stop();
  thread_.join();
  gateway_.reset();
  EXPECT_THAT(client.ReadMessage(), HasSubstr(R"({"answer":42})"));
}

TEST_F(GatewayTest, AStaleSocketIsReplacedALivingOneIsNot) {
  const std::string path = folder_.path() + "/front.sock";
  {
    const Fd stale(socket(AF_UNIX, SOCK_STREAM, 0));
    const sockaddr_un name = testing::UnixAddress(path);
    ASSERT_EQ(bind(stale.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
  }
  Start(AnswerOk);
  EXPECT_THAT(Exchange(Get("/healthz")), HasSubstr("ok"));
  const auto second = Gateway::Create({.listen = "unix:" + path, .ready = [] { return true; }});
  EXPECT_EQ(second.status().code(), Code::kIo);
  EXPECT_THAT(second.status().message(), HasSubstr("in use"));
  EXPECT_THAT(Exchange(Get("/healthz")), HasSubstr("ok"));
}

TEST_F(GatewayTest, RefusesAddressesThatAreNotLocal) {
  for (const char* address : {"0.0.0.0:1", "10.0.0.1:80", "nonsense"}) {
    EXPECT_EQ(Gateway::Create({.listen = address, .ready = [] { return true; }}).status().code(),
              Code::kInvalidArgument)
        << address;
  }
}

}  // namespace
}  // namespace talaria::cvm
