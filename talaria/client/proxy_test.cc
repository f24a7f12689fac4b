// What the proxy passes, and how.
#include "talaria/client/proxy.h"

#include <gmock/gmock.h>

#include <future>
#include <nlohmann/json.hpp>

#include "talaria/client/testing/proxy_rig.h"

namespace talaria::client::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST_F(ProxyTest, PassesARequestAndSaysWhoAnswered) {
  FakeCvmOptions options;
  options.answer = [](FakeExchange& exchange) {
    EXPECT_EQ(exchange.method, "POST");
    EXPECT_EQ(exchange.target, "/v1/chat/completions?x=1");
    EXPECT_EQ(exchange.body, "{\"secret\":1}");
    EXPECT_EQ(exchange.headers.at("content-type"), "application/json");
    EXPECT_EQ(exchange.headers.at("authorization"), "Bearer tlr1_users");
    EXPECT_EQ(exchange.headers.count("x-private"), 0u);
    EXPECT_EQ(exchange.headers.count("user-agent"), 0u);
    EXPECT_EQ(exchange.headers.count("cookie"), 0u);
    exchange.Whole(200, "application/json", "{\"answer\":2}");
  };
  StartCvm(std::move(options));
  StartProxy({.token = "tlr1_users"});
  PlainClient client(proxy_->address());
  client.Post("/v1/chat/completions?x=1", "{\"secret\":1}",
              "Authorization: Bearer local\r\nX-Private: 1\r\nUser-Agent: me\r\nCookie: c\r\n");
  const std::string answer = client.ReadUntil("{\"answer\":2}");
  EXPECT_THAT(answer, AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("Talaria-Verdict: verified\r\n"),
                            HasSubstr("Talaria-Model: " + ToHex(GoodContext().model_identity)),
                            HasSubstr("Talaria-Evidence: " +
                                      ToHex(peer_->current()->verdict.evidence_digest)),
                            HasSubstr("Talaria-Development: simulated")));
  EXPECT_THAT(answer, HasSubstr("Content-Type: application/json"));
}

TEST_F(ProxyTest, OneConnectionServesManyRequests) {
  StartCvm();
  StartProxy();
  PlainClient client(proxy_->address());
  for (int i = 0; i < 20; ++i) {
    client.Clear();
    client.Post("/v1/completions", "{}");
    EXPECT_THAT(client.ReadUntil("hello"), StartsWith("HTTP/1.1 200"));
  }
  EXPECT_EQ(cvm_->requests(), 20);
  EXPECT_EQ(cvm_->attestations(), 1);
  EXPECT_LE(cvm_->connections(), 2);  // the keeper's may be busy with the first request
}

TEST_F(ProxyTest, PiecesPassAsTheyCome) {
  std::promise<void> first_seen;
  FakeCvmOptions options;
  options.answer = [&](FakeExchange& exchange) {
    exchange.Head(200, "text/event-stream");
    exchange.Piece("data: one\n\n");
    first_seen.get_future().wait();
    exchange.Piece("data: two\n\n");
    exchange.End();
  };
  StartCvm(std::move(options));
  StartProxy();
  PlainClient client(proxy_->address());
  client.Post("/v1/chat/completions", "{}");
  EXPECT_THAT(client.ReadUntil("data: one\n\n"),
              AllOf(HasSubstr("text/event-stream"), Not(HasSubstr("two"))));
  first_seen.set_value();
  EXPECT_THAT(client.ReadUntil("\r\n0\r\n\r\n"), HasSubstr("data: two\n\n"));
}

TEST_F(ProxyTest, LargeBodiesPassBothWays) {
  const std::string big(3'000'000, 'x');
  FakeCvmOptions options;
  options.answer = [&](FakeExchange& exchange) {
    EXPECT_EQ(exchange.body.size(), big.size());
    exchange.Whole(200, "text/plain", exchange.body + "!");
  };
  StartCvm(std::move(options));
  StartProxy();
  PlainClient client(proxy_->address());
  client.Post("/v1/completions", big);
  EXPECT_THAT(client.ReadUntil("x!"), HasSubstr("Content-Length: 3000001"));
}

TEST_F(ProxyTest, AnswersOfTheCvmsOwnPass) {
  FakeCvmOptions options;
  options.answer = [](FakeExchange& exchange) {
    exchange.Raw(
        "HTTP/1.1 429 X\r\nRetry-After: 7\r\nSet-Cookie: a=b\r\n"
        "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
  };
  StartCvm(std::move(options));
  StartProxy();
  PlainClient client(proxy_->address());
  client.Get("/v1/models");
  EXPECT_THAT(
      client.ReadUntil("\r\n\r\n{}"),
      AllOf(StartsWith("HTTP/1.1 429"), HasSubstr("Retry-After: 7"), Not(HasSubstr("Set-Cookie"))));
}

TEST_F(ProxyTest, StatusIsTheVerdict) {
  StartProxy();
  {
    PlainClient client(proxy_->address());
    client.Get("/talaria/status");
    const std::string answer = client.ReadUntil("\n}");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 503"));
    EXPECT_FALSE(
        nlohmann::json::parse(answer.substr(answer.find("\r\n\r\n")))["trusted"].get<bool>());
  }
  StartCvm();
  ASSERT_TRUE(peer_->Verify(After(kLongMs)).ok());
  PlainClient client(proxy_->address());
  client.Get("/talaria/status");
  const std::string answer = client.ReadUntil("\n}");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200"));
  const auto json = nlohmann::json::parse(answer.substr(answer.find("\r\n\r\n")));
  EXPECT_TRUE(json["trusted"].get<bool>());
  EXPECT_TRUE(json["development"].get<bool>());
  EXPECT_EQ(json["server"], "the server");
  EXPECT_EQ(json["cvm_key"], ToHex(cvm_->key()));
  EXPECT_EQ(cvm_->requests(), 0);
}

TEST_F(ProxyTest, RefusesWhatItDoesNotPass) {
  StartCvm();
  StartProxy({.listen = "127.0.0.1:0", .max_body_bytes = 100});
  const auto answer = [&](const std::string& request) {
    PlainClient client(proxy_->address());
    client.Send(request);
    return client.ReadUntil("\"}}").substr(0, 12);
  };
  EXPECT_EQ(answer("HELLO\r\n\r\n"), "HTTP/1.1 400");
  EXPECT_EQ(answer("POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 101\r\n\r\n"),
            "HTTP/1.1 413");
  EXPECT_EQ(answer("GET /v1/x HTTP/1.1\r\nHost: localhost\r\nA: " + std::string(20'000, 'x') +
                   "\r\n\r\n"),
            "HTTP/1.1 431");
  EXPECT_EQ(answer("CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n"), "HTTP/1.1 405");
  EXPECT_EQ(cvm_->requests(), 0);
}

TEST_F(ProxyTest, ForeignWebPagesAreRefused) {
  StartCvm();
  StartProxy({.listen = "127.0.0.1:0"});
  // Whether the CVM was asked is seen below; the status and the message here.
  const auto answer = [&](const std::string& header) {
    PlainClient client(proxy_->address());
    client.Send("POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n" + header +
                "Content-Length: 2\r\n\r\n{}");
    return client.ReadUntil("\"}}");
  };
  // A page of a name that was made to point here (DNS rebinding).
  for (const char* host : {"evil.example", "evil.example:80", "", "10.0.0.1", "localhost.evil"})
    EXPECT_THAT(answer("Host: " + std::string(host) + "\r\n"),
                AllOf(StartsWith("HTTP/1.1 403"), HasSubstr("The host is not of this machine"),
                      HasSubstr("Connection: close")))
        << host;
  EXPECT_THAT(answer(""), StartsWith("HTTP/1.1 403"));
  EXPECT_THAT(answer("Host: localhost\r\nHost: evil.example\r\n"), StartsWith("HTTP/1.1 403"));
  // A page of another site, whose browser says so.
  for (const char* header :
       {"Origin: https://evil.example", "Origin: http://evil.example:8080", "Origin: null",
        "Origin: http://127.0.0.1.evil.example", "Origin: file://", "Origin: localhost",
        "Origin: http://localhost@evil.example", "Origin: ", "origin: https://evil.example",
        "Origin: http://localhost\r\nOrigin: http://evil.example", "Sec-Fetch-Site: cross-site",
        "sec-fetch-site: cross-site", "Sec-Fetch-Site: something-new",
        "Origin: http://localhost\r\nSec-Fetch-Site: cross-site"})
    EXPECT_THAT(answer("Host: localhost\r\n" + std::string(header) + "\r\n"),
                AllOf(StartsWith("HTTP/1.1 403"), HasSubstr("a web page's of another site")))
        << header;
  // Not even the verdict.
  PlainClient curious(proxy_->address());
  curious.Send(
      "GET /talaria/status HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n\r\n");
  EXPECT_THAT(curious.ReadUntil("\"}}"), StartsWith("HTTP/1.1 403"));
  EXPECT_EQ(cvm_->requests(), 0);

  for (const char* header :
       {"Host: localhost", "Host: localhost:1", "Host: 127.0.0.1:8080", "Host: [::1]:80",
        "Host: 127.0.0.1", "Host: localhost\r\nOrigin: http://localhost:3000",
        "Host: localhost\r\nOrigin: https://[::1]", "Host: localhost\r\nSec-Fetch-Site: none",
        "Host: localhost\r\nOrigin: http://127.0.0.1\r\nSec-Fetch-Site: same-origin"}) {
    PlainClient client(proxy_->address());
    client.Send("GET /v1/models HTTP/1.1\r\n" + std::string(header) + "\r\n\r\n");
    EXPECT_THAT(client.ReadUntil("hello"),
                AllOf(StartsWith("HTTP/1.1 200"), Not(HasSubstr("Access-Control"))))
        << header;
  }
}

TEST_F(ProxyTest, NoBrowserReachesAUnixSocket) {
  StartCvm();
  StartProxy();
  PlainClient client(proxy_->address());
  client.Send("GET /v1/models HTTP/1.1\r\nHost: any\r\nOrigin: https://ui.example\r\n\r\n");
  EXPECT_THAT(client.ReadUntil("hello"), StartsWith("HTTP/1.1 200"));
}

TEST_F(ProxyTest, ListensOnThisMachineOnlyAndTakesNoStrangeToken) {
  PeerOptions peer{.server = {.endpoint = ParseServer("localhost:1").value()},
                   .now = [] { return kTestNow; }};
  AttestedPeer nobody(std::move(peer), MakeVerifier(), wire::TlsKey::Generate().value());
  EXPECT_EQ(Proxy::Create({.listen = "0.0.0.0:0"}, nobody).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(Proxy::Create({.listen = "192.0.2.1:0"}, nobody).status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(Proxy::Create({.listen = "127.0.0.1:0", .token = "a\r\nX: b"}, nobody).status().code(),
            Code::kInvalidArgument);
}

TEST_F(ProxyTest, OneConnectionTooMany) {
  StartCvm();
  StartProxy({.max_connections = 1});
  PlainClient first(proxy_->address());
  first.Get("/v1/models");
  first.ReadUntil("hello");
  PlainClient second(proxy_->address());
  EXPECT_THAT(second.ReadUntil("\"}}"),
              AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("Too many connections")));
}

}  // namespace
}  // namespace talaria::client::testing
