#include "talaria/client/secure_connection.h"

#include <errno.h>
#include <sys/random.h>

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "talaria/attest/refusal.h"
#include "talaria/client/http_stream.h"

namespace talaria::client {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;
using attest::Refuse;

constexpr size_t kPaddingBytes = 512;  // records tell less of the length of a prompt
constexpr size_t kMaxAnswerBytes = 2 * attest::kMaxClaimBytes + 1024;
constexpr uint32_t kMaxHeaderBytes = 16 << 10;

// Shows what is written to whoever asked for it.
class ShownTransport final : public wire::Transport {
 public:
  ShownTransport(std::unique_ptr<wire::Transport> inner, std::function<void(Bytes)> on_write)
      : inner_(std::move(inner)), on_write_(std::move(on_write)) {}
  Status Send(std::initializer_list<Bytes> parts, int timeout_ms) override {
    for (const Bytes& part : parts) on_write_(part);
    return inner_->Send(parts, timeout_ms);
  }
  Result<size_t> ReceiveSome(MutableBytes out, size_t min_bytes, int timeout_ms) override {
    return inner_->ReceiveSome(out, min_bytes, timeout_ms);
  }
  void Shutdown() override { inner_->Shutdown(); }

 private:
  std::unique_ptr<wire::Transport> inner_;
  std::function<void(Bytes)> on_write_;
};

Result<std::unique_ptr<wire::TlsTransport>> Dial(const ServerOptions& options,
                                                 const wire::TlsKey& own,
                                                 const wire::PeerKey& peer) {
  TALARIA_ASSIGN_OR_RETURN(std::unique_ptr<wire::Transport> transport,
                           wire::Connect(options.endpoint, options.connect_timeout_ms));
  auto tls = wire::TlsConnect(std::move(transport), own, peer, options.connect_timeout_ms,
                              {.padding_bytes = kPaddingBytes});
  if (!tls.ok() && tls.status().code() == Code::kUnavailable)
    return tls.status().Annotate(options.endpoint.ToString());
  return tls;
}

std::unique_ptr<ReadAhead> Shown(std::unique_ptr<wire::Transport> tls,
                                 const ServerOptions& options) {
  if (options.on_write) tls = std::make_unique<ShownTransport>(std::move(tls), options.on_write);
  return std::make_unique<ReadAhead>(std::move(tls));
}

Status CheckGroup(const std::string& group, const attest::Policy& policy) {
  if (!*policy.require_post_quantum || group.find("MLKEM") != std::string::npos) return OkStatus();
  return Refuse("post-quantum", attest::Printable(group), "a key exchange with ML-KEM");
}

Result<std::array<uint8_t, attest::kNonceBytes>> FreshNonce() {
  std::array<uint8_t, attest::kNonceBytes> nonce;
  for (;;) {
    const ssize_t n = getrandom(nonce.data(), nonce.size(), 0);
    if (n == static_cast<ssize_t>(nonce.size()) && nonce != decltype(nonce){}) return nonce;
    if (n < 0 && errno != EINTR)
      return Status(Code::kInternal, std::string("getrandom: ") + std::strerror(errno));
  }
}

struct Answer {
  attest::Claim claim;
  bool keep_alive;
};

Result<attest::Claim> ParseAnswer(const std::string& body) {
  const auto bad = [] {
    return Refuse("attestation-answer", "something else", R"({"claim":"<hexadecimal digits>"})");
  };
  std::string hex;
  try {
    // The callback bounds the depth: the body is one flat object.
    const auto json = nlohmann::json::parse(
        body,
        [](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
          if (depth > 1) throw std::length_error("deep");
          return true;
        },
        false);
    if (!json.is_object() || json.size() != 1 || !json.contains("claim") ||
        !json.at("claim").is_string())
      return bad();
    hex = json.at("claim").get<std::string>();
  } catch (const std::exception&) {
    return bad();
  }
  std::vector<uint8_t> bytes(hex.size() / 2);
  if (hex.size() % 2 != 0 || bytes.size() > attest::kMaxClaimBytes || !FromHex(hex, bytes))
    return bad();
  return attest::DecodeClaim(bytes);
}

// The one thing that an unverified peer is ever told.
Result<Answer> AskForEvidence(ReadAhead& stream, const ServerOptions& options, Bytes nonce) {
  const TimePoint deadline = After(options.attest_timeout_ms);
  const std::string body = R"({"nonce":")" + ToHex(nonce) + R"("})";
  const std::string request =
      "POST /v1/talaria/attestation HTTP/1.1\r\nHost: talaria\r\nContent-Type: application/json\r\n"
      "Content-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body;
  TALARIA_RETURN_IF_ERROR(stream.Send({AsBytes(request)}, options.send_timeout_ms));

  HttpStream http_stream(stream, options.send_timeout_ms);
  http_stream.set_deadline(deadline);
  beast::flat_buffer buffer(kMaxHeaderBytes + kMaxAnswerBytes);
  http::response_parser<http::string_body> parser;
  parser.header_limit(kMaxHeaderBytes);
  parser.body_limit(kMaxAnswerBytes);
  beast::error_code error;
  // The header on its own: in one go, Boost 1.74 forgets that Content-Length was over the limit.
  http::read_header(http_stream, buffer, parser, error);
  if (!error) http::read(http_stream, buffer, parser, error);
  if (error) {
    if (!http_stream.status().ok()) return http_stream.status().Annotate("waiting for evidence");
    return Refuse("attestation-answer", attest::Printable(error.message()), "HTTP/1.1");
  }
  const unsigned status = parser.get().result_int();
  if (status == 503 || status == 429) {
    return Status(Code::kUnavailable, status == 503 ? "the CVM is not ready yet"
                                                    : "the CVM was asked for evidence too often");
  }
  if (status != 200)
    return Refuse("attestation-answer", "HTTP status " + std::to_string(status), "200");
  if (buffer.size() != 0) return Refuse("attestation-answer", "more than an answer", "one answer");
  TALARIA_ASSIGN_OR_RETURN(attest::Claim claim, ParseAnswer(parser.get().body()));
  return Answer{std::move(claim), parser.get().keep_alive()};
}

struct Asked {
  std::unique_ptr<ReadAhead> stream;
  UnverifiedClaim answer;
  bool keep_alive;
};

// Up to the evidence, which nobody has verified yet.
Result<Asked> Ask(const ServerOptions& options, const wire::TlsKey& own,
                  const attest::Policy* policy) {
  TALARIA_ASSIGN_OR_RETURN(std::unique_ptr<wire::TlsTransport> tls,
                           Dial(options, own, wire::PeerKey::Any()));
  std::string group = tls->group();
  if (policy != nullptr) TALARIA_RETURN_IF_ERROR(CheckGroup(group, *policy));
  TALARIA_ASSIGN_OR_RETURN(const auto nonce, FreshNonce());
  TALARIA_ASSIGN_OR_RETURN(const auto exporter, tls->Export(attest::kExporterLabel, nonce));
  const attest::Channel channel{.role = attest::Role::kServerToClient,
                                .nonce = nonce,
                                .exporter = exporter,
                                .cvm_key = tls->peer_key(),
                                .peer_key = tls->own_key()};
  auto stream = Shown(std::move(tls), options);
  TALARIA_ASSIGN_OR_RETURN(Answer answer, AskForEvidence(*stream, options, nonce));
  return Asked{
      std::move(stream), {std::move(answer.claim), channel, std::move(group)}, answer.keep_alive};
}

}  // namespace

Result<wire::Endpoint> ParseServer(std::string_view url) {
  constexpr std::string_view kHttps = "https://", kHttp = "http://";
  if (url.starts_with(kHttp)) {
    return Status(Code::kInvalidArgument,
                  "'" + std::string(url) + "': a CVM speaks https only, not http");
  }
  if (!url.starts_with(kHttps)) return wire::Endpoint::Parse(url);
  std::string_view rest = url.substr(kHttps.size());
  if (rest.ends_with('/')) rest.remove_suffix(1);
  if (rest.find_first_of("/?#@") != std::string_view::npos) {
    return Status(Code::kInvalidArgument,
                  "'" + std::string(url) + "': want https://HOST:PORT and nothing behind it");
  }
  const bool has_port = rest.starts_with('[') ? rest.find("]:") != std::string_view::npos
                                              : rest.find(':') != std::string_view::npos;
  std::string address(rest);
  if (!has_port) address += ":443";
  if (address.starts_with("unix:")) {
    return Status(Code::kInvalidArgument, "'" + std::string(url) + "': write unix:PATH alone");
  }
  return wire::Endpoint::Parse(address);
}

Result<std::unique_ptr<SecureConnection>> SecureConnection::Open(const ServerOptions& options,
                                                                 const attest::Verifier& verifier,
                                                                 const wire::TlsKey& own,
                                                                 attest::UnixTime now) {
  TALARIA_ASSIGN_OR_RETURN(Asked asked, Ask(options, own, &verifier.policy()));
  UnverifiedClaim& answer = asked.answer;
  TALARIA_ASSIGN_OR_RETURN(attest::Verdict verdict,
                           verifier.Verify(answer.claim, answer.channel, now));
  auto attested = std::make_shared<const Attested>(
      Attested{std::move(answer.claim), std::move(verdict), answer.channel.cvm_key,
               std::move(answer.group), now});
  return std::unique_ptr<SecureConnection>(new SecureConnection(
      std::move(asked.stream), std::move(attested), asked.keep_alive, options.send_timeout_ms));
}

Result<std::unique_ptr<SecureConnection>> SecureConnection::OpenPinned(
    const ServerOptions& options, const attest::Verifier& verifier, const wire::TlsKey& own,
    std::shared_ptr<const Attested> attested) {
  TALARIA_ASSIGN_OR_RETURN(std::unique_ptr<wire::TlsTransport> tls,
                           Dial(options, own, wire::PeerKey::Pinned(attested->key)));
  TALARIA_RETURN_IF_ERROR(CheckGroup(tls->group(), verifier.policy()));
  return std::unique_ptr<SecureConnection>(new SecureConnection(
      Shown(std::move(tls), options), std::move(attested), true, options.send_timeout_ms));
}

Result<UnverifiedClaim> SecureConnection::FetchUnverified(const ServerOptions& options,
                                                          const wire::TlsKey& own) {
  TALARIA_ASSIGN_OR_RETURN(Asked asked, Ask(options, own, nullptr));
  return std::move(asked.answer);
}

}  // namespace talaria::client
