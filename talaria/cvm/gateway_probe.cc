// The CVM's own requests to llama-server: is it up, and does a whole completion come through?
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <exception>
#include <nlohmann/json.hpp>
#include <optional>

#include "talaria/cvm/gateway.h"

namespace talaria::cvm {
namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Error = beast::error_code;

struct ProbeAnswer {
  unsigned status = 0;
  std::string body;
};

// One exchange, at most `timeout_ms` in all.
std::optional<ProbeAnswer> Exchange(const std::string& socket, http::verb method,
                                    const char* target, std::string body, int timeout_ms) {
  net::io_context io{1};
  beast::basic_stream<net::generic::stream_protocol, net::io_context::executor_type> stream(io);
  beast::flat_buffer buffer;
  http::request<http::string_body> request(method, target, 11);
  request.set(http::field::host, "localhost");
  if (!body.empty()) request.set(http::field::content_type, "application/json");
  request.body() = std::move(body);
  request.keep_alive(false);
  request.prepare_payload();
  http::response_parser<http::string_body> response;
  response.body_limit(1 << 20);
  std::optional<ProbeAnswer> answer;
  stream.expires_after(std::chrono::milliseconds(timeout_ms));
  stream.async_connect(net::local::stream_protocol::endpoint(socket), [&](Error connect_error) {
    if (connect_error) return;
    http::async_write(stream, request, [&](Error write_error, size_t) {
      if (write_error) return;
      http::async_read(stream, buffer, response, [&](Error read_error, size_t) {
        if (!read_error) answer = ProbeAnswer{response.get().result_int(), response.get().body()};
      });
    });
  });
  io.run();
  return answer;
}

}  // namespace

Status ProbeHealth(const std::string& upstream_socket, int timeout_ms) {
  try {
    const auto answer = Exchange(upstream_socket, http::verb::get, "/health", {}, timeout_ms);
    if (answer && answer->status == 200) return OkStatus();
  } catch (const std::exception&) {
  }
  return Status(Code::kUnavailable, "llama-server does not answer");
}

Status ProbeCompletion(const std::string& upstream_socket, int timeout_ms) {
  constexpr const char* kRequest =
      R"({"prompt":"1 2 3","max_tokens":1,"temperature":0,"cache_prompt":false})";
  try {
    const auto answer =
        Exchange(upstream_socket, http::verb::post, "/v1/completions", kRequest, timeout_ms);
    if (!answer) return Status(Code::kUnavailable, "llama-server did not answer the probe");
    if (answer->status != 200)
      return Status(Code::kInternal, "llama-server answered the probe with status " +
                                         std::to_string(answer->status));
    const auto json = nlohmann::json::parse(answer->body, nullptr, false);
    const nlohmann::json::json_pointer tokens("/usage/completion_tokens");
    if (json.is_object() && json.contains(tokens) && json.at(tokens).is_number_unsigned() &&
        json.at(tokens).get<uint64_t>() == 1)
      return OkStatus();
  } catch (const std::exception&) {
  }
  return Status(Code::kInternal,
                "llama-server's answer to the probe is not a completion of one token");
}

}  // namespace talaria::cvm
