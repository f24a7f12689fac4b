// Test only: a tenant's key that is the same in every run, and files of a test.
#ifndef TALARIA_TENANT_TESTING_TENANT_TESTING_H_
#define TALARIA_TENANT_TESTING_TENANT_TESTING_H_

#include <sys/stat.h>

#include <fstream>
#include <string>

#include "talaria/base/result.h"
#include "talaria/base/testing/temp_folder.h"
#include "talaria/tenant/tenant_key.h"

namespace talaria::tenant::testing {

// The key of RFC 8032, section 7.1, test 1.
inline constexpr const char* kPublicKeyHex =
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
inline constexpr const char* kPrivatePem =
    "-----BEGIN PRIVATE KEY-----\n"
    "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
    "-----END PRIVATE KEY-----\n";

class Folder : public TempFolder {
 public:
  // A file in it; the path.
  std::string Write(const std::string& name, const std::string& text, mode_t mode = 0600) const {
    const std::string path = File(name);
    std::ofstream(path) << text;
    TALARIA_CHECK(chmod(path.c_str(), mode) == 0);
    return path;
  }
};

inline TenantKey FixedKey() {
  return TenantKey::FromPemFile(Folder().Write("key.pem", kPrivatePem)).value();
}

}  // namespace talaria::tenant::testing

#endif  // TALARIA_TENANT_TESTING_TENANT_TESTING_H_
