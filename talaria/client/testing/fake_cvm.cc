#include "talaria/client/testing/fake_cvm.h"

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "talaria/client/http_stream.h"

namespace talaria::client::testing {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;

constexpr int kTimeoutMs = 20'000;

// Shows what is read to whoever asked for it.
class ShownTransport final : public wire::Transport {
 public:
  ShownTransport(std::unique_ptr<wire::Transport> inner, std::function<void(Bytes)> on_read)
      : inner_(std::move(inner)), on_read_(std::move(on_read)) {}
  Status Send(std::initializer_list<Bytes> parts, int timeout_ms) override {
    return inner_->Send(parts, timeout_ms);
  }
  Result<size_t> ReceiveSome(MutableBytes out, size_t min_bytes, int timeout_ms) override {
    auto size = inner_->ReceiveSome(out, min_bytes, timeout_ms);
    if (size.ok()) on_read_(Bytes(out).first(*size));
    return size;
  }
  void Shutdown() override { inner_->Shutdown(); }

 private:
  const std::unique_ptr<wire::Transport> inner_;
  const std::function<void(Bytes)> on_read_;
};

template <class T>
T Filled(uint8_t value) {
  T out;
  out.fill(value);
  return out;
}

}  // namespace

attest::Context GoodContext() {
  return {.version = attest::kAttestationVersion,
          .model_identity = Filled<Digest>(0x11),
          .profile = 1,
          .check_vectors = 2,
          .configuration = Filled<Digest>(0x22),
          .tenant_key = Filled<attest::TenantKey>(0x33),
          .development = true};
}

attest::SimulatedOptions GoodTee() {
  return {.measurement = Filled<attest::SimulatedMeasurement>(0x44),
          .machine = attest::SimulatedMachine::kCurrent,
          .debug = false};
}

attest::Policy GoodPolicy() {
  const attest::Context context = GoodContext();
  return {.context = attest::ContextPolicy{.model_identities = {context.model_identity},
                                           .configurations = {context.configuration},
                                           .tenant_keys = {context.tenant_key},
                                           .profiles = std::vector<uint16_t>{context.profile},
                                           .min_check_vectors = context.check_vectors,
                                           .allow_development = true},
          .max_age_s = 3600,
          .require_post_quantum = false,
          .crls = attest::CrlHandling::kRequired,
          .sev_snp = std::nullopt,
          .tdx = std::nullopt,
          .simulated = attest::SimulatedPolicy{.measurements = std::vector{GoodTee().measurement}},
          .digest = {}};
}

attest::Verifier MakeVerifier(attest::Policy policy, bool simulated) {
  attest::VerifierOptions options{.policy = std::move(policy), .collateral = {}, .simulated = {}};
  if (simulated)
    options.simulated = attest::SimulatedTrust{attest::SimulatedRoots(), attest::SimulatedCrl()};
  return attest::Verifier::Create(std::move(options)).value();
}

void FakeExchange::Raw(const std::string& bytes) {
  (void)connection_.Send({AsBytes(bytes)}, kTimeoutMs);
}
void FakeExchange::Head(int status, const std::string& type) {
  status_ = status;
  Raw("HTTP/1.1 " + std::to_string(status) + " X\r\nContent-Type: " + type +
      "\r\nTransfer-Encoding: chunked\r\n\r\n");
}
void FakeExchange::Piece(const std::string& text) {
  sent_ += text;
  char size[20];
  std::snprintf(size, sizeof(size), "%zx\r\n", text.size());
  Raw(size + text + "\r\n");
}
void FakeExchange::End() { Raw("0\r\n\r\n"); }
void FakeExchange::Whole(int status, const std::string& type, const std::string& text) {
  status_ = status;
  sent_ += text;
  Raw("HTTP/1.1 " + std::to_string(status) + " X\r\nContent-Type: " + type +
      "\r\nContent-Length: " + std::to_string(text.size()) + "\r\n\r\n" + text);
}
bool FakeExchange::AwaitGone(int timeout_ms) {
  for (const TimePoint end = After(timeout_ms); std::chrono::steady_clock::now() < end;) {
    if (connection_.ended()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

FakeCvm::FakeCvm(const std::string& address, FakeCvmOptions options)
    : options_(std::move(options)),
      key_(std::make_unique<wire::TlsKey>(wire::TlsKey::Generate().value())),
      attester_(attest::SimulatedAttester::Create(options_.tee).value()),
      listener_(wire::Listener::Create(wire::Endpoint::Parse(address).value()).value()),
      address_(listener_->address()),
      accepting_([this] { Accept(); }) {}

FakeCvm::~FakeCvm() {
  listener_->Shutdown();
  accepting_.join();
  for (Connection& connection : open_) connection.stream->Shutdown();
  for (Connection& connection : open_) connection.thread.join();
}

void FakeCvm::Accept() {
  for (;;) {
    auto transport = listener_->Accept();
    if (!transport.ok()) return;
    ++connections_;
    // Handshakes one after the other: tests that need more do not exist.
    auto tls =
        wire::TlsAccept(std::move(*transport), *key_,
                        options_.ask_for_client_key ? wire::PeerKey::Any() : wire::PeerKey::None(),
                        kTimeoutMs, {.padding_bytes = 512});
    if (!tls.ok()) continue;
    const wire::TlsTransport& session = **tls;
    Connection& connection = open_.emplace_back();
    std::unique_ptr<wire::Transport> inner = std::move(*tls);
    if (options_.on_read)
      inner = std::make_unique<ShownTransport>(std::move(inner), options_.on_read);
    connection.stream = std::make_unique<ReadAhead>(std::move(inner));
    connection.thread = std::thread([this, &connection, &session] {
      Serve(*connection.stream, session);
      connection.stream->Shutdown();
    });
  }
}

struct FakeCvm::Session {
  attest::Receipt receipt{};  // without a signature
  bool attested = false, answered = false;
};

void FakeCvm::Serve(ReadAhead& stream, const wire::TlsTransport& tls) {
  Session session;
  HttpStream http_stream(stream, kTimeoutMs);
  beast::flat_buffer buffer;
  for (;;) {
    http::request_parser<http::string_body> parser;
    parser.body_limit(64 << 20);
    http_stream.set_deadline(After(60'000));
    beast::error_code error;
    http::read(http_stream, buffer, parser, error);
    if (error) return;
    FakeExchange exchange(stream);
    exchange.method = std::string(parser.get().method_string());
    exchange.target = std::string(parser.get().target());
    exchange.body = parser.get().body();
    for (const auto& field : parser.get()) {
      std::string name(field.name_string());
      for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      exchange.headers[name] = std::string(field.value());
    }
    if (exchange.target == "/v1/talaria/attestation") {
      ++attestations_;
      Attest(exchange, tls, session);
    } else if (exchange.target == "/v1/talaria/receipt") {
      AnswerReceipt(exchange, session);
    } else {
      ++requests_;
      if (options_.answer) {
        options_.answer(exchange);
      } else {
        exchange.Whole(200, "text/plain", "hello");
      }
      attest::Salt salt;
      const auto asked = exchange.headers.find("talaria-receipt-salt");
      session.answered = asked != exchange.headers.end() && FromHex(asked->second, salt);
      if (!session.answered) continue;
      const auto hash = [](Sha256 sha, const std::string& body) {
        sha.Update(AsBytes(body));
        return sha.Finish();
      };
      session.receipt.exchange = {exchange.target.substr(0, exchange.target.find('?')),
                                  static_cast<uint16_t>(exchange.status()),
                                  hash(attest::RequestHash(salt), exchange.body),
                                  hash(attest::ResponseHash(salt), exchange.sent())};
    }
  }
}

// As the front does it.
void FakeCvm::AnswerReceipt(FakeExchange& exchange, const Session& session) {
  if (options_.answer_receipt) return options_.answer_receipt(exchange);
  if (!session.answered) return exchange.Whole(404, "application/json", "{}");
  if (!session.attested) return exchange.Whole(409, "application/json", "{}");
  attest::Receipt receipt = session.receipt;
  receipt.time = kTestNow;
  const std::vector<uint8_t> spki = key_->spki();
  std::copy(spki.begin(), spki.end(), receipt.key.begin());
  if (options_.alter_receipt) options_.alter_receipt(receipt);
  receipt.signature = key_->Sign(attest::SignedBytes(receipt)).value();
  if (options_.alter_signed_receipt) options_.alter_signed_receipt(receipt);
  exchange.Whole(200, "application/json",
                 R"({"receipt":")" + ToHex(Bytes(attest::Encode(receipt))) + R"("})");
}

void FakeCvm::Attest(FakeExchange& exchange, const wire::TlsTransport& tls, Session& session) {
  if (options_.answer_attestation) return options_.answer_attestation(exchange);
  const auto json = nlohmann::json::parse(exchange.body);
  attest::Binding binding{.role = attest::Role::kServerToClient,
                          .type = attester_->type(),
                          .nonce = {},
                          .exporter = {},
                          .cvm_key = tls.own_key(),
                          .peer_key = tls.peer_key(),
                          .context = attest::DigestOf(options_.context)};
  TALARIA_CHECK(FromHex(json.at("nonce").get<std::string>(), binding.nonce));
  binding.exporter = tls.Export(attest::kExporterLabel, binding.nonce).value();
  if (options_.alter_binding) options_.alter_binding(binding);
  attest::Claim claim{options_.context,
                      attester_->Attest(attest::ReportDataFor(binding), After(kTimeoutMs)).value()};
  if (options_.alter_claim) options_.alter_claim(claim);
  session.attested = true;
  session.receipt.nonce = binding.nonce;
  session.receipt.exporter = binding.exporter;
  session.receipt.peer_key = binding.peer_key;
  session.receipt.claim = claim;
  exchange.Whole(200, "application/json",
                 R"({"claim":")" + ToHex(Bytes(attest::Encode(claim))) + R"("})");
}

}  // namespace talaria::client::testing
