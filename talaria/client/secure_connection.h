// A connection to a CVM that is believed: nothing but a nonce leaves this machine before the CVM's
// evidence was verified, here, against the user's own policy.
//
//   client                                            CVM
//     TLS 1.3: the key that it proves to have <---->
//     POST /v1/talaria/attestation, nonce      ---->
//                                              <----  context, evidence bound to this connection
//     attest::Verifier: yes
//     ... and only now requests                <---->
//
// doc/attestation.md.
#ifndef TALARIA_CLIENT_SECURE_CONNECTION_H_
#define TALARIA_CLIENT_SECURE_CONNECTION_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "talaria/attest/verifier.h"
#include "talaria/client/read_ahead.h"
#include "talaria/wire/tls.h"
#include "talaria/wire/transport.h"

namespace talaria::client {

// https://HOST[:PORT], HOST:PORT or unix:PATH. TLS is inside all of them. kInvalidArgument.
Result<wire::Endpoint> ParseServer(std::string_view url);

struct ServerOptions {
  wire::Endpoint endpoint;
  int connect_timeout_ms = 10'000;  // of the transport, and again of the TLS handshake
  int attest_timeout_ms = 60'000;   // of the exchange of evidence as a whole: TDX takes seconds
  int send_timeout_ms = 30'000;     // without any progress
  // Sees every byte that is sent inside TLS, before it is sent: tests assert on it.
  std::function<void(Bytes)> on_write = {};
};

// What was found when evidence was verified.
struct Attested {
  attest::Claim claim;
  attest::Verdict verdict;
  Digest key;         // SHA-256 of the CVM's SPKI
  std::string group;  // of the key exchange, for example "x25519"
  attest::UnixTime verified_at;
};

// Evidence as it was sent, on one connection, not verified: for `talaria policy init`.
struct UnverifiedClaim {
  attest::Claim claim;
  attest::Channel channel;  // what the claim must be bound to
  std::string group;
};

class SecureConnection {
 public:
  // To any key; takes evidence and verifies it. kUnavailable: no connection, not TLS 1.3, not in
  // time, or the CVM is not ready. kUntrusted: "post-quantum" (the policy wants it and the key
  // exchange was another), "attestation-answer" (not the answer of a CVM), "evidence-format",
  // "context-format", those of TlsConnect and of Verifier::Verify.
  static Result<std::unique_ptr<SecureConnection>> Open(const ServerOptions& options,
                                                        const attest::Verifier& verifier,
                                                        const wire::TlsKey& own,
                                                        attest::UnixTime now);
  // To the key of `attested` and no other, without evidence: whoever calls this judges its age.
  // kUnavailable; kUntrusted "tls-peer-key", "post-quantum".
  static Result<std::unique_ptr<SecureConnection>> OpenPinned(
      const ServerOptions& options, const attest::Verifier& verifier, const wire::TlsKey& own,
      std::shared_ptr<const Attested> attested);
  // The claim of whoever answers. Nothing in it is verified, and the connection is closed again.
  static Result<UnverifiedClaim> FetchUnverified(const ServerOptions& options,
                                                 const wire::TlsKey& own);

  // One thread sends and one reads.
  ReadAhead& stream() { return *stream_; }
  // Never null.
  const std::shared_ptr<const Attested>& attested() const { return attested_; }
  // The CVM takes requests on this connection after the one for evidence.
  bool reusable() const { return reusable_; }
  int send_timeout_ms() const { return send_timeout_ms_; }

 private:
  SecureConnection(std::unique_ptr<ReadAhead> stream, std::shared_ptr<const Attested> attested,
                   bool reusable, int send_timeout_ms)
      : stream_(std::move(stream)),
        attested_(std::move(attested)),
        reusable_(reusable),
        send_timeout_ms_(send_timeout_ms) {}

  std::unique_ptr<ReadAhead> stream_;
  std::shared_ptr<const Attested> attested_;
  bool reusable_;
  int send_timeout_ms_;
};

}  // namespace talaria::client

#endif  // TALARIA_CLIENT_SECURE_CONNECTION_H_
