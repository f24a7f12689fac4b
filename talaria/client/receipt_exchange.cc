#include "talaria/client/receipt_exchange.h"

#include <sys/random.h>

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include "talaria/attest/receipt_verifier.h"
#include "talaria/attest/refusal.h"
#include "talaria/client/http_stream.h"

namespace talaria::client {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;

constexpr uint32_t kMaxHeaderBytes = 16 << 10;
constexpr size_t kBufferBytes = 256 << 10;
constexpr size_t kMaxRefusalText = 300;
constexpr int kReceiptTimeoutMs = 30'000;

// One connection's requests, one behind the other.
class Session {
 public:
  explicit Session(SecureConnection& connection)
      : stream_(connection.stream(), connection.send_timeout_ms()) {}

  struct Answer {
    unsigned status;
    std::string body;
  };
  Result<Answer> Ask(http::request<http::string_body>& request, TimePoint deadline) {
    request.set(http::field::host, "talaria");
    request.prepare_payload();
    beast::error_code error;
    http::write(stream_, request, error);
    if (error) return Lost(error);
    http::response_parser<http::string_body> parser;
    parser.header_limit(kMaxHeaderBytes);
    parser.body_limit(kMaxReceiptBodyBytes);
    stream_.set_deadline(deadline);
    // The header on its own: in one go, Boost 1.74 forgets that Content-Length was over the limit.
    http::read_header(stream_, buffer_, parser, error);
    if (!error) http::read(stream_, buffer_, parser, error);
    if (error) return Lost(error);
    return Answer{parser.get().result_int(), std::move(parser.get().body())};
  }

 private:
  Status Lost(beast::error_code error) const {
    if (!stream_.status().ok()) return stream_.status().Annotate("the CVM was lost");
    return Status(Code::kUnavailable, "the answer is not HTTP: " + error.message());
  }
  HttpStream stream_;
  beast::flat_buffer buffer_{kBufferBytes};
};

// {"receipt":"<hex>"}, as the CVM writes it and not otherwise.
Result<attest::Receipt> ParseAnswer(std::string_view body) {
  constexpr std::string_view kHead = R"({"receipt":")", kTail = R"("})";
  std::vector<uint8_t> bytes;
  if (body.starts_with(kHead) && body.ends_with(kTail) &&
      body.size() <= kHead.size() + 2 * attest::kMaxReceiptBytes + kTail.size()) {
    body.remove_prefix(kHead.size());
    body.remove_suffix(std::min(kTail.size(), body.size()));
    bytes.resize(body.size() / 2);
    if (body.size() % 2 != 0 || !FromHex(body, bytes)) bytes.clear();
  }
  if (bytes.empty()) return attest::Refuse("receipt-answer", "another", "a receipt in hex");
  return attest::DecodeReceipt(bytes);
}

void Authorize(http::request<http::string_body>& request, const std::string& token) {
  if (!token.empty()) request.set(http::field::authorization, "Bearer " + token);
}

}  // namespace

Result<attest::Salt> FreshSalt() {
  attest::Salt salt;
  if (getrandom(salt.data(), salt.size(), 0) != static_cast<ssize_t>(salt.size()))
    return Status(Code::kInternal, "getrandom gave no salt");
  return salt;
}

Status TakeReceipt(SecureConnection& connection, const std::string& path, const std::string& token,
                   const AttestedPeer& peer, ReceiptCopy& copy) {
  try {
    Session session(connection);
    http::request<http::string_body> question(http::verb::get, "/v1/talaria/receipt", 11);
    Authorize(question, token);
    TALARIA_ASSIGN_OR_RETURN(const Session::Answer answer,
                             session.Ask(question, After(kReceiptTimeoutMs)));
    if (answer.status != 200)
      return attest::Refuse("receipt-answer", "status " + std::to_string(answer.status), "200");
    TALARIA_ASSIGN_OR_RETURN(copy.receipt, ParseAnswer(answer.body));
  } catch (const std::exception& e) {
    return Status(Code::kInternal, e.what());
  }
  TALARIA_RETURN_IF_ERROR(
      attest::VerifyReceipt(copy.receipt,
                            {copy.salt, AsBytes(copy.request), AsBytes(copy.response)},
                            peer.verifier(), peer.now())
          .status());
  const attest::Exchange& exchange = copy.receipt.exchange;
  if (exchange.path != path || exchange.status != 200 ||
      Sha256Of(copy.receipt.key) != connection.attested()->key)
    return attest::Refuse("receipt-exchange", "another path, status or key", "this request's");
  return OkStatus();
}

Result<ReceiptCopy> FetchReceipt(const ReceiptRequest& wanted, AttestedPeer& peer,
                                 TimePoint connect_deadline) {
  ReceiptCopy copy{{}, wanted.body, {}, {}};
  TALARIA_ASSIGN_OR_RETURN(copy.salt, FreshSalt());
  TALARIA_ASSIGN_OR_RETURN(const std::unique_ptr<SecureConnection> connection,
                           peer.Connect(connect_deadline));
  try {
    Session session(*connection);
    http::request<http::string_body> request(http::verb::post, wanted.path, 11);
    request.set(http::field::content_type, "application/json");
    request.set(beast::string_view(kReceiptSaltHeader.data(), kReceiptSaltHeader.size()),
                ToHex(Bytes(copy.salt)));
    Authorize(request, wanted.token);
    request.body() = wanted.body;
    TALARIA_ASSIGN_OR_RETURN(Session::Answer answer,
                             session.Ask(request, After(wanted.answer_timeout_ms)));
    if (answer.status != 200) {
      const bool later = answer.status == 503 || answer.status == 429;
      return Status(later ? Code::kUnavailable : Code::kUnsupported,
                    "the CVM answered with status " + std::to_string(answer.status) + ": " +
                        attest::Printable(answer.body.substr(0, kMaxRefusalText)));
    }
    copy.response = std::move(answer.body);
  } catch (const std::exception& e) {
    return Status(Code::kInternal, e.what());
  }
  TALARIA_RETURN_IF_ERROR(TakeReceipt(*connection, wanted.path, wanted.token, peer, copy));
  return copy;
}

}  // namespace talaria::client
