// The proxy with --receipts: no answer without a receipt that was verified and kept.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>

#include "talaria/attest/receipt_verifier.h"
#include "talaria/client/proxy.h"
#include "talaria/client/receipt_copy.h"
#include "talaria/client/testing/proxy_rig.h"

namespace talaria::client::testing {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

constexpr const char* kLastChunk = "\r\n0\r\n\r\n";

void Stream(FakeExchange& exchange) {
  exchange.Head(200, "text/event-stream");
  exchange.Piece("data: one\n\n");
  exchange.Piece("data: [DONE]\n\n");
  exchange.End();
}

class ProxyReceiptTest : public ProxyTest {
 protected:
  void Start(FakeCvmOptions options) {
    StartCvm(std::move(options));
    StartProxy({.token = "tlr1_users", .receipts = receipts()});
  }
  std::string receipts() const { return folder_.path() + "/receipts"; }
  std::vector<std::string> Copies() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(receipts()))
      names.push_back(entry.path().filename());
    return names;
  }
  // The one that an answer names, judged as a third party would.
  void ExpectKept(const std::string& answer, const std::string& request,
                  const std::string& response) {
    const size_t at = answer.find("Talaria-Receipt: ");
    ASSERT_NE(at, std::string::npos) << answer;
    const std::string name = answer.substr(at + 17, answer.find("\r\n", at) - at - 17);
    const auto copy = LoadCopy(receipts() + "/" + name);
    ASSERT_TRUE(copy.ok()) << copy.status().ToString();
    EXPECT_EQ(copy->request, request);
    EXPECT_EQ(copy->response, response);
    const auto verdict = attest::VerifyReceipt(
        copy->receipt, {copy->salt, AsBytes(copy->request), AsBytes(copy->response)},
        MakeVerifier(), now_);
    EXPECT_TRUE(verdict.ok()) << verdict.status().ToString();
  }
};

TEST_F(ProxyReceiptTest, EveryAnswerHasOneAndItsRequestsShareConnections) {
  FakeCvmOptions options;
  options.answer = [](FakeExchange& exchange) {
    EXPECT_EQ(exchange.headers.count("talaria-receipt-salt"), exchange.method == "POST" ? 1u : 0u);
    if (exchange.target == "/v1/models") return exchange.Whole(200, "application/json", "{}");
    if (exchange.body == "\"bad\"") return exchange.Whole(400, "application/json", "{\"no\":1}");
    if (exchange.body == "\"stream\"") return Stream(exchange);
    exchange.Whole(200, "application/json", "{\"to\":" + exchange.body + "}");
  };
  Start(std::move(options));
  PlainClient client(proxy_->address());
  for (int i = 0; i < 3; ++i) {
    const std::string body = std::to_string(i);
    client.Clear();
    client.Post("/v1/completions?x=1", body);
    const std::string answer = client.ReadUntil("{\"to\":" + body + "}");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200"));
    ExpectKept(answer, body, "{\"to\":" + body + "}");
  }
  client.Clear();
  client.Post("/v1/chat/completions", "\"stream\"");
  const std::string stream = client.ReadUntil(kLastChunk);
  EXPECT_THAT(stream, EndsWith(kLastChunk));
  ExpectKept(stream, "\"stream\"", "data: one\n\ndata: [DONE]\n\n");
  EXPECT_THAT(Copies(), SizeIs(4));
  // What has no body, and what is refused, has none.
  client.Clear();
  client.Get("/v1/models");
  EXPECT_THAT(client.ReadUntil("{}"), Not(HasSubstr("Talaria-Receipt")));
  client.Clear();
  client.Post("/v1/completions", "\"bad\"");
  EXPECT_THAT(client.ReadUntil("{\"no\":1}"),
              AllOf(StartsWith("HTTP/1.1 400"), Not(HasSubstr("Talaria-Receipt"))));
  EXPECT_THAT(Copies(), SizeIs(4));
  EXPECT_LE(cvm_->connections(), 2);
  EXPECT_EQ(cvm_->attestations(), cvm_->connections());  // each has evidence of its own
}

TEST_F(ProxyReceiptTest, TheStreamsEndWaitsForTheReceipt) {
  std::atomic<bool> asked{false}, go{false};
  FakeCvmOptions options;
  options.answer = Stream;
  options.answer_receipt = [&](FakeExchange& exchange) {
    asked = true;
    while (!go) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    exchange.Whole(404, "application/json", "{}");
  };
  Start(std::move(options));
  PlainClient client(proxy_->address());
  client.Post("/v1/chat/completions", "{}");
  EXPECT_THAT(client.ReadUntil("[DONE]"), Not(HasSubstr(kLastChunk)));  // the text does not wait
  while (!asked) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  go = true;
  EXPECT_THAT(client.ReadToEnd(), Not(HasSubstr(kLastChunk)));
  EXPECT_THAT(Copies(), IsEmpty());
}

struct Lie {
  const char* reason;  // of the refusal
  std::function<void(attest::Receipt&)> before, after;
  std::function<void(FakeExchange&)> instead;
};

std::vector<Lie> Lies() {
  const auto answer = [](int status, const std::string& text) {
    return [=](FakeExchange& exchange) { exchange.Whole(status, "application/json", text); };
  };
  return {
      {"receipt-request", [](attest::Receipt& r) { r.exchange.request[0] ^= 1; }, {}, {}},
      {"receipt-response", [](attest::Receipt& r) { r.exchange.response[31] ^= 1; }, {}, {}},
      {"receipt-exchange", [](attest::Receipt& r) { r.exchange.path = "/v1/other"; }, {}, {}},
      {"receipt-exchange", [](attest::Receipt& r) { r.exchange.status = 201; }, {}, {}},
      {"receipt-time", [](attest::Receipt& r) { r.time = kTestNow + 301; }, {}, {}},
      {"receipt-signature", {}, [](attest::Receipt& r) { r.signature[5] ^= 1; }, {}},
      {"receipt-signature", {}, [](attest::Receipt& r) { r.time -= 1; }, {}},
      {"snp-report-data", [](attest::Receipt& r) { r.nonce[0] ^= 1; }, {}, {}},
      {"snp-report-data", [](attest::Receipt& r) { r.exporter[0] ^= 1; }, {}, {}},
      {"snp-report-data", [](attest::Receipt& r) { r.key[90] ^= 1; }, {}, {}},
      {"snp-report-data", [](attest::Receipt& r) { r.claim.context.profile = 2; }, {}, {}},
      {"receipt-answer", {}, {}, answer(404, "{}")},
      {"receipt-answer", {}, {}, answer(409, "{}")},
      {"receipt-answer", {}, {}, answer(200, R"({"receipt":"zz"})")},
      {"receipt-answer", {}, {}, answer(200, "canary of the prompt")},
      {"receipt-format", {}, {}, answer(200, R"({"receipt":"0100"})")},
      {"the CVM was lost", {}, {}, [](FakeExchange& exchange) { exchange.Cut(); }},
  };
}

TEST_F(ProxyReceiptTest, ALieIsNoReceiptAndTheAnswerIsWithheld) {
  for (const Lie& lie : Lies()) {
    SCOPED_TRACE(lie.reason);
    FakeCvmOptions options;
    options.answer = [](FakeExchange& exchange) {
      exchange.body == "\"stream\"" ? Stream(exchange)
                                    : exchange.Whole(200, "application/json", "{\"text\":7}");
    };
    options.alter_receipt = lie.before;
    options.alter_signed_receipt = lie.after;
    options.answer_receipt = lie.instead;
    if (proxy_) TearDown();
    Start(std::move(options));
    PlainClient client(proxy_->address());
    client.Post("/v1/completions", "{\"secret\":1}");
    EXPECT_THAT(client.ReadUntil("\"}}"),
                AllOf(StartsWith("HTTP/1.1 502"), HasSubstr("The answer is withheld"),
                      HasSubstr(lie.reason), Not(HasSubstr("\"text\"")), Not(HasSubstr("canary"))));
    PlainClient streamed(proxy_->address());
    streamed.Post("/v1/completions", "\"stream\"");
    EXPECT_THAT(streamed.ReadToEnd(), AllOf(HasSubstr("[DONE]"), Not(HasSubstr(kLastChunk))));
    EXPECT_THAT(Copies(), IsEmpty());
  }
}

TEST_F(ProxyReceiptTest, AFullDiskWithholdsTheAnswerAndLeavesNothing) {
  const std::string big(100'000, 'x');
  FakeCvmOptions options;
  options.answer = [&](FakeExchange& exchange) {
    if (exchange.body == "1") return exchange.Whole(200, "text/plain", "small!");
    exchange.Head(200, "text/event-stream");
    exchange.Piece(big);
    exchange.End();
  };
  Start(std::move(options));
  signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const auto set = [&](rlim_t bytes) {
    const rlimit other{.rlim_cur = bytes, .rlim_max = limit.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &other), 0);
  };
  set(50'000);
  PlainClient streamed(proxy_->address());
  streamed.Post("/v1/completions", "2");
  EXPECT_THAT(streamed.ReadToEnd(), AllOf(HasSubstr("xxxx"), Not(HasSubstr(kLastChunk))));
  EXPECT_THAT(Copies(), IsEmpty());
  set(100);
  PlainClient client(proxy_->address());
  client.Post("/v1/completions", "1");
  EXPECT_THAT(client.ReadUntil("\"}}"),
              AllOf(StartsWith("HTTP/1.1 502"), HasSubstr("withheld"), Not(HasSubstr("small!"))));
  EXPECT_THAT(Copies(), IsEmpty());
  set(limit.rlim_cur);
  client.Clear();
  client.Post("/v1/completions", "1");
  ExpectKept(client.ReadUntil("small!"), "1", "small!");
  EXPECT_THAT(Copies(), SizeIs(1));
}

TEST_F(ProxyReceiptTest, WantsAFolderAndAPeerThatAttestsEveryConnection) {
  const auto create = [&](bool every, const std::string& folder) {
    PeerOptions peer{.server = {.endpoint = ParseServer("localhost:1").value()},
                     .attest_every_connection = every,
                     .now = [] { return kTestNow; }};
    AttestedPeer nobody(std::move(peer), MakeVerifier(), wire::TlsKey::Generate().value());
    return Proxy::Create({.listen = "127.0.0.1:0", .receipts = folder}, nobody).status();
  };
  EXPECT_EQ(create(false, receipts()).code(), Code::kInvalidArgument);
  EXPECT_EQ(create(true, folder_.path() + "/no/such").code(), Code::kIo);
  EXPECT_TRUE(create(true, receipts()).ok());
}

}  // namespace
}  // namespace talaria::client::testing
