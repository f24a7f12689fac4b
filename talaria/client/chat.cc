#include "talaria/client/chat.h"

#include <algorithm>
#include <array>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "talaria/attest/refusal.h"
#include "talaria/client/http_stream.h"
#include "talaria/client/receipt_exchange.h"
#include "talaria/client/sse.h"

namespace talaria::client {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;
using Json = nlohmann::ordered_json;

constexpr uint32_t kMaxHeaderBytes = 16 << 10;
constexpr size_t kPieceBytes = 16 << 10;
constexpr size_t kMaxErrorBytes = 64 << 10;
constexpr size_t kMaxAnswerBytes = 16 << 20;
constexpr int kStopStepMs = 50;
constexpr const char* kPath = "/v1/chat/completions";

// Ends the exchange when the user wants it: a signal handler can only set a flag.
class StopWatch {
 public:
  StopWatch(const std::atomic<bool>& stop, ReadAhead& stream)
      : thread_([this, &stop, &stream] {
          while (!over_) {
            if (stop) return stream.Shutdown();
            std::this_thread::sleep_for(std::chrono::milliseconds(kStopStepMs));
          }
        }) {}
  ~StopWatch() {
    over_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> over_{false};
  std::thread thread_;
};

// What one event says. An answer is over with [DONE].
struct Event {
  std::string text;
  bool done = false;
};

Result<Event> ParseEvent(const std::string& data) {
  Event event;
  if (data == "[DONE]") {
    event.done = true;
    return event;
  }
  const Json json = Json::parse(data, nullptr, false);
  if (!json.is_object()) return Status(Code::kCorrupt, "an event of the answer is not JSON");
  if (const auto error = json.find("error"); error != json.end()) {
    std::string message = "the server failed";
    if (error->is_object() && error->contains("message") && error->at("message").is_string())
      message = error->at("message").get<std::string>();
    return Status(Code::kUnavailable, attest::Printable(message));
  }
  const Json::json_pointer content("/choices/0/delta/content");
  if (json.contains(content) && json.at(content).is_string())
    event.text = json.at(content).get<std::string>();
  return event;
}

Status Refused(unsigned status, const std::string& body) {
  std::string message;
  const Json json = Json::parse(body, nullptr, false);
  const Json::json_pointer pointer("/error/message");
  if (json.is_object() && json.contains(pointer) && json.at(pointer).is_string())
    message = ": " + attest::Printable(json.at(pointer).get<std::string>());
  const Code code = status == 503 || status == 429 ? Code::kUnavailable : Code::kUnsupported;
  return Status(code, "the CVM answered with status " + std::to_string(status) + message);
}

}  // namespace

Chat::Chat(ChatOptions options, AttestedPeer& peer) : options_(std::move(options)), peer_(peer) {
  Clear();
}

void Chat::Clear() {
  messages_.clear();
  if (!options_.system.empty()) messages_.emplace_back("system", options_.system);
}

std::string Chat::RequestBody(const std::string& question) const {
  Json json = {{"stream", true}, {"messages", Json::array()}};
  for (const auto& [role, content] : messages_)
    json["messages"].push_back({{"role", role}, {"content", content}});
  json["messages"].push_back({{"role", "user"}, {"content", question}});
  if (options_.max_tokens > 0) json["max_tokens"] = options_.max_tokens;
  if (options_.temperature >= 0) json["temperature"] = options_.temperature;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Status Chat::Ask(const std::string& question, const std::function<void(std::string_view)>& on_text,
                 const std::atomic<bool>& stop) {
  TALARIA_ASSIGN_OR_RETURN(std::unique_ptr<SecureConnection> connection,
                           peer_.Connect(After(options_.connect_wait_ms)));
  const auto lost = [&](const HttpStream& stream, beast::error_code error) {
    if (stop) return Status(Code::kCancelled, "stopped");
    if (!stream.status().ok()) return stream.status().Annotate("the CVM was lost");
    return Status(Code::kUnavailable, "the answer is not HTTP: " + error.message());
  };
  std::string answer;
  bool reusable = false;
  const bool wants_receipt = !options_.receipts.empty();
  ReceiptCopy copy{};
  if (wants_receipt) {
    TALARIA_ASSIGN_OR_RETURN(copy.salt, FreshSalt());
  }
  try {
    const StopWatch watch(stop, connection->stream());
    HttpStream stream(connection->stream(), connection->send_timeout_ms());
    http::request<http::string_body> request(http::verb::post, kPath, 11);
    request.set(http::field::host, "talaria");
    request.set(http::field::content_type, "application/json");
    if (!options_.token.empty())
      request.set(http::field::authorization, "Bearer " + options_.token);
    request.body() = copy.request = RequestBody(question);
    if (wants_receipt) {
      request.set(beast::string_view(kReceiptSaltHeader.data(), kReceiptSaltHeader.size()),
                  ToHex(Bytes(copy.salt)));
    }
    request.prepare_payload();
    beast::error_code error;
    http::write(stream, request, error);
    if (error) return lost(stream, error);

    beast::flat_buffer buffer(kMaxHeaderBytes + 4 * kPieceBytes);
    http::response_parser<http::buffer_body> parser;
    parser.header_limit(kMaxHeaderBytes);
    parser.body_limit(std::numeric_limits<uint64_t>::max());
    stream.set_deadline(After(options_.answer_timeout_ms));
    http::read_header(stream, buffer, parser, error);
    if (error) return lost(stream, error);
    const unsigned status = parser.get().result_int();

    SseParser events;
    std::string problem;  // the body of a refusal
    bool done = false;
    std::array<char, kPieceBytes> piece;
    while (!parser.is_done()) {
      auto& body = parser.get().body();
      body.data = piece.data();
      body.size = piece.size();
      body.more = true;
      stream.set_deadline(After(options_.answer_timeout_ms));
      http::read_some(stream, buffer, parser, error);
      if (error && error != http::error::need_buffer) return lost(stream, error);
      const std::string_view text(piece.data(), piece.size() - body.size);
      if (status != 200) {
        problem += text.substr(0, kMaxErrorBytes - std::min(kMaxErrorBytes, problem.size()));
        continue;
      }
      if (wants_receipt) {
        if (copy.response.size() + text.size() > kMaxReceiptBodyBytes)
          return Status(Code::kCorrupt, "the answer is too large for a receipt");
        copy.response += text;
      }
      TALARIA_ASSIGN_OR_RETURN(const std::vector<std::string> datas, events.Feed(text));
      for (const std::string& data : datas) {
        TALARIA_ASSIGN_OR_RETURN(const Event event, ParseEvent(data));
        done = done || event.done;
        if (event.text.empty()) continue;
        if (answer.size() + event.text.size() > kMaxAnswerBytes)
          return Status(Code::kCorrupt, "the answer has no end");
        answer += event.text;
        on_text(event.text);
      }
    }
    if (status != 200) return Refused(status, problem);
    if (!done) return Status(Code::kUnavailable, "the answer ended before its end");
    reusable = parser.get().keep_alive() && buffer.size() == 0 && !parser.need_eof();
  } catch (const std::exception& e) {
    return Status(Code::kInternal, e.what());
  }
  if (wants_receipt) TALARIA_RETURN_IF_ERROR(KeepReceipt(*connection, reusable, copy));
  if (reusable) peer_.Return(std::move(connection));
  messages_.emplace_back("user", question);
  messages_.emplace_back("assistant", std::move(answer));
  return OkStatus();
}

Status Chat::KeepReceipt(SecureConnection& connection, bool whole, ReceiptCopy& copy) const {
  Status status = whole ? TakeReceipt(connection, kPath, options_.token, peer_, copy)
                        : Status(Code::kUnavailable, "the CVM does not keep the connection");
  Result<std::string> name = NewCopyName();
  if (status.ok()) status = name.status();
  if (status.ok()) status = SaveCopy(copy, options_.receipts + "/" + *name);
  return status.ok() ? status : status.Annotate("no receipt of this answer");
}

std::string TerminalFilter::Clean(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (after_c2_) {
      after_c2_ = false;
      // U+0080 to U+009F are control characters too; U+009B is what ESC [ is.
      if (byte >= 0x80 && byte < 0xa0) continue;
      out += '\xc2';
    }
    if (byte == 0xc2) {
      after_c2_ = true;
    } else if ((byte >= 0x20 && byte != 0x7f) || c == '\n' || c == '\t') {
      out += c;
    }
  }
  return out;
}

}  // namespace talaria::client
