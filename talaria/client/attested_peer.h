// One CVM as a user's program sees it over hours: attested once, further connections by its key,
// attested again when that is too old or when the key is another one (the CVM has booted anew).
//
//   Connect():  attested and young?  --yes-->  an idle connection, or TLS to that key and no other
//                       | no                                  | another key: forget
//                       +--> evidence, verified: remember <---+    (also where every connection
//                                                                   is to show it)
#ifndef TALARIA_CLIENT_ATTESTED_PEER_H_
#define TALARIA_CLIENT_ATTESTED_PEER_H_

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "talaria/client/secure_connection.h"

namespace talaria::client {

struct PeerOptions {
  ServerOptions server;
  // One attestation stands for so long, at most the policy's max_age_s; 0: as the policy says.
  int max_age_s = 0;
  // Every connection shows evidence of its own, not only the first: receipts need that.
  bool attest_every_connection = false;
  size_t max_idle = 8;  // connections kept for the next request
  int max_idle_s = 30;  // and how long: less than the CVM keeps them
  // The same for one that was only verified. A CVM closes it when no token comes soon
  // (doc/http.md), and no request is to meet that end.
  int max_unused_idle_ms = 5'000;
  std::function<attest::UnixTime()> now = {};  // must be given
};

// All functions from any thread.
class AttestedPeer {
 public:
  AttestedPeer(PeerOptions options, attest::Verifier verifier, wire::TlsKey own);

  // A connection to a key that is attested and young enough now. At most one thread attests at a
  // time; the others wait for its result until `deadline`. The errors of SecureConnection::Open.
  Result<std::unique_ptr<SecureConnection>> Connect(TimePoint deadline);
  // For the next request, when this one is over and the CVM keeps the connection open.
  void Return(std::unique_ptr<SecureConnection> connection);
  // Attests now, however young the last attestation is, or waits for the attempt under way. A
  // refusal makes the peer forget it; a CVM that is not there does not.
  Status Verify(TimePoint deadline);

  // Null unless attested and young enough.
  std::shared_ptr<const Attested> current() const;
  Status last_error() const;  // of the last attempt to attest; ok when it succeeded
  bool attests_every_connection() const { return options_.attest_every_connection; }
  int max_age_s() const { return max_age_s_; }
  attest::UnixTime now() const { return options_.now(); }
  const attest::Verifier& verifier() const { return verifier_; }

 private:
  struct Idle {
    std::unique_ptr<SecureConnection> connection;
    TimePoint until;
  };
  using Lock = std::unique_lock<std::mutex>;
  bool IsYoung(const Attested& attested) const;
  std::unique_ptr<SecureConnection> TakeIdle();
  void Keep(std::unique_ptr<SecureConnection> connection, int idle_ms);
  Result<std::unique_ptr<SecureConnection>> Attest(Lock& lock, TimePoint deadline);

  const PeerOptions options_;
  const attest::Verifier verifier_;
  const wire::TlsKey own_;
  const int max_age_s_;

  mutable std::mutex mutex_;  // never held while the network is waited for
  std::condition_variable attest_done_;
  bool attesting_ = false;
  uint64_t attempts_ = 0;  // that have ended
  std::shared_ptr<const Attested> attested_;
  Status last_error_{Code::kUnavailable, "nothing was tried yet"};
  std::vector<Idle> idle_;  // all of them to attested_->key
};

}  // namespace talaria::client

#endif  // TALARIA_CLIENT_ATTESTED_PEER_H_
