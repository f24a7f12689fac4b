#include "talaria/attest/context.h"

#include "talaria/attest/refusal.h"

namespace talaria::attest {

std::vector<uint8_t> Encode(const Context& context) {
  std::vector<uint8_t> out;
  ByteWriter writer(out);
  writer.U16(context.version);
  writer.Raw(context.model_identity);
  writer.U16(context.profile);
  writer.U8(context.check_vectors);
  writer.Raw(context.configuration);
  writer.Raw(context.tenant_key);
  writer.U8(context.development ? 1 : 0);
  return out;
}

Result<Context> DecodeContext(Bytes bytes) {
  ByteReader reader(bytes);
  const uint16_t version = reader.U16();
  // Before the size: another version may be of another size.
  if (reader.ok() && version != kAttestationVersion) {
    return Refuse("context-format", "version " + std::to_string(version),
                  "version " + std::to_string(kAttestationVersion));
  }
  const Digest model_identity = reader.Array<32>();
  const uint16_t profile = reader.U16();
  const uint8_t check_vectors = reader.U8();
  const Digest configuration = reader.Array<32>();
  const TenantKey tenant_key = reader.Array<32>();
  const uint8_t development = reader.U8();
  if (!reader.AtEnd()) {
    return Refuse("context-format", std::to_string(bytes.size()) + " bytes",
                  std::to_string(kContextBytes) + " bytes");
  }
  if (development > 1) {
    return Refuse("context-format", "flag " + std::to_string(development), "flag 0 or 1");
  }
  return Context{.version = version,
                 .model_identity = model_identity,
                 .profile = profile,
                 .check_vectors = check_vectors,
                 .configuration = configuration,
                 .tenant_key = tenant_key,
                 .development = development == 1};
}

Digest DigestOf(const Context& context) { return Sha256Of(Encode(context)); }

}  // namespace talaria::attest
