// What becomes of a client's requests: who may ask, for what, how much. Decides only; one of these
// goes with each connection of gateway_connection.h, which reads, writes and obeys. Internal to the
// gateway, and for its one thread.
//
// The first thing that is wrong is answered, in this order: a route of evidence or revocations
// (which need no user), the token, whether this user is served, the route, the method, whether the
// model is ready, the salt of a receipt, the user's limits, the body's type and size, its fields.
#ifndef TALARIA_CVM_GATEWAY_ADMISSION_H_
#define TALARIA_CVM_GATEWAY_ADMISSION_H_

#include <ostream>
// Which status.hpp needs and leaves out.
#include <boost/beast/http/status.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "talaria/attest/receipt.h"
#include "talaria/base/digest.h"
#include "talaria/cvm/answer_meter.h"
#include "talaria/cvm/gateway.h"
#include "talaria/cvm/gateway_channel.h"
#include "talaria/cvm/gateway_filter.h"
#include "talaria/cvm/users.h"

namespace talaria::cvm {

namespace http = boost::beast::http;

// Of a request's header, what is judged; views into the caller's.
struct RequestHead {
  struct Field {
    size_t count = 0;        // how often the header has it
    std::string_view value;  // the first one's; empty: none
  };
  std::string_view method, target, content_type;
  Field authorization, salt;
  bool has_body;  // that is still to be read
  std::optional<uint64_t> content_length;
};

// --- Verdicts.

// Fixed text, never a byte of the request.
struct Problem {
  http::status status;
  std::string message;
  const char* allow = nullptr;  // methods
  int retry_after_s = 0;
  bool ends_connection = false;  // whatever the client wants
};
inline Problem BodyTooLarge() {
  return {http::status::payload_too_large, "The body is too large."};
}
struct OwnAnswer {
  http::status status;
  std::string json;
};
struct ReadBody {  // then: OnBody()
  uint64_t max_bytes;
};
struct MakeEvidence {  // then: OnClaim()
  Nonce nonce;
};
struct PassOn {  // to llama-server; then: OnPiece(), OnAnswerEnd()
  const Route* route;
  std::string body;
};
using Verdict = std::variant<Problem, OwnAnswer, ReadBody, MakeEvidence, PassOn>;

class RequestAdmission {
 public:
  // `channel`: null for plain HTTP, where nobody is asked who he is. `options` outlives this.
  RequestAdmission(const GatewayOptions& options, std::shared_ptr<ClientChannel> channel)
      : options_(options), channel_(std::move(channel)) {}

  // A request begins. After this, until EndRequest(), it counts for its user if it was let in.
  Verdict OnHeader(const RequestHead& head);
  Verdict OnBody(const std::string& body);
  Verdict OnClaim(const Result<attest::Claim>& claim);
  // Of llama-server's answer: its body piece by piece, and that all of it went out.
  void OnPiece(std::string_view piece);
  void OnAnswerEnd(uint16_t status);
  // The request is answered or given up. More than once is fine.
  void EndRequest();

  // Until its first good token.
  bool is_stranger() const { return is_stranger_; }

 private:
  // What a request is, once its header was read.
  enum class Kind { kRoute, kAttestation, kRevocations };
  struct PendingReceipt {
    std::string user;
    attest::Salt salt;
    Sha256 response;
    attest::Exchange exchange;
    bool complete;  // the whole answer went out
  };

  Verdict OnOwnRoute(Kind kind, const RequestHead& head);
  Verdict TakeRevocations(const std::string& body);
  std::shared_ptr<const tenant::Token> Authenticate(const RequestHead& head) const;
  std::optional<Problem> Admit(const std::shared_ptr<const tenant::Token>& token);
  std::optional<Problem> BeginReceipt(const RequestHead& head, const tenant::Token* token);
  Verdict AnswerReceipt(const RequestHead& head, const tenant::Token& token);
  Verdict AnswerProbe(const RequestHead& head);

  const GatewayOptions& options_;
  const std::shared_ptr<ClientChannel> channel_;
  Kind kind_ = Kind::kRoute;
  const Route* route_ = nullptr;  // of kRoute
  bool is_stranger_ = channel_ != nullptr;
  int attestations_ = 0;
  std::unique_ptr<Users::Request> admitted_;  // a user's request that is not answered yet
  AnswerMeter meter_;                         // with admitted_
  std::optional<PendingReceipt> receipt_;     // of the last request, if it asked for one
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_GATEWAY_ADMISSION_H_
