// Test only: a front before a gateway before a scripted llama-server, and TLS clients for it.
#ifndef TALARIA_CVM_FRONT_TESTING_H_
#define TALARIA_CVM_FRONT_TESTING_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "talaria/cvm/front.h"
#include "talaria/cvm/gateway_testing.h"
#include "talaria/cvm/users.h"
#include "talaria/wire/tls.h"

namespace talaria::cvm::testing {

inline constexpr int kTestTimeoutMs = 20'000;  // sanitizers on a loaded machine

// Shows what it was given: report data as the report.
class ShowingAttester final : public attest::Attester {
 public:
  Result<attest::Evidence> Attest(const attest::ReportData& data, attest::Deadline) override {
    ++calls;
    while (blocked) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (broken) return Status(Code::kIo, "broken");
    return attest::Evidence{
        .type = type(), .report = {data.begin(), data.end()}, .certificates = {}};
  }
  attest::EvidenceType type() const override { return attest::EvidenceType::kSimulated; }
  std::atomic<int> calls{0};
  std::atomic<bool> blocked{false}, broken{false};
};

// One HTTP connection over TLS, or none.
class TlsClient {
 public:
  // `key`: the client's; `server`: whom it expects.
  TlsClient(const std::string& address, const wire::TlsKey& key, const Digest& server) {
    auto transport = wire::Connect(wire::Endpoint::Parse(address).value(), kTestTimeoutMs);
    if (!transport.ok()) return;
    auto tls = wire::TlsConnect(std::move(transport).value(), key, wire::PeerKey::Pinned(server),
                                kTestTimeoutMs, {.padding_bytes = 512});
    if (tls.ok()) tls_ = std::move(tls).value();
  }
  bool connected() const { return tls_ != nullptr; }
  wire::TlsTransport& tls() { return *tls_; }
  bool Write(std::string_view text) {
    return tls_ && tls_->Send({AsBytes(text)}, kTestTimeoutMs).ok();
  }
  // Until `text` has come, or the end.
  std::string ReadUntilText(std::string_view text) {
    while (received_.find(text) == std::string::npos && ReadMore()) {
    }
    return received_;
  }
  std::string ReadToEnd() {
    while (ReadMore()) {
    }
    return received_;
  }
  // One message with a Content-Length, taken off; empty at the end.
  std::string ReadMessage() {
    for (;;) {
      const size_t end = received_.find("\r\n\r\n");
      if (end != std::string::npos) {
        const size_t length = received_.find("Content-Length: ");
        const size_t size =
            end + 4 + (length < end ? std::stoul(received_.substr(length + 16)) : 0);
        if (received_.size() >= size) {
          std::string message = received_.substr(0, size);
          received_.erase(0, size);
          return message;
        }
      }
      if (!ReadMore()) return "";
    }
  }
  std::string Exchange(std::string_view request) {
    return Write(request) ? ReadMessage() : std::string();
  }
  void Close() { tls_ = nullptr; }
  const Status& end() const { return end_; }

 private:
  bool ReadMore() {
    uint8_t piece[16384];
    if (!tls_) return false;
    const Result<size_t> n = tls_->ReceiveSome(piece, 1, kTestTimeoutMs);
    if (!n.ok()) {
      end_ = n.status();
      return false;
    }
    received_.append(reinterpret_cast<const char*>(piece), *n);
    return true;
  }
  std::unique_ptr<wire::TlsTransport> tls_;
  std::string received_;
  Status end_;
};

inline std::string PostText(std::string_view path, std::string_view body,
                            std::string_view headers = "") {
  return WithLength("POST " + std::string(path) +
                        " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json" +
                        std::string(headers),
                    body);
}

inline std::string GetText(std::string_view path, std::string_view headers = "") {
  return "GET " + std::string(path) + " HTTP/1.1\r\nHost: x" + std::string(headers) + "\r\n\r\n";
}

class FrontTest : public ::testing::Test {
 protected:
  void Start(FakeServer::Handler handler, FrontOptions options = {},
             GatewayOptions gateway_options = {}) {
    upstream_ = std::make_unique<FakeServer>(folder_.path() + "/up.sock", std::move(handler));
    users_ =
        Users::Create({.tenant = tenant_.public_key(), .now_ms = [this] { return now_ms_.load(); }})
            .value();
    gateway_options.upstream_socket = folder_.path() + "/up.sock";
    gateway_options.ready = [this] { return ready_.load(); };
    gateway_options.users = users_.get();
    gateway_ = Gateway::Create(std::move(gateway_options)).value();
    thread_ = std::thread([this] { EXPECT_TRUE(gateway_->Run().ok()); });
    options.listen = "127.0.0.1:0";
    options.gateway = gateway_.get();
    options.key = &key_;
    options.attester = &attester_;
    options.context = [this] { return context_; };
    auto front = Front::Create(std::move(options));
    ASSERT_TRUE(front.ok()) << front.status().ToString();
    front_ = std::move(*front);
  }
  void TearDown() override {
    attester_.blocked = false;
    if (front_) front_->Stop();
    if (gateway_) gateway_->Stop();
    if (thread_.joinable()) thread_.join();
    gateway_.reset();
    upstream_.reset();
  }

  TlsClient Connect() { return ConnectAs(client_key_); }
  TlsClient ConnectAs(const wire::TlsKey& key) {
    return {front_->address(), key, key_.spki_sha256()};
  }
  tenant::Token Ada() const {
    return {.user = "ada",
            .id = {1},
            .not_before = 1000,
            .expires = 100'000,
            .requests_per_minute = 1000,
            .tokens_per_day = tenant::kUnlimitedTokens,
            .concurrent_requests = 100,
            .client_key = {}};
  }
  // The header line of a token.
  std::string Bearer(const tenant::Token& token) const {
    return "\r\nAuthorization: Bearer " + tenant::MakeToken(token, tenant_).value();
  }
  std::string Bearer() const { return Bearer(Ada()); }
  // On a connection of its own.
  std::string Exchange(const std::string& request) { return Connect().Exchange(request); }

  const wire::TlsKey key_ = wire::TlsKey::Generate().value();
  const wire::TlsKey client_key_ = wire::TlsKey::Generate().value();
  const tenant::TenantKey tenant_ = tenant::TenantKey::Generate().value();
  const attest::Context context_{.version = attest::kAttestationVersion,
                                 .model_identity = {1},
                                 .profile = 2,
                                 .check_vectors = 3,
                                 .configuration = {4},
                                 .tenant_key = tenant_.public_key(),
                                 .development = true};
  TempFolder folder_;
  ShowingAttester attester_;
  std::atomic<bool> ready_{true};
  std::atomic<int64_t> now_ms_{50'000'000};
  std::unique_ptr<FakeServer> upstream_;
  std::unique_ptr<Users> users_;
  std::unique_ptr<Gateway> gateway_;
  std::unique_ptr<Front> front_;
  std::thread thread_;
};

inline void AnswerOk(RawStream& stream, const std::string&) {
  (void)stream.Write(
      WithLength("HTTP/1.1 200 OK\r\nContent-Type: application/json", R"({"answer":42})"));
}

}  // namespace talaria::cvm::testing

#endif  // TALARIA_CVM_FRONT_TESTING_H_
