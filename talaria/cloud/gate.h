// Who gets weights and products: a CVM whose evidence the provider's policy accepts, by the key
// that the evidence binds, for at most the policy's max_age. Thread-safe.
#ifndef TALARIA_CLOUD_GATE_H_
#define TALARIA_CLOUD_GATE_H_

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "talaria/attest/verifier.h"
#include "talaria/base/digest.h"
#include "talaria/base/result.h"
#include "talaria/wire/tls_key.h"

namespace talaria::cloud {

struct GateOptions {
  wire::TlsKey key;           // the provider's, which CVMs pin
  attest::Verifier verifier;  // its policy names the store's model identity
  // The provider's clocks: of certificates, and of max_age. Tests have others.
  std::function<attest::UnixTime()> now;
  std::function<std::chrono::steady_clock::time_point()> steady_now;
};

class Gate {
 public:
  using Time = std::chrono::steady_clock::time_point;

  explicit Gate(GateOptions options) : options_(std::move(options)) {}

  const wire::TlsKey& key() const { return options_.key; }
  // Whether the policy lets a CVM compute with that model at all.
  bool AcceptsModel(const Digest& identity) const;
  // Until when the CVM with that key needs no new evidence; nullopt when it needs it now.
  std::optional<Time> AdmittedUntil(const Digest& cvm_key) const;
  // Judges a claim; the key is admitted on success, and no longer on failure. kUntrusted with the
  // reason, for the provider's log: the peer is told nothing but "not attested". Takes as long as
  // a few signatures; several threads may judge at once.
  Result<Time> Admit(const attest::Claim& claim, const attest::Channel& channel);
  Time Now() const { return options_.steady_now(); }
  // kUntrusted "tls-group" when the policy wants a post-quantum key exchange and this is none.
  Status CheckKeyExchange(const std::string& group) const;

 private:
  // A CVM that restarts comes with another key: what is over is dropped before anything is added.
  static constexpr size_t kMaxAdmitted = 65536;

  const GateOptions options_;
  mutable std::mutex mutex_;
  std::map<Digest, Time> admitted_;  // until when
};

// Whether a TLS 1.3 key exchange group withstands a quantum computer.
bool IsPostQuantum(std::string_view group);

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_GATE_H_
