#include "talaria/tenant/token.h"

#include <algorithm>
#include <vector>

#include "talaria/attest/refusal.h"

namespace talaria::tenant {
namespace {

using attest::Refuse;

constexpr std::string_view kPrefix = "tlr1_";
constexpr std::string_view kDomain("talaria-token-v1\0", 17);
constexpr uint8_t kVersion = 1;
constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

std::string ToBase64Url(Bytes data) {
  std::string out;
  for (size_t i = 0; i < data.size(); i += 3) {
    const size_t n = std::min<size_t>(3, data.size() - i);
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k) group = group << 8 | (k < n ? data[i + k] : 0u);
    for (size_t k = 0; k <= n; ++k) out += kAlphabet[group >> (18 - 6 * k) & 63];
  }
  return out;
}

// Empty on failure, which no token decodes to: another character, a length that nothing encodes
// to, or bits that do not belong to a byte.
std::vector<uint8_t> FromBase64Url(std::string_view text) {
  if (text.size() % 4 == 1) return {};
  std::vector<uint8_t> out;
  out.reserve(text.size() * 3 / 4);
  uint32_t bits = 0;
  int count = 0;  // of the low bits of `bits` that are not taken yet
  for (const char c : text) {
    const size_t value = kAlphabet.find(c);
    if (value == std::string_view::npos) return {};
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out.push_back(static_cast<uint8_t>(bits >> count));
      bits &= (1u << count) - 1;
    }
  }
  if (bits != 0) return {};
  return out;
}

}  // namespace

Result<std::string> MakeToken(const Token& token, const TenantKey& key) {
  if (!IsUserName(token.user)) {
    return Status(
        Code::kInvalidArgument,
        "a user's name has 1 to " + std::to_string(kMaxUserBytes) + " printable ASCII characters");
  }
  if (token.expires <= token.not_before)
    return Status(Code::kInvalidArgument, "the token would end before it begins");
  std::vector<uint8_t> bytes;
  ByteWriter writer(bytes);
  writer.U8(kVersion);
  writer.U8(static_cast<uint8_t>(token.user.size()));
  writer.Raw(AsBytes(token.user));
  writer.Raw(token.id);
  writer.U64(static_cast<uint64_t>(token.not_before));
  writer.U64(static_cast<uint64_t>(token.expires));
  writer.U32(token.requests_per_minute);
  writer.U32(token.tokens_per_day);
  writer.U16(token.concurrent_requests);
  writer.Raw(token.client_key);
  TALARIA_ASSIGN_OR_RETURN(const Signature signature, key.Sign(kDomain, bytes));
  writer.Raw(signature);
  return std::string(kPrefix) + ToBase64Url(bytes);
}

Result<Token> VerifyToken(std::string_view text, const PublicKey& tenant) {
  const Status format = Refuse("token-format");
  if (text.size() > kMaxTokenChars || !text.starts_with(kPrefix)) return format;
  const std::vector<uint8_t> bytes = FromBase64Url(text.substr(kPrefix.size()));
  if (bytes.size() <= kSignatureBytes) return format;
  const Bytes body = Bytes(bytes).first(bytes.size() - kSignatureBytes);
  if (!Verify(tenant, kDomain, body, Bytes(bytes).last(kSignatureBytes)))
    return Refuse("token-signature");

  ByteReader reader(body);
  Token token{};
  if (reader.U8() != kVersion) return format;
  const Bytes user = reader.Raw(reader.U8());
  token.user.assign(reinterpret_cast<const char*>(user.data()), user.size());
  token.id = reader.Array<kTokenIdBytes>();
  token.not_before = static_cast<int64_t>(reader.U64());
  token.expires = static_cast<int64_t>(reader.U64());
  token.requests_per_minute = reader.U32();
  token.tokens_per_day = reader.U32();
  token.concurrent_requests = reader.U16();
  token.client_key = reader.Array<32>();
  if (!reader.AtEnd() || !IsUserName(token.user) || token.expires <= token.not_before)
    return format;
  return token;
}

Status CheckToken(const Token& token, int64_t now, const Digest& client_key) {
  if (now < token.not_before)
    return Refuse("token-not-yet-valid", std::to_string(now), std::to_string(token.not_before));
  if (now >= token.expires)
    return Refuse("token-expired", std::to_string(now), std::to_string(token.expires));
  if (token.client_key != Digest{} && token.client_key != client_key)
    return Refuse("token-client-key", ToHex(client_key), ToHex(token.client_key));
  return OkStatus();
}

}  // namespace talaria::tenant
