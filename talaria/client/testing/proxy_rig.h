// A proxy in front of a fake CVM, and a plain client of it.
#ifndef TALARIA_CLIENT_TESTING_PROXY_RIG_H_
#define TALARIA_CLIENT_TESTING_PROXY_RIG_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "talaria/client/proxy.h"
#include "talaria/client/testing/fake_cvm.h"

namespace talaria::client::testing {

inline constexpr int kLongMs = 20'000;

// A connection to the proxy.
class PlainClient {
 public:
  explicit PlainClient(const std::string& address)
      : stream_(wire::Connect(wire::Endpoint::Parse(address).value(), kLongMs).value()) {}
  void Send(const std::string& bytes) { ASSERT_TRUE(stream_.Send({AsBytes(bytes)}, kLongMs).ok()); }
  void Post(const std::string& target, const std::string& body, const std::string& headers = {}) {
    Send("POST " + target + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" +
         headers + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  }
  void Get(const std::string& target, const std::string& host = "localhost") {
    Send("GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n");
  }
  // All that has come so far, when it has `text` in it; without it what came until the end.
  std::string ReadUntil(const std::string& text) {
    std::array<uint8_t, 4096> piece;
    size_t from = 0;  // the text does not begin before it
    while (got_.find(text, from) == std::string::npos) {
      from = got_.size() - std::min(got_.size(), text.size());
      const auto n = stream_.ReadSome(piece, After(kLongMs));
      if (!n.ok()) break;
      got_.append(reinterpret_cast<const char*>(piece.data()), *n);
    }
    return got_;
  }
  std::string ReadToEnd() { return ReadUntil("\r\n\r\n\r\n\r\n never"); }
  void Clear() { got_.clear(); }

 private:
  ReadAhead stream_;
  std::string got_;
};

class ProxyTest : public ::testing::Test {
 protected:
  void StartCvm(FakeCvmOptions options = {}) {
    cvm_.reset();
    cvm_.emplace(folder_.Address("cvm"), std::move(options));
  }
  void StartProxy(ProxyOptions options = {}, int max_age_s = 0) {
    PeerOptions peer{.server = {.endpoint = ParseServer(folder_.Address("cvm")).value(),
                                .on_write =
                                    [this](Bytes bytes) {
                                      const std::lock_guard lock(mutex_);
                                      written_.append(reinterpret_cast<const char*>(bytes.data()),
                                                      bytes.size());
                                    }},
                     .max_age_s = max_age_s,
                     .attest_every_connection = !options.receipts.empty(),
                     .now = [this] { return now_.load(); }};
    peer_ = std::make_unique<AttestedPeer>(std::move(peer), MakeVerifier(),
                                           wire::TlsKey::Generate().value());
    if (options.listen.empty()) options.listen = folder_.Address("proxy");
    options.server = "the server";
    options.retry_ms = 50;
    proxy_ = Proxy::Create(std::move(options), *peer_).value();
    running_ = std::thread([this] { EXPECT_TRUE(proxy_->Run().ok()); });
  }
  void TearDown() override {
    if (!proxy_) return;
    proxy_->Stop();
    running_.join();
  }
  // What was written to the CVM, inside TLS.
  std::string written() {
    const std::lock_guard lock(mutex_);
    return written_;
  }

  SocketFolder folder_;
  std::atomic<attest::UnixTime> now_{kTestNow};
  std::mutex mutex_;
  std::string written_;
  std::optional<FakeCvm> cvm_;
  std::unique_ptr<AttestedPeer> peer_;
  std::unique_ptr<Proxy> proxy_;
  std::thread running_;
};

}  // namespace talaria::client::testing

#endif  // TALARIA_CLIENT_TESTING_PROXY_RIG_H_
