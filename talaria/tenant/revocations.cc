#include "talaria/tenant/revocations.h"

#include <algorithm>
#include <functional>

#include "talaria/attest/refusal.h"

namespace talaria::tenant {
namespace {

constexpr std::string_view kDomain("talaria-revocations-v1\0", 23);

}  // namespace

bool Revocations::Contains(const TokenId& id) const {
  return std::binary_search(ids.begin(), ids.end(), id);
}

Result<std::vector<uint8_t>> MakeRevocations(Revocations list, const TenantKey& key) {
  std::sort(list.ids.begin(), list.ids.end());
  list.ids.erase(std::unique(list.ids.begin(), list.ids.end()), list.ids.end());
  if (list.ids.size() > kMaxRevocations) {
    return Status(Code::kInvalidArgument,
                  "more than " + std::to_string(kMaxRevocations) + " revoked tokens");
  }
  std::vector<uint8_t> bytes;
  ByteWriter writer(bytes);
  writer.Raw(AsBytes(kDomain));
  writer.U64(list.version);
  writer.U64(static_cast<uint64_t>(list.issued));
  writer.U32(static_cast<uint32_t>(list.ids.size()));
  for (const TokenId& id : list.ids) writer.Raw(id);
  TALARIA_ASSIGN_OR_RETURN(const Signature signature, key.Sign({}, bytes));
  writer.Raw(signature);
  return bytes;
}

Result<Revocations> VerifyRevocations(Bytes bytes, const PublicKey& tenant) {
  const Status format = attest::Refuse("revocations-format");
  if (bytes.size() < kDomain.size() + kSignatureBytes || bytes.size() > kMaxRevocationListBytes)
    return format;
  const Bytes body = bytes.first(bytes.size() - kSignatureBytes);
  // The domain first: the tenant signs other things with the same key.
  if (!std::ranges::equal(body.first(kDomain.size()), AsBytes(kDomain))) return format;
  if (!Verify(tenant, {}, body, bytes.last(kSignatureBytes)))
    return attest::Refuse("revocations-signature");

  ByteReader reader(body.subspan(kDomain.size()));
  Revocations list{};
  list.version = reader.U64();
  list.issued = static_cast<int64_t>(reader.U64());
  const uint32_t count = reader.U32();
  if (!reader.ok() || reader.remaining() != size_t{count} * kTokenIdBytes) return format;
  list.ids.resize(count);
  for (TokenId& id : list.ids) id = reader.Array<kTokenIdBytes>();
  if (std::adjacent_find(list.ids.begin(), list.ids.end(), std::greater_equal<>()) !=
      list.ids.end()) {
    return format;
  }
  return list;
}

}  // namespace talaria::tenant
