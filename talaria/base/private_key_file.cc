#include "talaria/base/private_key_file.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "talaria/base/file.h"
#include "talaria/base/openssl.h"

namespace talaria {

Result<SecretBytes> ReadPrivateKeyFile(const std::string& path, uint64_t max_bytes) {
  TALARIA_ASSIGN_OR_RETURN(const Fd fd, OpenForReading(path));
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return Status(Code::kIo, path + ": fstat failed");
  if ((info.st_mode & 077) != 0) {
    return Status(Code::kInvalidArgument,
                  path + ": others than its owner may use this private key (chmod 600)");
  }
  if (info.st_uid != geteuid() && info.st_uid != 0) {
    return Status(Code::kInvalidArgument, path + ": the private key belongs to another user");
  }
  TALARIA_ASSIGN_OR_RETURN(const uint64_t size, FileSize(fd));
  if (size > max_bytes) return Status(Code::kCorrupt, path + ": too large for a key");
  SecretBytes secret(size);
  if (Status s = ReadAt(fd, 0, secret.bytes); !s.ok()) return s.Annotate(path);
  return secret;
}

Status WritePrivateKeyFile(const std::string& path, const EVP_PKEY* key) {
  const Owned<BIO> bio(BIO_new(BIO_s_secmem()));  // wiped when it is freed
  char* pem = nullptr;
  if (bio == nullptr ||
      PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    return OpenSslFailed("encoding a private key");
  }
  const auto size = static_cast<size_t>(BIO_get_mem_data(bio.get(), &pem));
  const Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.valid()) return Status(Code::kIo, path + ": " + std::strerror(errno));
  Status status = WriteAt(fd, 0, AsBytes({pem, size}));
  if (status.ok()) status = Sync(fd);
  if (status.ok()) {
    const std::filesystem::path folder = std::filesystem::path(path).parent_path();
    status = SyncDirectory(folder.empty() ? "." : folder.string());
  }
  if (status.ok()) return status;
  (void)unlink(path.c_str());  // no half key
  return status.Annotate(path);
}

}  // namespace talaria
