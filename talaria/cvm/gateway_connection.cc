#include "talaria/cvm/gateway_connection.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <variant>

#include "talaria/cvm/gateway_admission.h"
#include "talaria/cvm/gateway_answers.h"
#include "talaria/cvm/gateway_channel.h"

namespace talaria::cvm {
namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
using Error = beast::error_code;
using Stream = beast::basic_stream<net::generic::stream_protocol, StreamExecutor>;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr uint32_t kMaxHeaderBytes = 16 << 10;
constexpr size_t kPieceBytes = 16 << 10;
constexpr int kConnectTimeoutMs = 5'000;
constexpr int kLingerMs = 1'000;  // for a client to take the last answer before the socket closes
constexpr size_t kMaxLingerBytes = 1 << 20;  // of a refused body that are still swallowed

std::string_view View(beast::string_view text) { return {text.data(), text.size()}; }

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(net::io_context& io, StreamSocket socket, const GatewayOptions& options,
             ConnectionCounts& counts, AttestedPeer peer)
      : io_(io),
        options_(options),
        counts_(counts),
        peer_(std::move(peer)),
        client_(std::move(socket)),
        admission_(options, peer_.channel) {
    ++counts_.open;
  }
  ~Connection() {
    EndRequest();
    --counts_.open;
  }

  void Start() { AwaitRequest(); }

 private:
  template <class Method>
  auto Then(Method method) {
    return beast::bind_front_handler(method, shared_from_this());
  }

  // For the client's next step. A stranger has one deadline for all of them.
  void Expire(int timeout_ms) {
    const auto end = Clock::now() + milliseconds(timeout_ms);
    client_.expires_at(admission_.is_stranger() ? std::min(end, stranger_until_) : end);
  }

  // --- A request comes in.

  void AwaitRequest() {
    request_.emplace();
    request_->header_limit(kMaxHeaderBytes);
    // Applied by Do(ReadBody): until a route is known, a large body is not the first thing wrong.
    request_->body_limit(std::numeric_limits<uint64_t>::max());
    if (received_.size() > 0) return ReadHeader();  // the client did not wait for the last answer
    Expire(options_.idle_timeout_ms);
    client_.async_read_some(received_.prepare(kPieceBytes), Then(&Connection::OnFirstBytes));
  }

  void OnFirstBytes(Error error, size_t size) {
    if (error) return Close();
    received_.commit(size);
    ReadHeader();
  }

  void ReadHeader() {
    // Absolute, so that a client that drips bytes gains nothing.
    Expire(options_.header_timeout_ms);
    http::async_read_header(client_, received_, *request_, Then(&Connection::OnHeader));
  }

  void OnHeader(Error error, size_t) {
    if (error) return OnReadError(error);
    keep_alive_ = request_->get().keep_alive();
    Obey(admission_.OnHeader(Head()));
  }

  RequestHead Head() const {
    const auto& header = request_->get();
    const auto field = [&header](auto name) {
      return RequestHead::Field{header.count(name), View(header[name])};
    };
    const auto length = request_->content_length();
    return {.method = View(header.method_string()),
            .target = View(header.target()),
            .content_type = View(header[http::field::content_type]),
            .authorization = field(http::field::authorization),
            .salt = field(beast::string_view(kSaltHeader.data(), kSaltHeader.size())),
            .has_body = !request_->is_done(),
            .content_length = length ? std::optional(*length) : std::nullopt};
  }

  // --- What was decided about it.

  void Obey(Verdict verdict) {
    std::visit([this](auto& decided) { Do(std::move(decided)); }, verdict);
  }

  void Do(const ReadBody& read) {
    request_->body_limit(read.max_bytes);
    Expire(options_.body_timeout_ms);
    if (beast::iequals(request_->get()[http::field::expect], "100-continue") &&
        !request_->is_done()) {
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      net::async_write(client_, net::buffer(kContinue), Then(&Connection::OnContinueWritten));
      return;
    }
    ReadRest();
  }

  void OnContinueWritten(Error error, size_t) {
    if (error) return Close();
    ReadRest();
  }

  void ReadRest() { http::async_read(client_, received_, *request_, Then(&Connection::OnBody)); }

  void OnBody(Error error, size_t) {
    if (error) return OnReadError(error);
    const std::string received = std::move(request_->get().body());
    request_->get().body() = {};
    Obey(admission_.OnBody(received));
  }

  void OnReadError(Error error) {
    if (error == http::error::body_limit) return Do(BodyTooLarge());
    if (error == http::error::header_limit)
      return Do(Problem{http::status::request_header_fields_too_large, "The header is too large."});
    if (error == beast::error::timeout || error == http::error::end_of_stream ||
        error == http::error::partial_message)
      return Close();
    if (error.category() == make_error_code(http::error::end_of_stream).category())
      return Do(Problem{http::status::bad_request, "This is not HTTP/1.1."});
    Close();
  }

  void Do(const MakeEvidence& wanted) {
    // A TEE may take seconds. The worker touches nothing of ours, and hands `self` back, so that
    // this dies in its own thread.
    net::post(*peer_.workers, [channel = peer_.channel, nonce = wanted.nonce, &io = io_,
                               self = shared_from_this()]() mutable {
      Result<attest::Claim> claim = channel->Attest(nonce);
      net::post(io, [self = std::move(self), claim = std::move(claim)] {
        self->Obey(self->admission_.OnClaim(claim));
      });
    });
  }

  // --- Answers of our own.

  // An answer to a request whose body was not read: the connection cannot be used again.
  void Do(const Problem& problem) {
    if (problem.ends_connection || !request_->is_done()) keep_alive_ = false;
    Answer(ProblemResponse(problem));
  }

  void Do(OwnAnswer answer) { Answer(JsonResponse(answer.status, std::move(answer.json))); }

  void Answer(http::response<http::string_body> response) {
    answer_.emplace(std::move(response));
    answer_->keep_alive(keep_alive_);
    answer_->prepare_payload();
    Expire(options_.write_timeout_ms);
    http::async_write(client_, *answer_, Then(&Connection::OnAnswered));
  }

  void OnAnswered(Error error, size_t) {
    answer_.reset();
    if (error) return Close();
    Finish();
  }

  // --- llama-server's answer. Each exchange has a connection of its own, which closing cancels.

  void Do(PassOn passed) {
    const Route& route = *passed.route;
    forwarded_.emplace(http::string_to_verb({route.method.data(), route.method.size()}),
                       beast::string_view(route.path.data(), route.path.size()), 11);
    forwarded_->set(http::field::host, "localhost");
    forwarded_->set(http::field::accept, "*/*");
    if (route.body != BodyKind::kNone) {
      forwarded_->set(http::field::content_type, "application/json");
      forwarded_->body() = std::move(passed.body);
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
    Expire(options_.write_timeout_ms);
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
    admission_.OnPiece({piece_.data(), size});
    Expire(options_.write_timeout_ms);
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
    admission_.OnAnswerEnd(static_cast<uint16_t>(relayed_->result_int()));
    Finish();
  }

  void OnUpstreamLost() {
    if (closed_) return;
    CloseUpstream();
    Answer(ProblemResponse({http::status::bad_gateway, "The engine did not answer."}));
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
    if (n > 0) return WatchHangup();  // the next request already; nothing else is seen behind it
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return WatchClient();
    Close();
  }

  void WatchHangup() {
    if (watching_hangup_) return;
    watching_hangup_ = true;
    client_.socket().async_wait(StreamSocket::wait_error, Then(&Connection::OnHangup));
  }

  void OnHangup(Error error) {
    watching_hangup_ = false;
    if (error || closed_ || !forwarding_) return;
    pollfd entry{.fd = client_.socket().native_handle(), .events = 0, .revents = 0};
    if (poll(&entry, 1, 0) > 0) Close();
  }

  // --- Ends.

  void SetAnswering(bool answering) {
    if (answering != answering_) counts_.answering += answering ? 1 : -1;
    answering_ = answering;
  }

  void EndRequest() {
    SetAnswering(false);
    admission_.EndRequest();
  }

  void Finish() {
    EndRequest();
    if (keep_alive_) return AwaitRequest();
    // Swallow what the client still sends, so that the answer is not lost in a reset.
    Error ignored;
    client_.socket().shutdown(StreamSocket::shutdown_send, ignored);
    Expire(kLingerMs);
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
    EndRequest();
    CloseUpstream();
    client_.close();
  }

  net::io_context& io_;
  const GatewayOptions& options_;
  ConnectionCounts& counts_;
  const AttestedPeer peer_;
  Stream client_;
  RequestAdmission admission_;
  std::optional<Stream> upstream_;  // of the current exchange, or the closed one of the last
  beast::flat_buffer received_{kMaxHeaderBytes + kPieceBytes}, upstream_received_{64 << 10};
  std::optional<http::request_parser<http::string_body>> request_;
  bool keep_alive_ = false;
  const Clock::time_point stranger_until_ =
      Clock::now() + milliseconds(options_.stranger_timeout_ms);
  std::optional<http::response<http::string_body>> answer_;  // of our own
  // An exchange with llama-server.
  bool forwarding_ = false, answering_ = false, chunked_ = false;
  bool watching_ = false, watching_hangup_ = false;
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
                     ConnectionCounts& counts, AttestedPeer peer) {
  std::make_shared<Connection>(io, std::move(socket), options, counts, std::move(peer))->Start();
}

std::string OverloadedAnswer() {
  const std::string body = ErrorJson(http::status::service_unavailable, "Too many connections.");
  return "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; "
         "charset=utf-8\r\nCache-Control: no-store\r\nRetry-After: 1\r\n"
         "Connection: close\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body;
}

}  // namespace talaria::cvm
