#include "talaria/client/testing/https_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>

#include "talaria/base/openssl.h"
#include "talaria/base/result.h"

namespace talaria::client::testing {
namespace {

// Self-signed; valid in every year that a test's clock may show.
Owned<X509> MakeCertificate(EVP_PKEY* key, const std::string& name) {
  Owned<X509> x509(X509_new());
  const Owned<ASN1_TIME> from(ASN1_TIME_set(nullptr, 1577836800));
  const Owned<ASN1_TIME> to(ASN1_TIME_set(nullptr, 4102444800));
  X509_NAME* subject = X509_get_subject_name(x509.get());
  const bool address = name == "127.0.0.1";
  const std::string names = (address ? "IP:" : "DNS:") + name;
  const Owned<X509_EXTENSION> extension(
      X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, names.c_str()));
  TALARIA_CHECK(
      X509_set_version(x509.get(), 2) == 1 &&
      ASN1_INTEGER_set(X509_get_serialNumber(x509.get()), 1) == 1 &&
      X509_set1_notBefore(x509.get(), from.get()) == 1 &&
      X509_set1_notAfter(x509.get(), to.get()) == 1 &&
      X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                                 reinterpret_cast<const uint8_t*>("test"), -1, -1, 0) == 1 &&
      X509_set_issuer_name(x509.get(), subject) == 1 &&
      X509_add_ext(x509.get(), extension.get(), -1) == 1 && X509_set_pubkey(x509.get(), key) == 1 &&
      X509_sign(x509.get(), key, EVP_sha256()) > 0);
  return x509;
}

}  // namespace

struct HttpsServer::Tls {
  Owned<SSL_CTX> context{SSL_CTX_new(TLS_server_method())};
};

HttpsAnswer WholeAnswer(const std::string& body,
                        const std::map<std::string, std::string>& headers) {
  std::string head = "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  for (const auto& [name, value] : headers) head += name + ": " + value + "\r\n";
  return {.bytes = head + "\r\n" + body};
}

HttpsAnswer StatusAnswer(int status, const std::string& headers) {
  return {.bytes = "HTTP/1.1 " + std::to_string(status) + " x\r\nContent-Length: 0\r\n" + headers +
                   "\r\n"};
}

HttpsServer::HttpsServer(const std::string& name) : tls_(std::make_unique<Tls>()) {
  signal(SIGPIPE, SIG_IGN);  // clients leave early here
  const Owned<EVP_PKEY> key(EVP_EC_gen("P-256"));
  const Owned<X509> certificate = MakeCertificate(key.get(), name);
  SSL_CTX* context = tls_->context.get();
  TALARIA_CHECK(SSL_CTX_use_certificate(context, certificate.get()) == 1 &&
                SSL_CTX_use_PrivateKey(context, key.get()) == 1);
  const Owned<BIO> pem(BIO_new(BIO_s_mem()));
  TALARIA_CHECK(PEM_write_bio_X509(pem.get(), certificate.get()) == 1);
  char* text = nullptr;
  const long size = BIO_get_mem_data(pem.get(), &text);
  certificate_pem_.assign(text, static_cast<size_t>(size));

  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  TALARIA_CHECK(bind(listener_, generic, length) == 0 && listen(listener_, 16) == 0 &&
                getsockname(listener_, generic, &length) == 0);
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { Accept(); });
}

HttpsServer::~HttpsServer() {
  stop_ = true;
  shutdown(listener_, SHUT_RDWR);
  thread_.join();
  close(listener_);
}

void HttpsServer::Serve(const std::string& target, HttpsAnswer answer) {
  const std::lock_guard lock(mutex_);
  answers_[target] = std::move(answer);
}

std::string HttpsServer::url() const { return "https://localhost:" + std::to_string(port_); }

std::vector<std::string> HttpsServer::heads() const {
  const std::lock_guard lock(mutex_);
  return heads_;
}

// One connection after the other: its clients are sequential.
void HttpsServer::Accept() {
  while (!stop_) {
    const int socket = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) continue;
    Speak(socket);
    close(socket);
  }
}

void HttpsServer::Speak(int socket) {
  const Owned<SSL> ssl(SSL_new(tls_->context.get()));
  SSL_set_fd(ssl.get(), socket);
  if (SSL_accept(ssl.get()) != 1) return;
  std::string head;
  char piece[4096];
  while (head.find("\r\n\r\n") == std::string::npos) {
    const int n = SSL_read(ssl.get(), piece, sizeof piece);
    if (n <= 0) return;
    head.append(piece, static_cast<size_t>(n));
  }
  const size_t from = head.find(' ') + 1;
  const std::string target = head.substr(from, head.find(' ', from) - from);
  HttpsAnswer answer;
  {
    const std::lock_guard lock(mutex_);
    heads_.push_back(head);
    const auto found = answers_.find(target);
    answer = found == answers_.end() ? StatusAnswer(404) : found->second;
  }
  const size_t step = answer.drip_ms > 0 ? 1 : answer.bytes.size();
  for (size_t at = 0; at < answer.bytes.size() && !stop_; at += step) {
    if (SSL_write(ssl.get(), answer.bytes.data() + at, static_cast<int>(step)) <= 0) return;
    if (answer.drip_ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(answer.drip_ms));
  }
  if (answer.cut) return;
  if (answer.leave_open) {
    // Until the client has gone.
    pollfd gone{.fd = socket, .events = POLLRDHUP, .revents = 0};
    while (!stop_ && poll(&gone, 1, 50) == 0) continue;
    return;
  }
  SSL_shutdown(ssl.get());
}

}  // namespace talaria::client::testing
