// What the proxy does when things break: nothing goes to an unverified key, nothing goes twice.
#include <gmock/gmock.h>

#include <atomic>
#include <future>

#include "talaria/client/proxy.h"
#include "talaria/client/testing/proxy_rig.h"

namespace talaria::client::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

bool Eventually(const std::function<bool()>& what) {
  for (const TimePoint end = After(kLongMs); std::chrono::steady_clock::now() < end;) {
    if (what()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

TEST_F(ProxyTest, WhileTheCvmIsNotBelievedNothingIsSent) {
  FakeCvmOptions lying;
  lying.tee.debug = true;
  StartCvm(std::move(lying));
  StartProxy({.token = "tlr1_users", .wait_ms = 1500});
  PlainClient client(proxy_->address());
  client.Post("/v1/chat/completions", "{\"secret\":1}");
  EXPECT_THAT(client.ReadUntil("\"}}"),
              AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("Retry-After: 5"), HasSubstr("snp-debug"),
                    HasSubstr("nothing was sent")));
  EXPECT_GE(cvm_->attestations(), 1);
  EXPECT_EQ(cvm_->requests(), 0);
  EXPECT_THAT(written(), AllOf(HasSubstr("nonce"), Not(HasSubstr("secret")),
                               Not(HasSubstr("tlr1_")), Not(HasSubstr("Authorization"))));
}

TEST_F(ProxyTest, ARequestWaitsForTheCvm) {
  StartProxy();
  PlainClient client(proxy_->address());
  client.Post("/v1/completions", "{}");
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  StartCvm();
  EXPECT_THAT(client.ReadUntil("hello"), StartsWith("HTTP/1.1 200"));
}

TEST_F(ProxyTest, AWaitingClientMayLeave) {
  StartProxy();
  {
    PlainClient client(proxy_->address());
    client.Post("/v1/completions", "{}");
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  StartCvm();
  ASSERT_TRUE(Eventually([&] { return peer_->current() != nullptr; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(cvm_->requests(), 0);
}

TEST_F(ProxyTest, ARebootedCvmIsVerifiedAgain) {
  StartCvm();
  StartProxy({.token = "tlr1_users"});
  PlainClient client(proxy_->address());
  client.Post("/v1/completions", "{}");
  client.ReadUntil("hello");
  const Digest old_key = cvm_->key();
  StartCvm();
  client.Clear();
  client.Post("/v1/completions", "{}");
  EXPECT_THAT(client.ReadUntil("hello"), StartsWith("HTTP/1.1 200"));
  EXPECT_NE(peer_->current()->key, old_key);
  EXPECT_EQ(cvm_->attestations(), 1);
  EXPECT_EQ(cvm_->requests(), 1);
}

TEST_F(ProxyTest, ARebootedCvmOfAnotherImageGetsNothing) {
  StartCvm();
  StartProxy({.wait_ms = 1500});
  PlainClient client(proxy_->address());
  client.Post("/v1/completions", "{}");
  client.ReadUntil("hello");
  FakeCvmOptions other;
  other.tee.measurement[0] ^= 1;
  StartCvm(std::move(other));
  client.Clear();
  client.Post("/v1/completions", "{}");
  EXPECT_THAT(client.ReadUntil("\"}}"),
              AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("snp-measurement")));
  EXPECT_EQ(cvm_->requests(), 0);
}

TEST_F(ProxyTest, TheAttestationIsKeptYoung) {
  StartCvm();
  StartProxy({}, 100);
  ASSERT_TRUE(Eventually([&] { return peer_->current() != nullptr; }));
  EXPECT_EQ(cvm_->attestations(), 1);
  now_ += 81;  // before a request would have to wait
  EXPECT_TRUE(Eventually([&] { return cvm_->attestations() == 2; }));
}

TEST_F(ProxyTest, ARequestThatIsLostBeforeItsAnswerFailsOnce) {
  FakeCvmOptions options;
  options.answer = [](FakeExchange& exchange) { exchange.Cut(); };
  StartCvm(std::move(options));
  StartProxy();
  PlainClient client(proxy_->address());
  client.Post("/v1/completions", "{}");
  EXPECT_THAT(client.ReadUntil("\"}}"), StartsWith("HTTP/1.1 502"));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(cvm_->requests(), 1);
}

TEST_F(ProxyTest, AnAnswerThatIsCutHasNoEnd) {
  FakeCvmOptions options;
  options.answer = [](FakeExchange& exchange) {
    exchange.Head(200, "text/event-stream");
    exchange.Piece("data: one\n\n");
    exchange.Cut();
  };
  StartCvm(std::move(options));
  StartProxy();
  PlainClient client(proxy_->address());
  client.Post("/v1/chat/completions", "{}");
  EXPECT_THAT(client.ReadToEnd(), AllOf(HasSubstr("data: one"), Not(HasSubstr("\r\n0\r\n\r\n"))));
  EXPECT_EQ(cvm_->requests(), 1);
}

TEST_F(ProxyTest, AnswersThatCannotBeToldFromCutOnesAreNone) {
  for (const char* raw : {"HTTP/1.1 200 X\r\nContent-Type: text/plain\r\n\r\nhello",
                          "HTTP/1.1 100 Continue\r\n\r\n", "220 mail\r\n\r\n"}) {
    FakeCvmOptions options;
    options.answer = [raw](FakeExchange& exchange) {
      exchange.Raw(raw);
      exchange.Cut();
    };
    StartCvm(std::move(options));
    if (!proxy_) StartProxy();
    PlainClient client(proxy_->address());
    client.Post("/v1/completions", "{}");
    EXPECT_THAT(client.ReadUntil("\"}}"), StartsWith("HTTP/1.1 502")) << raw;
  }
}

TEST_F(ProxyTest, ACvmThatDiesEndsItsAnswers) {
  std::promise<void> answering;
  FakeCvmOptions options;
  options.answer = [&](FakeExchange& exchange) {
    exchange.Head(200, "text/event-stream");
    exchange.Piece("data: one\n\n");
    answering.set_value();
    (void)exchange.AwaitGone();
  };
  StartCvm(std::move(options));
  StartProxy();
  PlainClient client(proxy_->address());
  client.Post("/v1/chat/completions", "{}");
  answering.get_future().wait();
  client.ReadUntil("one\n\n");
  cvm_.reset();
  EXPECT_THAT(client.ReadToEnd(), Not(HasSubstr("\r\n0\r\n\r\n")));
}

TEST_F(ProxyTest, AClientThatLeavesStopsItsAnswer) {
  std::promise<bool> gone;
  std::atomic<int> calls{0};
  FakeCvmOptions options;
  options.answer = [&](FakeExchange& exchange) {
    ++calls;
    exchange.Head(200, "text/event-stream");
    exchange.Piece("data: one\n\n");
    gone.set_value(exchange.AwaitGone());
  };
  StartCvm(std::move(options));
  StartProxy();
  {
    PlainClient client(proxy_->address());
    client.Post("/v1/chat/completions", "{}");
    client.ReadUntil("one\n\n");
  }
  EXPECT_TRUE(gone.get_future().get());
  EXPECT_EQ(calls, 1);
}

// The answer is not there yet: nothing but the watch on the client can notice.
TEST_F(ProxyTest, AClientThatLeavesBeforeItsAnswerStopsIt) {
  std::promise<void> asked;
  std::promise<bool> gone;
  FakeCvmOptions options;
  options.answer = [&](FakeExchange& exchange) {
    asked.set_value();
    gone.set_value(exchange.AwaitGone());
  };
  StartCvm(std::move(options));
  StartProxy();
  {
    PlainClient client(proxy_->address());
    client.Post("/v1/completions", "{}");
    asked.get_future().wait();
  }
  EXPECT_TRUE(gone.get_future().get());
}

TEST_F(ProxyTest, StopCutsWhatIsUnderWay) {
  std::promise<void> asked;
  FakeCvmOptions options;
  options.answer = [&](FakeExchange& exchange) {
    asked.set_value();
    (void)exchange.AwaitGone();
  };
  StartCvm(std::move(options));
  StartProxy();
  PlainClient client(proxy_->address());
  client.Post("/v1/completions", "{}");
  asked.get_future().wait();
  proxy_->Stop();
  client.ReadToEnd();
  running_.join();
  running_ = std::thread([] {});  // for TearDown
}

}  // namespace
}  // namespace talaria::client::testing
