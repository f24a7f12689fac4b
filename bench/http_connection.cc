#include "bench/http_connection.h"

#include <algorithm>
#include <array>
#include <chrono>

namespace talaria::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kTimeoutMs = 120'000;
constexpr size_t kMaxAnswerBytes = 1 << 20;

// The value of a header, both in lower case; empty without it.
std::string Field(const std::string& head, const std::string& name) {
  const size_t at = head.find("\r\n" + name + ":");
  if (at == std::string::npos) return {};
  const size_t begin = head.find_first_not_of(' ', at + name.size() + 3);
  return head.substr(begin, head.find("\r\n", begin) - begin);
}

}  // namespace

std::string HttpRequest::Text() const {
  std::string text = method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n";
  if (!token.empty()) text += "Authorization: Bearer " + token + "\r\n";
  if (!body.empty()) {
    text +=
        "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  }
  return text + "\r\n" + body;
}

Result<std::string> Exchange(const std::string& request, const std::function<Status(Bytes)>& send,
                             const std::function<Result<size_t>(MutableBytes)>& receive,
                             bool* closes) {
  TALARIA_RETURN_IF_ERROR(send(AsBytes(request)));
  std::string got, head;
  std::array<uint8_t, 16384> piece;
  size_t whole = 0;  // bytes of head and body, once known
  while (whole == 0 || got.size() < whole) {
    TALARIA_ASSIGN_OR_RETURN(const size_t n, receive(piece));
    got.append(piece.begin(), piece.begin() + static_cast<ptrdiff_t>(n));
    if (got.size() > kMaxAnswerBytes) return Status(Code::kInternal, "the answer has no end");
    const size_t end = got.find("\r\n\r\n");
    if (whole != 0 || end == std::string::npos) continue;
    head = got.substr(0, end + 2);
    std::ranges::transform(head, head.begin(),
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const std::string length = Field(head, "content-length");
    if (head.find(" 200 ") != 8 || length.empty())
      return Status(Code::kInternal, "another answer: " + got.substr(0, 300));
    whole = end + 4 + std::stoul(length);
    *closes = Field(head, "connection") == "close";
  }
  return got.substr(got.find("\r\n\r\n") + 4);
}

Result<HttpConnection::Answer> HttpConnection::Ask(const HttpRequest& request) {
  const std::string text = request.Text();
  if (!transport_) {
    TALARIA_ASSIGN_OR_RETURN(transport_, connect_());
  }
  bool closes = false;
  const auto start = Clock::now();
  TALARIA_ASSIGN_OR_RETURN(
      std::string body,
      Exchange(
          text, [&](Bytes bytes) { return transport_->Send({bytes}, kTimeoutMs); },
          [&](MutableBytes out) { return transport_->ReceiveSome(out, 1, kTimeoutMs); }, &closes));
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  if (closes) transport_ = nullptr;
  return Answer{std::move(body), seconds};
}

}  // namespace talaria::bench
