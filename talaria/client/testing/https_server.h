// A vendor's server for tests: TLS over a real socket of 127.0.0.1, with a certificate of its own,
// and answers that are whatever a test wants, byte for byte.
#ifndef TALARIA_CLIENT_TESTING_HTTPS_SERVER_H_
#define TALARIA_CLIENT_TESTING_HTTPS_SERVER_H_

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace talaria::client::testing {

struct HttpsAnswer {
  std::string bytes;        // all of it, head and body
  int drip_ms = 0;          // a pause after every byte
  bool leave_open = false;  // neither end nor TLS's own end follow
  bool cut = false;         // the connection ends without TLS's own end
};
// HTTP/1.1 200 with these headers and Content-Length.
HttpsAnswer WholeAnswer(const std::string& body,
                        const std::map<std::string, std::string>& headers = {});
HttpsAnswer StatusAnswer(int status, const std::string& headers = {});

class HttpsServer {
 public:
  // `name`: what its certificate is for, a DNS name or "127.0.0.1".
  explicit HttpsServer(const std::string& name = "localhost");
  ~HttpsServer();
  HttpsServer(const HttpsServer&) = delete;
  HttpsServer& operator=(const HttpsServer&) = delete;

  // "/path?query" -> answer; anything else is a 404. Any time.
  void Serve(const std::string& target, HttpsAnswer answer);
  std::string url() const;  // https://localhost:PORT
  int port() const { return port_; }
  const std::string& certificate_pem() const { return certificate_pem_; }
  std::vector<std::string> heads() const;  // of the requests so far

 private:
  void Accept();
  void Speak(int socket);

  struct Tls;
  std::unique_ptr<Tls> tls_;
  std::string certificate_pem_;
  int listener_ = -1, port_ = 0;
  mutable std::mutex mutex_;
  std::map<std::string, HttpsAnswer> answers_;
  std::vector<std::string> heads_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace talaria::client::testing

#endif  // TALARIA_CLIENT_TESTING_HTTPS_SERVER_H_
