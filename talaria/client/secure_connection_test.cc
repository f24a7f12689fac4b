// What a user must be safe from: every refusal has its reason, and before the verdict nothing has
// left this machine but the request for evidence.
#include "talaria/client/secure_connection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <regex>

#include "talaria/attest/refusal.h"
#include "talaria/client/testing/fake_cvm.h"

namespace talaria::client {
namespace {

using testing::FakeCvm;
using testing::FakeCvmOptions;
using testing::FakeExchange;
using testing::GoodPolicy;
using testing::kTestNow;
using testing::MakeVerifier;

// All that was written inside TLS, on all connections.
class Written {
 public:
  std::function<void(Bytes)> Hook() {
    return [this](Bytes bytes) {
      const std::lock_guard lock(mutex_);
      text_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    };
  }
  std::string text() const {
    const std::lock_guard lock(mutex_);
    return text_;
  }

 private:
  mutable std::mutex mutex_;
  std::string text_;
};

bool IsOneAttestationRequest(const std::string& text) {
  static const std::regex kRequest(
      "POST /v1/talaria/attestation HTTP/1\\.1\r\nHost: talaria\r\nContent-Type: "
      "application/json\r\nContent-Length: 76\r\n\r\n\\{\"nonce\":\"[0-9a-f]{64}\"\\}");
  return std::regex_match(text, kRequest);
}

class SecureConnectionTest : public ::testing::Test {
 protected:
  ServerOptions Server(const std::string& address) {
    return {.endpoint = ParseServer(address).value(),
            .connect_timeout_ms = 20'000,
            .attest_timeout_ms = 20'000,
            .on_write = written_.Hook()};
  }
  Result<std::unique_ptr<SecureConnection>> Open(const std::string& address,
                                                 const attest::Verifier& verifier) {
    return SecureConnection::Open(Server(address), verifier, own_, kTestNow);
  }
  Result<std::unique_ptr<SecureConnection>> OpenTo(
      FakeCvmOptions options, const attest::Verifier& verifier = MakeVerifier()) {
    const FakeCvm cvm(folder_.Address("cvm"), std::move(options));
    return Open(cvm.address(), verifier);
  }
  // The refusal's reason, if nothing but the request for evidence was written.
  std::string ReasonTo(FakeCvmOptions options, const attest::Verifier& verifier = MakeVerifier()) {
    const auto connection = OpenTo(std::move(options), verifier);
    if (connection.ok()) return "accepted";
    if (!IsOneAttestationRequest(written_.text())) return "wrote: " + written_.text();
    if (connection.status().code() != Code::kUntrusted) return connection.status().ToString();
    return std::string(attest::ReasonOf(connection.status()));
  }

  testing::SocketFolder folder_;
  Written written_;
  const wire::TlsKey own_ = wire::TlsKey::Generate().value();
};

TEST_F(SecureConnectionTest, AGoodCvmIsBelieved) {
  for (const bool ask : {false, true}) {
    const FakeCvm cvm(folder_.Address("cvm"), {.ask_for_client_key = ask});
    auto connection = Open(cvm.address(), MakeVerifier());
    ASSERT_TRUE(connection.ok()) << connection.status().ToString();
    const Attested& attested = *(*connection)->attested();
    EXPECT_EQ(attested.key, cvm.key());
    EXPECT_EQ(attested.verdict.context, testing::GoodContext());
    EXPECT_EQ(attested.verdict.type, attest::EvidenceType::kSimulated);
    EXPECT_EQ(attested.verified_at, kTestNow);
    EXPECT_FALSE(attested.group.empty());
    EXPECT_TRUE((*connection)->reusable());
  }
}

TEST_F(SecureConnectionTest, EveryConnectionHasItsOwnNonce) {
  const FakeCvm cvm(folder_.Address("cvm"), {});
  ASSERT_TRUE(Open(cvm.address(), MakeVerifier()).ok());
  ASSERT_TRUE(Open(cvm.address(), MakeVerifier()).ok());
  const std::string text = written_.text(), half = text.substr(0, text.size() / 2);
  EXPECT_TRUE(IsOneAttestationRequest(half));
  EXPECT_NE(half, text.substr(text.size() / 2));
}

TEST_F(SecureConnectionTest, WrongMeasurement) {
  FakeCvmOptions options;
  options.tee.measurement[47] ^= 1;
  EXPECT_EQ(ReasonTo(std::move(options)), "snp-measurement");
}

TEST_F(SecureConnectionTest, RevokedCertificate) {
  FakeCvmOptions options;
  options.tee.machine = attest::SimulatedMachine::kRevoked;
  EXPECT_EQ(ReasonTo(std::move(options)), "snp-revoked");
}

TEST_F(SecureConnectionTest, DebugGuest) {
  FakeCvmOptions options;
  options.tee.debug = true;
  EXPECT_EQ(ReasonTo(std::move(options)), "snp-debug");
}

TEST_F(SecureConnectionTest, OlderTcb) {
  FakeCvmOptions options;
  options.tee.machine = attest::SimulatedMachine::kOlderTcb;
  EXPECT_EQ(ReasonTo(std::move(options)), "snp-tcb-reported");
}

TEST_F(SecureConnectionTest, OtherMachine) {
  FakeCvmOptions options;
  options.tee.machine = attest::SimulatedMachine::kOtherChip;
  EXPECT_EQ(ReasonTo(std::move(options)), "snp-chip-not-allowed");
}

TEST_F(SecureConnectionTest, OtherModel) {
  FakeCvmOptions options;
  options.context.model_identity[0] ^= 1;
  EXPECT_EQ(ReasonTo(std::move(options)), "model-identity");
}

TEST_F(SecureConnectionTest, OtherTenant) {
  FakeCvmOptions options;
  options.context.tenant_key[0] ^= 1;
  EXPECT_EQ(ReasonTo(std::move(options)), "tenant-key");
}

TEST_F(SecureConnectionTest, OtherConfiguration) {
  FakeCvmOptions options;
  options.context.configuration[0] ^= 1;
  EXPECT_EQ(ReasonTo(std::move(options)), "configuration");
}

TEST_F(SecureConnectionTest, FewerCheckVectors) {
  FakeCvmOptions options;
  options.context.check_vectors = 1;
  EXPECT_EQ(ReasonTo(std::move(options)), "check-vectors");
}

TEST_F(SecureConnectionTest, ADevelopmentCvmUnderAPolicyForReleases) {
  attest::Policy policy = GoodPolicy();
  policy.context->allow_development = false;
  EXPECT_EQ(ReasonTo({}, MakeVerifier(std::move(policy))), "development-build");
}

TEST_F(SecureConnectionTest, SimulatedEvidenceWithoutTheFlag) {
  EXPECT_EQ(ReasonTo({}, MakeVerifier(GoodPolicy(), false)), "simulated-not-accepted");
}

TEST_F(SecureConnectionTest, StaleNonce) {
  FakeCvmOptions options;
  options.alter_binding = [](attest::Binding& binding) { binding.nonce[0] ^= 1; };
  EXPECT_EQ(ReasonTo(std::move(options)), "snp-report-data");
}

TEST_F(SecureConnectionTest, EvidenceOfAnotherTlsSession) {
  FakeCvmOptions options;
  options.alter_binding = [](attest::Binding& binding) { binding.exporter[31] ^= 1; };
  EXPECT_EQ(ReasonTo(std::move(options)), "snp-report-data");
}

TEST_F(SecureConnectionTest, EvidenceOfTheOtherRole) {
  FakeCvmOptions options;
  options.alter_binding = [](attest::Binding& binding) {
    binding.role = attest::Role::kClientToCloud;
  };
  EXPECT_EQ(ReasonTo(std::move(options)), "snp-report-data");
}

TEST_F(SecureConnectionTest, EvidenceOfAnotherKey) {
  FakeCvmOptions options;
  options.alter_binding = [](attest::Binding& binding) { binding.cvm_key[0] ^= 1; };
  EXPECT_EQ(ReasonTo(std::move(options)), "snp-report-data");
}

TEST_F(SecureConnectionTest, EvidenceForAnotherClient) {
  for (const bool ask : {false, true}) {
    FakeCvmOptions options;
    options.ask_for_client_key = ask;
    options.alter_binding = [](attest::Binding& binding) { binding.peer_key[0] ^= 1; };
    EXPECT_EQ(OpenTo(std::move(options)).status().code(), Code::kUntrusted);
  }
}

TEST_F(SecureConnectionTest, AContextThatIsNotTheBoundOne) {
  FakeCvmOptions options;
  options.context.model_identity[0] ^= 1;  // what it really runs
  options.alter_claim = [](attest::Claim& claim) { claim.context = testing::GoodContext(); };
  EXPECT_EQ(ReasonTo(std::move(options)), "snp-report-data");
}

TEST_F(SecureConnectionTest, SimulatedEvidenceThatSaysItIsReal) {
  FakeCvmOptions options;
  options.alter_claim = [](attest::Claim& claim) {
    claim.evidence.type = attest::EvidenceType::kSevSnp;
  };
  EXPECT_EQ(ReasonTo(std::move(options)), "evidence-type-not-accepted");
}

// In the middle, with a key of its own, and every byte passed on to the true CVM.
TEST_F(SecureConnectionTest, ManInTheMiddle) {
  const FakeCvm cvm(folder_.Address("cvm"), {});
  const auto listener =
      wire::Listener::Create(ParseServer(folder_.Address("middle")).value()).value();
  std::thread middle([&] {
    const wire::TlsKey key = wire::TlsKey::Generate().value();
    auto victim =
        wire::TlsAccept(listener->Accept().value(), key, wire::PeerKey::None(), 20'000).value();
    auto upstream =
        wire::TlsConnect(wire::Connect(ParseServer(cvm.address()).value(), 20'000).value(), key,
                         wire::PeerKey::Pinned(cvm.key()), 20'000)
            .value();
    ReadAhead to_victim(std::move(victim)), to_cvm(std::move(upstream));
    std::array<uint8_t, 16384> piece;
    std::thread back([&] {
      std::array<uint8_t, 16384> answer;
      for (;;) {
        const auto n = to_cvm.ReadSome(answer, After(20'000));
        if (!n.ok() || !to_victim.Send({Bytes(answer).first(*n)}, 20'000).ok()) return;
      }
    });
    for (;;) {
      const auto n = to_victim.ReadSome(piece, After(20'000));
      if (!n.ok() || !to_cvm.Send({Bytes(piece).first(*n)}, 20'000).ok()) break;
    }
    to_cvm.Shutdown();
    back.join();
  });
  const auto connection = Open(listener->address(), MakeVerifier());
  middle.join();
  EXPECT_EQ(cvm.attestations(), 1);  // true evidence, of another session
  EXPECT_EQ(attest::ReasonOf(connection.status()), "snp-report-data");
  EXPECT_TRUE(IsOneAttestationRequest(written_.text())) << written_.text();
}

TEST_F(SecureConnectionTest, ASecondConnectionWithAnotherKey) {
  std::shared_ptr<const Attested> attested;
  {
    const FakeCvm cvm(folder_.Address("cvm"), {});
    attested = Open(cvm.address(), MakeVerifier()).value()->attested();
    EXPECT_TRUE(
        SecureConnection::OpenPinned(Server(cvm.address()), MakeVerifier(), own_, attested).ok());
  }
  const std::string before = written_.text();
  const FakeCvm other(folder_.Address("cvm"), {});
  const auto connection =
      SecureConnection::OpenPinned(Server(other.address()), MakeVerifier(), own_, attested);
  EXPECT_EQ(attest::ReasonOf(connection.status()), "tls-peer-key");
  EXPECT_EQ(written_.text(), before);
  EXPECT_EQ(other.attestations() + other.requests(), 0);
}

// Before the nonce even: a policy of that kind means the whole connection.
TEST_F(SecureConnectionTest, KeyExchangeThatIsNotPostQuantum) {
  attest::Policy policy = GoodPolicy();
  policy.require_post_quantum = true;
  const FakeCvm cvm(folder_.Address("cvm"), {});
  const auto connection = Open(cvm.address(), MakeVerifier(std::move(policy)));
  if (connection.ok()) {
    EXPECT_THAT(connection.value()->attested()->group, ::testing::HasSubstr("MLKEM"));
    return;
  }
  EXPECT_EQ(attest::ReasonOf(connection.status()), "post-quantum");
  EXPECT_EQ(written_.text(), "");
}

TEST_F(SecureConnectionTest, AnswersThatAreNone) {
  const std::string deep = std::string(5000, '[') + std::string(5000, ']');
  for (const std::string& body :
       {std::string(), std::string("{}"), std::string("hello"), deep, std::string(R"({"claim":7})"),
        std::string(R"({"claim":"0"})"), std::string(R"({"claim":"AB"})"),
        std::string(R"({"claim":"00","more":1})"),
        R"({"claim":")" + std::string(2 * attest::kMaxClaimBytes + 2, '0') + R"("})",
        R"({"claim":")" + std::string(3 * attest::kMaxClaimBytes, '0') + R"("})"}) {
    FakeCvmOptions options;
    options.answer_attestation = [&](FakeExchange& exchange) {
      exchange.Whole(200, "application/json", body);
    };
    EXPECT_EQ(attest::ReasonOf(OpenTo(std::move(options)).status()), "attestation-answer")
        << body.substr(0, 50);
  }
  for (const std::string& raw :
       {std::string("220 mail.example ESMTP\r\n\r\n"),
        std::string("HTTP/1.1 200 X\r\nContent-Length: 99999999999999\r\n\r\n{"),
        std::string("HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n"),
        std::string("HTTP/1.1 302 X\r\nContent-Length: 0\r\n\r\n")}) {
    FakeCvmOptions options;
    options.answer_attestation = [&](FakeExchange& exchange) { exchange.Raw(raw); };
    EXPECT_EQ(attest::ReasonOf(OpenTo(std::move(options)).status()), "attestation-answer") << raw;
  }
}

TEST_F(SecureConnectionTest, ClaimsThatAreCutOrChanged) {
  FakeCvmOptions cut;
  cut.answer_attestation = [](FakeExchange& exchange) {
    exchange.Whole(200, "application/json", R"({"claim":"0100"})");
  };
  EXPECT_EQ(ReasonTo(std::move(cut)), "context-format");
}

TEST_F(SecureConnectionTest, NotReadyIsUnavailable) {
  for (const int status : {503, 429}) {
    FakeCvmOptions options;
    options.answer_attestation = [status](FakeExchange& exchange) {
      exchange.Whole(status, "application/json", "{}");
    };
    EXPECT_EQ(OpenTo(std::move(options)).status().code(), Code::kUnavailable);
  }
  FakeCvmOptions lost;
  lost.answer_attestation = [](FakeExchange& exchange) { exchange.Cut(); };
  EXPECT_EQ(OpenTo(std::move(lost)).status().code(), Code::kUnavailable);
  EXPECT_EQ(Open(folder_.Address("nobody"), MakeVerifier()).status().code(), Code::kUnavailable);
}

TEST_F(SecureConnectionTest, AnAnswerThatDripsEndsWithTheDeadline) {
  FakeCvmOptions options;
  options.answer_attestation = [](FakeExchange& exchange) {
    exchange.Raw("HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n");
    for (int i = 0; i < 1000 && !exchange.AwaitGone(1); ++i) exchange.Raw("x");
  };
  const FakeCvm cvm(folder_.Address("cvm"), std::move(options));
  ServerOptions server = Server(cvm.address());
  server.attest_timeout_ms = 200;
  const auto connection = SecureConnection::Open(server, MakeVerifier(), own_, kTestNow);
  EXPECT_EQ(connection.status().code(), Code::kUnavailable);
}

TEST_F(SecureConnectionTest, UnverifiedClaimsAreFetchedForPolicies) {
  const FakeCvm cvm(folder_.Address("cvm"), {});
  const auto fetched = SecureConnection::FetchUnverified(Server(cvm.address()), own_);
  ASSERT_TRUE(fetched.ok()) << fetched.status().ToString();
  EXPECT_EQ(fetched->claim.context, testing::GoodContext());
  EXPECT_TRUE(MakeVerifier().Verify(fetched->claim, fetched->channel, kTestNow).ok());
  EXPECT_TRUE(IsOneAttestationRequest(written_.text()));
}

TEST(ParseServerTest, Urls) {
  EXPECT_EQ(ParseServer("https://cvm.example:8443")->ToString(), "cvm.example:8443");
  EXPECT_EQ(ParseServer("https://cvm.example:8443/")->ToString(), "cvm.example:8443");
  EXPECT_EQ(ParseServer("https://cvm.example")->ToString(), "cvm.example:443");
  EXPECT_EQ(ParseServer("https://[::1]:1")->ToString(), "[::1]:1");
  EXPECT_EQ(ParseServer("https://[::1]")->ToString(), "[::1]:443");
  EXPECT_EQ(ParseServer("unix:/run/cvm")->ToString(), "unix:/run/cvm");
  EXPECT_EQ(ParseServer("cvm.example:1")->ToString(), "cvm.example:1");
  for (const char* bad : {"http://cvm.example:80", "https://cvm.example/v1", "https://", "https:/",
                          "https://a@b:1", "https://unix:/x", "cvm.example", "https://a:1:2"}) {
    EXPECT_EQ(ParseServer(bad).status().code(), Code::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace talaria::client
