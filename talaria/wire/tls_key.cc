#include "talaria/wire/tls_key.h"

#include <openssl/pem.h>

#include <vector>

#include "talaria/base/file.h"
#include "talaria/base/private_key_file.h"
#include "talaria/wire/tls_context.h"

namespace talaria::wire {
namespace {

constexpr uint64_t kMaxPemBytes = 16 << 10;  // a key has 0.3 KiB, a certificate of anybody's 2
constexpr long kTenYears = 10L * 365 * 24 * 3600;
constexpr long kOneDay = 24L * 3600;  // for clocks that are behind ours

// One PEM block as OpenSSL splits it.
struct PemBlock {
  PemBlock() = default;
  PemBlock(const PemBlock&) = delete;
  PemBlock& operator=(const PemBlock&) = delete;
  ~PemBlock() {
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_clear_free(data, static_cast<size_t>(size));
  }
  char* name = nullptr;
  char* header = nullptr;
  uint8_t* data = nullptr;
  long size = 0;
};

// Exactly one block with white space behind it, nothing before it.
Status ReadOneBlock(Bytes pem, PemBlock& block) {
  const std::string_view text(reinterpret_cast<const char*>(pem.data()), pem.size());
  if (!text.starts_with("-----BEGIN ")) return Status(Code::kCorrupt, "not a PEM block");
  const Owned<BIO> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  if (bio == nullptr) return OpenSslFailed("reading PEM");
  if (PEM_read_bio(bio.get(), &block.name, &block.header, &block.data, &block.size) != 1) {
    ERR_clear_error();
    return Status(Code::kCorrupt, "not a PEM block");
  }
  if (text.substr(text.size() - static_cast<size_t>(BIO_pending(bio.get())))
          .find_first_not_of(" \t\r\n") != std::string_view::npos) {
    return Status(Code::kCorrupt, "more than one PEM block");
  }
  return OkStatus();
}

Status CheckIsP256(const EVP_PKEY* key) {
  if (IsP256Spki(SpkiOf(key))) return OkStatus();
  return Status(Code::kUnsupported, "not a P-256 key (named curve, uncompressed point)");
}

Result<Owned<EVP_PKEY>> DecodePrivateKey(const PemBlock& block) {
  const std::string_view name = block.name;
  if (name == "ENCRYPTED PRIVATE KEY" || block.header[0] != '\0') {
    return Status(Code::kUnsupported, "an encrypted private key");
  }
  if (name != "PRIVATE KEY" && name != "EC PRIVATE KEY") {
    return Status(name == "RSA PRIVATE KEY" ? Code::kUnsupported : Code::kCorrupt,
                  "not the private key of a P-256 key pair");
  }
  const uint8_t* end = block.data;
  Owned<EVP_PKEY> key(d2i_AutoPrivateKey(nullptr, &end, block.size));
  ERR_clear_error();
  if (key == nullptr || end != block.data + block.size) {
    return Status(Code::kCorrupt, "a private key that does not decode");
  }
  TALARIA_RETURN_IF_ERROR(CheckIsP256(key.get()));
  const Owned<EVP_PKEY_CTX> check(EVP_PKEY_CTX_new_from_pkey(nullptr, key.get(), nullptr));
  if (check == nullptr || EVP_PKEY_check(check.get()) != 1) {
    ERR_clear_error();
    return Status(Code::kCorrupt, "a private key that contradicts its public key");
  }
  return key;
}

Result<Owned<X509>> SelfSigned(EVP_PKEY* key) {
  Owned<X509> certificate(X509_new());
  X509* const x = certificate.get();
  const Owned<BIGNUM> serial(BN_new());
  // 127 bits with the highest one set: positive, and 16 bytes in DER.
  const bool numbered = x != nullptr && serial != nullptr &&
                        BN_rand(serial.get(), 127, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
                        BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(x)) != nullptr;
  if (!numbered) return OpenSslFailed("making a certificate");
  X509_NAME* const name = X509_get_subject_name(x);
  const auto* cn = reinterpret_cast<const uint8_t*>("talaria");
  if (X509_set_version(x, X509_VERSION_3) != 1 ||
      X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, cn, -1, -1, 0) != 1 ||
      X509_set_issuer_name(x, name) != 1 ||
      // The system's clock: these dates are for other people's tools, we do not look at them.
      X509_gmtime_adj(X509_getm_notBefore(x), -kOneDay) == nullptr ||
      X509_gmtime_adj(X509_getm_notAfter(x), kTenYears - kOneDay) == nullptr ||
      X509_set_pubkey(x, key) != 1 || X509_sign(x, key, EVP_sha256()) <= 0) {
    return OpenSslFailed("making a certificate");
  }
  return certificate;
}

}  // namespace

struct TlsKey::Impl {
  Owned<EVP_PKEY> key;
  Owned<SSL_CTX> context;
  Digest spki_sha256{};

  static Result<TlsKey> Create(Owned<EVP_PKEY> key) {
    auto impl = std::make_unique<Impl>();
    impl->spki_sha256 = Sha256Of(SpkiOf(key.get()));
    TALARIA_ASSIGN_OR_RETURN(const Owned<X509> certificate, SelfSigned(key.get()));
    TALARIA_ASSIGN_OR_RETURN(impl->context, MakeTlsContext(key.get(), certificate.get()));
    impl->key = std::move(key);
    return TlsKey(std::move(impl));
  }
};

TlsKey::TlsKey(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
TlsKey::~TlsKey() = default;
TlsKey::TlsKey(TlsKey&&) noexcept = default;
TlsKey& TlsKey::operator=(TlsKey&&) noexcept = default;

Result<TlsKey> TlsKey::Generate() {
  Owned<EVP_PKEY> key(EVP_EC_gen("P-256"));
  if (key == nullptr) return OpenSslFailed("making a key");
  TALARIA_CHECK(IsP256Spki(SpkiOf(key.get())));
  return Impl::Create(std::move(key));
}

Result<TlsKey> TlsKey::FromPemFile(const std::string& path) {
  TALARIA_ASSIGN_OR_RETURN(const SecretBytes pem, ReadPrivateKeyFile(path, kMaxPemBytes));
  PemBlock block;
  if (Status s = ReadOneBlock(pem.bytes, block); !s.ok()) return s.Annotate(path);
  Result<Owned<EVP_PKEY>> key = DecodePrivateKey(block);
  if (!key.ok()) return key.status().Annotate(path);
  return Impl::Create(std::move(key).value());
}

Status TlsKey::ToPemFile(const std::string& path) const {
  return WritePrivateKeyFile(path, impl_->key.get());
}

std::string TlsKey::PublicKeyPem() const {
  const Owned<BIO> bio(BIO_new(BIO_s_mem()));
  char* pem = nullptr;
  TALARIA_CHECK(bio != nullptr && PEM_write_bio_PUBKEY(bio.get(), impl_->key.get()) == 1);
  const long size = BIO_get_mem_data(bio.get(), &pem);
  return {pem, static_cast<size_t>(size)};
}

Digest TlsKey::spki_sha256() const { return impl_->spki_sha256; }
std::vector<uint8_t> TlsKey::spki() const { return SpkiOf(impl_->key.get()); }

Result<std::array<uint8_t, 64>> TlsKey::Sign(Bytes message) const {
  TALARIA_CHECK(!message.empty() && message[0] >= 'a' && message[0] <= 'z');
  const Owned<EVP_MD_CTX> context(EVP_MD_CTX_new());
  std::array<uint8_t, 80> der;  // 72 at most
  size_t der_bytes = der.size();
  const bool made =
      context != nullptr &&
      EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, impl_->key.get()) == 1 &&
      EVP_DigestSign(context.get(), der.data(), &der_bytes, message.data(), message.size()) == 1;
  if (!made) return OpenSslFailed("signing");
  const uint8_t* at = der.data();
  const Owned<ECDSA_SIG> numbers(d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(der_bytes)));
  std::array<uint8_t, 64> out;
  const bool split = numbers != nullptr &&
                     BN_bn2binpad(ECDSA_SIG_get0_r(numbers.get()), out.data(), 32) == 32 &&
                     BN_bn2binpad(ECDSA_SIG_get0_s(numbers.get()), out.data() + 32, 32) == 32;
  if (!split) return OpenSslFailed("signing");
  return out;
}

ssl_ctx_st* TlsKey::context() const { return impl_->context.get(); }

Result<Digest> SpkiDigestFromPemFile(const std::string& path) {
  TALARIA_ASSIGN_OR_RETURN(const std::vector<uint8_t> pem, ReadFile(path, kMaxPemBytes));
  PemBlock block;
  if (Status s = ReadOneBlock(pem, block); !s.ok()) return s.Annotate(path);
  const std::string_view name = block.name;
  const uint8_t* end = block.data;
  std::vector<uint8_t> spki;
  bool decoded = false;
  if (name == "PUBLIC KEY") {
    const Owned<EVP_PKEY> key(d2i_PUBKEY(nullptr, &end, block.size));
    decoded = key != nullptr;
    // The file's own bytes: they are what is pinned.
    spki.assign(block.data, block.data + block.size);
  } else if (name == "CERTIFICATE") {
    const Owned<X509> certificate(d2i_X509(nullptr, &end, block.size));
    decoded = certificate != nullptr && X509_get0_pubkey(certificate.get()) != nullptr;
    if (decoded) spki = SpkiOf(certificate.get());
  }
  ERR_clear_error();
  if (!decoded || end != block.data + block.size) {
    return Status(Code::kCorrupt, path + ": not a public key or certificate");
  }
  if (!IsP256Spki(spki)) {
    return Status(Code::kUnsupported, path + ": not a P-256 key (named curve, uncompressed point)");
  }
  return Sha256Of(spki);
}

}  // namespace talaria::wire
