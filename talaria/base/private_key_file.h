// Files that hold a private key: for their owner's eyes, and never half a key.
#ifndef TALARIA_BASE_PRIVATE_KEY_FILE_H_
#define TALARIA_BASE_PRIVATE_KEY_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "talaria/base/result.h"
#include "talaria/base/secret.h"

struct evp_pkey_st;  // OpenSSL's EVP_PKEY

namespace talaria {

// Wiped with its end.
struct SecretBytes {
  std::vector<uint8_t> bytes;
  explicit SecretBytes(size_t size) : bytes(size) {}
  SecretBytes(SecretBytes&&) noexcept = default;
  SecretBytes& operator=(SecretBytes&&) = delete;
  ~SecretBytes() { Wipe(bytes.data(), bytes.size()); }
};

// The whole file. The rights are read from the very file that is read, and a symbolic link is
// followed (key stores use them). kNotFound, kIo; kInvalidArgument: somebody else than its owner
// has any right to the file, or its owner is neither this user nor root; kCorrupt: larger than
// `max_bytes`.
Result<SecretBytes> ReadPrivateKeyFile(const std::string& path, uint64_t max_bytes);

// PKCS #8 in PEM, unencrypted, mode 0600, on disk when it returns. kIo (also when the file exists),
// kResourceExhausted.
Status WritePrivateKeyFile(const std::string& path, const evp_pkey_st* key);

}  // namespace talaria

#endif  // TALARIA_BASE_PRIVATE_KEY_FILE_H_
