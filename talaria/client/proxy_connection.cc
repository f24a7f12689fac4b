#include "talaria/client/proxy_connection.h"

#include <algorithm>
#include <array>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http.hpp>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <utility>

#include "talaria/attest/refusal.h"
#include "talaria/base/log.h"
#include "talaria/client/http_stream.h"
#include "talaria/client/receipt_exchange.h"
#include "talaria/client/verdict_text.h"

namespace talaria::client {
namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Error = beast::error_code;

constexpr uint32_t kMaxHeaderBytes = 16 << 10;
constexpr size_t kPieceBytes = 16 << 10;
constexpr int kWaitStepMs = 50;  // how soon a client that leaves while it waits is noticed

using Request = http::request<http::string_body>;
using TextResponse = http::response<http::string_body>;
using Parser = http::response_parser<http::buffer_body>;

std::string ErrorJson(http::status status, const std::string& message) {
  const bool clients = http::to_status_class(status) == http::status_class::client_error;
  const nlohmann::ordered_json json = {
      {"type", "error"},
      {"error",
       {{"code", static_cast<unsigned>(status)},
        {"message", message},
        {"type", clients ? "invalid_request_error" : "unavailable_error"}}}};
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

TextResponse JsonResponse(http::status status, std::string body) {
  TextResponse response(status, 11);
  response.set(http::field::content_type, "application/json; charset=utf-8");
  response.set(http::field::cache_control, "no-store");
  if (status == http::status::service_unavailable) response.set(http::field::retry_after, "5");
  response.body() = std::move(body);
  return response;
}

TextResponse ErrorResponse(http::status status, const std::string& message) {
  return JsonResponse(status, ErrorJson(status, message));
}

// HOST or HOST:PORT of this machine.
bool IsLocalHost(beast::string_view host) {
  const auto parsed = wire::Endpoint::Parse(std::string(host));
  if (parsed.ok()) return parsed->kind == wire::Endpoint::Kind::kTcp && parsed->IsLocal();
  const auto with_port = wire::Endpoint::Parse(std::string(host) + ":80");
  return with_port.ok() && with_port->kind == wire::Endpoint::Kind::kTcp && with_port->IsLocal();
}

bool IsLocalOrigin(beast::string_view origin) {
  for (const beast::string_view scheme : {"http://", "https://"}) {
    if (origin.starts_with(scheme)) return IsLocalHost(origin.substr(scheme.size()));
  }
  return false;  // "null" too: any page can make itself one
}

// Why a request may be a foreign web page's in the user's browser; empty when it is not. A page
// whose name was made to point here (DNS rebinding) says that name as the host; a page of another
// site says its origin with every POST, and browsers say of every request whose it is. Programs
// send neither header.
std::string_view ForeignPage(const http::fields& header) {
  if (header.count(http::field::host) != 1 || !IsLocalHost(header[http::field::host])) {
    return "The host is not of this machine: say localhost, 127.0.0.1 or [::1] in the URL.";
  }
  constexpr std::string_view kOtherSite =
      "The request is a web page's of another site: only programs and pages of this machine may "
      "use the proxy.";
  for (const auto& field : header) {
    if (field.name() == http::field::origin && !IsLocalOrigin(field.value())) return kOtherSite;
    if (!beast::iequals(field.name_string(), "Sec-Fetch-Site")) continue;
    const auto says = [&](beast::string_view whose) { return field.value() == whose; };
    if (!says("none") && !says("same-origin") && !says("same-site")) return kOtherSite;
  }
  return {};
}

template <class Fields>
void SetVerdict(Fields& fields, const Attested& attested) {
  fields.set("Talaria-Verdict", "verified");
  fields.set("Talaria-Model", ToHex(attested.verdict.context.model_identity));
  fields.set("Talaria-Evidence", ToHex(attested.verdict.evidence_digest));
  if (IsDevelopment(attested)) fields.set("Talaria-Development", "simulated");
}

class LocalClient {
 public:
  LocalClient(ReadAhead& client, const ProxyContext& context)
      : client_(client), context_(context), stream_(client, context.options.send_timeout_ms) {}

  void Serve() {
    while (ServeOne()) {
    }
  }

 private:
  // Whether there may be another request.
  bool ServeOne() {
    http::request_parser<http::string_body> parser;
    parser.header_limit(kMaxHeaderBytes);
    parser.body_limit(context_.options.max_body_bytes);
    Error error;
    stream_.set_deadline(After(context_.options.idle_timeout_ms));
    http::read_header(stream_, received_, parser, error);
    if (error) return AnswerReadError(error);
    if (context_.browsers_reach_us) {
      if (const std::string_view why = ForeignPage(parser.get()); !why.empty()) {
        keep_alive_ = false;  // the body is not read
        return Answer(ErrorResponse(http::status::forbidden, std::string(why)));
      }
    }
    if (beast::iequals(parser.get()[http::field::expect], "100-continue") && !parser.is_done()) {
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      if (!client_.Send({AsBytes(kContinue)}, context_.options.send_timeout_ms).ok()) return false;
    }
    stream_.set_deadline(After(context_.options.body_timeout_ms));
    http::read(stream_, received_, parser, error);
    if (error) return AnswerReadError(error);
    Request request = parser.release();
    keep_alive_ = request.keep_alive();
    if (request.target() == "/talaria/status") return AnswerStatus(request);
    if (request.method() == http::verb::head || request.method() == http::verb::connect ||
        request.method() == http::verb::trace || request.method() == http::verb::unknown ||
        !request.target().starts_with('/')) {
      return Answer(
          ErrorResponse(http::status::method_not_allowed, "The proxy does not pass this method."));
    }
    return Forward(std::move(request));
  }

  bool AnswerReadError(Error error) {
    keep_alive_ = false;
    if (!stream_.status().ok() || error == http::error::end_of_stream) return false;
    if (error == http::error::body_limit)
      return Answer(ErrorResponse(http::status::payload_too_large, "The body is too large."));
    if (error == http::error::header_limit)
      return Answer(
          ErrorResponse(http::status::request_header_fields_too_large, "The header is too large."));
    return Answer(ErrorResponse(http::status::bad_request, "This is not HTTP/1.1."));
  }

  bool Answer(TextResponse response) {
    response.keep_alive(keep_alive_);
    response.prepare_payload();
    Error error;
    http::write(stream_, response, error);
    return !error && keep_alive_;
  }

  bool AnswerStatus(const Request& request) {
    if (request.method() != http::verb::get)
      return Answer(ErrorResponse(http::status::method_not_allowed, "The route is for GET."));
    const std::string& server = context_.options.server;
    if (const auto attested = context_.peer.current())
      return Answer(JsonResponse(http::status::ok, VerdictJson(*attested, server)));
    Status status = context_.peer.last_error();
    if (status.ok()) status = Status(Code::kUnavailable, "the attestation is too old");
    return Answer(JsonResponse(http::status::service_unavailable, RefusalJson(status, server)));
  }

  // A verified connection, or why there is none after the wait. Nothing was sent yet.
  Result<std::unique_ptr<SecureConnection>> AwaitPeer() {
    const TimePoint deadline = After(context_.options.wait_ms);
    Status refusal;
    for (;;) {
      auto connection = context_.peer.Connect(deadline);
      if (connection.ok()) return connection;
      // It says more than a later attempt that the deadline cuts short.
      if (connection.status().code() == Code::kUntrusted) refusal = connection.status();
      const TimePoint next = std::min(After(context_.options.retry_ms), deadline);
      while (std::chrono::steady_clock::now() < next) {
        if (context_.stopping || client_.ended())
          return Status(Code::kCancelled, "the client has left");
        std::this_thread::sleep_for(std::chrono::milliseconds(kWaitStepMs));
      }
      if (next != deadline) continue;
      return refusal.ok() ? connection.status() : refusal;
    }
  }

  bool Forward(Request request) {
    auto connection = AwaitPeer();
    if (!connection.ok()) {
      if (connection.status().code() == Code::kCancelled) return false;
      return Answer(ErrorResponse(
          http::status::service_unavailable,
          "The CVM is not verified, nothing was sent to it. " + connection.status().ToString()));
    }
    ReadAhead& upstream = (*connection)->stream();
    // A client that leaves ends the request, and with it the work in the CVM.
    client_.OnEnd([&upstream] { upstream.Shutdown(); });
    bool reusable = false, more = false;
    {
      // The connection must not outlive its hook, whatever is thrown.
      struct Unhook {
        ReadAhead& client;
        ~Unhook() { client.OnEnd({}); }
      } const unhook{client_};
      more = Exchange(std::move(request), **connection, reusable);
    }
    if (reusable) context_.peer.Return(std::move(*connection));
    return more;
  }

  // From here on bytes leave, and nothing is tried twice.
  bool Exchange(Request request, SecureConnection& connection, bool& reusable) {
    if (Status status = BeginReceipt(request); !status.ok())
      return Answer(ErrorResponse(http::status::internal_server_error, status.ToString()));
    HttpStream upstream(connection.stream(), connection.send_timeout_ms());
    Error error;
    http::write(upstream, MakeUpstreamRequest(std::move(request)), error);
    if (error) return AnswerLost();

    beast::flat_buffer buffer(kMaxHeaderBytes + 4 * kPieceBytes);
    Parser parser;
    parser.header_limit(kMaxHeaderBytes);
    parser.body_limit(std::numeric_limits<uint64_t>::max());  // Boost 1.74: none means 0
    upstream.set_deadline(After(context_.options.answer_timeout_ms));
    http::read_header(upstream, buffer, parser, error);
    // An answer that ends with its connection cannot be told from one that was cut.
    if (error || parser.get().result_int() < 200 || parser.need_eof()) return AnswerLost();
    if (kept_ && parser.get().result_int() != 200) kept_.reset();
    chunked_ = !parser.content_length() && !parser.is_done();
    if (kept_ && parser.content_length().value_or(0) > kMaxReceiptBodyBytes) {
      return Answer(ErrorResponse(http::status::bad_gateway,
                                  "The answer is withheld: it is too large for a receipt."));
    }
    if (kept_ && !chunked_) {
      if (!ReadWhole(upstream, buffer, parser)) return AnswerLost();
      if (const Status kept = KeepReceipt(connection, buffer); !kept.ok())
        return Answer(ErrorResponse(
            http::status::bad_gateway,
            "The answer is withheld: its receipt could not be kept. " + kept.ToString()));
    }
    if (!RelayHeader(parser, *connection.attested()) ||
        !RelayBody(upstream, buffer, parser, connection)) {
      client_.Shutdown();  // the missing end tells the client
      return false;
    }
    reusable = parser.get().keep_alive() && buffer.size() == 0;
    return keep_alive_;
  }

  // What is kept of a request and its answer, until they have a receipt.
  struct Kept {
    ReceiptCopy copy;
    std::string path, name;
  };

  Status BeginReceipt(const Request& request) {
    kept_.reset();
    const std::string target(request.target());
    // The CVM's own routes have no receipts.
    if (context_.options.receipts.empty() || request.method() != http::verb::post ||
        target.starts_with("/v1/talaria/"))
      return OkStatus();
    kept_.emplace(Kept{{{}, request.body(), {}, {}}, target.substr(0, target.find('?')), {}});
    TALARIA_ASSIGN_OR_RETURN(kept_->copy.salt, FreshSalt());
    TALARIA_ASSIGN_OR_RETURN(kept_->name, NewCopyName());
    return OkStatus();
  }

  Status KeepReceipt(SecureConnection& connection, const beast::flat_buffer& unread) {
    Status status = unread.size() == 0
                        ? OkStatus()
                        : attest::Refuse("receipt-answer", "more than an answer", "one answer");
    if (status.ok())
      status =
          TakeReceipt(connection, kept_->path, context_.options.token, context_.peer, kept_->copy);
    if (status.ok()) status = SaveCopy(kept_->copy, context_.options.receipts + "/" + kept_->name);
    if (!status.ok() && !client_.ended())
      LogWarning("an answer is withheld, its receipt could not be kept: " + status.ToString());
    return status;
  }

  Request MakeUpstreamRequest(Request from) const {
    Request request(from.method(), from.target(), 11);
    request.set(http::field::host, "talaria");
    const auto copy = [&](http::field field) {
      if (const auto value = from[field]; !value.empty()) request.set(field, value);
    };
    copy(http::field::content_type);
    copy(http::field::accept);
    if (kept_) {
      request.set(beast::string_view(kReceiptSaltHeader.data(), kReceiptSaltHeader.size()),
                  ToHex(Bytes(kept_->copy.salt)));
    }
    if (!context_.options.token.empty())
      request.set(http::field::authorization, "Bearer " + context_.options.token);
    request.body() = std::move(from.body());
    request.prepare_payload();
    return request;
  }

  bool AnswerLost() {
    if (client_.ended()) return false;
    return Answer(ErrorResponse(http::status::bad_gateway,
                                "The CVM was lost. It may have had the request; ask again."));
  }

  bool RelayHeader(const Parser& parser, const Attested& attested) {
    const auto& from = parser.get();
    http::response<http::empty_body> response;
    response.result(from.result_int());
    response.set(http::field::cache_control, "no-store");
    response.set("X-Content-Type-Options", "nosniff");
    for (const http::field field :
         {http::field::content_type, http::field::retry_after, http::field::allow}) {
      if (const auto value = from[field]; !value.empty()) response.set(field, value);
    }
    SetVerdict(response, attested);
    if (kept_) response.set("Talaria-Receipt", kept_->name);
    if (chunked_) {
      response.chunked(true);
    } else {
      response.content_length(parser.content_length().value_or(0));
    }
    response.keep_alive(keep_alive_);
    http::response_serializer<http::empty_body> serializer(response);
    Error error;
    http::write_header(stream_, serializer, error);
    return !error;
  }

  // At least a byte of the body, or its end. Empty with an error in `error`.
  std::string_view ReadPiece(HttpStream& upstream, beast::flat_buffer& buffer, Parser& parser,
                             Error& error) {
    auto& body = parser.get().body();
    body.data = piece_.data();
    body.size = piece_.size();
    body.more = true;
    upstream.set_deadline(After(context_.options.answer_timeout_ms));
    http::read_some(upstream, buffer, parser, error);
    if (error == http::error::need_buffer) error = {};
    return {piece_.data(), piece_.size() - body.size};
  }

  bool KeepPiece(std::string_view piece) {
    if (kept_->copy.response.size() + piece.size() > kMaxReceiptBodyBytes) {
      LogWarning("an answer is withheld: it is too large for a receipt");
      return false;
    }
    kept_->copy.response += piece;
    return true;
  }

  // An answer of known length is kept until it has its receipt: the client gets an error or all.
  bool ReadWhole(HttpStream& upstream, beast::flat_buffer& buffer, Parser& parser) {
    Error error;
    while (!parser.is_done() && !error) {
      if (!KeepPiece(ReadPiece(upstream, buffer, parser, error))) return false;
    }
    return !error;
  }

  // Pieces go on as they come: a token does not wait for the next.
  bool RelayBody(HttpStream& upstream, beast::flat_buffer& buffer, Parser& parser,
                 SecureConnection& connection) {
    Error error;
    if (kept_ && !chunked_) {  // ReadWhole() has it
      net::write(stream_, net::buffer(kept_->copy.response), error);
      return !error;
    }
    while (!parser.is_done()) {
      const std::string_view piece = ReadPiece(upstream, buffer, parser, error);
      if (error || (kept_ && !KeepPiece(piece))) return false;
      if (piece.empty()) continue;
      const net::const_buffer data(piece.data(), piece.size());
      if (chunked_) {
        net::write(stream_, http::make_chunk(data), error);
      } else {
        net::write(stream_, data, error);
      }
      if (error) return false;
    }
    if (kept_ && !KeepReceipt(connection, buffer).ok()) return false;
    if (chunked_) net::write(stream_, http::make_chunk_last(), error);
    return !error;
  }

  ReadAhead& client_;
  const ProxyContext& context_;
  HttpStream stream_;
  beast::flat_buffer received_;
  bool keep_alive_ = false;
  bool chunked_ = false;      // the answer, from the CVM and to the client
  std::optional<Kept> kept_;  // of the request under way, if its receipt is wanted
  std::array<char, kPieceBytes> piece_;
};

}  // namespace

void ServeLocalClient(ReadAhead& client, const ProxyContext& context) {
  try {
    LocalClient(client, context).Serve();
  } catch (const std::exception&) {
    // Out of memory, or a buffer of Beast's at its bound: the connection ends.
  }
}

std::string TooManyConnections() {
  TextResponse response = ErrorResponse(http::status::service_unavailable, "Too many connections.");
  response.keep_alive(false);
  response.prepare_payload();
  std::string out = "HTTP/1.1 503 Service Unavailable\r\n";
  for (const auto& field : response) {
    out += std::string(field.name_string()) + ": " + std::string(field.value()) + "\r\n";
  }
  return out + "\r\n" + response.body();
}

}  // namespace talaria::client
