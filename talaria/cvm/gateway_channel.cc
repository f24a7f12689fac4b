#include "talaria/cvm/gateway_channel.h"

#include <algorithm>

namespace talaria::cvm {
namespace {

Status Malformed(const char* why) { return Status(Code::kInvalidArgument, why); }

// The value in {"NAME":"VALUE"}. No general parser, because these bodies come from anybody: they
// have one field without escapes, so every step below takes the one thing that may stand there.
class OneField {
 public:
  OneField(std::string_view body, std::string_view name) : rest_(body) {
    ok_ = Take("{") && Take("\"") && TakeExactly(name) && TakeExactly("\"") && Take(":") &&
          Take("\"");
    value_ = rest_.substr(0, rest_.find('"'));
    rest_.remove_prefix(value_.size());
    ok_ = ok_ && TakeExactly("\"") && Take("}") && (SkipSpace(), rest_.empty());
  }
  bool ok() const { return ok_; }
  std::string_view value() const { return value_; }

 private:
  void SkipSpace() {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t\r\n"), rest_.size()));
  }
  bool TakeExactly(std::string_view text) {
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }
  bool Take(std::string_view text) {
    SkipSpace();
    return TakeExactly(text);
  }
  std::string_view rest_, value_;
  bool ok_ = false;
};

}  // namespace

Result<Nonce> DecodeChallenge(std::string_view body) {
  const OneField field(body, "nonce");
  Nonce nonce{};
  if (!field.ok() || !FromHex(field.value(), nonce) || nonce == Nonce{})
    return Malformed("The body must be a JSON object with a nonce of 64 lower-case hex digits.");
  return nonce;
}

Result<std::vector<uint8_t>> DecodeRevocationsBody(std::string_view body) {
  const OneField field(body, "list");
  std::vector<uint8_t> list(std::min(field.value().size() / 2, tenant::kMaxRevocationListBytes));
  if (!field.ok() || list.empty() || !FromHex(field.value(), list))
    return Malformed("The body must be a JSON object with a list in lower-case hex.");
  return list;
}

std::string EncodeClaimAnswer(const attest::Claim& claim) {
  return R"({"claim":")" + ToHex(attest::Encode(claim)) + R"("})";
}

std::string EncodeReceiptAnswer(Bytes receipt) {
  return R"({"receipt":")" + ToHex(receipt) + R"("})";
}

}  // namespace talaria::cvm
