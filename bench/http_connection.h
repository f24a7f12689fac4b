// A kept HTTP/1.1 connection over any Transport, for what the benchmark asks: short requests with
// answers that have a Content-Length.
#ifndef TALARIA_BENCH_HTTP_CONNECTION_H_
#define TALARIA_BENCH_HTTP_CONNECTION_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "talaria/base/result.h"
#include "talaria/wire/transport.h"

namespace talaria::bench {

struct HttpRequest {
  std::string method, path, body, token;  // JSON, or empty; without a token none is sent
  std::string Text() const;
};

// The body of an answer with status 200, by whichever way bytes come and go. kUnavailable;
// kInternal for another status or form, with its beginning.
Result<std::string> Exchange(const std::string& request, const std::function<Status(Bytes)>& send,
                             const std::function<Result<size_t>(MutableBytes)>& receive,
                             bool* closes);

class HttpConnection {
 public:
  using Connector = std::function<Result<std::unique_ptr<wire::Transport>>()>;
  explicit HttpConnection(Connector connect) : connect_(std::move(connect)) {}

  struct Answer {
    std::string body;
    double seconds;  // from the first byte sent to the last one received; connecting is not in it
  };
  Result<Answer> Ask(const HttpRequest& request);

 private:
  const Connector connect_;
  std::unique_ptr<wire::Transport> transport_;  // null when the server closes it
};

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_HTTP_CONNECTION_H_
