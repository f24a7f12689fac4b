#include "talaria/cvm/gateway_admission.h"

#include <utility>

namespace talaria::cvm {
namespace {

constexpr int kMaxAttestations = 8;  // per connection; a client that knows its nonce needs one

Digest HashOf(Sha256 hash, std::string_view body) {
  hash.Update(AsBytes(body));
  return hash.Finish();
}

Problem OtherMethod(const char* allow) {
  return {http::status::method_not_allowed, "The route has another method.", allow};
}
Problem NoBody() { return {http::status::bad_request, "The route takes no body."}; }
Problem NotReady() { return {http::status::service_unavailable, "The model is not ready."}; }
Problem BadRequest(const Status& why) { return {http::status::bad_request, why.message()}; }

Verdict AwaitBody(const RequestHead& head, uint64_t max_bytes) {
  // Only what no web page can send across origins without asking.
  if (!IsJsonType(head.content_type)) {
    return Problem{http::status::unsupported_media_type,
                   "The content type must be application/json."};
  }
  if (head.content_length && *head.content_length > max_bytes) return BodyTooLarge();
  return ReadBody{max_bytes};
}

}  // namespace

Verdict RequestAdmission::OnHeader(const RequestHead& head) {
  kind_ = Kind::kRoute;
  std::shared_ptr<const tenant::Token> token;
  if (channel_) {
    // Evidence comes before users. Who is not one learns nothing else, not even what exists.
    if (head.target == kAttestationPath) return OnOwnRoute(Kind::kAttestation, head);
    if (head.target == kRevocationsPath) return OnOwnRoute(Kind::kRevocations, head);
    token = Authenticate(head);
    if (!token) return Problem{http::status::unauthorized, "A valid token is needed."};
    // Nobody else's prompts may come between those that are reused.
    if (!options_.prompt_cache_user.empty() && token->user != options_.prompt_cache_user)
      return Problem{http::status::forbidden, "This CVM serves another user alone."};
    is_stranger_ = false;
  }
  if (channel_ && head.target == kReceiptPath) return AnswerReceipt(head, *token);
  // A receipt is of the last request of its connection, whatever became of it.
  receipt_.reset();
  if (head.target == "/healthz" || head.target == "/readyz") return AnswerProbe(head);

  const RouteMatch match = FindRoute(head.method, head.target);
  if (!match.path_exists) return Problem{http::status::not_found, "There is no such route."};
  if (!match.route)
    return OtherMethod(head.method == "GET" || head.method == "HEAD" ? "POST" : "GET, POST");
  route_ = match.route;
  if (!options_.ready()) return NotReady();
  if (std::optional<Problem> problem = BeginReceipt(head, token.get())) return *problem;
  if (token) {
    if (std::optional<Problem> problem = Admit(token)) return *problem;
  }
  if (route_->body == BodyKind::kNone) {
    if (head.has_body) return NoBody();
    return PassOn{route_, {}};
  }
  return AwaitBody(head, options_.max_body_bytes);
}

Verdict RequestAdmission::OnBody(const std::string& body) {
  if (kind_ == Kind::kAttestation) {
    const Result<Nonce> nonce = DecodeChallenge(body);
    if (!nonce.ok()) return BadRequest(nonce.status());
    ++attestations_;
    return MakeEvidence{*nonce};
  }
  if (kind_ == Kind::kRevocations) return TakeRevocations(body);
  if (receipt_) receipt_->exchange.request = HashOf(attest::RequestHash(receipt_->salt), body);
  uint64_t answers = 1;
  Result<std::string> filtered = FilterBody(
      route_->body, body, {.prompt_cache = !options_.prompt_cache_user.empty()}, &answers);
  if (!filtered.ok()) return BadRequest(filtered.status());
  meter_ = AnswerMeter(answers);
  return PassOn{route_, std::move(*filtered)};
}

void RequestAdmission::OnPiece(std::string_view piece) {
  if (admitted_ && route_->generates) meter_.Add(piece);
  if (receipt_) receipt_->response.Update(AsBytes(piece));
}

void RequestAdmission::OnAnswerEnd(uint16_t status) {
  if (!receipt_) return;
  receipt_->exchange.status = status;
  receipt_->exchange.response = receipt_->response.Finish();
  receipt_->complete = true;
}

void RequestAdmission::EndRequest() {
  if (!admitted_) return;
  admitted_->Charge(meter_.tokens());
  admitted_.reset();
}

// --- Over an attested channel: evidence, users and their limits.

Verdict RequestAdmission::OnOwnRoute(Kind kind, const RequestHead& head) {
  if (head.method != "POST") return OtherMethod("POST");
  kind_ = kind;
  if (kind == Kind::kRevocations) return AwaitBody(head, kMaxRevocationsBodyBytes);
  // The context is not known before.
  if (!options_.ready()) return NotReady();
  if (attestations_ == kMaxAttestations) {
    return Problem{http::status::too_many_requests, "This connection was attested often enough.",
                   nullptr, 1};
  }
  return AwaitBody(head, kMaxChallengeBytes);
}

Verdict RequestAdmission::OnClaim(const Result<attest::Claim>& claim) {
  if (claim.ok()) return OwnAnswer{http::status::ok, EncodeClaimAnswer(*claim)};
  // Nobody goes on without evidence.
  return Problem{.status = http::status::service_unavailable,
                 .message = "There is no evidence.",
                 .ends_connection = true};
}

Verdict RequestAdmission::TakeRevocations(const std::string& body) {
  const Result<std::vector<uint8_t>> list = DecodeRevocationsBody(body);
  if (!list.ok()) return BadRequest(list.status());
  const Status taken = options_.users->TakeRevocations(*list);
  if (taken.ok()) return OwnAnswer{http::status::ok, R"({"taken":true})"};
  if (taken.code() == Code::kInvalidArgument)
    return Problem{http::status::conflict, "A list at least as new is held."};
  return Problem{http::status::forbidden, "The list is not the tenant's."};
}

// Null for everything but one header with a good token.
std::shared_ptr<const tenant::Token> RequestAdmission::Authenticate(const RequestHead& head) const {
  if (head.authorization.count != 1) return nullptr;
  const auto token = options_.users->Authenticate(head.authorization.value, channel_->client_key());
  return token.ok() ? *token : nullptr;
}

std::optional<Problem> RequestAdmission::Admit(const std::shared_ptr<const tenant::Token>& token) {
  Users::Admission admission = options_.users->Begin(token, route_->generates);
  if (!admission.request) {
    return Problem{http::status::too_many_requests, "A limit of this user is reached.", nullptr,
                   admission.retry_after_s};
  }
  admitted_ = std::move(admission.request);
  meter_ = AnswerMeter();
  return std::nullopt;
}

// --- Receipts: digests of one exchange, which the client asked for by a salt.

std::optional<Problem> RequestAdmission::BeginReceipt(const RequestHead& head,
                                                      const tenant::Token* token) {
  if (head.salt.count == 0) return std::nullopt;
  attest::Salt salt;
  if (!token || route_->body == BodyKind::kNone || head.salt.count != 1 ||
      !FromHex(head.salt.value, salt)) {
    return Problem{http::status::bad_request,
                   "A receipt is for a route with a body, by 64 lower-case hexadecimal digits."};
  }
  receipt_.emplace(PendingReceipt{.user = token->user,
                                  .salt = salt,
                                  .response = attest::ResponseHash(salt),
                                  .exchange = {std::string(route_->path), 0, {}, {}},
                                  .complete = false});
  return std::nullopt;
}

Verdict RequestAdmission::AnswerReceipt(const RequestHead& head, const tenant::Token& token) {
  if (head.method != "GET") return OtherMethod("GET");
  if (head.has_body) return NoBody();
  if (!receipt_ || !receipt_->complete || receipt_->user != token.user) {
    return Problem{http::status::not_found, "The last answer of this connection has no receipt."};
  }
  const Result<std::vector<uint8_t>> receipt = channel_->MakeReceipt(receipt_->exchange);
  if (receipt.ok()) return OwnAnswer{http::status::ok, EncodeReceiptAnswer(*receipt)};
  if (receipt.status().code() == Code::kNotFound)
    return Problem{http::status::conflict, "This connection was not attested."};
  return Problem{http::status::service_unavailable, "There is no receipt now."};
}

// --- Probes.

Verdict RequestAdmission::AnswerProbe(const RequestHead& head) {
  if (head.method != "GET") return OtherMethod("GET");
  if (head.has_body) return NoBody();
  if (head.target == "/healthz") return OwnAnswer{http::status::ok, R"({"status":"ok"})"};
  if (options_.ready()) return OwnAnswer{http::status::ok, R"({"ready":true})"};
  std::string body = R"({"ready":false)";
  if (options_.stage) body += R"(,"stage":")" + options_.stage() + '"';
  return OwnAnswer{http::status::service_unavailable, body + "}"};
}

}  // namespace talaria::cvm
