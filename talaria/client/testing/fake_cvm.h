// A CVM's front for tests, with the simulated TEE, that can be told to lie. And what a user of it
// has: a policy, a clock, a verifier.
#ifndef TALARIA_CLIENT_TESTING_FAKE_CVM_H_
#define TALARIA_CLIENT_TESTING_FAKE_CVM_H_

#include <atomic>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "talaria/attest/binding.h"
#include "talaria/attest/claim.h"
#include "talaria/attest/receipt.h"
#include "talaria/attest/simulated/simulated_attester.h"
#include "talaria/attest/verifier.h"
#include "talaria/base/testing/temp_folder.h"
#include "talaria/client/read_ahead.h"
#include "talaria/wire/tls.h"

namespace talaria::client::testing {

inline constexpr attest::UnixTime kTestNow = 1'767'225'600;  // 2026-01-01

attest::Context GoodContext();
attest::SimulatedOptions GoodTee();
// Accepts exactly these, once an hour.
attest::Policy GoodPolicy();
// `simulated`: --insecure-simulated-tee was given.
attest::Verifier MakeVerifier(attest::Policy policy = GoodPolicy(), bool simulated = true);

// A folder for sockets that goes with it.
class SocketFolder : public TempFolder {
 public:
  std::string Address(const std::string& name) const { return "unix:" + File(name); }
};

// One request to the fake CVM, and its answer. Used in the thread of its connection.
class FakeExchange {
 public:
  FakeExchange(ReadAhead& connection) : connection_(connection) {}
  std::string method, target, body;
  std::map<std::string, std::string> headers;  // names in lower case

  void Head(int status, const std::string& type);  // a chunked answer begins
  void Piece(const std::string& text);
  void End();
  void Whole(int status, const std::string& type, const std::string& text);
  void Raw(const std::string& bytes);
  // Until the user has gone; false when they are still there after that time.
  bool AwaitGone(int timeout_ms = 10'000);
  void Cut() { connection_.Shutdown(); }
  // What Head, Piece and Whole have sent.
  int status() const { return status_; }
  const std::string& sent() const { return sent_; }

 private:
  ReadAhead& connection_;
  int status_ = 0;
  std::string sent_;
};

struct FakeCvmOptions {
  attest::Context context = GoodContext();
  attest::SimulatedOptions tee = GoodTee();
  bool ask_for_client_key = false;
  // Lies: what is bound, what is sent, and instead of all that an answer of the test's own.
  std::function<void(attest::Binding&)> alter_binding = {};
  std::function<void(attest::Claim&)> alter_claim = {};
  std::function<void(FakeExchange&)> answer_attestation = {};
  // Lies in receipts: before and after they are signed, and instead of one.
  std::function<void(attest::Receipt&)> alter_receipt = {}, alter_signed_receipt = {};
  std::function<void(FakeExchange&)> answer_receipt = {};
  // Everything else; without it: 200 and "hello".
  std::function<void(FakeExchange&)> answer = {};
  // Every byte that a user sent, as it was inside TLS. In the connections' threads.
  std::function<void(Bytes)> on_read = {};
};

class FakeCvm {
 public:
  // Makes a new key, as a boot does.
  FakeCvm(const std::string& address, FakeCvmOptions options);
  ~FakeCvm();  // cuts all connections
  const std::string& address() const { return address_; }
  Digest key() const { return key_->spki_sha256(); }
  int connections() const { return connections_; }
  int attestations() const { return attestations_; }
  int requests() const { return requests_; }  // other than for evidence and receipts

 private:
  struct Connection {
    std::unique_ptr<ReadAhead> stream;
    std::thread thread;
  };
  void Accept();
  // Of one connection: its evidence, and what its last answer's receipt is of.
  struct Session;
  void Serve(ReadAhead& stream, const wire::TlsTransport& tls);
  void Attest(FakeExchange& exchange, const wire::TlsTransport& tls, Session& session);
  void AnswerReceipt(FakeExchange& exchange, const Session& session);

  const FakeCvmOptions options_;
  std::unique_ptr<wire::TlsKey> key_;
  std::unique_ptr<attest::SimulatedAttester> attester_;
  std::unique_ptr<wire::Listener> listener_;
  std::string address_;
  std::atomic<int> connections_{0}, attestations_{0}, requests_{0};
  std::list<Connection> open_;  // of the accepting thread
  std::thread accepting_;
};

}  // namespace talaria::client::testing

#endif  // TALARIA_CLIENT_TESTING_FAKE_CVM_H_
