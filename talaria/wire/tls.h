// TLS 1.3 as a Transport over any other Transport, with keys instead of a public-key
// infrastructure:
//
//   TlsConnect                                TlsAccept
//     ClientHello                     ----->
//                                     <-----    ServerHello, certificate, proof of its key
//     checks the server's key: a wrong one ends it here, and nothing but an alert follows
//     certificate, proof of its key   ----->
//                                               checks the client's key
//     bytes                           <---->    bytes
//
// Both certificates are self-signed and mean nothing: a side is its key, named by the SHA-256 of
// its SubjectPublicKeyInfo. What the key is worth, attestation says, bound to the connection by
// Export() (doc/attestation.md). A client learns only from its first Receive that the server has
// refused its key: that is TLS 1.3.
//
// No TLS 1.2, tickets, resumption, early data, renegotiation or client authentication after the
// handshake. AES-GCM only; X25519MLKEM768 where the library has it, else X25519 or P-256.
#ifndef TALARIA_WIRE_TLS_H_
#define TALARIA_WIRE_TLS_H_

#include <array>
#include <memory>
#include <string>
#include <string_view>

#include "talaria/wire/tls_key.h"
#include "talaria/wire/transport.h"

namespace talaria::wire {

// Which key the other side must have. There is no default.
class PeerKey {
 public:
  // This one and no other; checked inside the handshake.
  static PeerKey Pinned(const Digest& spki_sha256) { return {Kind::kPinned, spki_sha256}; }
  // Whichever it proves to have: TlsTransport::peer_key() says which, and the caller checks that.
  static PeerKey Any() { return {Kind::kAny, {}}; }
  // TlsAccept only: as Any(), but the client may have none; peer_key() is then zero.
  static PeerKey Optional() { return {Kind::kOptional, {}}; }
  // TlsAccept only: the client is not asked for a certificate.
  static PeerKey None() { return {Kind::kNone, {}}; }

  bool is_pinned() const { return kind_ == Kind::kPinned; }
  bool is_optional() const { return kind_ == Kind::kOptional; }
  bool is_none() const { return kind_ == Kind::kNone; }
  const Digest& pin() const { return pin_; }  // zero unless is_pinned()

 private:
  enum class Kind { kPinned, kAny, kOptional, kNone };
  PeerKey(Kind kind, const Digest& pin) : kind_(kind), pin_(pin) {}
  Kind kind_;
  Digest pin_;
};

struct TlsOptions {
  // What we send is padded to multiples of so many bytes, type byte included, so that the length of
  // a record says less; 0 to 16384, 0 and 1 = not.
  size_t padding_bytes = 0;
  // Our sending key is replaced after so many records: AES-GCM is good for 2^24.5 full ones
  // (RFC 8446, section 5.5). Tests lower it; >= 1.
  uint64_t records_per_key = uint64_t{1} << 22;
};

class TlsTransport final : public Transport {
 public:
  ~TlsTransport() override;  // says good-bye (close_notify) where that needs no waiting

  // As Transport says; one thread sends and one receives, at the same time. An end of the inner
  // stream without close_notify, an alert, or a record that does not decrypt: kUnavailable, for
  // good. A time-out of a Receive is not final; one of a Send is (for sending), because half a
  // record may have gone out. Progress is bytes of the inner transport.
  Status Send(std::initializer_list<Bytes> parts, int timeout_ms) override;
  Result<size_t> ReceiveSome(MutableBytes out, size_t min_bytes, int timeout_ms) override;
  void Shutdown() override;

  // SHA-256 of the peer's SPKI; 32 zero bytes with PeerKey::None(), and with Optional() for a peer
  // that has shown none.
  const Digest& peer_key() const;
  // The same of our own key as the peer knows it: 32 zero bytes for a client that was not asked.
  const Digest& own_key() const;
  // 32 bytes that both sides, and nobody else, derive from this connection (RFC 8446, section 7.5).
  // Any thread. kUnavailable: OpenSSL failed, or the connection has; the caller must give up.
  Result<std::array<uint8_t, 32>> Export(std::string_view label, Bytes context) const;
  const std::string& group() const;    // of the key exchange, for example "x25519"
  const std::string& version() const;  // "TLSv1.3"
  const std::string& cipher() const;   // "TLS_AES_128_GCM_SHA256"

 private:
  friend Result<std::unique_ptr<TlsTransport>> TlsConnect(std::unique_ptr<Transport>, const TlsKey&,
                                                          const PeerKey&, int, const TlsOptions&);
  friend Result<std::unique_ptr<TlsTransport>> TlsAccept(std::unique_ptr<Transport>, const TlsKey&,
                                                         const PeerKey&, int, const TlsOptions&);
  enum class Role { kClient, kServer };
  static Result<std::unique_ptr<TlsTransport>> Create(std::unique_ptr<Transport> inner,
                                                      const TlsKey& own, const PeerKey& peer,
                                                      int timeout_ms, const TlsOptions& options,
                                                      Role role);
  struct Impl;
  explicit TlsTransport(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// `inner` is connected and at its beginning. `timeout_ms` covers the whole handshake, however
// slowly the peer drips; > 0. On failure `inner` is closed. kInvalidArgument: the time-out, the
// options, or PeerKey::Optional() or None() for TlsConnect. kUntrusted, as attest::Refuse() writes
// it: "tls-peer-key" (not the pinned one), "tls-key-type" (not P-256), "tls-certificate-count" (not
// one), "tls-no-certificate" (the client has none). kUnavailable: all else (not TLS 1.3, an alert,
// the transport failed, the time is over).
Result<std::unique_ptr<TlsTransport>> TlsConnect(std::unique_ptr<Transport> inner,
                                                 const TlsKey& own, const PeerKey& peer,
                                                 int timeout_ms, const TlsOptions& options = {});
Result<std::unique_ptr<TlsTransport>> TlsAccept(std::unique_ptr<Transport> inner, const TlsKey& own,
                                                const PeerKey& peer, int timeout_ms,
                                                const TlsOptions& options = {});

}  // namespace talaria::wire

#endif  // TALARIA_WIRE_TLS_H_
