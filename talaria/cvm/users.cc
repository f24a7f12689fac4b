#include "talaria/cvm/users.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <unordered_map>
#include <utility>

#include "talaria/attest/refusal.h"

namespace talaria::cvm {
namespace {

constexpr size_t kMaxRemembered = 4096;  // verified tokens, about 300 bytes each
constexpr size_t kMaxUsers = 65536;
constexpr int64_t kMinuteMs = 60'000, kDayMs = 86'400'000;
constexpr int kConcurrentRetryS = 1;  // nobody knows when an answer ends

int64_t FloorDivide(int64_t a, int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }

struct DigestHash {
  size_t operator()(const Digest& digest) const { return LoadLe<size_t>(digest.data()); }
};

struct Usage {
  int64_t minute = 0, day = 0;                 // since 1970
  uint64_t requests = 0, requests_before = 0;  // in that minute and in the one before it
  uint64_t tokens = 0;                         // on that day
  uint32_t running = 0;

  void MoveTo(int64_t now_ms) {
    // Any other step than to the next one, backwards too, begins anew.
    const int64_t now_minute = FloorDivide(now_ms, kMinuteMs),
                  now_day = FloorDivide(now_ms, kDayMs);
    if (now_minute != minute) {
      requests_before = now_minute == minute + 1 ? requests : 0;
      requests = 0;
      minute = now_minute;
    }
    if (now_day != day) tokens = 0;
    day = now_day;
  }
  bool idle() const { return running == 0 && requests == 0 && requests_before == 0 && tokens == 0; }
};

int CeilSeconds(uint64_t ms) { return static_cast<int>(std::max<uint64_t>(1, (ms + 999) / 1000)); }

// 0: one more request is within the limit; otherwise when it will be if no other comes. Of the
// minute before, the share counts that is less than sixty seconds ago.
int RequestsRetryS(const Usage& usage, uint32_t limit, int64_t now_ms) {
  const auto elapsed = static_cast<uint64_t>(now_ms - usage.minute * kMinuteMs);
  const uint64_t minute = kMinuteMs, before = usage.requests_before, now = usage.requests;
  if (limit == 0) return CeilSeconds(minute);
  // After so much of a minute, `requests` of the minute before it count for `most` at most.
  const auto fallen = [](uint64_t requests, uint64_t most) -> uint64_t {
    return requests <= most ? 0 : kMinuteMs - most * kMinuteMs / requests;
  };
  if (now >= limit) return CeilSeconds(minute - elapsed + fallen(now, limit - 1));
  const uint64_t until = fallen(before, limit - 1 - now);
  return elapsed >= until ? 0 : CeilSeconds(until - elapsed);
}

}  // namespace

struct Users::Impl {
  UsersOptions options;
  std::unordered_map<Digest, std::shared_ptr<const tenant::Token>, DigestHash> remembered;
  std::unordered_map<std::string, Usage> usage;
  std::optional<tenant::Revocations> revocations;

  // Null: too many users.
  Usage* UsageOf(const std::string& user, int64_t now_ms) {
    auto found = usage.find(user);
    if (found == usage.end()) {
      if (usage.size() >= kMaxUsers) {
        for (auto it = usage.begin(); it != usage.end();) {
          it->second.MoveTo(now_ms);
          it = it->second.idle() ? usage.erase(it) : std::next(it);
        }
        if (usage.size() >= kMaxUsers) return nullptr;
      }
      found = usage.emplace(user, Usage{}).first;
    }
    found->second.MoveTo(now_ms);
    return &found->second;
  }
};

Users::Users(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Users::~Users() = default;

Result<std::unique_ptr<Users>> Users::Create(UsersOptions options) {
  TALARIA_CHECK(options.now_ms != nullptr);
  TALARIA_RETURN_IF_ERROR(tenant::CheckPublicKey(options.tenant));
  auto impl = std::make_unique<Impl>();
  impl->options = std::move(options);
  return std::unique_ptr<Users>(new Users(std::move(impl)));
}

Result<std::shared_ptr<const tenant::Token>> Users::Authenticate(std::string_view authorization,
                                                                 const Digest& client_key) {
  constexpr std::string_view kScheme = "bearer ";
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  if (authorization.size() <= kScheme.size() ||
      !std::ranges::equal(authorization.substr(0, kScheme.size()), kScheme, {}, lower)) {
    return attest::Refuse("token-missing");
  }
  std::string_view text = authorization.substr(kScheme.size());
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  if (text.size() > tenant::kMaxTokenChars) return attest::Refuse("token-format");

  // By the digest of the whole text, signature included: only what was verified is ever found.
  const Digest name = Sha256Of(AsBytes(text));
  std::shared_ptr<const tenant::Token> token;
  if (const auto found = impl_->remembered.find(name); found != impl_->remembered.end()) {
    token = found->second;
  } else {
    TALARIA_ASSIGN_OR_RETURN(tenant::Token verified,
                             tenant::VerifyToken(text, impl_->options.tenant));
    token = std::make_shared<const tenant::Token>(std::move(verified));
    if (impl_->remembered.size() >= kMaxRemembered)
      impl_->remembered.erase(impl_->remembered.begin());
    impl_->remembered.emplace(name, token);
  }
  TALARIA_RETURN_IF_ERROR(
      tenant::CheckToken(*token, FloorDivide(impl_->options.now_ms(), 1000), client_key));
  if (impl_->revocations && impl_->revocations->Contains(token->id))
    return attest::Refuse("token-revoked", ToHex(Bytes(token->id)));
  return token;
}

Users::Admission Users::Begin(const std::shared_ptr<const tenant::Token>& token, bool generates) {
  const int64_t now_ms = impl_->options.now_ms();
  Usage* const usage = impl_->UsageOf(token->user, now_ms);
  if (usage == nullptr) return {.request = nullptr, .retry_after_s = CeilSeconds(kMinuteMs)};
  if (generates && token->tokens_per_day != tenant::kUnlimitedTokens &&
      usage->tokens >= token->tokens_per_day) {
    const auto left = static_cast<uint64_t>((usage->day + 1) * kDayMs - now_ms);
    return {.request = nullptr, .retry_after_s = CeilSeconds(left)};
  }
  if (usage->running >= token->concurrent_requests)
    return {.request = nullptr, .retry_after_s = kConcurrentRetryS};
  // What is refused does not count: a client that asks too often is not locked out for it.
  if (const int retry_s = RequestsRetryS(*usage, token->requests_per_minute, now_ms); retry_s > 0)
    return {.request = nullptr, .retry_after_s = retry_s};
  ++usage->requests;
  ++usage->running;
  return {.request = std::unique_ptr<Request>(new Request(*this, token)), .retry_after_s = 0};
}

// A running request keeps its user's entry.
Users::Request::~Request() { --users_.impl_->usage.at(token_->user).running; }

void Users::Request::Charge(uint64_t tokens) {
  Usage& usage = users_.impl_->usage.at(token_->user);
  usage.MoveTo(users_.impl_->options.now_ms());
  usage.tokens += tokens;
}

Status Users::TakeRevocations(Bytes list) {
  TALARIA_ASSIGN_OR_RETURN(tenant::Revocations taken,
                           tenant::VerifyRevocations(list, impl_->options.tenant));
  if (impl_->revocations && taken.version <= impl_->revocations->version)
    return Status(Code::kInvalidArgument, "not newer than the list of revocations that is held");
  impl_->revocations = std::move(taken);
  return OkStatus();
}

}  // namespace talaria::cvm
