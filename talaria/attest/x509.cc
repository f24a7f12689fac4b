#include "talaria/attest/x509.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <ctime>

#include "talaria/attest/refusal.h"
#include "talaria/base/openssl.h"

namespace talaria::attest {
namespace {

constexpr size_t kMaxCrlBytes = 1 << 20;

// OpenSSL's queue of errors belongs to the thread: what we leave there would confuse whoever reads
// it next (a TLS connection, say).
struct ErrorQueueGuard {
  ErrorQueueGuard() { ERR_set_mark(); }
  ~ErrorQueueGuard() { ERR_pop_to_mark(); }
};

size_t FieldBytes(Curve curve) { return curve == Curve::kP256 ? 32 : 48; }
const char* GroupName(Curve curve) {
  return curve == Curve::kP256 ? SN_X9_62_prime256v1 : SN_secp384r1;
}
int GroupNid(Curve curve) { return curve == Curve::kP256 ? NID_X9_62_prime256v1 : NID_secp384r1; }

// Named, not spelled out: explicit parameters could be those of another curve.
bool IsOnCurve(const EVP_PKEY* key, Curve curve) {
  char text[32] = {};
  size_t size = 0;
  if (key == nullptr || EVP_PKEY_is_a(key, "EC") != 1) return false;
  if (EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_EC_ENCODING, text, sizeof(text), &size) !=
          1 ||
      std::string_view(text, size) != OSSL_PKEY_EC_ENCODING_GROUP) {
    return false;
  }
  return EVP_PKEY_get_group_name(key, text, sizeof(text), &size) == 1 &&
         std::string_view(text, size) == GroupName(curve);
}

bool ToUnixTime(const ASN1_TIME* time, UnixTime& out) {
  std::tm fields{};
  if (time == nullptr || ASN1_TIME_to_tm(time, &fields) != 1) return false;
  out = timegm(&fields);
  return true;
}

std::string CommonName(const X509_NAME* name) {
  const int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
  if (at < 0 || X509_NAME_get_index_by_NID(name, NID_commonName, at) >= 0) return {};
  unsigned char* text = nullptr;
  const int size =
      ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
  if (size < 0) return {};
  const Owned<unsigned char> owned(text);
  return {reinterpret_cast<const char*>(text), static_cast<size_t>(size)};
}

// The base64 between two PEM lines: line ends may be anywhere, all else is canonical.
bool DecodeBase64(std::string_view text, std::vector<uint8_t>& out) {
  std::string packed;
  for (const char c : text) {
    if (c != '\n' && c != '\r') packed.push_back(c);
  }
  if (packed.empty() || packed.size() % 4 != 0) return false;
  out.resize(packed.size() / 4 * 3);
  const int size = static_cast<int>(packed.size());
  if (EVP_DecodeBlock(out.data(), reinterpret_cast<const uint8_t*>(packed.data()), size) < 0) {
    return false;
  }
  const size_t padding = packed.size() - std::min(packed.find('='), packed.size());
  if (padding > 2) return false;
  out.resize(out.size() - padding);
  std::string again(packed.size() + 1, '\0');  // a NUL follows
  EVP_EncodeBlock(reinterpret_cast<uint8_t*>(again.data()), out.data(),
                  static_cast<int>(out.size()));
  again.pop_back();
  return again == packed;
}

}  // namespace

// ---- keys ----

struct PublicKey::Impl {
  Owned<EVP_PKEY> key;
};

Result<PublicKey> PublicKey::FromPoint(Curve curve, Bytes x_y, std::string_view reason) {
  const ErrorQueueGuard guard;
  if (x_y.size() != 2 * FieldBytes(curve)) {
    return Refuse(reason, std::to_string(x_y.size()) + " bytes of a public key",
                  std::to_string(2 * FieldBytes(curve)));
  }
  std::vector<uint8_t> point = {POINT_CONVERSION_UNCOMPRESSED};
  point.insert(point.end(), x_y.begin(), x_y.end());
  const Owned<OSSL_PARAM_BLD> builder(OSSL_PARAM_BLD_new());
  TALARIA_CHECK(builder != nullptr);
  TALARIA_CHECK(OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME,
                                                GroupName(curve), 0) == 1);
  TALARIA_CHECK(OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY,
                                                 point.data(), point.size()) == 1);
  const Owned<OSSL_PARAM> params(OSSL_PARAM_BLD_to_param(builder.get()));
  const Owned<EVP_PKEY_CTX> context(EVP_PKEY_CTX_new_from_name(nullptr, "EC", nullptr));
  TALARIA_CHECK(params != nullptr && context != nullptr);
  EVP_PKEY* made = nullptr;
  bool good = EVP_PKEY_fromdata_init(context.get()) == 1 &&
              EVP_PKEY_fromdata(context.get(), &made, EVP_PKEY_PUBLIC_KEY, params.get()) == 1;
  auto impl = std::make_shared<Impl>(Impl{Owned<EVP_PKEY>(made)});
  if (good) {
    const Owned<EVP_PKEY_CTX> check(EVP_PKEY_CTX_new_from_pkey(nullptr, made, nullptr));
    good = check != nullptr && EVP_PKEY_public_check(check.get()) == 1;
  }
  if (!good) return Refuse(reason, ToHex(x_y), "a point of the curve");
  PublicKey key;
  key.impl_ = std::move(impl);
  return key;
}

bool PublicKey::VerifyEcdsa(Curve curve, Bytes message, Bytes r, Bytes s) const {
  const ErrorQueueGuard guard;
  const size_t size = FieldBytes(curve);
  if (!impl_ || r.size() != size || s.size() != size || !IsOnCurve(impl_->key.get(), curve)) {
    return false;
  }
  const Owned<EC_GROUP> group(EC_GROUP_new_by_curve_name(GroupNid(curve)));
  Owned<BIGNUM> r_number(BN_bin2bn(r.data(), static_cast<int>(size), nullptr));
  Owned<BIGNUM> s_number(BN_bin2bn(s.data(), static_cast<int>(size), nullptr));
  const Owned<ECDSA_SIG> signature(ECDSA_SIG_new());
  const Owned<EVP_MD_CTX> context(EVP_MD_CTX_new());
  TALARIA_CHECK(group != nullptr && r_number != nullptr && s_number != nullptr &&
                signature != nullptr && context != nullptr);
  const BIGNUM* order = EC_GROUP_get0_order(group.get());
  for (const BIGNUM* number : {r_number.get(), s_number.get()}) {
    if (BN_is_zero(number) || BN_ucmp(number, order) >= 0) return false;
  }
  TALARIA_CHECK(ECDSA_SIG_set0(signature.get(), r_number.release(), s_number.release()) == 1);
  unsigned char* der = nullptr;
  const int der_size = i2d_ECDSA_SIG(signature.get(), &der);
  const Owned<unsigned char> owned(der);
  TALARIA_CHECK(der_size > 0);
  const EVP_MD* digest = curve == Curve::kP256 ? EVP_sha256() : EVP_sha384();
  return EVP_DigestVerifyInit(context.get(), nullptr, digest, nullptr, impl_->key.get()) == 1 &&
         EVP_DigestVerify(context.get(), der, static_cast<size_t>(der_size), message.data(),
                          message.size()) == 1;
}

// ---- certificates ----

struct Certificate::Impl {
  Owned<X509> x509;
  std::vector<uint8_t> der;
  UnixTime not_before = 0;
  UnixTime not_after = 0;
};

Result<Certificate> Certificate::FromDer(Bytes der, std::string_view reason) {
  const ErrorQueueGuard guard;
  if (der.empty() || der.size() > kMaxCertificateBytes) {
    return Refuse(reason, std::to_string(der.size()) + " bytes",
                  "a certificate of 1 to " + std::to_string(kMaxCertificateBytes));
  }
  auto impl = std::make_shared<Impl>();
  const uint8_t* at = der.data();
  impl->x509.reset(d2i_X509(nullptr, &at, static_cast<long>(der.size())));
  if (!impl->x509) return Refuse(reason, "what is not X.509");
  if (at != der.data() + der.size()) return Refuse(reason, "bytes behind a certificate");
  unsigned char* again = nullptr;
  const int size = i2d_X509(impl->x509.get(), &again);
  const Owned<unsigned char> owned(again);
  if (size < 0 || !std::equal(der.begin(), der.end(), again, again + size)) {
    return Refuse(reason, "a certificate that is not DER");
  }
  if (X509_get0_pubkey(impl->x509.get()) == nullptr) {
    return Refuse(reason, "a certificate whose key cannot be read");
  }
  if (!ToUnixTime(X509_get0_notBefore(impl->x509.get()), impl->not_before) ||
      !ToUnixTime(X509_get0_notAfter(impl->x509.get()), impl->not_after)) {
    return Refuse(reason, "a certificate whose time cannot be read");
  }
  impl->der.assign(der.begin(), der.end());
  Certificate certificate;
  certificate.impl_ = std::move(impl);
  return certificate;
}

Result<std::vector<Certificate>> Certificate::FromPem(std::string_view pem, size_t count,
                                                      std::string_view reason) {
  constexpr std::string_view kBegin = "-----BEGIN CERTIFICATE-----";
  constexpr std::string_view kEnd = "-----END CERTIFICATE-----";
  if (pem.size() > count * 2 * kMaxCertificateBytes) {
    return Refuse(reason, std::to_string(pem.size()) + " bytes of PEM",
                  "at most " + std::to_string(count * 2 * kMaxCertificateBytes));
  }
  const auto skip_space = [&pem] {
    pem.remove_prefix(std::min(pem.find_first_not_of(" \t\r\n"), pem.size()));
  };
  const std::string wanted = std::to_string(count) + " PEM certificates and nothing else";
  std::vector<Certificate> out;
  skip_space();
  while (pem.starts_with(kBegin)) {
    pem.remove_prefix(kBegin.size());
    const size_t end = pem.find(kEnd);
    std::vector<uint8_t> der;
    if (end == pem.npos || !DecodeBase64(pem.substr(0, end), der)) {
      return Refuse(reason, "PEM that cannot be decoded", wanted);
    }
    if (out.size() == count) return Refuse(reason, "more certificates", wanted);
    TALARIA_ASSIGN_OR_RETURN(Certificate certificate, FromDer(der, reason));
    out.push_back(std::move(certificate));
    pem.remove_prefix(end + kEnd.size());
    skip_space();
  }
  if (pem.size() == 1 && pem[0] == '\0') pem.remove_prefix(1);
  if (!pem.empty()) return Refuse(reason, "other text", wanted);
  if (out.size() != count) {
    return Refuse(reason, std::to_string(out.size()) + " certificates", wanted);
  }
  return out;
}

Bytes Certificate::der() const { return impl_->der; }

Digest Certificate::SpkiSha256() const {
  unsigned char* spki = nullptr;
  const int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(impl_->x509.get()), &spki);
  const Owned<unsigned char> owned(spki);
  TALARIA_CHECK(size > 0);
  return Sha256Of({spki, static_cast<size_t>(size)});
}

std::string Certificate::SubjectCommonName() const {
  const ErrorQueueGuard guard;
  return CommonName(X509_get_subject_name(impl_->x509.get()));
}

std::string Certificate::IssuerCommonName() const {
  const ErrorQueueGuard guard;
  return CommonName(X509_get_issuer_name(impl_->x509.get()));
}

bool Certificate::IsIssuedNameOf(const Certificate& issuer) const {
  return X509_NAME_cmp(X509_get_issuer_name(impl_->x509.get()),
                       X509_get_subject_name(issuer.impl_->x509.get())) == 0;
}

PublicKey Certificate::Key() const {
  PublicKey key;
  key.impl_ = std::make_shared<PublicKey::Impl>(
      PublicKey::Impl{Owned<EVP_PKEY>(X509_get_pubkey(impl_->x509.get()))});
  return key;
}

bool Certificate::HasEcKey(Curve curve) const {
  const ErrorQueueGuard guard;
  return IsOnCurve(X509_get0_pubkey(impl_->x509.get()), curve);
}

bool Certificate::HasRsaKey(int bits) const {
  const EVP_PKEY* key = X509_get0_pubkey(impl_->x509.get());
  return EVP_PKEY_is_a(key, "RSA") == 1 && EVP_PKEY_get_bits(key) == bits;
}

Result<std::optional<std::vector<uint8_t>>> Certificate::Extension(std::string_view oid,
                                                                   std::string_view reason) const {
  const ErrorQueueGuard guard;
  const Owned<ASN1_OBJECT> object(OBJ_txt2obj(std::string(oid).c_str(), 1));
  TALARIA_CHECK(object != nullptr);
  const int at = X509_get_ext_by_OBJ(impl_->x509.get(), object.get(), -1);
  if (at < 0) return std::optional<std::vector<uint8_t>>();
  if (X509_get_ext_by_OBJ(impl_->x509.get(), object.get(), at) >= 0) {
    return Refuse(reason, "extension " + std::string(oid) + " twice");
  }
  const ASN1_OCTET_STRING* value = X509_EXTENSION_get_data(X509_get_ext(impl_->x509.get(), at));
  const uint8_t* data = ASN1_STRING_get0_data(value);
  return std::optional(std::vector<uint8_t>(data, data + ASN1_STRING_length(value)));
}

bool Certificate::IsSignedWithPssSha384() const {
  const ErrorQueueGuard guard;
  int digest = 0;
  int algorithm = 0;
  uint32_t flags = 0;
  // OpenSSL sets X509_SIG_INFO_TLS for PSS only where MGF1 has the same digest and the salt its
  // size; x509_test.cc makes certificates where only one of them is off.
  return X509_get_signature_info(impl_->x509.get(), &digest, &algorithm, nullptr, &flags) == 1 &&
         digest == NID_sha384 && algorithm == NID_rsassaPss && (flags & X509_SIG_INFO_TLS) != 0;
}

UnixTime Certificate::not_before() const { return impl_->not_before; }
UnixTime Certificate::not_after() const { return impl_->not_after; }
bool Certificate::operator==(const Certificate& other) const {
  return impl_->der == other.impl_->der;
}

// ---- chains ----

Status VerifyChain(const Certificate& leaf, std::span<const Certificate> intermediates,
                   const Certificate& root, UnixTime now, ChainOptions options) {
  const ErrorQueueGuard guard;
  const Owned<X509_STORE> store(X509_STORE_new());
  const Owned<STACK_OF(X509)> others(sk_X509_new_null());
  const Owned<X509_STORE_CTX> context(X509_STORE_CTX_new());
  TALARIA_CHECK(store != nullptr && others != nullptr && context != nullptr);
  TALARIA_CHECK(X509_STORE_add_cert(store.get(), root.impl_->x509.get()) == 1);
  for (const Certificate& one : intermediates) {
    TALARIA_CHECK(sk_X509_push(others.get(), one.impl_->x509.get()) > 0);
  }
  TALARIA_CHECK(
      X509_STORE_CTX_init(context.get(), store.get(), leaf.impl_->x509.get(), others.get()) == 1);
  X509_VERIFY_PARAM* param = X509_STORE_CTX_get0_param(context.get());
  X509_VERIFY_PARAM_set_time(param, now);
  unsigned long flags = X509_V_FLAG_CHECK_SS_SIGNATURE;
  if (options.strict) flags |= X509_V_FLAG_X509_STRICT;
  TALARIA_CHECK(X509_VERIFY_PARAM_set_flags(param, flags) == 1);

  if (X509_verify_cert(context.get()) != 1) {
    const int error = X509_STORE_CTX_get_error(context.get());
    const bool expired =
        error == X509_V_ERR_CERT_NOT_YET_VALID || error == X509_V_ERR_CERT_HAS_EXPIRED;
    return Refuse(expired ? options.expired_reason : options.reason,
                  std::string(X509_verify_cert_error_string(error)) + " at depth " +
                      std::to_string(X509_STORE_CTX_get_error_depth(context.get())));
  }
  // OpenSSL takes of the intermediates what it needs; here all are needed, in their order.
  const STACK_OF(X509)* chain = X509_STORE_CTX_get0_chain(context.get());
  const auto is_at = [chain](size_t place, const Certificate& certificate) {
    return X509_cmp(sk_X509_value(chain, static_cast<int>(place)), certificate.impl_->x509.get()) ==
           0;
  };
  const size_t size = static_cast<size_t>(sk_X509_num(chain));
  bool exact = size == intermediates.size() + 2 && is_at(0, leaf) && is_at(size - 1, root);
  for (size_t i = 0; exact && i < intermediates.size(); ++i) {
    exact = is_at(i + 1, intermediates[i]);
  }
  if (!exact) {
    return Refuse(options.reason, "a chain of " + std::to_string(size) + " certificates",
                  "exactly the " + std::to_string(intermediates.size() + 2) + " given, in order");
  }
  return OkStatus();
}

// ---- revocation lists ----

struct Crl::Impl {
  Owned<X509_CRL> crl;
  UnixTime this_update = 0;
  std::optional<UnixTime> next_update;
};

Result<Crl> Crl::FromDer(Bytes der, std::string_view reason) {
  const ErrorQueueGuard guard;
  if (der.empty() || der.size() > kMaxCrlBytes) {
    return Refuse(reason, std::to_string(der.size()) + " bytes",
                  "a revocation list of 1 to " + std::to_string(kMaxCrlBytes));
  }
  auto impl = std::make_shared<Impl>();
  const uint8_t* at = der.data();
  impl->crl.reset(d2i_X509_CRL(nullptr, &at, static_cast<long>(der.size())));
  if (!impl->crl) return Refuse(reason, "what is not a revocation list");
  if (at != der.data() + der.size()) return Refuse(reason, "bytes behind a revocation list");
  unsigned char* again = nullptr;
  const int size = i2d_X509_CRL(impl->crl.get(), &again);
  const Owned<unsigned char> owned(again);
  if (size < 0 || !std::equal(der.begin(), der.end(), again, again + size)) {
    return Refuse(reason, "a revocation list that is not DER");
  }
  const ASN1_TIME* next = X509_CRL_get0_nextUpdate(impl->crl.get());
  UnixTime next_update = 0;
  if (!ToUnixTime(X509_CRL_get0_lastUpdate(impl->crl.get()), impl->this_update) ||
      (next != nullptr && !ToUnixTime(next, next_update))) {
    return Refuse(reason, "a revocation list whose time cannot be read");
  }
  if (next != nullptr) impl->next_update = next_update;
  // Critical extensions narrow what a list speaks of (a delta, some reasons, other issuers).
  for (int i = 0; i < X509_CRL_get_ext_count(impl->crl.get()); ++i) {
    if (X509_EXTENSION_get_critical(X509_CRL_get_ext(impl->crl.get(), i)) != 0) {
      return Refuse(reason, "a revocation list with a critical extension");
    }
  }
  Crl crl;
  crl.impl_ = std::move(impl);
  return crl;
}

Status Crl::Verify(const Certificate& issuer, UnixTime now, std::string_view reason,
                   std::string_view expired_reason) const {
  const ErrorQueueGuard guard;
  X509* signer = issuer.impl_->x509.get();
  if (X509_NAME_cmp(X509_CRL_get_issuer(impl_->crl.get()), X509_get_subject_name(signer)) != 0) {
    return Refuse(reason, "a revocation list of another issuer",
                  Printable(issuer.SubjectCommonName()));
  }
  if ((X509_get_key_usage(signer) & KU_CRL_SIGN) == 0) {
    return Refuse(reason, "an issuer that may not sign revocation lists");
  }
  if (X509_CRL_verify(impl_->crl.get(), X509_get0_pubkey(signer)) != 1) {
    return Refuse(reason, "a revocation list with a wrong signature");
  }
  if (!impl_->next_update || now < impl_->this_update || now > *impl_->next_update) {
    return Refuse(expired_reason, "time " + std::to_string(now),
                  std::to_string(impl_->this_update) + " to " +
                      (impl_->next_update ? std::to_string(*impl_->next_update) : "nothing"));
  }
  return OkStatus();
}

bool Crl::Revokes(const Certificate& certificate) const {
  const ErrorQueueGuard guard;
  X509_REVOKED* entry = nullptr;
  return X509_CRL_get0_by_cert(impl_->crl.get(), &entry, certificate.impl_->x509.get()) != 0;
}

UnixTime Crl::this_update() const { return impl_->this_update; }
UnixTime Crl::next_update() const { return impl_->next_update.value_or(0); }

std::optional<std::vector<uint8_t>> Crl::number() const {
  const ErrorQueueGuard guard;
  const Owned<ASN1_INTEGER> encoded(static_cast<ASN1_INTEGER*>(
      X509_CRL_get_ext_d2i(impl_->crl.get(), NID_crl_number, nullptr, nullptr)));
  if (encoded == nullptr) return std::nullopt;
  const Owned<BIGNUM> number(ASN1_INTEGER_to_BN(encoded.get(), nullptr));
  if (number == nullptr || BN_is_negative(number.get()) != 0) return std::nullopt;
  std::vector<uint8_t> out(static_cast<size_t>(BN_num_bytes(number.get())));
  BN_bn2bin(number.get(), out.data());
  return out;
}

std::string Crl::IssuerCommonName() const {
  const ErrorQueueGuard guard;
  return CommonName(X509_CRL_get_issuer(impl_->crl.get()));
}

}  // namespace talaria::attest
