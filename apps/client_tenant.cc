// The tenant's commands: a key, tokens for users, and the list of revoked ones.
#include <errno.h>
#include <sys/random.h>

#include <cstdio>
#include <cstring>
#include <ctime>
#include <limits>
#include <nlohmann/json.hpp>

#include "apps/client_commands.h"
#include "talaria/attest/facts.h"
#include "talaria/base/file.h"
#include "talaria/tenant/revocations.h"
#include "talaria/tenant/tenant_key.h"
#include "talaria/tenant/token.h"
#include "talaria/wire/tls_key.h"

namespace talaria {
namespace {

constexpr int64_t kSecondsPerDay = 86'400;
constexpr int64_t kClockSkewS = 300;  // of a CVM whose clock is behind
constexpr size_t kMaxListFileBytes = 2 * tenant::kMaxRevocationListBytes + 64;

Result<tenant::TokenId> FreshId() {
  tenant::TokenId id;
  while (getrandom(id.data(), id.size(), 0) != static_cast<ssize_t>(id.size())) {
    if (errno != EINTR)
      return Status(Code::kInternal, std::string("getrandom: ") + std::strerror(errno));
  }
  return id;
}

// {"list":"<hexadecimal digits>"}: what is posted to a CVM.
Result<tenant::Revocations> ReadList(const std::string& path, const tenant::PublicKey& key) {
  auto bytes = ReadFile(path, kMaxListFileBytes);
  if (bytes.status().code() == Code::kNotFound)
    return tenant::Revocations{.version = 0, .issued = 0, .ids = {}};
  TALARIA_RETURN_IF_ERROR(bytes.status());
  const auto json = nlohmann::json::parse(bytes->begin(), bytes->end(), nullptr, false);
  if (!json.is_object() || !json.contains("list") || !json.at("list").is_string())
    return Status(Code::kCorrupt, path + ": this is not a list of revocations");
  const std::string hex = json.at("list").get<std::string>();
  std::vector<uint8_t> list(hex.size() / 2);
  if (hex.size() % 2 != 0 || !FromHex(hex, list))
    return Status(Code::kCorrupt, path + ": this is not a list of revocations");
  auto out = tenant::VerifyRevocations(list, key);
  if (!out.ok()) return out.status().Annotate(path);
  return out;
}

// Aside first: a list that was lost would start again at version 1, which no CVM takes.
Status ReplaceFile(const std::string& path, const std::string& text) {
  const std::string aside = path + ".new";
  (void)std::remove(aside.c_str());
  {
    TALARIA_ASSIGN_OR_RETURN(const Fd file, CreateFile(aside));
    TALARIA_RETURN_IF_ERROR(WriteAt(file, 0, AsBytes(text)));
    TALARIA_RETURN_IF_ERROR(Sync(file));
  }
  if (std::rename(aside.c_str(), path.c_str()) != 0)
    return Status(Code::kIo, path + ": " + std::strerror(errno));
  return OkStatus();
}

}  // namespace

Status RunTenantInit(const std::string& path) {
  TALARIA_ASSIGN_OR_RETURN(const tenant::TenantKey key, tenant::TenantKey::Generate());
  TALARIA_RETURN_IF_ERROR(key.ToPemFile(path));
  std::printf("%s\n", ToHex(key.public_key()).c_str());
  std::fputs("This is the public key, for `[tenant] key` of the CVM and for policies.\n", stderr);
  return OkStatus();
}

Status RunTenantIssue(const TenantIssueArguments& arguments) {
  TALARIA_ASSIGN_OR_RETURN(const tenant::TenantKey key,
                           tenant::TenantKey::FromPemFile(arguments.key));
  Digest client_key{};
  if (!arguments.client_public_key.empty()) {
    TALARIA_ASSIGN_OR_RETURN(client_key, wire::SpkiDigestFromPemFile(arguments.client_public_key));
  }
  TALARIA_ASSIGN_OR_RETURN(const tenant::TokenId id, FreshId());
  const int64_t now = std::time(nullptr);
  const tenant::Token token{.user = arguments.user,
                            .id = id,
                            .not_before = now - kClockSkewS,
                            .expires = now + arguments.days * kSecondsPerDay,
                            .requests_per_minute = arguments.requests_per_minute,
                            .tokens_per_day = arguments.unlimited_tokens
                                                  ? tenant::kUnlimitedTokens
                                                  : static_cast<uint32_t>(arguments.tokens_per_day),
                            .concurrent_requests = arguments.concurrent_requests,
                            .client_key = client_key};
  TALARIA_ASSIGN_OR_RETURN(const std::string text, tenant::MakeToken(token, key));
  std::printf("%s\n", text.c_str());
  std::fprintf(stderr, "id         %s\nexpires    %s\n", ToHex(Bytes(id)).c_str(),
               attest::FormatUtc(token.expires).c_str());
  return OkStatus();
}

Status RunTenantRevoke(const TenantRevokeArguments& arguments) {
  TALARIA_ASSIGN_OR_RETURN(const tenant::TenantKey key,
                           tenant::TenantKey::FromPemFile(arguments.key));
  TALARIA_ASSIGN_OR_RETURN(tenant::Revocations list, ReadList(arguments.list, key.public_key()));
  for (const std::string& text : arguments.ids) {
    tenant::TokenId id;
    if (!FromHex(text, id)) {
      return Status(Code::kInvalidArgument,
                    "'" + text + "' is not a token's id: 32 lower-case hexadecimal digits");
    }
    list.ids.push_back(id);
  }
  if (list.version == std::numeric_limits<uint64_t>::max())
    return Status(Code::kResourceExhausted, "there is no version after this list's");
  ++list.version;
  list.issued = std::time(nullptr);
  const uint64_t version = list.version;
  TALARIA_ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes,
                           tenant::MakeRevocations(std::move(list), key));
  TALARIA_RETURN_IF_ERROR(
      ReplaceFile(arguments.list, R"({"list":")" + ToHex(Bytes(bytes)) + "\"}\n"));
  std::printf("version    %llu\n", static_cast<unsigned long long>(version));
  std::fputs("POST the file to /v1/talaria/revocations of every CVM, as application/json.\n",
             stderr);
  return OkStatus();
}

}  // namespace talaria
