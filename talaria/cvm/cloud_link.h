// The CVM's way to the cloud: connects, checks the provider's key, says Hello, pins the model
// identity, attests itself, fetches streams, and carries one call at a time.
//
//   transport failure (connect, reset, end, time-out, Error, Drain)  -> the connection is closed
//   unread, the identical bytes go
//       out on another one, at most max_retries times; then kUnavailable, and the link stays usable
//   the provider's policy refuses our evidence                        -> kUntrusted, without
//   retries protocol violation (length, type, wrong call, group, rows, size)  -> kSessionEnded, at
//   once and from then on
#ifndef TALARIA_CVM_CLOUD_LINK_H_
#define TALARIA_CVM_CLOUD_LINK_H_

#include <functional>
#include <memory>
#include <string>

#include "talaria/attest/attester.h"
#include "talaria/attest/context.h"
#include "talaria/base/bytes.h"
#include "talaria/base/digest.h"
#include "talaria/base/result.h"
#include "talaria/model/stream.h"
#include "talaria/wire/connection.h"
#include "talaria/wire/tls_key.h"

namespace talaria::cvm {

// Of an attested channel. What it points to outlives the link.
struct CloudSecurity {
  const wire::TlsKey& key;  // per boot; the one that evidence binds
  Digest provider_key;      // SHA-256 of the provider's SPKI: no other server gets evidence
  attest::Attester& attester;
  attest::Context context;
};

struct CloudLinkOptions {
  std::string endpoint;  // unix:PATH or HOST:PORT
  Digest identity{};     // the model that is expected; zero = take the cloud's (only before set-up
                         // pins it)
  std::shared_ptr<const CloudSecurity> security = {};  // null: plaintext (simulated TEE only)
  int connect_timeout_ms = 2000;
  int idle_timeout_ms = 3000;  // no byte for that long while a reply is due
  // Further connections on which the identical bytes are sent. Counted from a failed attempt's last
  // sign of life, all further ones together may take idle_timeout_ms + 800 ms: with the defaults a
  // lost cloud is an error within 5 s.
  int max_retries = 2;
  // For making evidence and for the provider's judgement, on top: a TDX quote takes seconds.
  int attest_timeout_ms = 30000;
  uint32_t max_frame_bytes = wire::kMaxFrameBytes;
};

struct LinkStats {
  uint64_t calls = 0, retries = 0, bytes_sent = 0, bytes_received = 0;
};

// One call at a time (a mutex inside). Transport failures give kUnavailable, the link stays usable
// and connects anew at the next call. Protocol violations give kSessionEnded: the caller must
// poison its session.
class CloudLink {
 public:
  static Result<std::unique_ptr<CloudLink>> Create(
      CloudLinkOptions options);  // kInvalidArgument; does not connect
  ~CloudLink();

  // The identity that the cloud's Hello named. kUnavailable, kSessionEnded.
  Result<Digest> Identity();
  // After set-up every connection must name this identity; another one ends the session.
  void PinIdentity(const Digest& identity);
  // Exactly out.size() bytes of a stream. The bytes are unchecked: the caller compares digests.
  Status Fetch(model::StreamId stream, uint64_t offset, MutableBytes out);
  // The bytes of the manifest, as many as the cloud announced and at most `max_bytes`, whose
  // SHA-256 is `identity`.
  Result<std::string> FetchManifest(const Digest& identity, size_t max_bytes);

  // Sends rows x [6][d_padded] planes and receives rows x [o_padded] x 6 bytes into `residues`
  // (private memory). The reply's call, group, rows and size are checked. On a transport failure
  // the identical bytes go out again on a new connection. At most one reply is ever parsed. Does
  // not allocate once the largest frame was seen. `meanwhile` is called each time the request has
  // gone out, before waiting for the reply.
  Status Multiply(uint32_t group, uint32_t rows, Bytes planes, MutableBytes residues,
                  const std::function<void()>& meanwhile = nullptr);
  // The largest number of rows for which both frames fit, after the limits that the peers
  // announced.
  uint32_t MaxRows(uint32_t d_padded, uint32_t o_padded) const;

  LinkStats stats() const;
  void Shutdown();  // any thread: pending and later calls fail with kCancelled
  void End();  // any thread: a check failed; nothing more is sent, pending and later calls fail
               // with kSessionEnded

 private:
  CloudLink();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_CLOUD_LINK_H_
