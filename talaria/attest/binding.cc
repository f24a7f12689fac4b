#include "talaria/attest/binding.h"

#include <openssl/evp.h>

namespace talaria::attest {
namespace {

constexpr std::string_view kDomain = "talaria-ra-v1";

}  // namespace

ReportData ReportDataFor(const Binding& binding) {
  const uint8_t role = static_cast<uint8_t>(binding.role);
  const uint8_t type = static_cast<uint8_t>(binding.type);
  std::vector<uint8_t> message;
  ByteWriter writer(message);
  for (const Bytes field : {AsBytes(kDomain), Bytes(&role, 1), Bytes(&type, 1),
                            Bytes(binding.nonce), Bytes(binding.exporter), Bytes(binding.cvm_key),
                            Bytes(binding.peer_key), Bytes(binding.context)}) {
    writer.U32(static_cast<uint32_t>(field.size()));
    writer.Raw(field);
  }
  ReportData out;
  size_t size = 0;
  TALARIA_CHECK(EVP_Q_digest(nullptr, "SHA512", nullptr, message.data(), message.size(), out.data(),
                             &size) == 1 &&
                size == out.size());
  return out;
}

}  // namespace talaria::attest
