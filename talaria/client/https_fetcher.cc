#include <algorithm>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <chrono>
#include <cstring>

#include "talaria/attest/refusal.h"
#include "talaria/client/fetcher.h"

namespace talaria::client {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Clock = std::chrono::steady_clock;
using Error = beast::error_code;

constexpr uint32_t kMaxHeaderBytes = 32 << 10;  // three chains of certificates in one of Intel's

struct Url {
  std::string host, port, target;
};

Result<Url> ParseUrl(const std::string& text) {
  const Status bad(Code::kInvalidArgument,
                   attest::Printable(text) + " is not https://HOST[:PORT]/PATH");
  constexpr std::string_view kScheme = "https://";
  const bool plain = std::ranges::all_of(text, [](char c) { return c > 0x20 && c < 0x7f; });
  if (!plain || !text.starts_with(kScheme)) return bad;
  const size_t slash = text.find('/', kScheme.size());
  if (slash == std::string::npos) return bad;
  std::string place = text.substr(kScheme.size(), slash - kScheme.size());
  if (place.find_first_of("@?#") != std::string::npos) return bad;  // no user, no password
  Url out{.host = {}, .port = "443", .target = text.substr(slash)};
  const size_t colon = place.rfind(':');
  if (colon != std::string::npos && place.find(']', colon) == std::string::npos) {
    out.port = place.substr(colon + 1);
    place.resize(colon);
    if (out.port.empty() || out.port.find_first_not_of("0123456789") != std::string::npos)
      return bad;
  }
  if (place.starts_with('[') && place.ends_with(']')) place = place.substr(1, place.size() - 2);
  if (place.empty()) return bad;
  out.host = std::move(place);
  return out;
}

// One exchange. Each step runs the context until it is done or the time of them all is over.
class Exchange {
 public:
  Exchange(asio::ssl::context& tls, const HttpsOptions& options)
      : options_(options),
        deadline_(Clock::now() + std::chrono::milliseconds(options.timeout_ms)),
        stream_(io_, tls) {}

  Result<FetchedFile> Run(const Url& url) {
    TALARIA_RETURN_IF_ERROR(Connect(url));
    http::request<http::empty_body> request(http::verb::get, url.target, 11);
    request.set(http::field::host, url.port == "443" ? url.host : url.host + ":" + url.port);
    request.set(http::field::user_agent, "talaria");
    request.set(http::field::accept, "*/*");
    request.set(http::field::connection, "close");
    TALARIA_RETURN_IF_ERROR(
        Step("sending", [&](auto done) { http::async_write(stream_, request, done); }));
    http::response_parser<http::vector_body<uint8_t>> parser;
    parser.header_limit(kMaxHeaderBytes);
    parser.body_limit(options_.max_body_bytes);
    beast::flat_buffer buffer(kMaxHeaderBytes + (64 << 10));
    // The header on its own: in one go, Boost 1.74 forgets that Content-Length was over the limit.
    TALARIA_RETURN_IF_ERROR(Step("reading the answer", [&](auto done) {
      http::async_read_header(stream_, buffer, parser, done);
    }));
    TALARIA_RETURN_IF_ERROR(Step(
        "reading the answer", [&](auto done) { http::async_read(stream_, buffer, parser, done); }));
    return Judge(parser.release());
  }

 private:
  // start(handler): begins it.
  template <class Start>
  Status Step(const char* what, Start start) {
    bool done = false;
    Error error;
    start([&](Error e, auto&&...) {
      done = true;
      error = e;
    });
    io_.restart();
    io_.run_until(deadline_);
    if (!done) {
      // Whatever is pending ends now, before what it refers to does.
      beast::get_lowest_layer(stream_).close();
      io_.restart();
      io_.run();
      return Status(Code::kUnavailable, std::string(what) + " took longer than " +
                                            std::to_string(options_.timeout_ms) + " ms in all");
    }
    if (!error) return OkStatus();
    if (error == http::error::body_limit || error == http::error::header_limit) {
      return Status(Code::kCorrupt,
                    "the answer is larger than " + std::to_string(options_.max_body_bytes) +
                        " bytes, or its headers than " + std::to_string(kMaxHeaderBytes));
    }
    if (error == http::error::end_of_stream || error == http::error::partial_message)
      return Status(Code::kUnavailable, "the answer ends early");
    const bool is_http = std::strcmp(error.category().name(), "beast.http") == 0;
    if (is_http) return Status(Code::kCorrupt, "the answer is not HTTP: " + error.message());
    return Status(Code::kUnavailable, std::string(what) + ": " + Cause(error));
  }

  std::string Cause(const Error& error) {
    const long verified = SSL_get_verify_result(stream_.native_handle());
    if (verified == X509_V_OK) return error.message();
    return std::string("the server's certificate: ") + X509_verify_cert_error_string(verified);
  }

  Status Connect(const Url& url) {
    asio::ip::tcp::resolver resolver(io_);
    asio::ip::tcp::resolver::results_type found;
    Status status = Step("looking up the name", [&](auto done) {
      resolver.async_resolve(url.host, url.port, [done, &found](Error e, auto results) mutable {
        found = results;
        done(e);
      });
    });
    TALARIA_RETURN_IF_ERROR(status);
    // The deadline is ours, over all steps.
    beast::get_lowest_layer(stream_).expires_never();
    TALARIA_RETURN_IF_ERROR(Step("connecting", [&](auto done) {
      beast::get_lowest_layer(stream_).async_connect(found, done);
    }));
    Error not_an_address;
    asio::ip::make_address(url.host, not_an_address);
    if (not_an_address &&
        SSL_set_tlsext_host_name(stream_.native_handle(), url.host.c_str()) != 1) {
      return Status(Code::kInternal, "the name of the server could not be set");
    }
    stream_.set_verify_mode(asio::ssl::verify_peer);
    stream_.set_verify_callback(asio::ssl::host_name_verification(url.host));
    return Step("the TLS handshake",
                [&](auto done) { stream_.async_handshake(asio::ssl::stream_base::client, done); });
  }

  static Result<FetchedFile> Judge(http::response<http::vector_body<uint8_t>> answer) {
    const unsigned status = answer.result_int();
    const std::string words = "the server answered with status " + std::to_string(status);
    if (status == 404) return Status(Code::kNotFound, words + ": it has no such thing");
    if (status >= 300 && status < 400)
      return Status(Code::kUnavailable, words + ": redirections are not followed");
    if (status == 429 || status == 503) {
      const auto wait = answer[http::field::retry_after];
      return Status(
          Code::kUnavailable,
          words + ": try again later" +
              (wait.empty()
                   ? ""
                   : " (Retry-After: " + attest::Printable({wait.data(), wait.size()}) + ")"));
    }
    if (status != 200) return Status(Code::kUnavailable, words);
    FetchedFile out;
    for (const auto& field : answer) {
      std::string name(field.name_string());
      std::ranges::transform(name, name.begin(), [](char c) {
        return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
      });
      out.headers[std::move(name)] = std::string(field.value());
    }
    out.body = std::move(answer.body());
    return out;
  }

  const HttpsOptions& options_;
  const Clock::time_point deadline_;
  asio::io_context io_;
  beast::ssl_stream<beast::tcp_stream> stream_;
};

class HttpsFetcher final : public Fetcher {
 public:
  explicit HttpsFetcher(const HttpsOptions& options)
      : options_(options), tls_(asio::ssl::context::tls_client) {}

  Status Init() {
    SSL_CTX* context = tls_.native_handle();
    Error error;
    tls_.set_default_verify_paths(error);
    if (error || SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1)
      return Status(Code::kInternal, "the system's store of certificates cannot be used");
    return OkStatus();
  }

  Result<FetchedFile> Get(const std::string& url) override {
    TALARIA_ASSIGN_OR_RETURN(const Url parsed, ParseUrl(url));
    // Asio throws where it has no descriptors or memory left.
    try {
      Exchange exchange(tls_, options_);
      auto file = exchange.Run(parsed);
      return file.ok() ? std::move(file) : file.status().Annotate(url);
    } catch (const std::exception& e) {
      return Status(Code::kResourceExhausted, url + ": " + e.what());
    }
  }

 private:
  const HttpsOptions options_;
  asio::ssl::context tls_;
};

}  // namespace

Result<std::unique_ptr<Fetcher>> MakeHttpsFetcher(const HttpsOptions& options) {
  auto fetcher = std::make_unique<HttpsFetcher>(options);
  TALARIA_RETURN_IF_ERROR(fetcher->Init());
  return std::unique_ptr<Fetcher>(std::move(fetcher));
}

}  // namespace talaria::client
