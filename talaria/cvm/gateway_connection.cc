#include "talaria/cvm/gateway_connection.h"

#include <sys/socket.h>

#include <array>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "talaria/cvm/gateway_filter.h"

namespace talaria::cvm {
namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Error = beast::error_code;
using Stream = beast::basic_stream<net::generic::stream_protocol, StreamExecutor>;
using std::chrono::milliseconds;

constexpr uint32_t kMaxHeaderBytes = 16 << 10;
constexpr size_t kPieceBytes = 16 << 10;
constexpr int kConnectTimeoutMs = 5'000;
constexpr int kLingerMs = 1'000;  // for a client to take the last answer before the socket closes
constexpr size_t kMaxLingerBytes = 1 << 20;  // of a refused body that are still swallowed

struct Problem {
  http::status status;
  const char* message;  // fixed text: never a byte of the request
  const char* allow = nullptr;
};

const char* ErrorType(http::status status) {
  switch (http::to_status_class(status)) {
    case http::status_class::client_error:
      return status == http::status::not_found ? "not_found_error" : "invalid_request_error";
    default:
      return "unavailable_error";
  }
}

// Both OpenAI's and Anthropic's clients find their shape in it.
std::string ErrorJson(http::status status, std::string_view message) {
  return std::string(R"({"type":"error","error":{"code":)") +
         std::to_string(static_cast<unsigned>(status)) + R"(,"message":")" + std::string(message) +
         R"(","type":")" + ErrorType(status) + R"("}})";
}

template <class Message>
void SetCommonFields(Message& message) {
  message.set(http::field::cache_control, "no-store");
  message.set("X-Content-Type-Options", "nosniff");
}

http::response<http::string_body> JsonResponse(http::status status, std::string body) {
  http::response<http::string_body> response(status, 11);
  SetCommonFields(response);
  response.set(http::field::content_type, "application/json; charset=utf-8");
  if (status == http::status::service_unavailable) response.set(http::field::retry_after, "1");
  response.body() = std::move(body);
  return response;
}

bool IsJson(beast::string_view content_type) {
  const beast::string_view type = content_type.substr(0, content_type.find(';'));
  size_t end = type.size();
  while (end > 0 && (type[end - 1] == ' ' || type[end - 1] == '\t')) --end;
  return beast::iequals(type.substr(0, end), "application/json");
}

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(net::io_context& io, StreamSocket socket, const GatewayOptions& options,
             ConnectionCounts& counts)
      : io_(io), options_(options), counts_(counts), client_(std::move(socket)) {
    ++counts_.open;
  }
  ~Connection() {
    SetAnswering(false);
    --counts_.open;
  }

  void Start() { AwaitRequest(); }

 private:
  template <class Method>
  auto Then(Method method) {
    return beast::bind_front_handler(method, shared_from_this());
  }

  // --- A request comes in.

  void AwaitRequest() {
    request_.emplace();
    request_->header_limit(kMaxHeaderBytes);
    request_->body_limit(options_.max_body_bytes);
    if (received_.size() > 0) return ReadHeader();  // the client did not wait for the last answer
    client_.expires_after(milliseconds(options_.idle_timeout_ms));
    client_.async_read_some(received_.prepare(kPieceBytes), Then(&Connection::OnFirstBytes));
  }

  void OnFirstBytes(Error error, size_t size) {
    if (error) return Close();
    received_.commit(size);
    ReadHeader();
  }

  void ReadHeader() {
    // Absolute, so that a client that drips bytes gains nothing.
    client_.expires_after(milliseconds(options_.header_timeout_ms));
    http::async_read_header(client_, received_, *request_, Then(&Connection::OnHeader));
  }

  void OnHeader(Error error, size_t) {
    if (error) return OnReadError(error);
    keep_alive_ = request_->get().keep_alive();
    const auto& header = request_->get();
    const auto view = [](beast::string_view text) {
      return std::string_view(text.data(), text.size());
    };
    const std::string_view method = view(header.method_string()), target = view(header.target());
    if (target == "/healthz" || target == "/readyz")
      return AnswerProbe(method, target == "/readyz");

    const RouteMatch match = FindRoute(method, target);
    if (!match.path_exists) return Refuse({http::status::not_found, "There is no such route."});
    if (!match.route) {
      return Refuse({http::status::method_not_allowed, "The route has another method.",
                     method == "GET" || method == "HEAD" ? "POST" : "GET, POST"});
    }
    route_ = match.route;
    if (!options_.ready())
      return Refuse({http::status::service_unavailable, "The model is not ready."});
    if (route_->body == BodyKind::kNone) {
      if (!request_->is_done())
        return Refuse({http::status::bad_request, "The route takes no body."});
      return Forward({});
    }
    // Only what no web page can send across origins without asking.
    if (!IsJson(header[http::field::content_type])) {
      return Refuse(
          {http::status::unsupported_media_type, "The content type must be application/json."});
    }
    client_.expires_after(milliseconds(options_.body_timeout_ms));
    if (beast::iequals(header[http::field::expect], "100-continue") && !request_->is_done()) {
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      net::async_write(client_, net::buffer(kContinue), Then(&Connection::OnContinueWritten));
      return;
    }
    ReadBody();
  }

  void OnContinueWritten(Error error, size_t) {
    if (error) return Close();
    ReadBody();
  }

  void ReadBody() { http::async_read(client_, received_, *request_, Then(&Connection::OnBody)); }

  void OnBody(Error error, size_t) {
    if (error) return OnReadError(error);
    Result<std::string> body =
        FilterBody(route_->body, request_->get().body(), {.prompt_cache = options_.prompt_cache});
    request_->get().body() = {};
    if (!body.ok())
      return Answer(JsonResponse(http::status::bad_request,
                                 ErrorJson(http::status::bad_request, body.status().message())));
    Forward(std::move(*body));
  }

  void OnReadError(Error error) {
    if (error == http::error::body_limit)
      return Refuse({http::status::payload_too_large, "The body is too large."});
    if (error == http::error::header_limit)
      return Refuse({http::status::request_header_fields_too_large, "The header is too large."});
    if (error == beast::error::timeout || error == http::error::end_of_stream ||
        error == http::error::partial_message)
      return Close();
    if (error.category() == make_error_code(http::error::end_of_stream).category())
      return Refuse({http::status::bad_request, "This is not HTTP/1.1."});
    Close();
  }

  // --- Answers of our own.

  void AnswerProbe(std::string_view method, bool readiness) {
    if (method != "GET")
      return Refuse({http::status::method_not_allowed, "The route has another method.", "GET"});
    if (!request_->is_done())
      return Refuse({http::status::bad_request, "The route takes no body."});
    if (!readiness) return Answer(JsonResponse(http::status::ok, R"({"status":"ok"})"));
    if (options_.ready()) return Answer(JsonResponse(http::status::ok, R"({"ready":true})"));
    std::string body = R"({"ready":false)";
    if (options_.stage) body += R"(,"stage":")" + options_.stage() + '"';
    Answer(JsonResponse(http::status::service_unavailable, body + "}"));
  }

  // An answer to a request whose body was not read: the connection cannot be used again.
  void Refuse(Problem problem) {
    if (!request_->is_done()) keep_alive_ = false;
    auto response = JsonResponse(problem.status, ErrorJson(problem.status, problem.message));
    if (problem.allow) response.set(http::field::allow, problem.allow);
    Answer(std::move(response));
  }

  void Answer(http::response<http::string_body> response) {
    answer_.emplace(std::move(response));
    answer_->keep_alive(keep_alive_);
    answer_->prepare_payload();
    client_.expires_after(milliseconds(options_.write_timeout_ms));
    http::async_write(client_, *answer_, Then(&Connection::OnAnswered));
  }

  void OnAnswered(Error error, size_t) {
    answer_.reset();
    if (error) return Close();
    Finish();
  }

  // --- llama-server's answer. Each exchange has a connection of its own, which closing cancels.

  void Forward(std::string body) {
    forwarded_.emplace(http::string_to_verb({route_->method.data(), route_->method.size()}),
                       beast::string_view(route_->path.data(), route_->path.size()), 11);
    forwarded_->set(http::field::host, "localhost");
    forwarded_->set(http::field::accept, "*/*");
    if (route_->body != BodyKind::kNone) {
      forwarded_->set(http::field::content_type, "application/json");
      forwarded_->body() = std::move(body);
    }
    forwarded_->keep_alive(false);
    forwarded_->prepare_payload();
    upstream_.emplace(io_);  // the last one, if any, has nothing pending
    forwarding_ = true;
    SetAnswering(true);
    WatchClient();
    upstream_->expires_after(milliseconds(kConnectTimeoutMs));
    upstream_->async_connect(net::local::stream_protocol::endpoint(options_.upstream_socket),
                             Then(&Connection::OnConnected));
  }

  void OnConnected(Error error) {
    if (error) return OnUpstreamLost();
    upstream_->expires_after(milliseconds(options_.body_timeout_ms));
    http::async_write(*upstream_, *forwarded_, Then(&Connection::OnForwarded));
  }

  void OnForwarded(Error error, size_t) {
    forwarded_.reset();
    if (error) return OnUpstreamLost();
    upstream_received_.clear();
    response_.emplace();
    response_->body_limit(
        std::numeric_limits<uint64_t>::max());  // boost::none means 0 in Boost 1.74
    upstream_->expires_after(milliseconds(options_.answer_timeout_ms));
    http::async_read_header(*upstream_, upstream_received_, *response_,
                            Then(&Connection::OnResponseHeader));
  }

  void OnResponseHeader(Error error, size_t) {
    if (error) return OnUpstreamLost();
    const auto& from = response_->get();
    relayed_.emplace();
    relayed_->result(from.result_int());
    SetCommonFields(*relayed_);
    const beast::string_view type = from[http::field::content_type];
    relayed_->set(http::field::content_type, type.empty() ? "application/json" : type);
    chunked_ = false;
    if (const auto length = response_->content_length()) {
      relayed_->content_length(*length);
    } else if (response_->is_done()) {
      relayed_->content_length(0);
    } else if (request_->get().version() >= 11) {
      relayed_->chunked(true);
      chunked_ = true;
    } else {
      keep_alive_ = false;  // HTTP/1.0: the end of the body is the end of the connection
    }
    relayed_->keep_alive(keep_alive_);
    serializer_.emplace(*relayed_);
    client_.expires_after(milliseconds(options_.write_timeout_ms));
    http::async_write_header(client_, *serializer_, Then(&Connection::OnHeaderRelayed));
  }

  void OnHeaderRelayed(Error error, size_t) {
    if (error) return Close();
    ReadPiece();
  }

  // Pieces go out as they come: a token that llama-server sent does not wait for the next.
  void ReadPiece() {
    if (response_->is_done()) return EndBody();
    auto& body = response_->get().body();
    body.data = piece_.data();
    body.size = piece_.size();
    body.more = true;
    upstream_->expires_after(milliseconds(options_.answer_timeout_ms));
    http::async_read_some(*upstream_, upstream_received_, *response_, Then(&Connection::OnPiece));
  }

  void OnPiece(Error error, size_t) {
    if (error && error != http::error::need_buffer)
      return Close();  // the missing end tells the client
    const size_t size = piece_.size() - response_->get().body().size;
    if (size == 0) return ReadPiece();
    client_.expires_after(milliseconds(options_.write_timeout_ms));
    const auto data = net::const_buffer(piece_.data(), size);
    if (chunked_) {
      net::async_write(client_, http::make_chunk(data), Then(&Connection::OnPieceRelayed));
    } else {
      net::async_write(client_, data, Then(&Connection::OnPieceRelayed));
    }
  }

  void OnPieceRelayed(Error error, size_t) {
    if (error) return Close();
    ReadPiece();
  }

  void EndBody() {
    if (!chunked_) return EndExchange();
    net::async_write(client_, http::make_chunk_last(), Then(&Connection::OnEndRelayed));
  }

  void OnEndRelayed(Error error, size_t) {
    if (error) return Close();
    EndExchange();
  }

  void EndExchange() {
    CloseUpstream();
    Finish();
  }

  void OnUpstreamLost() {
    if (closed_) return;
    CloseUpstream();
    Answer(JsonResponse(http::status::bad_gateway,
                        ErrorJson(http::status::bad_gateway, "The engine did not answer.")));
  }

  // --- The client may leave while llama-server computes; then the computation is to stop.

  void WatchClient() {
    if (watching_) return;
    watching_ = true;
    client_.socket().async_wait(StreamSocket::wait_read, Then(&Connection::OnClientReadable));
  }

  void OnClientReadable(Error error) {
    watching_ = false;
    if (error || closed_ || !forwarding_) return;
    char byte;
    const ssize_t n = recv(client_.socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n > 0) return;  // the next request already; nothing more can be seen behind it
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return WatchClient();
    Close();
  }

  // --- Ends.

  void SetAnswering(bool answering) {
    if (answering != answering_) counts_.answering += answering ? 1 : -1;
    answering_ = answering;
  }

  void Finish() {
    SetAnswering(false);
    if (keep_alive_) return AwaitRequest();
    // Swallow what the client still sends, so that the answer is not lost in a reset.
    Error ignored;
    client_.socket().shutdown(StreamSocket::shutdown_send, ignored);
    client_.expires_after(milliseconds(kLingerMs));
    Linger();
  }

  void Linger() { client_.async_read_some(net::buffer(piece_), Then(&Connection::OnLinger)); }

  void OnLinger(Error error, size_t size) {
    lingered_ += size;
    if (error || lingered_ > kMaxLingerBytes) return Close();
    Linger();
  }

  void CloseUpstream() {
    forwarding_ = false;
    forwarded_.reset();
    if (upstream_) upstream_->close();
  }

  void Close() {
    closed_ = true;
    SetAnswering(false);
    CloseUpstream();
    client_.close();
  }

  net::io_context& io_;
  const GatewayOptions& options_;
  ConnectionCounts& counts_;
  Stream client_;
  std::optional<Stream> upstream_;  // of the current exchange, or the closed one of the last
  beast::flat_buffer received_{kMaxHeaderBytes + kPieceBytes}, upstream_received_{64 << 10};
  std::optional<http::request_parser<http::string_body>> request_;
  const Route* route_ = nullptr;
  bool keep_alive_ = false;
  std::optional<http::response<http::string_body>> answer_;  // of our own
  // An exchange with llama-server.
  bool forwarding_ = false, answering_ = false, watching_ = false, chunked_ = false;
  bool closed_ = false;
  std::optional<http::request<http::string_body>> forwarded_;
  std::optional<http::response_parser<http::buffer_body>> response_;
  std::optional<http::response<http::empty_body>> relayed_;
  std::optional<http::response_serializer<http::empty_body>> serializer_;
  std::array<char, kPieceBytes> piece_;
  size_t lingered_ = 0;
};

}  // namespace

void ServeConnection(net::io_context& io, StreamSocket socket, const GatewayOptions& options,
                     ConnectionCounts& counts) {
  std::make_shared<Connection>(io, std::move(socket), options, counts)->Start();
}

std::string OverloadedAnswer() {
  const std::string body = ErrorJson(http::status::service_unavailable, "Too many connections.");
  return "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; "
         "charset=utf-8\r\nCache-Control: no-store\r\nRetry-After: 1\r\n"
         "Connection: close\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body;
}

}  // namespace talaria::cvm
