// A server of ours cannot speak TLS 1.2; this one can.
#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "talaria/base/openssl.h"
#include "talaria/client/secure_connection.h"
#include "talaria/client/testing/fake_cvm.h"

namespace talaria::client {
namespace {

// What the server got after a handshake, or "no handshake".
std::string ServeOnce(wire::Transport& transport, int version) {
  const Owned<EVP_PKEY> key(EVP_EC_gen("P-256"));
  const Owned<X509> certificate(X509_new());
  X509_set_version(certificate.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), 0);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
  X509_set_pubkey(certificate.get(), key.get());
  X509_sign(certificate.get(), key.get(), EVP_sha256());
  const Owned<SSL_CTX> context(SSL_CTX_new(TLS_server_method()));
  SSL_CTX_set_min_proto_version(context.get(), version);
  SSL_CTX_set_max_proto_version(context.get(), version);
  SSL_CTX_use_certificate(context.get(), certificate.get());
  SSL_CTX_use_PrivateKey(context.get(), key.get());
  const Owned<SSL> ssl(SSL_new(context.get()));
  BIO* const in = BIO_new(BIO_s_mem());
  BIO* const out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl.get(), in, out);
  std::array<uint8_t, 16384> piece;
  std::string got = "no handshake";
  for (;;) {
    if (SSL_accept(ssl.get()) == 1) {
      got.clear();
      const int n = SSL_read(ssl.get(), piece.data(), static_cast<int>(piece.size()));
      if (n > 0) return std::string(piece.begin(), piece.begin() + n);
    }
    char* data = nullptr;
    const auto size = static_cast<size_t>(BIO_get_mem_data(out, &data));
    if (size > 0 && !transport.Send({AsBytes(std::string_view(data, size))}, 20'000).ok())
      return got;
    (void)BIO_reset(out);
    const auto n = transport.ReceiveSome(piece, 1, 20'000);
    if (!n.ok()) return got;
    BIO_write(in, piece.data(), static_cast<int>(*n));
  }
}

TEST(TlsVersionTest, Tls12IsNotSpoken) {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    const testing::SocketFolder folder;
    const auto listener = wire::Listener::Create(ParseServer(folder.Address("s")).value()).value();
    std::string got;
    std::thread server([&] {
      const auto transport = listener->Accept().value();
      got = ServeOnce(*transport, version);
    });
    std::string written;
    const wire::TlsKey own = wire::TlsKey::Generate().value();
    const auto connection = SecureConnection::Open(
        {.endpoint = ParseServer(listener->address()).value(),
         .on_write = [&](Bytes bytes) { written.append(bytes.begin(), bytes.end()); }},
        testing::MakeVerifier(), own, testing::kTestNow);
    server.join();
    EXPECT_EQ(connection.status().code(), Code::kUnavailable);
    if (version == TLS1_2_VERSION) {
      EXPECT_EQ(got, "no handshake");
      EXPECT_EQ(written, "");
    } else {
      EXPECT_EQ(got, written);  // the server is one that would have been spoken to
      EXPECT_NE(written, "");
    }
  }
}

}  // namespace
}  // namespace talaria::client
