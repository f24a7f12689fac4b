#include "talaria/tenant/tenant_key.h"

#include <openssl/pem.h>

#include <algorithm>
#include <vector>

#include "talaria/base/file.h"
#include "talaria/base/openssl.h"
#include "talaria/base/private_key_file.h"

namespace talaria::tenant {
namespace {

constexpr uint64_t kMaxPemBytes = 4 << 10;  // a key has 119 bytes

std::vector<uint8_t> Join(std::string_view domain, Bytes message) {
  std::vector<uint8_t> out;
  out.reserve(domain.size() + message.size());
  ByteWriter writer(out);
  writer.Raw(AsBytes(domain));
  writer.Raw(message);
  return out;
}

// Instead of asking somebody at a terminal.
int NoPassword(char*, int, int, void*) { return -1; }

bool OnlySpaceLeft(const Owned<BIO>& bio, std::string_view text) {
  return text.substr(text.size() - static_cast<size_t>(BIO_pending(bio.get())))
             .find_first_not_of(" \t\r\n") == std::string_view::npos;
}

Result<Owned<EVP_PKEY>> DecodePem(Bytes pem) {
  const std::string_view text(reinterpret_cast<const char*>(pem.data()), pem.size());
  if (text.starts_with("-----BEGIN ENCRYPTED"))
    return Status(Code::kUnsupported, "an encrypted private key");
  if (!text.starts_with("-----BEGIN PRIVATE KEY-----"))
    return Status(Code::kCorrupt, "not a private key in PEM");
  const Owned<BIO> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  if (bio == nullptr) return OpenSslFailed("reading PEM");
  Owned<EVP_PKEY> key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassword, nullptr));
  ERR_clear_error();
  if (key == nullptr) return Status(Code::kCorrupt, "a private key that does not decode");
  if (!OnlySpaceLeft(bio, text)) return Status(Code::kCorrupt, "something behind the private key");
  if (EVP_PKEY_get_id(key.get()) != EVP_PKEY_ED25519)
    return Status(Code::kUnsupported, "not an Ed25519 key");
  return key;
}

}  // namespace

Status CheckPublicKey(const PublicKey& key) {
  // The y coordinates of the points of order 1, 2, 4 and 8, and of the forms of them that are not
  // reduced. Under such a key one signature fits one message in eight or more.
  static constexpr const char* kSmallOrder[] = {
      "0000000000000000000000000000000000000000000000000000000000000000",
      "0100000000000000000000000000000000000000000000000000000000000000",
      "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
      "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
      "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
      "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
      "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"};
  PublicKey y = key;
  y.back() &= 0x7f;  // the rest is the sign of x
  const std::string text = ToHex(Bytes(y));
  if (std::ranges::any_of(kSmallOrder, [&](const char* bad) { return text == bad; }))
    return Status(Code::kInvalidArgument, "not a key to rely on: anybody can sign under it");
  return OkStatus();
}

Result<std::string> PublicKeyPem(const PublicKey& key) {
  const Owned<EVP_PKEY> pkey(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, key.data(), key.size()));
  const Owned<BIO> bio(BIO_new(BIO_s_mem()));
  if (pkey == nullptr || bio == nullptr || PEM_write_bio_PUBKEY(bio.get(), pkey.get()) != 1)
    return OpenSslFailed("encoding a public key");
  char* pem = nullptr;
  const auto size = static_cast<size_t>(BIO_get_mem_data(bio.get(), &pem));
  return std::string(pem, size);
}

Result<PublicKey> PublicKeyFromPemFile(const std::string& path) {
  TALARIA_ASSIGN_OR_RETURN(const std::vector<uint8_t> pem, ReadFile(path, kMaxPemBytes));
  const std::string_view text(reinterpret_cast<const char*>(pem.data()), pem.size());
  const auto corrupt = [&](const char* what) { return Status(Code::kCorrupt, path + ": " + what); };
  if (!text.starts_with("-----BEGIN PUBLIC KEY-----")) return corrupt("not a public key in PEM");
  const Owned<BIO> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  if (bio == nullptr) return OpenSslFailed("reading PEM");
  const Owned<EVP_PKEY> pkey(PEM_read_bio_PUBKEY(bio.get(), nullptr, NoPassword, nullptr));
  ERR_clear_error();
  if (pkey == nullptr) return corrupt("a public key that does not decode");
  if (!OnlySpaceLeft(bio, text)) return corrupt("something behind the public key");
  if (EVP_PKEY_get_id(pkey.get()) != EVP_PKEY_ED25519)
    return Status(Code::kUnsupported, path + ": not an Ed25519 key");
  PublicKey key{};
  size_t size = key.size();
  if (EVP_PKEY_get_raw_public_key(pkey.get(), key.data(), &size) != 1 || size != key.size())
    return OpenSslFailed("a public key");
  if (Status s = CheckPublicKey(key); !s.ok()) return s.Annotate(path);
  return key;
}

bool Verify(const PublicKey& key, std::string_view domain, Bytes message, Bytes signature) {
  if (signature.size() != kSignatureBytes || !CheckPublicKey(key).ok()) return false;
  const Owned<EVP_PKEY> pkey(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, key.data(), key.size()));
  const Owned<EVP_MD_CTX> ctx(EVP_MD_CTX_new());
  const std::vector<uint8_t> signed_bytes = Join(domain, message);
  const bool ok = pkey != nullptr && ctx != nullptr &&
                  EVP_DigestVerifyInit(ctx.get(), nullptr, nullptr, nullptr, pkey.get()) == 1 &&
                  EVP_DigestVerify(ctx.get(), signature.data(), signature.size(),
                                   signed_bytes.data(), signed_bytes.size()) == 1;
  ERR_clear_error();
  return ok;
}

struct TenantKey::Impl {
  Owned<EVP_PKEY> key;
  PublicKey public_key{};

  static Result<TenantKey> Create(Owned<EVP_PKEY> key) {
    auto impl = std::make_unique<Impl>();
    size_t size = impl->public_key.size();
    if (EVP_PKEY_get_raw_public_key(key.get(), impl->public_key.data(), &size) != 1 ||
        size != impl->public_key.size()) {
      return OpenSslFailed("a tenant's public key");
    }
    impl->key = std::move(key);
    return TenantKey(std::move(impl));
  }
};

TenantKey::TenantKey(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
TenantKey::~TenantKey() = default;
TenantKey::TenantKey(TenantKey&&) noexcept = default;
TenantKey& TenantKey::operator=(TenantKey&&) noexcept = default;

Result<TenantKey> TenantKey::Generate() {
  Owned<EVP_PKEY> key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  if (key == nullptr) return OpenSslFailed("making a key");
  return Impl::Create(std::move(key));
}

Result<TenantKey> TenantKey::FromPemFile(const std::string& path) {
  TALARIA_ASSIGN_OR_RETURN(const SecretBytes pem, ReadPrivateKeyFile(path, kMaxPemBytes));
  Result<Owned<EVP_PKEY>> key = DecodePem(pem.bytes);
  if (!key.ok()) return key.status().Annotate(path);
  return Impl::Create(std::move(key).value());
}

Status TenantKey::ToPemFile(const std::string& path) const {
  return WritePrivateKeyFile(path, impl_->key.get());
}

const PublicKey& TenantKey::public_key() const { return impl_->public_key; }

Result<Signature> TenantKey::Sign(std::string_view domain, Bytes message) const {
  const Owned<EVP_MD_CTX> ctx(EVP_MD_CTX_new());
  const std::vector<uint8_t> bytes = Join(domain, message);
  Signature signature{};
  size_t size = signature.size();
  if (ctx == nullptr ||
      EVP_DigestSignInit(ctx.get(), nullptr, nullptr, nullptr, impl_->key.get()) != 1 ||
      EVP_DigestSign(ctx.get(), signature.data(), &size, bytes.data(), bytes.size()) != 1 ||
      size != signature.size()) {
    return OpenSslFailed("signing");
  }
  return signature;
}

}  // namespace talaria::tenant
