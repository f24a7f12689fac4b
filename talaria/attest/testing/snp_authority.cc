#include "talaria/attest/testing/snp_authority.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>

#include "talaria/attest/snp/certificate_table.h"
#include "talaria/base/openssl.h"

namespace talaria::attest {
namespace {

void Must(bool good) { TALARIA_CHECK(good); }

Owned<EVP_PKEY> ReadKey(const std::string& pem) {
  const Owned<BIO> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  return Owned<EVP_PKEY>(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
}

std::string WriteKey(EVP_PKEY* key) {
  const Owned<BIO> bio(BIO_new(BIO_s_mem()));
  Must(key != nullptr &&
       PEM_write_bio_PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1);
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return {text, static_cast<size_t>(size)};
}

Owned<EVP_MD_CTX> SigningContext(EVP_PKEY* key, RsaScheme scheme) {
  Owned<EVP_MD_CTX> context(EVP_MD_CTX_new());
  EVP_PKEY_CTX* parameters = nullptr;
  const EVP_MD* digest = scheme == RsaScheme::kPssSha256 ? EVP_sha256() : EVP_sha384();
  Must(EVP_DigestSignInit(context.get(), &parameters, digest, nullptr, key) == 1);
  if (scheme != RsaScheme::kPkcs1Sha384) {
    const bool mgf1_256 = scheme == RsaScheme::kPssSha256 || scheme == RsaScheme::kPssMgf1Sha256;
    const int salt = scheme == RsaScheme::kPssSalt32 || scheme == RsaScheme::kPssSha256 ? 32 : 48;
    Must(EVP_PKEY_CTX_set_rsa_padding(parameters, RSA_PKCS1_PSS_PADDING) == 1);
    Must(EVP_PKEY_CTX_set_rsa_mgf1_md(parameters, mgf1_256 ? EVP_sha256() : EVP_sha384()) == 1);
    Must(EVP_PKEY_CTX_set_rsa_pss_saltlen(parameters, salt) == 1);
  }
  return context;
}

void AddName(X509_NAME* name, const std::string& common_name) {
  const auto add = [name](const char* field, const std::string& value) {
    Must(X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8,
                                    reinterpret_cast<const uint8_t*>(value.data()),
                                    static_cast<int>(value.size()), -1, 0) == 1);
  };
  // As AMD's, in AMD's order.
  add("OU", "Engineering");
  add("C", "US");
  add("L", "Santa Clara");
  add("ST", "CA");
  add("O", "Advanced Micro Devices");
  add("CN", common_name);
}

Owned<X509> NewCertificate(const X509_NAME* issuer, const std::string& subject, uint64_t serial,
                           UnixTime not_before, UnixTime not_after, EVP_PKEY* key) {
  Owned<X509> x509(X509_new());
  Must(X509_set_version(x509.get(), X509_VERSION_3) == 1);
  Must(ASN1_INTEGER_set_uint64(X509_get_serialNumber(x509.get()), serial) == 1);
  AddName(X509_get_subject_name(x509.get()), subject);
  Must(X509_set_issuer_name(x509.get(),
                            issuer != nullptr ? issuer : X509_get_subject_name(x509.get())) == 1);
  Must(ASN1_TIME_set(X509_getm_notBefore(x509.get()), not_before) != nullptr);
  Must(ASN1_TIME_set(X509_getm_notAfter(x509.get()), not_after) != nullptr);
  Must(X509_set_pubkey(x509.get(), key) == 1);
  return x509;
}

void AddStandardExtension(X509* x509, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, x509, nullptr, nullptr, 0);
  const Owned<X509_EXTENSION> extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value));
  Must(extension != nullptr && X509_add_ext(x509, extension.get(), -1) == 1);
}

void AddRawExtension(X509* x509, const std::string& oid, Bytes content) {
  const Owned<ASN1_OBJECT> object(OBJ_txt2obj(oid.c_str(), 1));
  const Owned<ASN1_OCTET_STRING> value(ASN1_OCTET_STRING_new());
  Must(ASN1_OCTET_STRING_set(value.get(), content.data(), static_cast<int>(content.size())) == 1);
  const Owned<X509_EXTENSION> extension(
      X509_EXTENSION_create_by_OBJ(nullptr, object.get(), 0, value.get()));
  Must(extension != nullptr && X509_add_ext(x509, extension.get(), -1) == 1);
}

std::vector<uint8_t> Sign(X509* x509, EVP_PKEY* key, RsaScheme scheme) {
  const auto context = SigningContext(key, scheme);
  Must(X509_sign_ctx(x509, context.get()) > 0);
  unsigned char* der = nullptr;
  const int size = i2d_X509(x509, &der);
  Must(size > 0);
  std::vector<uint8_t> out(der, der + size);
  OPENSSL_free(der);
  return out;
}

Owned<X509> Reread(const Certificate& certificate) {
  const uint8_t* at = certificate.der().data();
  Owned<X509> x509(d2i_X509(nullptr, &at, static_cast<long>(certificate.der().size())));
  Must(x509 != nullptr);
  return x509;
}

std::vector<uint8_t> DerInteger(uint8_t value) {
  if (value < 0x80) return {2, 1, value};
  return {2, 2, 0, value};
}

std::vector<uint8_t> DerText(std::string_view text) {
  TALARIA_CHECK(text.size() < 0x80);
  std::vector<uint8_t> out(text.begin(), text.end());
  out.insert(out.begin(), {0x16, static_cast<uint8_t>(text.size())});
  return out;
}

using Extensions = std::map<std::string, std::optional<std::vector<uint8_t>>>;

Extensions UsualExtensions(SnpProduct product, const SnpVekOptions& options) {
  const std::string oid = "1.3.6.1.4.1.3704.1.";
  const bool turin = product == SnpProduct::kTurin;
  const bool vcek = options.kind == SnpSigningKey::kVcek;
  const std::string name(SnpProductName(product));
  Extensions out;
  out[oid + "1"] = DerInteger(turin ? 1 : 0);
  out[oid + "2"] = DerText(product == SnpProduct::kMilan && vcek ? name + "-B0" : name);
  out[oid + "3.1"] = DerInteger(options.tcb.boot_loader);
  out[oid + "3.2"] = DerInteger(options.tcb.tee);
  out[oid + "3.3"] = DerInteger(options.tcb.snp);
  if (!turin) out[oid + "3.4"] = DerInteger(0);
  for (const char* reserved : {"3.5", "3.6", "3.7"}) out[oid + reserved] = DerInteger(0);
  out[oid + "3.8"] = DerInteger(options.tcb.microcode);
  if (turin) out[oid + "3.9"] = DerInteger(options.tcb.fmc);
  if (vcek) {
    out[oid + "4"] =
        std::vector<uint8_t>(options.chip_id.begin(), options.chip_id.begin() + (turin ? 8 : 64));
  } else {
    out[oid + "5"] = DerText(options.csp_id);
  }
  return out;
}

Result<Owned<EVP_PKEY>> ReadKeyOr(const std::string& pem, const char* what) {
  Owned<EVP_PKEY> key = ReadKey(pem);
  if (!key) return Status(Code::kInvalidArgument, std::string(what) + ": not a private key in PEM");
  return key;
}

Certificate MustParse(Bytes der) {
  auto parsed = Certificate::FromDer(der, "snp-authority");
  TALARIA_CHECK(parsed.ok());
  return std::move(parsed).value();
}

}  // namespace

std::string GenerateRsaKeyPem(int bits) {
  return WriteKey(Owned<EVP_PKEY>(EVP_RSA_gen(static_cast<unsigned>(bits))).get());
}

std::string GenerateEcKeyPem(Curve curve) {
  return WriteKey(Owned<EVP_PKEY>(EVP_EC_gen(curve == Curve::kP256 ? "P-256" : "P-384")).get());
}

Result<SnpAuthority> SnpAuthority::Create(SnpAuthorityOptions options) {
  TALARIA_ASSIGN_OR_RETURN(const Owned<EVP_PKEY> ark_key, ReadKeyOr(options.keys.ark, "ark"));
  TALARIA_ASSIGN_OR_RETURN(const Owned<EVP_PKEY> ask_key, ReadKeyOr(options.keys.ask, "ask"));
  TALARIA_ASSIGN_OR_RETURN(const Owned<EVP_PKEY> asvk_key, ReadKeyOr(options.keys.asvk, "asvk"));
  const std::string product(SnpProductName(options.product));
  Owned<X509> root;
  const auto make = [&](const SnpCaOptions& ca, const std::string& usual_name,
                        uint64_t usual_serial, EVP_PKEY* key) {
    Owned<X509> x509 = NewCertificate(
        root ? X509_get_subject_name(root.get()) : nullptr,
        ca.subject.empty() ? usual_name : ca.subject, ca.serial == 0 ? usual_serial : ca.serial,
        ca.not_before.value_or(options.not_before), ca.not_after.value_or(options.not_after), key);
    AddStandardExtension(x509.get(), nullptr, NID_subject_key_identifier, "hash");
    if (root) AddStandardExtension(x509.get(), root.get(), NID_authority_key_identifier, "keyid");
    AddStandardExtension(x509.get(), nullptr, NID_basic_constraints,
                         root ? "critical,CA:TRUE,pathlen:0" : "critical,CA:TRUE");
    AddStandardExtension(x509.get(), nullptr, NID_key_usage,
                         root ? "critical,keyCertSign" : "critical,keyCertSign,cRLSign");
    return MustParse(Sign(x509.get(), ark_key.get(), ca.scheme));
  };
  SnpAuthority authority(options);
  authority.ark_ = make(options.ark, "ARK-" + product, 0x10000, ark_key.get());
  root = Reread(*authority.ark_);
  authority.ask_ = make(options.ask, "SEV-" + product, kSnpAskSerial, ask_key.get());
  authority.asvk_ = make(options.asvk, "SEV-VLEK-" + product, kSnpAsvkSerial, asvk_key.get());
  return authority;
}

SnpProductRoots SnpAuthority::product_roots() const {
  return {options_.product, ark_->SpkiSha256(), *ark_, *ask_, *asvk_};
}

Result<SnpVek> SnpAuthority::IssueVek(const SnpVekOptions& options) const {
  SnpVek vek;
  vek.key_pem = options.key_pem.empty() ? GenerateEcKeyPem(Curve::kP384) : options.key_pem;
  TALARIA_ASSIGN_OR_RETURN(const Owned<EVP_PKEY> key, ReadKeyOr(vek.key_pem, "vek"));
  const bool vcek = options.kind == SnpSigningKey::kVcek;
  const bool by_ask = vcek != options.other_issuer;
  TALARIA_ASSIGN_OR_RETURN(const Owned<EVP_PKEY> issuer_key,
                           ReadKeyOr(by_ask ? options_.keys.ask : options_.keys.asvk, "issuer"));
  const Owned<X509> issuer = Reread(by_ask ? *ask_ : *asvk_);
  const std::string usual = vcek ? "SEV-VCEK" : "SEV-VLEK";
  const Owned<X509> x509 = NewCertificate(X509_get_subject_name(issuer.get()),
                                          options.subject.empty() ? usual : options.subject, 0,
                                          options.not_before, options.not_after, key.get());
  Extensions extensions = UsualExtensions(options_.product, options);
  for (const auto& [oid, content] : options.extensions) extensions[oid] = content;
  for (const auto& [oid, content] : extensions) {
    if (content) AddRawExtension(x509.get(), oid, *content);
  }
  if (!options.duplicated_extension.empty()) {
    AddRawExtension(x509.get(), options.duplicated_extension,
                    extensions.at(options.duplicated_extension).value());
  }
  vek.der = Sign(x509.get(), issuer_key.get(), options.scheme);
  return vek;
}

namespace {

std::vector<uint8_t> MakeList(const Certificate& issuer, const std::string& key_pem,
                              UnixTime this_update, std::optional<UnixTime> next_update,
                              const std::vector<uint64_t>& revoked_serials) {
  const Owned<X509_CRL> crl(X509_CRL_new());
  const Owned<X509> x509 = Reread(issuer);
  const Owned<EVP_PKEY> key = ReadKey(key_pem);
  const Owned<ASN1_TIME> time(ASN1_TIME_set(nullptr, this_update));
  Must(X509_CRL_set_version(crl.get(), X509_CRL_VERSION_2) == 1 &&
       X509_CRL_set_issuer_name(crl.get(), X509_get_subject_name(x509.get())) == 1 &&
       X509_CRL_set1_lastUpdate(crl.get(), time.get()) == 1);
  if (next_update) {
    const Owned<ASN1_TIME> next(ASN1_TIME_set(nullptr, *next_update));
    Must(X509_CRL_set1_nextUpdate(crl.get(), next.get()) == 1);
  }
  for (const uint64_t serial : revoked_serials) {
    Owned<X509_REVOKED> entry(X509_REVOKED_new());
    const Owned<ASN1_INTEGER> number(ASN1_INTEGER_new());
    Must(ASN1_INTEGER_set_uint64(number.get(), serial) == 1 &&
         X509_REVOKED_set_serialNumber(entry.get(), number.get()) == 1 &&
         X509_REVOKED_set_revocationDate(entry.get(), time.get()) == 1 &&
         X509_CRL_add0_revoked(crl.get(), entry.release()) == 1);
  }
  const auto context = SigningContext(key.get(), RsaScheme::kPssSha384);
  Must(X509_CRL_sign_ctx(crl.get(), context.get()) > 0);
  unsigned char* der = nullptr;
  const int size = i2d_X509_CRL(crl.get(), &der);
  Must(size > 0);
  std::vector<uint8_t> out(der, der + size);
  OPENSSL_free(der);
  return out;
}

}  // namespace

std::vector<uint8_t> SnpAuthority::MakeCrl(UnixTime this_update,
                                           std::optional<UnixTime> next_update,
                                           const std::vector<uint64_t>& revoked_serials) const {
  return MakeList(*ark_, options_.keys.ark, this_update, next_update, revoked_serials);
}

std::vector<uint8_t> SnpAuthority::MakeCrlOfAsk(UnixTime this_update, UnixTime next_update) const {
  return MakeList(*ask_, options_.keys.ask, this_update, next_update, {});
}

std::vector<uint8_t> EncodeSnpReport(const SnpReport& report) {
  std::vector<uint8_t> out;
  ByteWriter writer(out);
  const auto zeros = [&](size_t size) { writer.Raw(std::vector<uint8_t>(size)); };
  const auto tcb = [&](const TcbVersion& t) {
    const uint8_t milan[8] = {t.boot_loader, t.tee, 0, 0, 0, 0, t.snp, t.microcode};
    const uint8_t turin[8] = {t.fmc, t.boot_loader, t.tee, t.snp, 0, 0, 0, t.microcode};
    writer.Raw(report.product == SnpProduct::kTurin ? turin : milan);
  };
  const auto firmware = [&](const SnpFirmware& f) {
    for (const uint8_t part : {f.build, f.minor, f.major, uint8_t{0}}) writer.U8(part);
  };
  writer.U32(report.version);
  writer.U32(report.guest_svn);
  writer.U64(report.policy);
  writer.Raw(report.family_id);
  writer.Raw(report.image_id);
  writer.U32(report.vmpl);
  writer.U32(1);  // ECDSA P-384 with SHA-384
  tcb(report.current_tcb);
  writer.U64(report.platform_info);
  writer.U32((report.author_key_enabled ? 1u : 0u) | (report.mask_chip_key ? 2u : 0u) |
             static_cast<uint32_t>(report.signing_key) << 2);
  zeros(4);
  writer.Raw(report.report_data);
  writer.Raw(report.measurement);
  writer.Raw(report.host_data);
  writer.Raw(report.id_key_digest);
  writer.Raw(report.author_key_digest);
  writer.Raw(report.report_id);
  writer.Raw(report.report_id_ma);
  tcb(report.reported_tcb);
  writer.Raw(report.cpuid);
  zeros(21);
  writer.Raw(report.chip_id);
  tcb(report.committed_tcb);
  firmware(report.current_firmware);
  firmware(report.committed_firmware);
  tcb(report.launch_tcb);
  writer.U64(report.launch_mitigations);
  writer.U64(report.current_mitigations);
  zeros(kSnpReportBytes - out.size());
  return out;
}

void SignSnpReport(std::vector<uint8_t>& report, const SnpVek& vek) {
  TALARIA_CHECK(report.size() == kSnpReportBytes);
  const Owned<EVP_PKEY> key = ReadKey(vek.key_pem);
  const Owned<EVP_MD_CTX> context(EVP_MD_CTX_new());
  std::vector<uint8_t> der(256);
  size_t size = der.size();
  Must(EVP_DigestSignInit(context.get(), nullptr, EVP_sha384(), nullptr, key.get()) == 1 &&
       EVP_DigestSign(context.get(), der.data(), &size, report.data(), kSnpSignedBytes) == 1);
  const uint8_t* at = der.data();
  const Owned<ECDSA_SIG> signature(d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(size)));
  Must(BN_bn2lebinpad(ECDSA_SIG_get0_r(signature.get()), report.data() + kSnpSignatureROffset,
                      72) == 72 &&
       BN_bn2lebinpad(ECDSA_SIG_get0_s(signature.get()), report.data() + kSnpSignatureSOffset,
                      72) == 72);
}

std::vector<uint8_t> MakeCertificateTable(const SnpAuthority& authority, SnpSigningKey kind,
                                          Bytes vek_der) {
  const bool vcek = kind == SnpSigningKey::kVcek;
  const Certificate& intermediate = vcek ? authority.ask() : authority.asvk();
  const std::pair<Guid, Bytes> entries[] = {{kArkGuid, authority.ark().der()},
                                            {kAskGuid, intermediate.der()},
                                            {vcek ? kVcekGuid : kVlekGuid, vek_der}};
  std::vector<uint8_t> out;
  ByteWriter writer(out);
  size_t offset = (std::size(entries) + 1) * 24;
  for (const auto& [guid, data] : entries) {
    writer.Raw(guid);
    writer.U32(static_cast<uint32_t>(offset));
    writer.U32(static_cast<uint32_t>(data.size()));
    offset += data.size();
  }
  writer.Raw(std::vector<uint8_t>(24));
  for (const auto& [guid, data] : entries) writer.Raw(data);
  return out;
}

}  // namespace talaria::attest
