// The relay: handshakes, bytes both ways, ends. Who gets in: front_users_test.cc.
#include "talaria/cvm/front.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include "talaria/cvm/front_testing.h"

namespace talaria::cvm {
namespace {

using std::chrono::milliseconds;
using testing::AnswerOk;
using testing::Clock;
using ::testing::EndsWith;
using testing::FrontTest;
using testing::GetText;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::PostText;
using testing::RawStream;
using ::testing::SizeIs;
using ::testing::StartsWith;
using testing::TlsClient;
using testing::WithLength;

constexpr const char* kStreamHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

void WriteChunk(RawStream& stream, const std::string& text) {
  char size[32];
  snprintf(size, sizeof size, "%zx\r\n", text.size());
  (void)stream.Write(size + text + "\r\n");
}

// Whether `condition` holds within the test's patience.
bool Soon(const std::function<bool()>& condition) {
  const auto deadline = Clock::now() + milliseconds(testing::kTestTimeoutMs);
  while (!condition()) {
    if (Clock::now() >= deadline) return false;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return true;
}

TEST_F(FrontTest, TheClientSeesTheKeyOfTheCvm) {
  Start(AnswerOk);
  EXPECT_THAT(front_->address(), StartsWith("127.0.0.1:"));
  TlsClient client = Connect();  // pins it
  ASSERT_TRUE(client.connected());
  EXPECT_EQ(client.tls().version(), "TLSv1.3");
  EXPECT_EQ(client.tls().own_key(), client_key_.spki_sha256()) << "the client was asked for a key";
  EXPECT_FALSE(TlsClient(front_->address(), client_key_, client_key_.spki_sha256()).connected());
}

// A client of another make, without a certificate.
TEST_F(FrontTest, AClientMayHaveNoKey) {
  Start(AnswerOk);
  RawStream stream = RawStream::To(front_->address());
  SSL_CTX* const ctx = SSL_CTX_new(TLS_client_method());
  SSL* const ssl = SSL_new(ctx);
  SSL_set_fd(ssl, stream.fd());
  ASSERT_EQ(SSL_connect(ssl), 1);
  const auto exchange = [&](const std::string& request) {
    EXPECT_GT(SSL_write(ssl, request.data(), static_cast<int>(request.size())), 0);
    std::string answer;
    char piece[4096];
    while (answer.find("}") == std::string::npos) {
      const int n = SSL_read(ssl, piece, sizeof piece);
      if (n <= 0) break;
      answer.append(piece, static_cast<size_t>(n));
    }
    return answer;
  };
  EXPECT_THAT(exchange(PostText("/v1/completions", "{}", Bearer())), HasSubstr("42"));
  tenant::Token bound = Ada();
  bound.client_key = client_key_.spki_sha256();
  EXPECT_THAT(exchange(PostText("/v1/completions", "", Bearer(bound))),
              StartsWith("HTTP/1.1 401 "));
  SSL_free(ssl);
  SSL_CTX_free(ctx);
}

TEST_F(FrontTest, PlainHttpGetsNothing) {
  Start(AnswerOk);
  RawStream stream = RawStream::To(front_->address());
  (void)stream.Write(PostText("/v1/completions", "{}", Bearer()));
  EXPECT_THAT(stream.ReadToEnd(), Not(HasSubstr("HTTP")));
  EXPECT_TRUE(stream.ended());
  EXPECT_THAT(upstream_->requests(), SizeIs(0));
}

TEST_F(FrontTest, SlowHandshakesAreCut) {
  Start(AnswerOk, {.handshake_timeout_ms = 200});
  const auto began = Clock::now();
  RawStream silent = RawStream::To(front_->address());
  RawStream dripping = RawStream::To(front_->address());
  // The beginning of a record that says it is long.
  (void)dripping.Write(std::string_view("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11));
  while (!dripping.ended() && Clock::now() - began < std::chrono::seconds(20)) {
    (void)dripping.Write("x");
    dripping.ReadToEnd(20);
  }
  silent.ReadToEnd();
  EXPECT_TRUE(silent.ended());
  EXPECT_TRUE(dripping.ended());
  EXPECT_GE(Clock::now() - began, milliseconds(200));
}

TEST_F(FrontTest, ConnectionsBeyondTheLimitAreClosed) {
  Start(AnswerOk);  // 64
  std::vector<TlsClient> clients;
  for (int i = 0; i < 64; ++i) {
    clients.push_back(Connect());
    ASSERT_TRUE(clients.back().connected()) << i;
  }
  EXPECT_FALSE(Connect().connected());
  for (TlsClient& client : clients)
    EXPECT_THAT(client.Exchange(GetText("/healthz", Bearer())), HasSubstr("ok"));
  clients.pop_back();
  EXPECT_TRUE(Soon([&] { return Connect().connected(); }));
}

TEST_F(FrontTest, LargeBodiesArriveWholeAndAnswersComeBackWhole) {
  Start([](RawStream& stream, const std::string& request) {
    (void)stream.Write(WithLength("HTTP/1.1 200 OK\r\nContent-Type: application/json",
                                  request.substr(request.find("\r\n\r\n") + 4)));
  });
  std::string body = "{\"prompt\":\"";
  for (int i = 0; i < 500'000; ++i) body += std::to_string(i % 10'007);
  body += "\",\"cache_prompt\":false}";
  TlsClient client = Connect();
  for (int i = 0; i < 3; ++i) {
    const std::string answer = client.Exchange(PostText("/v1/completions", body, Bearer()));
    EXPECT_TRUE(answer.ends_with("\r\n\r\n" + body)) << answer.substr(0, 200);
  }
}

TEST_F(FrontTest, ManyClientsAtOnceGetTheirOwnAnswers) {
  Start([](RawStream& stream, const std::string& request) {
    (void)stream.Write(WithLength("HTTP/1.1 200 OK\r\nContent-Type: application/json",
                                  request.substr(request.find("\r\n\r\n") + 4)));
  });
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      TlsClient client = Connect();
      for (int i = 0; i < 10; ++i) {
        const std::string body = "{\"prompt\":\"" + std::to_string(t * 1000 + i) +
                                 std::string(static_cast<size_t>(i) * 5000, 'p') +
                                 "\",\"cache_prompt\":false}";
        right += client.Exchange(PostText("/v1/completions", body, Bearer()))
                     .ends_with("\r\n\r\n" + body);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(right, 80);
}

// Each event reaches the client before the engine sends the next: the engine waits for a go.
TEST_F(FrontTest, StreamsPassEventByEvent) {
  std::atomic<int> go{0};
  Start([&](RawStream& stream, const std::string&) {
    (void)stream.Write(kStreamHead);
    for (int i = 0; i < 3; ++i) {
      while (go.load() < i) std::this_thread::sleep_for(milliseconds(1));
      WriteChunk(stream, "data: {\"token\":" + std::to_string(i) + "}\n\n");
    }
    (void)stream.Write("0\r\n\r\n");
  });
  TlsClient client = Connect();
  ASSERT_TRUE(client.Write(PostText("/v1/chat/completions", R"({"stream":true})", Bearer())));
  for (int i = 0; i < 3; ++i) {
    const std::string event = "data: {\"token\":" + std::to_string(i) + "}\n\n";
    ASSERT_THAT(client.ReadUntilText(event), HasSubstr(event));
    go = i + 1;
  }
  EXPECT_THAT(client.ReadUntilText("\r\n0\r\n\r\n"), EndsWith("\r\n0\r\n\r\n"));
  EXPECT_THAT(client.Exchange(GetText("/healthz", Bearer())), Not(StartsWith("HTTP/1.1 401 ")));
}

TEST_F(FrontTest, TheEndOfAnAnswerIsTheEndOfTheConnectionWhereItMustBe) {
  Start([](RawStream& stream, const std::string&) {
    (void)stream.Write(kStreamHead);
    WriteChunk(stream, "data: 1\n\n");
    (void)stream.Write("0\r\n\r\n");
  });
  TlsClient client = Connect();
  ASSERT_TRUE(client.Write(WithLength(
      "POST /v1/completions HTTP/1.0\r\nContent-Type: application/json" + Bearer(), "{}")));
  EXPECT_THAT(client.ReadToEnd(), EndsWith("\r\n\r\ndata: 1\n\n"));
  EXPECT_THAT(client.end().message(), HasSubstr("close_notify")) << "an attacker's cut has none";
}

TEST_F(FrontTest, AStreamThatBreaksOffHasNoEnd) {
  Start([](RawStream& stream, const std::string&) {
    (void)stream.Write(kStreamHead);
    WriteChunk(stream, "data: 1\n\n");
  });
  TlsClient client = Connect();
  ASSERT_TRUE(client.Write(PostText("/v1/completions", "{}", Bearer())));
  const std::string all = client.ReadToEnd();
  EXPECT_THAT(all, HasSubstr("data: 1"));
  EXPECT_THAT(all, Not(HasSubstr("\r\n0\r\n\r\n")));
}

TEST_F(FrontTest, AClientThatLeavesStopsTheEngine) {
  std::atomic<int> hung_up{0};
  Start([&](RawStream& stream, const std::string& request) {
    if (request.find("stream") != std::string::npos) {
      (void)stream.Write(kStreamHead);
      WriteChunk(stream, "data: 1\n\n");
    }
    stream.ReadToEnd(testing::kTestTimeoutMs);
    hung_up += stream.ended();
  });
  TlsClient waiting = Connect(), reading = Connect();
  ASSERT_TRUE(waiting.Write(PostText("/v1/completions", "{}", Bearer())));
  ASSERT_TRUE(reading.Write(PostText("/v1/completions", R"({"stream":true})", Bearer())));
  reading.ReadUntilText("data: 1");
  ASSERT_TRUE(Soon([&] { return upstream_->requests().size() == 2; }));
  const auto began = Clock::now();
  waiting.Close();
  EXPECT_TRUE(Soon([&] { return hung_up == 1; }));
  reading.tls().Shutdown();  // without a good-bye
  reading.Close();
  EXPECT_TRUE(Soon([&] { return hung_up == 2; }));
  EXPECT_LT(Clock::now() - began, std::chrono::seconds(10));
}

// A client that takes nothing is cut, and the engine's connection with it.
TEST_F(FrontTest, SlowReadersAreCut) {
  std::atomic<bool> engine_ended{false};
  Start(
      [&](RawStream& stream, const std::string&) {
        const std::string piece(64 << 10, 'z');
        (void)stream.Write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        while (stream.Write(piece)) {
        }
        engine_ended = true;
      },
      {.write_timeout_ms = 300}, {.write_timeout_ms = 300});
  TlsClient client = Connect();
  ASSERT_TRUE(client.Write(PostText("/v1/completions", "{}", Bearer())));
  EXPECT_TRUE(Soon([&] { return engine_ended.load(); }));
}

TEST_F(FrontTest, StopCutsEverythingAtOnce) {
  Start([](RawStream& stream, const std::string&) { stream.ReadToEnd(); });
  RawStream stalled = RawStream::To(front_->address());  // in its handshake
  TlsClient idle = Connect(), waiting = Connect(), flooding = Connect();
  ASSERT_TRUE(waiting.Write(PostText("/v1/completions", "{}", Bearer())));
  // More than the gateway reads while it waits for an answer.
  ASSERT_TRUE(flooding.Write(PostText("/v1/completions", "{}", Bearer())));
  std::thread flood([&] { (void)flooding.Write(std::string(32 << 20, 'x')); });
  ASSERT_TRUE(Soon([&] { return upstream_->requests().size() == 2; }));
  std::this_thread::sleep_for(milliseconds(50));
  const auto began = Clock::now();
  front_->Stop();
  EXPECT_LT(Clock::now() - began, std::chrono::seconds(2));
  flood.join();
  stalled.ReadToEnd();
  EXPECT_TRUE(stalled.ended());
  EXPECT_EQ(idle.ReadToEnd(), "");
  EXPECT_EQ(waiting.ReadToEnd(), "");
  EXPECT_FALSE(Connect().connected());
  front_->Stop();  // again
  gateway_->AwaitAnswers(testing::kTestTimeoutMs);
  EXPECT_LT(Clock::now() - began, std::chrono::seconds(10)) << "nobody waits for an answer";
}

// Also when what it sent last hides its end.
TEST_F(FrontTest, AClientThatAsksForMoreAndLeavesStopsTheEngine) {
  std::atomic<int> hung_up{0};
  Start([&](RawStream& stream, const std::string&) {
    stream.ReadToEnd(testing::kTestTimeoutMs);
    hung_up += stream.ended();
  });
  TlsClient client = Connect();
  const std::string request = PostText("/v1/completions", "{}", Bearer());
  ASSERT_TRUE(client.Write(request));
  ASSERT_TRUE(Soon([&] { return upstream_->requests().size() == 1; }));
  ASSERT_TRUE(client.Write(request));
  std::this_thread::sleep_for(milliseconds(50));
  const auto began = Clock::now();
  client.Close();
  EXPECT_TRUE(Soon([&] { return hung_up == 1; }));
  EXPECT_LT(Clock::now() - began, std::chrono::seconds(10));
}

TEST_F(FrontTest, StopsWhileClientsComeAndGo) {
  Start(AnswerOk);
  std::atomic<bool> end{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      while (!end) {
        TlsClient client = Connect();
        (void)client.Exchange(GetText("/healthz", Bearer()));
      }
    });
  }
  std::this_thread::sleep_for(milliseconds(100));
  front_->Stop();
  end = true;
  for (std::thread& t : threads) t.join();
}

// The gateway may be gone before the front's connections are.
TEST_F(FrontTest, TheGatewayMayEndFirst) {
  Start(AnswerOk);
  TlsClient client = Connect();
  EXPECT_THAT(client.Exchange(GetText("/healthz", Bearer())), HasSubstr("ok"));
  gateway_->Stop();
  thread_.join();
  TlsClient late = Connect();
  (void)late.Write(GetText("/healthz", Bearer()));
  front_ = nullptr;
  gateway_ = nullptr;
  EXPECT_EQ(late.ReadToEnd(), "");
}

TEST_F(FrontTest, TheEndCanWaitForTheLastAnswers) {
  const std::string body(300'000, 'b');
  Start([&](RawStream& stream, const std::string&) {
    (void)stream.Write(WithLength("HTTP/1.1 200 OK\r\nContent-Type: application/json", body));
  });
  for (int i = 0; i < 5; ++i) {
    TlsClient client = Connect();
    ASSERT_TRUE(client.Write(PostText("/v1/completions", "{}", Bearer())));
    ASSERT_TRUE(Soon([&] { return upstream_->requests().size() == static_cast<size_t>(i) + 1; }));
    std::thread end([&] {
      gateway_->AwaitAnswers(testing::kTestTimeoutMs);
      front_->AwaitAnswers(testing::kTestTimeoutMs);
      if (i == 4) front_->Stop();
    });
    EXPECT_TRUE(client.ReadMessage().ends_with(body));
    end.join();
  }
}

TEST_F(FrontTest, AddressesThatCannotBeListenedOnAreRefused) {
  Start(AnswerOk);
  const auto code = [&](const std::string& listen) {
    return Front::Create({.listen = listen,
                          .gateway = gateway_.get(),
                          .key = &key_,
                          .attester = &attester_,
                          .context = [this] { return context_; }})
        .status()
        .code();
  };
  EXPECT_EQ(code("nonsense"), Code::kInvalidArgument);
  EXPECT_EQ(code(front_->address()), Code::kIo);
}

}  // namespace
}  // namespace talaria::cvm
