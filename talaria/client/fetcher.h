// Files from a vendor's server. A narrow door: one GET at a time, no redirects, no cookies, no
// proxy, and nothing that came is believed for having come over TLS.
#ifndef TALARIA_CLIENT_FETCHER_H_
#define TALARIA_CLIENT_FETCHER_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "talaria/base/result.h"

namespace talaria::client {

struct FetchedFile {
  std::vector<uint8_t> body;
  std::map<std::string, std::string> headers;  // names in lower case; of two alike, the last
};

// One thread.
class Fetcher {
 public:
  virtual ~Fetcher() = default;
  // Every message names the URL. kInvalidArgument: not https://HOST[:PORT]/PATH; kUnavailable: no
  // connection, a server certificate that does not verify, not in time, an answer that ends early,
  // or a status that may be another one later; kNotFound: status 404; kCorrupt: not HTTP, or larger
  // than it may be.
  virtual Result<FetchedFile> Get(const std::string& url) = 0;
};

struct HttpsOptions {
  int timeout_ms = 30'000;          // of one Get as a whole, but for the resolver
  size_t max_body_bytes = 1 << 20;  // headers: 32 KiB together
};
// TLS 1.2 or 1.3. The server's certificate is verified against the system's store (which
// SSL_CERT_FILE and SSL_CERT_DIR replace, as they do for OpenSSL), name included. kInternal: there
// is no such store.
Result<std::unique_ptr<Fetcher>> MakeHttpsFetcher(const HttpsOptions& options);

}  // namespace talaria::client

#endif  // TALARIA_CLIENT_FETCHER_H_
