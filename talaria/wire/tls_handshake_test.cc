// Who is let in: keys, pins, and peers that speak another TLS, or none.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <thread>

#include "talaria/attest/refusal.h"
#include "talaria/wire/testing/tls_testing.h"
#include "talaria/wire/tls.h"
#include "talaria/wire/tls_context.h"

namespace talaria::wire {
namespace {

using attest::ReasonOf;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using testing::AnyOf;
using testing::HasSubstr;

// --- Two of ours.

TEST(TlsHandshakeTest, EachKnowsTheOthersKey) {
  for (const bool pinned : {true, false}) {
    const TlsResults both =
        HandshakeBoth(MakePlainPair(), ClientKey(), ServerKey(),
                      pinned ? PeerKey::Pinned(ServerKey().spki_sha256()) : PeerKey::Any(),
                      pinned ? PeerKey::Pinned(ClientKey().spki_sha256()) : PeerKey::Any());
    ASSERT_TRUE(both.client.ok()) << both.client.status().ToString();
    ASSERT_TRUE(both.server.ok()) << both.server.status().ToString();
    const TlsTransport &client = **both.client, &server = **both.server;
    EXPECT_EQ(client.peer_key(), ServerKey().spki_sha256());
    EXPECT_EQ(client.own_key(), ClientKey().spki_sha256());
    EXPECT_EQ(server.peer_key(), ClientKey().spki_sha256());
    EXPECT_EQ(server.own_key(), ServerKey().spki_sha256());
    EXPECT_EQ(client.version(), "TLSv1.3");
    EXPECT_THAT(client.cipher(), AnyOf("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"));
    EXPECT_EQ(client.cipher(), server.cipher());
    EXPECT_THAT(client.group(), AnyOf("x25519", "X25519MLKEM768"));
    EXPECT_EQ(client.group(), server.group());
  }
}

TEST(TlsHandshakeTest, AClientThatIsNotAskedStaysUnknown) {
  const TlsResults both =
      HandshakeBoth(MakePlainPair(), ClientKey(), ServerKey(),
                    PeerKey::Pinned(ServerKey().spki_sha256()), PeerKey::None());
  ASSERT_TRUE(both.client.ok() && both.server.ok());
  EXPECT_EQ((*both.server)->peer_key(), Digest{});
  EXPECT_EQ((*both.client)->own_key(), Digest{});
  EXPECT_EQ((*both.client)->peer_key(), ServerKey().spki_sha256());
  EXPECT_EQ((*both.client)->Export("EXPERIMENTAL-talaria-test", {}).value(),
            (*both.server)->Export("EXPERIMENTAL-talaria-test", {}).value());
}

TEST(TlsHandshakeTest, AWrongServerKeyEndsItBeforeAnythingIsSent) {
  Tap::Log log;
  PlainPair plain = MakePlainPair();
  plain.client = std::make_unique<Tap>(std::move(plain.client), &log);
  const TlsResults both = HandshakeBoth(std::move(plain), ClientKey(), ServerKey(),
                                        PeerKey::Pinned(ClientKey().spki_sha256()), PeerKey::Any());
  EXPECT_EQ(both.client.status().code(), Code::kUntrusted);
  EXPECT_EQ(both.client.status().message(), "tls-peer-key: found " +
                                                ToHex(ServerKey().spki_sha256()) + ", wanted " +
                                                ToHex(ClientKey().spki_sha256()));
  EXPECT_EQ(both.server.status().code(), Code::kUnavailable);
  EXPECT_THAT(both.server.status().message(), HasSubstr("alert"));
  // The ClientHello, one handshake record, and an alert of two bytes. No certificate.
  ASSERT_GT(log.sent.size(), 5u);
  const size_t hello = 5u + size_t{log.sent[3]} * 256 + log.sent[4];
  EXPECT_EQ(log.sent[0], 22);
  EXPECT_EQ(log.sent.size(), hello + 5 + 2);
}

TEST(TlsHandshakeTest, AWrongClientKeyIsRefusedByTheServer) {
  TlsResults both = HandshakeBoth(MakePlainPair(), ClientKey(), ServerKey(),
                                  PeerKey::Pinned(ServerKey().spki_sha256()),
                                  PeerKey::Pinned(ServerKey().spki_sha256()));
  EXPECT_EQ(ReasonOf(both.server.status()), "tls-peer-key") << both.server.status().ToString();
  // The client had finished before the server saw its key, and learns it from its first read.
  ASSERT_TRUE(both.client.ok());
  uint8_t out[1];
  const Status status = (*both.client)->ReceiveSome(out, 1, kTestTimeoutMs).status();
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("alert"));
}

TEST(TlsHandshakeTest, RefusesSenselessArguments) {
  EXPECT_EQ(TlsConnect(MakePlainPair().client, ClientKey(), PeerKey::None(), 1000).status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(TlsAccept(MakePlainPair().server, ServerKey(), PeerKey::Any(), 0).status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(
      TlsAccept(MakePlainPair().server, ServerKey(), PeerKey::Any(), 1000, {.padding_bytes = 16385})
          .status()
          .code(),
      Code::kInvalidArgument);
  EXPECT_EQ(
      TlsAccept(MakePlainPair().server, ServerKey(), PeerKey::Any(), 1000, {.records_per_key = 0})
          .status()
          .code(),
      Code::kInvalidArgument);
}

// --- Peers that are not TLS at all.

Status AcceptFrom(Bytes sent, int timeout_ms = kTestTimeoutMs) {
  PlainPair plain = MakePlainPair();
  EXPECT_TRUE(plain.client->Send({sent}, 1000).ok());
  return TlsAccept(std::move(plain.server), ServerKey(), PeerKey::Any(), timeout_ms).status();
}

TEST(TlsHandshakeTest, PlaintextIsRefused) {
  for (const std::string_view text : {std::string_view("GET / HTTP/1.1\r\nHost: talaria\r\n\r\n"),
                                      std::string_view("\x0d\0\0\0\x01talaria hello", 18),
                                      std::string_view("\x80\x0b\1\0\2\0\0\0\0\0\0\0\0", 13)}) {
    const Status status = AcceptFrom(AsBytes(text));
    EXPECT_EQ(status.code(), Code::kUnavailable);
    EXPECT_THAT(status.message(), testing::StartsWith("TLS handshake: "));
  }
  PlainPair plain = MakePlainPair();
  ASSERT_TRUE(plain.server->Send({AsBytes("HTTP/1.1 400 Bad Request\r\n\r\n")}, 1000).ok());
  const Status status =
      TlsConnect(std::move(plain.client), ClientKey(), PeerKey::Any(), kTestTimeoutMs).status();
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("wrong version number"));
}

TEST(TlsHandshakeTest, SilenceAndTheEnd) {
  PlainPair plain = MakePlainPair();
  const auto start = steady_clock::now();
  EXPECT_EQ(TlsAccept(std::move(plain.server), ServerKey(), PeerKey::Any(), 60).status().message(),
            "TLS handshake: not done in 60 ms");
  EXPECT_GE(steady_clock::now() - start, milliseconds(55));
  plain = MakePlainPair();
  plain.client.reset();
  EXPECT_EQ(
      TlsAccept(std::move(plain.server), ServerKey(), PeerKey::Any(), 1000).status().message(),
      "TLS handshake: the peer closed the connection");
}

TEST(TlsHandshakeTest, ADrippingPeerIsCutOffAtTheDeadline) {
  PlainPair plain = MakePlainPair();
  std::atomic<bool> stop{false};
  std::thread dripping([&] {
    // The beginning of a ClientHello of 16 KiB.
    const uint8_t start[] = {22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb, 3, 3};
    (void)plain.client->Send({start}, 1000);
    const uint8_t byte = 0;
    while (!stop) {
      (void)plain.client->Send({Bytes(&byte, 1)}, 1000);
      std::this_thread::sleep_for(milliseconds(10));
    }
  });
  const auto start = steady_clock::now();
  const Status status =
      TlsAccept(std::move(plain.server), ServerKey(), PeerKey::Any(), 200).status();
  const auto spent = steady_clock::now() - start;
  stop = true;
  dripping.join();
  EXPECT_EQ(status.message(), "TLS handshake: not done in 200 ms");
  EXPECT_GE(spent, milliseconds(195));
  EXPECT_LT(spent, milliseconds(2000));
}

// --- Peers made of plain OpenSSL, which can do what ours cannot.

struct RawPeer {
  explicit RawPeer(Owned<EVP_PKEY> with_key)
      : key(std::move(with_key)), ctx(SSL_CTX_new(TLS_method())) {
    signal(SIGPIPE, SIG_IGN);  // OpenSSL's own sockets raise it
    SSL_CTX_set_verify(ctx.get(), SSL_VERIFY_NONE, nullptr);
    if (key == nullptr) return;
    certificate = Certify();
    TALARIA_CHECK(SSL_CTX_use_certificate(ctx.get(), certificate.get()) == 1 &&
                  SSL_CTX_use_PrivateKey(ctx.get(), key.get()) == 1);
  }
  Owned<X509> Certify() const {
    Owned<X509> x(X509_new());
    X509_set_version(x.get(), X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(x.get()), 1);
    X509_gmtime_adj(X509_getm_notBefore(x.get()), -7200);
    X509_gmtime_adj(X509_getm_notAfter(x.get()), -3600);  // expired: we do not look at it
    X509_set_pubkey(x.get(), key.get());
    TALARIA_CHECK(X509_sign(x.get(), key.get(), EVP_sha256()) > 0);
    return x;
  }
  // The handshake and, if that works, one byte each way. What OpenSSL said last.
  void Run(Fd socket, bool server, SSL_SESSION* session = nullptr) {
    Owned<SSL> ssl(SSL_new(ctx.get()));
    SSL_set_fd(ssl.get(), socket.get());
    if (session != nullptr) SSL_set_session(ssl.get(), session);
    ERR_clear_error();
    done = (server ? SSL_accept(ssl.get()) : SSL_connect(ssl.get())) == 1;
    char byte = 'r';
    if (done) done = SSL_write(ssl.get(), &byte, 1) == 1 && SSL_read(ssl.get(), &byte, 1) == 1;
    if (done) reused = SSL_session_reused(ssl.get()) == 1;
    if (done) {
      SSL_SESSION_free(last_session);
      last_session = SSL_get1_session(ssl.get());
    }
    error = TakeOpenSslError();
    // Else OpenSSL calls the session spoilt, and nobody could offer it.
    SSL_set_shutdown(ssl.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
  }
  ~RawPeer() { SSL_SESSION_free(last_session); }
  RawPeer(const RawPeer&) = delete;
  RawPeer& operator=(const RawPeer&) = delete;

  Owned<EVP_PKEY> key;
  Owned<SSL_CTX> ctx;
  Owned<X509> certificate;
  SSL_SESSION* last_session = nullptr;
  bool done = false, reused = false;
  std::string error;
};

// Ours against a raw peer; the status of ours, and what of one byte each way went through.
Status AgainstRaw(RawPeer& raw, bool raw_is_server, const PeerKey& peer,
                  SSL_SESSION* session = nullptr) {
  auto [ours, theirs] = SocketPairFds();
  std::thread other([&raw, raw_is_server, session, fd = std::move(theirs)]() mutable {
    raw.Run(std::move(fd), raw_is_server, session);
  });
  TlsResult tls =
      raw_is_server
          ? TlsConnect(TransportFromSocket(std::move(ours)), ClientKey(), peer, kTestTimeoutMs)
          : TlsAccept(TransportFromSocket(std::move(ours)), ServerKey(), peer, kTestTimeoutMs);
  Status status = tls.status();
  if (tls.ok()) {
    uint8_t byte[1] = {};
    status = (*tls)->ReceiveSome(byte, 1, kTestTimeoutMs).status();
    if (status.ok()) status = (*tls)->Send({Bytes(byte)}, 1000);
  }
  other.join();
  return status;
}

Owned<EVP_PKEY> P256() { return Owned<EVP_PKEY>(EVP_EC_gen("P-256")); }

TEST(TlsHandshakeTest, AnybodysTls13WithOneP256CertificateWorks) {
  for (const bool server : {true, false}) {
    RawPeer raw(P256());
    const Status status = AgainstRaw(raw, server, PeerKey::Pinned(Sha256Of(SpkiOf(raw.key.get()))));
    EXPECT_TRUE(status.ok()) << status.ToString();
    EXPECT_TRUE(raw.done) << raw.error;
  }
}

TEST(TlsHandshakeTest, Tls12IsRefused) {
  for (const bool server : {true, false}) {
    RawPeer raw(P256());
    SSL_CTX_set_max_proto_version(raw.ctx.get(), TLS1_2_VERSION);
    const Status status = AgainstRaw(raw, server, PeerKey::Any());
    EXPECT_EQ(status.code(), Code::kUnavailable);
    EXPECT_THAT(status.message(),
                AnyOf(HasSubstr("unsupported protocol"), HasSubstr("protocol version")));
    EXPECT_FALSE(raw.done);
  }
}

TEST(TlsHandshakeTest, OtherCiphersAreRefused) {
  RawPeer raw(P256());
  SSL_CTX_set_ciphersuites(raw.ctx.get(), "TLS_CHACHA20_POLY1305_SHA256");
  EXPECT_THAT(AgainstRaw(raw, false, PeerKey::Any()).message(), HasSubstr("no shared cipher"));
}

TEST(TlsHandshakeTest, OtherKeyTypesAreRefused) {
  for (const bool server : {true, false}) {
    for (const char* const kind : {"P-384", "P-521", "RSA"}) {
      SCOPED_TRACE(std::string(kind) + (server ? " server" : " client"));
      RawPeer raw(
          Owned<EVP_PKEY>(std::string_view(kind) == "RSA" ? EVP_RSA_gen(2048) : EVP_EC_gen(kind)));
      const Status status = AgainstRaw(raw, server, PeerKey::Any());
      EXPECT_FALSE(raw.done);
      // An honest OpenSSL sees that no signature of its key would do, and shows no certificate.
      if (server) {
        EXPECT_EQ(status.code(), Code::kUnavailable);
        EXPECT_THAT(status.message(), HasSubstr("handshake failure"));
      } else {
        EXPECT_EQ(ReasonOf(status), "tls-no-certificate") << status.ToString();
      }
    }
  }
}

TEST(TlsHandshakeTest, OnlyTheCanonicalP256KeyIsTaken) {
  const auto own = SpkiOf(P256().get());
  EXPECT_TRUE(IsP256Spki(own));
  EXPECT_FALSE(IsP256Spki(SpkiOf(Owned<EVP_PKEY>(EVP_EC_gen("P-384")).get())));
  EXPECT_FALSE(IsP256Spki(SpkiOf(Owned<EVP_PKEY>(EVP_EC_gen("secp256k1")).get())));
  EXPECT_FALSE(IsP256Spki(SpkiOf(Owned<EVP_PKEY>(EVP_RSA_gen(2048)).get())));
  EXPECT_FALSE(IsP256Spki(Bytes(own).first(own.size() - 1)));
  EXPECT_FALSE(IsP256Spki({}));
  for (size_t i = 0; i < 27; ++i) {
    auto changed = own;
    changed[i] ^= 1;
    EXPECT_FALSE(IsP256Spki(changed)) << i;
  }
  const Owned<EVP_PKEY> compressed = P256();
  ASSERT_EQ(EVP_PKEY_set_utf8_string_param(compressed.get(), "point-format", "compressed"), 1);
  EXPECT_FALSE(IsP256Spki(SpkiOf(compressed.get())));
}

// A compressed point passes the signature algorithms of TLS, so it reaches our own check.
TEST(TlsHandshakeTest, AKeyInAnotherFormIsRefused) {
  for (const bool server : {true, false}) {
    Owned<EVP_PKEY> key = P256();
    ASSERT_EQ(EVP_PKEY_set_utf8_string_param(key.get(), "point-format", "compressed"), 1);
    RawPeer raw(std::move(key));
    const Status status = AgainstRaw(raw, server, PeerKey::Any());
    EXPECT_EQ(ReasonOf(status), "tls-key-type") << status.ToString();
    EXPECT_THAT(status.message(), HasSubstr("found EC prime256v1, wanted"));
    EXPECT_FALSE(raw.done);
  }
}

TEST(TlsHandshakeTest, TwoCertificatesAreRefused) {
  for (const bool server : {true, false}) {
    RawPeer raw(P256());
    X509* const extra = raw.Certify().release();
    ASSERT_EQ(SSL_CTX_add_extra_chain_cert(raw.ctx.get(), extra), 1);  // takes it
    const Status status = AgainstRaw(raw, server, PeerKey::Any());
    EXPECT_EQ(status.message(), "tls-certificate-count: found 2, wanted 1");
    EXPECT_EQ(status.code(), Code::kUntrusted);
    EXPECT_FALSE(raw.done);
  }
}

TEST(TlsHandshakeTest, AClientWithoutACertificateIsRefused) {
  RawPeer raw(nullptr);
  EXPECT_EQ(ReasonOf(AgainstRaw(raw, false, PeerKey::Any())), "tls-no-certificate");
  EXPECT_FALSE(raw.done);
  RawPeer again(nullptr);
  EXPECT_TRUE(AgainstRaw(again, false, PeerKey::None()).ok());
  EXPECT_TRUE(again.done) << again.error;
}

TEST(TlsHandshakeTest, NoTicketsAndNothingToResume) {
  RawPeer raw(P256());
  int tickets = 0;
  SSL_CTX_set_app_data(raw.ctx.get(), &tickets);
  SSL_CTX_set_session_cache_mode(raw.ctx.get(), SSL_SESS_CACHE_CLIENT);
  SSL_CTX_sess_set_new_cb(raw.ctx.get(), [](SSL* ssl, SSL_SESSION*) {
    ++*static_cast<int*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
    return 0;
  });
  ASSERT_TRUE(AgainstRaw(raw, false, PeerKey::Any()).ok());
  EXPECT_EQ(tickets, 0);
  ASSERT_NE(raw.last_session, nullptr);
  EXPECT_EQ(SSL_SESSION_is_resumable(raw.last_session), 0);
}

// A client that offers a session of its own making: a full handshake, or none.
TEST(TlsHandshakeTest, AnOfferedSessionIsNotTaken) {
  // A server of plain OpenSSL hands out a real ticket first.
  RawPeer issuer(P256());
  RawPeer client(P256());
  static SSL_SESSION* ticket = nullptr;
  SSL_CTX_set_session_cache_mode(client.ctx.get(), SSL_SESS_CACHE_CLIENT);
  SSL_CTX_sess_set_new_cb(client.ctx.get(), [](SSL*, SSL_SESSION* session) {
    SSL_SESSION_free(ticket);
    ticket = session;
    return 1;
  });
  {
    auto [a, b] = SocketPairFds();
    std::thread server([&, fd = std::move(a)]() mutable { issuer.Run(std::move(fd), true); });
    client.Run(std::move(b), false);
    server.join();
  }
  ASSERT_NE(ticket, nullptr);
  ASSERT_EQ(SSL_SESSION_is_resumable(ticket), 1);
  // The issuer itself would take it, so the offer is a good one.
  {
    auto [a, b] = SocketPairFds();
    std::thread server([&, fd = std::move(a)]() mutable { issuer.Run(std::move(fd), true); });
    SSL_SESSION* const offered = SSL_SESSION_dup(ticket);
    client.Run(std::move(b), false, offered);
    SSL_SESSION_free(offered);
    server.join();
    EXPECT_TRUE(client.reused);
  }
  const Status status =
      AgainstRaw(client, false, PeerKey::Pinned(Sha256Of(SpkiOf(client.key.get()))), ticket);
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_TRUE(client.done) << client.error;
  EXPECT_FALSE(client.reused);
  SSL_SESSION_free(ticket);
  ticket = nullptr;
}

// Somebody who shows another's certificate without its key.
TEST(TlsHandshakeTest, ACertificateWithoutItsKeyIsRefused) {
  const RawPeer victim(P256());
  RawPeer thief(P256());
  // OpenSSL refuses to load such a pair, so the thief's private key is swapped in below its checks.
  Owned<EVP_PKEY> stolen(EVP_PKEY_dup(thief.key.get()));
  uint8_t point[65];
  size_t size = 0;
  ASSERT_EQ(EVP_PKEY_get_octet_string_param(victim.key.get(), "pub", point, sizeof(point), &size),
            1);
  ASSERT_EQ(EVP_PKEY_set1_encoded_public_key(stolen.get(), point, size), 1);
  RawPeer raw(std::move(stolen));
  for (const bool server : {true, false}) {
    const Status status =
        AgainstRaw(raw, server, PeerKey::Pinned(Sha256Of(SpkiOf(victim.key.get()))));
    EXPECT_EQ(status.code(), Code::kUnavailable);
    EXPECT_THAT(status.message(), HasSubstr("bad signature"));
    EXPECT_FALSE(raw.done);
  }
}

}  // namespace
}  // namespace talaria::wire
