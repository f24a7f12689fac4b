// Against a server of our own, over real sockets. AMD's and Intel's were not asked.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "talaria/client/fetcher.h"
#include "talaria/client/testing/https_server.h"

namespace talaria::client {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::HttpsAnswer;
using testing::HttpsServer;
using ::testing::Not;
using testing::StatusAnswer;
using testing::WholeAnswer;

// The system's store is this server's certificate.
class HttpsFetcherTest : public ::testing::Test {
 protected:
  void Trust(const HttpsServer& server) const {
    std::ofstream(file_) << server.certificate_pem();
    ASSERT_EQ(setenv("SSL_CERT_FILE", file_.c_str(), 1), 0);
    ASSERT_EQ(setenv("SSL_CERT_DIR", "/nonexistent", 1), 0);
  }
  void SetUp() override { Trust(server_); }
  void TearDown() override { std::filesystem::remove(file_); }

  static Result<FetchedFile> Get(const std::string& url, const HttpsOptions& options = {}) {
    return MakeHttpsFetcher(options).value()->Get(url);
  }
  Result<FetchedFile> GetAnswer(HttpsAnswer answer, const HttpsOptions& options = {}) {
    server_.Serve("/file", std::move(answer));
    return Get(server_.url() + "/file", options);
  }
  void ExpectError(const Result<FetchedFile>& result, Code code, const std::string& words) const {
    SCOPED_TRACE(words);
    EXPECT_EQ(result.status().code(), code) << result.status().ToString();
    EXPECT_THAT(result.status().message(), AllOf(HasSubstr("https://"), HasSubstr(words)));
  }

  const std::string file_ =
      ::testing::TempDir() + "/talaria_https." + std::to_string(getpid()) + ".pem";
  HttpsServer server_;
};

TEST_F(HttpsFetcherTest, GetsAFileWithItsHeaders) {
  const auto got = GetAnswer(WholeAnswer("body\0x", {{"Some-Header", "a%20b"}}));
  ASSERT_TRUE(got.ok()) << got.status().ToString();
  EXPECT_EQ(std::string(got->body.begin(), got->body.end()), "body");
  EXPECT_EQ(got->headers.at("some-header"), "a%20b");
  ASSERT_EQ(server_.heads().size(), 1u);
  EXPECT_THAT(server_.heads()[0],
              AllOf(HasSubstr("GET /file HTTP/1.1\r\n"),
                    HasSubstr("Host: localhost:" + std::to_string(server_.port()) + "\r\n"),
                    Not(HasSubstr("Cookie"))));
  const auto chunked = GetAnswer(
      {.bytes = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"});
  ASSERT_TRUE(chunked.ok());
  EXPECT_EQ(chunked->body.size(), 3u);
  EXPECT_TRUE(GetAnswer({.bytes = "HTTP/1.1 200 OK\r\n\r\nup to the end"}).ok());
}

TEST_F(HttpsFetcherTest, TheServersCertificateIsVerified) {
  server_.Serve("/file", WholeAnswer("x"));
  const std::string port = std::to_string(server_.port());
  // Another name than the certificate's.
  ExpectError(Get("https://127.0.0.1:" + port + "/file"), Code::kUnavailable, "certificate");
  HttpsServer other;  // nobody trusts this one
  other.Serve("/file", WholeAnswer("x"));
  ExpectError(Get(other.url() + "/file"), Code::kUnavailable, "self");
  EXPECT_TRUE(other.heads().empty());
  HttpsServer by_address("127.0.0.1");
  by_address.Serve("/file", WholeAnswer("x"));
  Trust(by_address);
  EXPECT_TRUE(Get("https://127.0.0.1:" + std::to_string(by_address.port()) + "/file").ok());
  ExpectError(Get(by_address.url() + "/file"), Code::kUnavailable, "certificate");
}

TEST_F(HttpsFetcherTest, StatusesOtherThan200AreErrors) {
  ExpectError(GetAnswer(StatusAnswer(404)), Code::kNotFound, "404");
  ExpectError(GetAnswer(StatusAnswer(429, "Retry-After: 17\r\n")), Code::kUnavailable,
              "(Retry-After: 17)");
  ExpectError(GetAnswer(StatusAnswer(500)), Code::kUnavailable, "500");
  ExpectError(GetAnswer(StatusAnswer(503)), Code::kUnavailable, "try again later");
  ExpectError(GetAnswer(StatusAnswer(403)), Code::kUnavailable, "403");
  ExpectError(GetAnswer(StatusAnswer(302, "Location: /other\r\n")), Code::kUnavailable,
              "redirections are not followed");
  ExpectError(GetAnswer(StatusAnswer(204)), Code::kUnavailable, "204");
  EXPECT_EQ(server_.heads().size(), 7u);
}

TEST_F(HttpsFetcherTest, SizesAreBounded) {
  const HttpsOptions small{.max_body_bytes = 1000};
  EXPECT_TRUE(GetAnswer(WholeAnswer(std::string(1000, 'x')), small).ok());
  ExpectError(GetAnswer(WholeAnswer(std::string(1001, 'x')), small), Code::kCorrupt, "larger");
  ExpectError(GetAnswer({.bytes = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\nx"}),
              Code::kCorrupt, "larger");
  ExpectError(GetAnswer({.bytes = "HTTP/1.1 200 OK\r\n\r\n" + std::string(5000, 'x')}, small),
              Code::kCorrupt, "larger");
  ExpectError(GetAnswer({.bytes = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                                  "3e9\r\n" +
                                  std::string(1001, 'x') + "\r\n0\r\n\r\n"},
                        small),
              Code::kCorrupt, "larger");
  ExpectError(GetAnswer(WholeAnswer("x", {{"A", std::string(33 << 10, 'a')}})), Code::kCorrupt,
              "larger");
}

TEST_F(HttpsFetcherTest, WhatEndsEarlyIsNoAnswer) {
  const std::string head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
  ExpectError(GetAnswer({.bytes = head + "half"}), Code::kUnavailable, "ends early");
  ExpectError(GetAnswer({.bytes = head + "half", .cut = true}), Code::kUnavailable, "reading");
  ExpectError(GetAnswer({.bytes = ""}), Code::kUnavailable, "ends early");
  // Without a length only TLS's own end says that this was all.
  ExpectError(GetAnswer({.bytes = "HTTP/1.1 200 OK\r\n\r\nhalf", .cut = true}), Code::kUnavailable,
              "reading");
  ExpectError(GetAnswer({.bytes = "SSH-2.0\r\n\r\n"}), Code::kCorrupt, "not HTTP");
}

TEST_F(HttpsFetcherTest, TheTimeIsOfTheWholeExchange) {
  const HttpsOptions hasty{.timeout_ms = 500};
  HttpsAnswer dripping = WholeAnswer(std::string(100, 'x'));
  dripping.drip_ms = 20;  // there is always progress
  ExpectError(GetAnswer(dripping, hasty), Code::kUnavailable, "longer than 500 ms");
  ExpectError(GetAnswer({.bytes = "HTTP/1.1 200 OK\r\n", .leave_open = true}, hasty),
              Code::kUnavailable, "longer than 500 ms");
}

TEST_F(HttpsFetcherTest, NobodyThere) {
  std::string url;
  {
    const HttpsServer gone;
    url = gone.url();
  }
  ExpectError(Get(url + "/file"), Code::kUnavailable, "connecting");
}

TEST_F(HttpsFetcherTest, OnlyPlainHttpsUrls) {
  for (const char* url :
       {"http://localhost/x", "https://", "https:///x", "https://localhost", "localhost/x",
        "https://user@localhost/x", "https://localhost:/x", "https://localhost:x/x",
        "https://localhost/a b", "https://localhost/\r\nHost: other", "file:///etc/passwd"}) {
    EXPECT_EQ(Get(url).status().code(), Code::kInvalidArgument) << url;
  }
  EXPECT_TRUE(server_.heads().empty());
}

}  // namespace
}  // namespace talaria::client
