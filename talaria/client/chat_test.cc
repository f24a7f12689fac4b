#include "talaria/client/chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>

#include "talaria/attest/receipt_verifier.h"
#include "talaria/client/receipt_copy.h"
#include "talaria/client/testing/fake_cvm.h"

namespace talaria::client {
namespace {

using ::testing::AllOf;
using testing::FakeCvm;
using testing::FakeCvmOptions;
using testing::FakeExchange;
using ::testing::HasSubstr;
using Json = nlohmann::json;

std::string Delta(const std::string& text) {
  return "data: " + Json({{"choices", {{{"delta", {{"content", text}}}}}}}).dump() + "\n\n";
}

class ChatTest : public ::testing::Test {
 protected:
  void Start(std::function<void(FakeExchange&)> answer, FakeCvmOptions options = {}) {
    options.answer = std::move(answer);
    cvm_ = std::make_unique<FakeCvm>(folder_.Address("cvm"), std::move(options));
    peer_ = std::make_unique<AttestedPeer>(
        PeerOptions{.server = {.endpoint = ParseServer(cvm_->address()).value()},
                    .attest_every_connection = true,
                    .now = [] { return testing::kTestNow; }},
        testing::MakeVerifier(), wire::TlsKey::Generate().value());
  }
  Status Ask(Chat& chat, const std::string& question) {
    text_.clear();
    return chat.Ask(
        question, [this](std::string_view piece) { text_ += piece; }, stop_);
  }

  testing::SocketFolder folder_;
  std::unique_ptr<FakeCvm> cvm_;
  std::unique_ptr<AttestedPeer> peer_;
  std::string text_;
  std::atomic<bool> stop_{false};
};

TEST_F(ChatTest, StreamsAnswersAndRemembersThem) {
  std::mutex mutex;
  std::vector<Json> bodies;
  Start([&](FakeExchange& exchange) {
    EXPECT_EQ(exchange.target, "/v1/chat/completions");
    EXPECT_EQ(exchange.headers.at("authorization"), "Bearer tlr1_x");
    {
      const std::lock_guard lock(mutex);
      bodies.push_back(Json::parse(exchange.body));
    }
    exchange.Head(200, "text/event-stream");
    exchange.Piece("data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n");
    exchange.Piece(Delta("Hel") + Delta("lo"));
    exchange.Piece("data: {\"choices\":[],\"usage\":{}}\n\ndata: [DO");
    exchange.Piece("NE]\n\n");
    exchange.End();
  });
  Chat chat({.token = "tlr1_x", .system = "Be brief.", .max_tokens = 7, .temperature = 0}, *peer_);
  ASSERT_TRUE(Ask(chat, "Hi").ok());
  EXPECT_EQ(text_, "Hello");
  ASSERT_TRUE(Ask(chat, "Again").ok());
  EXPECT_EQ(chat.messages(), 5u);
  chat.Clear();
  EXPECT_EQ(chat.messages(), 1u);
  ASSERT_EQ(bodies.size(), 2u);
  EXPECT_EQ(bodies[0]["max_tokens"], 7);
  EXPECT_EQ(bodies[0]["stream"], true);
  EXPECT_EQ(bodies[1]["messages"],
            Json::parse(R"([{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"},
              {"role":"assistant","content":"Hello"},{"role":"user","content":"Again"}])"));
  EXPECT_EQ(cvm_->connections(), 1);
}

TEST_F(ChatTest, AnAnswerWithoutItsEndIsAFailure) {
  Start([](FakeExchange& exchange) {
    exchange.Head(200, "text/event-stream");
    exchange.Piece(Delta("Hel"));
    exchange.End();  // of HTTP, but there was no [DONE]
  });
  Chat chat({}, *peer_);
  EXPECT_EQ(Ask(chat, "Hi").code(), Code::kUnavailable);
  EXPECT_EQ(text_, "Hel");
  EXPECT_EQ(chat.messages(), 0u);
}

TEST_F(ChatTest, ErrorsInTheStreamAndRefusals) {
  Start([](FakeExchange& exchange) {
    if (exchange.body.find("stream-error") != std::string::npos) {
      exchange.Head(200, "text/event-stream");
      exchange.Piece("data: {\"error\":{\"message\":\"gone\"}}\n\n");
      exchange.End();
    } else if (exchange.body.find("garbage") != std::string::npos) {
      exchange.Head(200, "text/event-stream");
      exchange.Piece("data: ]\n\n");
      exchange.End();
    } else {
      exchange.Whole(401, "application/json", R"({"error":{"message":"no \u001b token"}})");
    }
  });
  Chat chat({}, *peer_);
  EXPECT_THAT(Ask(chat, "stream-error").message(), HasSubstr("gone"));
  EXPECT_EQ(Ask(chat, "garbage").code(), Code::kCorrupt);
  const Status refused = Ask(chat, "token");
  EXPECT_EQ(refused.code(), Code::kUnsupported);
  EXPECT_THAT(refused.message(), HasSubstr("401: no ? token"));
}

TEST_F(ChatTest, StopEndsAnAnswer) {
  Start([this](FakeExchange& exchange) {
    exchange.Head(200, "text/event-stream");
    exchange.Piece(Delta("Hel"));
    stop_ = true;
    EXPECT_TRUE(exchange.AwaitGone());
  });
  Chat chat({}, *peer_);
  EXPECT_EQ(Ask(chat, "Hi").code(), Code::kCancelled);
  EXPECT_EQ(chat.messages(), 0u);
}

TEST(TerminalFilterTest, NothingMovesTheCursor) {
  TerminalFilter filter;
  EXPECT_EQ(filter.Clean("a\x1b[2J\x07\x7f\tb\r\n"), "a[2J\tb\n");
  EXPECT_EQ(filter.Clean("\xc3\xa4\xc2\xa7 \xe2\x82\xac"), "\xc3\xa4\xc2\xa7 \xe2\x82\xac");
  EXPECT_EQ(filter.Clean("\xc2\x9b"
                         "2J\xc2\x80"),
            "2J");
  // Cut in the middle of a character.
  EXPECT_EQ(filter.Clean("\xc2"), "");
  EXPECT_EQ(filter.Clean("\x9bK"), "K");
  EXPECT_EQ(filter.Clean("\xc2"), "");
  EXPECT_EQ(filter.Clean("\xa7"), "\xc2\xa7");
}

// Head, two pieces, the end: "Hi".
void SayHi(FakeExchange& exchange) {
  exchange.Head(200, "text/event-stream");
  exchange.Piece(Delta("Hi"));
  exchange.Piece("data: [DONE]\n\n");
  exchange.End();
}

TEST_F(ChatTest, KeepsAReceiptOfEveryAnswer) {
  std::string body;
  Start([&](FakeExchange& exchange) {
    body = exchange.body;
    SayHi(exchange);
  });
  const std::string folder = folder_.path() + "/receipts";
  ASSERT_TRUE(MakeCopiesFolder(folder).ok());
  Chat chat({.receipts = folder}, *peer_);
  for (int asked = 1; asked <= 2; ++asked) {
    const Status status = Ask(chat, "Hello?");
    EXPECT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(text_, "Hi");
    std::vector<std::string> copies;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      copies.push_back(entry.path());
    ASSERT_EQ(copies.size(), static_cast<size_t>(asked));
    bool found = false;
    for (const std::string& path : copies) {
      const auto copy = LoadCopy(path);
      ASSERT_TRUE(copy.ok()) << copy.status().ToString();
      found = found || copy->request == body;
      const auto verdict = attest::VerifyReceipt(
          copy->receipt, {copy->salt, AsBytes(copy->request), AsBytes(copy->response)},
          testing::MakeVerifier(), testing::kTestNow);
      EXPECT_TRUE(verdict.ok()) << verdict.status().ToString();
      EXPECT_EQ(copy->response, Delta("Hi") + "data: [DONE]\n\n");
    }
    EXPECT_TRUE(found);
  }
  EXPECT_EQ(cvm_->connections(), 1);
}

TEST_F(ChatTest, AnAnswerWithoutAReceiptIsForgotten) {
  FakeCvmOptions options;
  options.alter_receipt = [](attest::Receipt& receipt) { receipt.exchange.response[0] ^= 1; };
  Start(SayHi, std::move(options));
  const std::string folder = folder_.path() + "/receipts";
  ASSERT_TRUE(MakeCopiesFolder(folder).ok());
  Chat chat({.receipts = folder}, *peer_);
  const Status status = Ask(chat, "Hello?");
  EXPECT_EQ(status.code(), Code::kUntrusted);
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("no receipt of this answer"), HasSubstr("receipt-response")));
  EXPECT_EQ(chat.messages(), 0u);
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

}  // namespace
}  // namespace talaria::client
