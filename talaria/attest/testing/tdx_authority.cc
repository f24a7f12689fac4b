#include "talaria/attest/testing/tdx_authority.h"

#include <openssl/asn1.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/objects.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <ctime>

#include "talaria/base/openssl.h"

namespace talaria::attest {
namespace {

Owned<X509_NAME> MakeName(const std::string& common_name) {
  Owned<X509_NAME> name(X509_NAME_new());
  const auto add = [&name](const char* field, const std::string& value) {
    TALARIA_CHECK(X509_NAME_add_entry_by_txt(name.get(), field, MBSTRING_UTF8,
                                             reinterpret_cast<const uint8_t*>(value.data()),
                                             static_cast<int>(value.size()), -1, 0) == 1);
  };
  add("CN", common_name);
  add("O", "Intel Corporation");
  add("C", "US");
  return name;
}

Owned<ASN1_TIME> MakeTime(UnixTime time) {
  Owned<ASN1_TIME> out(ASN1_TIME_set(nullptr, time));
  TALARIA_CHECK(out != nullptr);
  return out;
}

void AddExtension(X509* certificate, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const Owned<X509_EXTENSION> extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value));
  TALARIA_CHECK(extension != nullptr);
  TALARIA_CHECK(X509_add_ext(certificate, extension.get(), -1) == 1);
}

void AddPckExtension(X509* certificate, const std::vector<uint8_t>& value) {
  const Owned<ASN1_OBJECT> oid(OBJ_txt2obj(std::string(kPckExtensionOid).c_str(), 1));
  const Owned<ASN1_OCTET_STRING> octets(ASN1_OCTET_STRING_new());
  TALARIA_CHECK(ASN1_OCTET_STRING_set(octets.get(), value.data(), static_cast<int>(value.size())) ==
                1);
  const Owned<X509_EXTENSION> extension(
      X509_EXTENSION_create_by_OBJ(nullptr, oid.get(), 0, octets.get()));
  TALARIA_CHECK(X509_add_ext(certificate, extension.get(), -1) == 1);
}

template <class T>
std::vector<uint8_t> ToDer(const T* object, int (*encode)(const T*, unsigned char**)) {
  std::vector<uint8_t> out(static_cast<size_t>(encode(object, nullptr)));
  unsigned char* at = out.data();
  TALARIA_CHECK(encode(object, &at) == static_cast<int>(out.size()));
  return out;
}

std::string TimeText(UnixTime time) {
  const time_t seconds = time;
  std::tm fields{};
  gmtime_r(&seconds, &fields);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &fields);
  return text;
}

std::string WindowJson(const CollateralWindow& window) {
  return "\"issueDate\":\"" + TimeText(window.issue_date) + "\",\"nextUpdate\":\"" +
         TimeText(window.next_update) + "\"";
}

std::string LevelsJson(const std::vector<IsvLevel>& levels) {
  std::string out;
  for (const IsvLevel& level : levels) {
    out += out.empty() ? "[" : ",";
    out += "{\"tcb\":{\"isvsvn\":" + std::to_string(level.isvsvn) +
           "},\"tcbDate\":\"2024-03-13T00:00:00Z\",\"tcbStatus\":\"" +
           std::string(TcbStatusName(level.status)) + "\"}";
  }
  return out + "]";
}

std::string ComponentsJson(const std::array<uint8_t, 16>& svns) {
  std::string out;
  for (const uint8_t svn : svns) {
    out += out.empty() ? "[" : ",";
    out += "{\"svn\":" + std::to_string(svn) + "}";
  }
  return out + "]";
}

std::string ModuleJson(const TdxModule& module) {
  return "\"mrsigner\":\"" + ToHex(module.mrsigner) + "\",\"attributes\":\"" +
         ToHex(module.attributes) + "\",\"attributesMask\":\"" + ToHex(module.attributes_mask) +
         "\"";
}

std::array<uint8_t, kQeReportBytes> EncodeQeReport(const QeReport& report) {
  std::array<uint8_t, kQeReportBytes> out{};
  const auto put = [&out](size_t at, Bytes bytes) {
    std::copy(bytes.begin(), bytes.end(), out.begin() + static_cast<std::ptrdiff_t>(at));
  };
  put(0, report.cpusvn);
  put(16, report.miscselect);
  put(48, report.attributes);
  put(64, report.mrenclave);
  put(128, report.mrsigner);
  out[256] = static_cast<uint8_t>(report.isvprodid);
  out[257] = static_cast<uint8_t>(report.isvprodid >> 8);
  out[258] = static_cast<uint8_t>(report.isvsvn);
  out[259] = static_cast<uint8_t>(report.isvsvn >> 8);
  put(320, report.report_data);
  return out;
}

TdxMeasurement Filled(uint8_t value) {
  TdxMeasurement out;
  out.fill(value);
  return out;
}

}  // namespace

// ---- keys ----

struct TdxTestKey::Impl {
  Owned<EVP_PKEY> key;
};

TdxTestKey TdxTestKey::New(Curve curve) {
  auto impl = std::make_shared<Impl>();
  impl->key.reset(EVP_EC_gen(curve == Curve::kP256 ? "P-256" : "P-384"));
  TALARIA_CHECK(impl->key != nullptr);
  TdxTestKey key;
  key.impl_ = std::move(impl);
  return key;
}

EcPoint TdxTestKey::Public() const {
  std::array<uint8_t, 65> point{};
  size_t size = 0;
  TALARIA_CHECK(EVP_PKEY_get_octet_string_param(impl_->key.get(), OSSL_PKEY_PARAM_PUB_KEY,
                                                point.data(), point.size(), &size) == 1 &&
                size == point.size());
  EcPoint out{};
  std::copy(point.begin() + 1, point.end(), out.begin());
  return out;
}

EcSignature TdxTestKey::Sign(Bytes message) const {
  const Owned<EVP_MD_CTX> context(EVP_MD_CTX_new());
  std::array<uint8_t, 128> der{};
  size_t size = der.size();
  TALARIA_CHECK(
      EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, impl_->key.get()) == 1 &&
      EVP_DigestSign(context.get(), der.data(), &size, message.data(), message.size()) == 1);
  const uint8_t* at = der.data();
  const Owned<ECDSA_SIG> signature(d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(size)));
  EcSignature out{};
  TALARIA_CHECK(BN_bn2binpad(ECDSA_SIG_get0_r(signature.get()), out.data(), 32) == 32 &&
                BN_bn2binpad(ECDSA_SIG_get0_s(signature.get()), out.data() + 32, 32) == 32);
  return out;
}

// ---- certificates and lists ----

std::vector<uint8_t> MakeTdxCertificate(const TdxCertificatePlan& plan, const TdxTestKey& key,
                                        const std::string& issuer_name,
                                        const TdxTestKey& issuer_key) {
  const Owned<X509> certificate(X509_new());
  X509* x = certificate.get();
  TALARIA_CHECK(X509_set_version(x, X509_VERSION_3) == 1);
  TALARIA_CHECK(ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), plan.serial) == 1);
  TALARIA_CHECK(X509_set_subject_name(x, MakeName(plan.common_name).get()) == 1);
  TALARIA_CHECK(X509_set_issuer_name(x, MakeName(issuer_name).get()) == 1);
  TALARIA_CHECK(X509_set1_notBefore(x, MakeTime(plan.not_before).get()) == 1);
  TALARIA_CHECK(X509_set1_notAfter(x, MakeTime(plan.not_after).get()) == 1);
  TALARIA_CHECK(X509_set_pubkey(x, key.impl().key.get()) == 1);
  AddExtension(x, x, NID_subject_key_identifier, "hash");
  // The issuer as far as its key identifier goes.
  const Owned<X509> issuer(X509_new());
  TALARIA_CHECK(X509_set_pubkey(issuer.get(), issuer_key.impl().key.get()) == 1);
  AddExtension(issuer.get(), issuer.get(), NID_subject_key_identifier, "hash");
  AddExtension(x, issuer.get(), NID_authority_key_identifier, "keyid:always");
  AddExtension(
      x, x, NID_key_usage,
      plan.is_ca ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature,nonRepudiation");
  AddExtension(x, x, NID_basic_constraints, plan.is_ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
  for (int i = 0; plan.pck_extension && i < plan.pck_extensions; ++i) {
    AddPckExtension(x, *plan.pck_extension);
  }
  TALARIA_CHECK(X509_sign(x, issuer_key.impl().key.get(), EVP_sha256()) > 0);
  return ToDer<X509>(x, i2d_X509);
}

std::vector<uint8_t> MakeTdxCrl(const TdxCrlPlan& plan, const std::string& issuer_name,
                                const TdxTestKey& issuer_key) {
  if (!plan.there) return {};
  const Owned<X509_CRL> crl(X509_CRL_new());
  X509_CRL* x = crl.get();
  TALARIA_CHECK(X509_CRL_set_version(x, X509_CRL_VERSION_2) == 1);
  TALARIA_CHECK(X509_CRL_set_issuer_name(x, MakeName(issuer_name).get()) == 1);
  TALARIA_CHECK(X509_CRL_set1_lastUpdate(x, MakeTime(plan.this_update).get()) == 1);
  TALARIA_CHECK(X509_CRL_set1_nextUpdate(x, MakeTime(plan.next_update).get()) == 1);
  for (const uint64_t serial : plan.revoked) {
    X509_REVOKED* entry = X509_REVOKED_new();
    const Owned<ASN1_INTEGER> number(ASN1_INTEGER_new());
    TALARIA_CHECK(ASN1_INTEGER_set_uint64(number.get(), serial) == 1);
    TALARIA_CHECK(X509_REVOKED_set_serialNumber(entry, number.get()) == 1);
    TALARIA_CHECK(X509_REVOKED_set_revocationDate(entry, MakeTime(plan.this_update).get()) == 1);
    TALARIA_CHECK(X509_CRL_add0_revoked(x, entry) == 1);
  }
  if (plan.number) {
    const Owned<ASN1_INTEGER> number(ASN1_INTEGER_new());
    TALARIA_CHECK(ASN1_INTEGER_set_uint64(number.get(), *plan.number) == 1);
    TALARIA_CHECK(X509_CRL_add1_ext_i2d(x, NID_crl_number, number.get(), 0, 0) == 1);
  }
  TALARIA_CHECK(X509_CRL_sort(x) == 1);
  TALARIA_CHECK(X509_CRL_sign(x, issuer_key.impl().key.get(), EVP_sha256()) > 0);
  return ToDer<X509_CRL>(x, i2d_X509_CRL);
}

std::string TdxPem(const std::vector<uint8_t>& certificate_der) {
  std::string base64((certificate_der.size() + 2) / 3 * 4 + 1, '\0');
  EVP_EncodeBlock(reinterpret_cast<uint8_t*>(base64.data()), certificate_der.data(),
                  static_cast<int>(certificate_der.size()));
  base64.pop_back();
  std::string out = "-----BEGIN CERTIFICATE-----\n";
  for (size_t at = 0; at < base64.size(); at += 64) out += base64.substr(at, 64) + "\n";
  return out + "-----END CERTIFICATE-----\n";
}

// ---- the PCK extension ----

std::vector<uint8_t> DerElement(uint8_t tag, Bytes content) {
  std::vector<uint8_t> out;
  const size_t size = content.size();
  out.push_back(tag);
  if (size >= 0x100) {
    out.push_back(0x82);
    out.push_back(static_cast<uint8_t>(size >> 8));
  } else if (size >= 0x80) {
    out.push_back(0x81);
  }
  out.push_back(static_cast<uint8_t>(size));
  out.insert(out.end(), content.begin(), content.end());
  return out;
}

std::vector<uint8_t> EncodePckExtension(const PckExtension& extension) {
  const std::vector<uint8_t> arc = {0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01};
  const auto entry = [&arc](std::vector<uint8_t> below, const std::vector<uint8_t>& value) {
    below.insert(below.begin(), arc.begin(), arc.end());
    std::vector<uint8_t> inside = DerElement(0x06, below);
    inside.insert(inside.end(), value.begin(), value.end());
    return DerElement(0x30, inside);
  };
  const auto number = [](uint8_t tag, uint16_t value) {
    std::vector<uint8_t> bytes;
    if (value >= 0x100) bytes.push_back(static_cast<uint8_t>(value >> 8));
    bytes.push_back(static_cast<uint8_t>(value));
    if (bytes[0] >= 0x80) bytes.insert(bytes.begin(), 0);
    return DerElement(tag, bytes);
  };
  const auto append = [](std::vector<uint8_t>& to, const std::vector<uint8_t>& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  std::vector<uint8_t> tcb;
  for (uint8_t i = 0; i < 16; ++i) {
    append(tcb, entry({2, static_cast<uint8_t>(i + 1)}, number(0x02, extension.tcb_svns[i])));
  }
  append(tcb, entry({2, 17}, number(0x02, extension.pcesvn)));
  append(tcb, entry({2, 18}, DerElement(0x04, extension.cpusvn)));
  std::vector<uint8_t> configuration;
  for (uint8_t i = 1; i <= 3; ++i) {
    append(configuration, entry({7, i}, DerElement(0x01, std::array<uint8_t, 1>{0xff})));
  }
  std::vector<uint8_t> all;
  append(all, entry({1}, DerElement(0x04, extension.ppid)));
  append(all, entry({2}, DerElement(0x30, tcb)));
  append(all, entry({3}, DerElement(0x04, extension.pceid)));
  append(all, entry({4}, DerElement(0x04, extension.fmspc)));
  append(all, entry({5}, number(0x0a, extension.sgx_type)));
  append(all, entry({6}, DerElement(0x04, std::array<uint8_t, 16>{})));
  append(all, entry({7}, DerElement(0x30, configuration)));
  return DerElement(0x30, all);
}

// ---- collateral ----

std::string TcbInfoJson(const TcbInfo& info) {
  std::string out = "{\"id\":\"TDX\",\"version\":3," + WindowJson(info.window) + ",\"fmspc\":\"" +
                    ToHex(info.fmspc) + "\",\"pceId\":\"" + ToHex(info.pceid) +
                    "\",\"tcbType\":0,\"tcbEvaluationDataNumber\":" +
                    std::to_string(info.window.tcb_evaluation_data_number) + ",\"tdxModule\":{" +
                    ModuleJson(info.module) + "},\"tdxModuleIdentities\":[";
  for (size_t i = 0; i < info.module_identities.size(); ++i) {
    const TdxModuleIdentity& one = info.module_identities[i];
    if (i > 0) out += ",";
    out += "{\"id\":\"TDX_" + ToHex({&one.major, 1}) + "\"," + ModuleJson(one.module) +
           ",\"tcbLevels\":" + LevelsJson(one.levels) + "}";
  }
  out += "],\"tcbLevels\":[";
  for (size_t i = 0; i < info.levels.size(); ++i) {
    const PlatformLevel& level = info.levels[i];
    if (i > 0) out += ",";
    out += "{\"tcb\":{\"sgxtcbcomponents\":" + ComponentsJson(level.sgx_svns) +
           ",\"pcesvn\":" + std::to_string(level.pcesvn) +
           ",\"tdxtcbcomponents\":" + ComponentsJson(level.tdx_svns) +
           "},\"tcbDate\":\"2024-03-13T00:00:00Z\",\"tcbStatus\":\"" +
           std::string(TcbStatusName(level.status)) + "\",\"advisoryIDs\":[";
    for (size_t a = 0; a < level.advisories.size(); ++a) {
      out += (a > 0 ? ",\"" : "\"") + level.advisories[a] + "\"";
    }
    out += "]}";
  }
  return out + "]}";
}

std::string QeIdentityJson(const QeIdentity& identity) {
  return "{\"id\":\"TD_QE\",\"version\":2," + WindowJson(identity.window) +
         ",\"tcbEvaluationDataNumber\":" +
         std::to_string(identity.window.tcb_evaluation_data_number) + ",\"miscselect\":\"" +
         ToHex(identity.miscselect) + "\",\"miscselectMask\":\"" + ToHex(identity.miscselect_mask) +
         "\",\"attributes\":\"" + ToHex(identity.attributes) + "\",\"attributesMask\":\"" +
         ToHex(identity.attributes_mask) + "\",\"mrsigner\":\"" + ToHex(identity.mrsigner) +
         "\",\"isvprodid\":" + std::to_string(identity.isvprodid) +
         ",\"tcbLevels\":" + LevelsJson(identity.levels) + "}";
}

// ---- worlds ----

TdxPlan DefaultTdxPlan() {
  TdxPlan plan;
  const auto name = [](TdxCertificatePlan& certificate, const char* common_name, uint64_t serial) {
    certificate.common_name = common_name;
    certificate.serial = serial;
  };
  name(plan.root, "Intel SGX Root CA", 1);
  name(plan.ca, "Intel SGX PCK Platform CA", 2);
  name(plan.pck, "Intel SGX PCK Certificate", 3);
  name(plan.signer, "Intel SGX TCB Signing", 4);
  plan.root.is_ca = plan.ca.is_ca = true;
  plan.platform.ppid.fill(0x50);
  plan.platform.tcb_svns = {3, 3, 2, 2, 4, 1, 0, 5};
  plan.platform.pcesvn = 300;
  plan.platform.cpusvn = plan.platform.tcb_svns;
  plan.platform.fmspc = {0xb0, 0xc0, 0x6f, 0, 0, 0};

  TdReport& body = plan.quote.body;
  plan.quote.version = 5;
  body.tee_tcb_svn = {6, 1, 3};
  body.mrseam = Filled(0x5e);
  body.td_attributes = uint64_t{1} << 28;
  body.xfam = 0x602e7;
  body.mrtd = Filled(0x11);
  for (uint8_t i = 0; i < 4; ++i) body.rtmr[i] = Filled(static_cast<uint8_t>(0x20 + i));
  body.mrconfigid = Filled(0x33);
  body.mrowner = Filled(0x44);
  body.mrownerconfig = Filled(0x55);
  body.report_data.fill(0xda);
  body.tdx15 = Tdx15Fields{.tee_tcb_svn2 = {7, 1, 3}, .mrservicetd = {}};
  plan.quote.qe_auth.assign(32, 0x0a);

  plan.qe_report.attributes = {0x15, 0, 0, 0, 0, 0, 0, 0, 0xe7};
  plan.qe_report.mrsigner.fill(0xdc);
  plan.qe_report.isvprodid = 2;
  plan.qe_report.isvsvn = 6;

  const CollateralWindow window = {.issue_date = kTdxPlanNow - 3600,
                                   .next_update = kTdxPlanNow + 3600,
                                   .tcb_evaluation_data_number = 17};
  const TdxModule module = {.mrsigner = {},
                            .attributes = {},
                            .attributes_mask = {255, 255, 255, 255, 255, 255, 255, 255}};
  plan.tcb_info.window = window;
  plan.tcb_info.fmspc = plan.platform.fmspc;
  plan.tcb_info.module = module;
  plan.tcb_info.module_identities = {
      {.major = 3, .module = module, .levels = {{3, TcbStatus::kUpToDate}}},
      {.major = 1,
       .module = module,
       .levels = {
           {6, TcbStatus::kUpToDate}, {4, TcbStatus::kOutOfDate}, {2, TcbStatus::kRevoked}}}};
  PlatformLevel level;
  level.sgx_svns = plan.platform.tcb_svns;
  level.tdx_svns = {5, 0, 3};
  level.pcesvn = plan.platform.pcesvn;
  level.status = TcbStatus::kUpToDate;
  plan.tcb_info.levels.push_back(level);
  level.sgx_svns[0] = 2;
  level.tdx_svns[2] = 2;
  level.status = TcbStatus::kOutOfDate;
  level.advisories = {"INTEL-SA-00001", "INTEL-SA-00002"};
  plan.tcb_info.levels.push_back(level);

  plan.qe_identity.window = window;
  plan.qe_identity.miscselect_mask.fill(0xff);
  plan.qe_identity.attributes = {0x11};
  plan.qe_identity.attributes_mask = {0xfb, 255, 255, 255, 255, 255, 255, 255};
  plan.qe_identity.mrsigner = plan.qe_report.mrsigner;
  plan.qe_identity.isvprodid = 2;
  plan.qe_identity.levels = {{4, TcbStatus::kUpToDate}, {2, TcbStatus::kOutOfDate}};
  return plan;
}

TdxWorld BuildTdxWorld(const TdxPlan& plan) {
  const auto make = [&plan](const std::vector<uint8_t>& der, const TdxCertificatePlan& wanted,
                            const TdxTestKey& key, const TdxCertificatePlan& issuer,
                            const TdxTestKey& issuer_key) {
    return der.empty() ? MakeTdxCertificate(wanted, key, issuer.common_name, issuer_key) : der;
  };
  TdxCertificatePlan pck = plan.pck;
  if (!pck.pck_extension) pck.pck_extension = EncodePckExtension(plan.platform);
  TdxWorld world;
  world.root_der = make(plan.root_der, plan.root, plan.root_key, plan.root, plan.root_key);
  world.ca_der = make(plan.ca_der, plan.ca, plan.ca_key, plan.root, plan.root_key);
  world.pck_der = make(plan.pck_der, pck, plan.pck_key, plan.ca, plan.ca_key);
  world.signer_der = make(plan.signer_der, plan.signer, plan.signer_key, plan.root, plan.root_key);
  Result<Certificate> root = Certificate::FromDer(world.root_der, "test-root");
  TALARIA_CHECK(root.ok());
  world.root.certificate = *root;

  TdxQuote quote = plan.quote;
  quote.pck_chain_pem = TdxPem(world.pck_der) + TdxPem(world.ca_der) + TdxPem(world.root_der);
  quote.attestation_key = plan.attestation_key.Public();
  quote.signature = plan.attestation_key.Sign(EncodeTdxSignedPart(quote));
  QeReport report = plan.qe_report;
  Sha256 hash;
  hash.Update(quote.attestation_key);
  hash.Update(quote.qe_auth);
  const Digest digest = hash.Finish();
  std::copy(digest.begin(), digest.end(), report.report_data.begin());
  if (plan.qe_report_data) report.report_data = *plan.qe_report_data;
  quote.qe_report_bytes = EncodeQeReport(report);
  quote.qe_report_signature = plan.pck_key.Sign(quote.qe_report_bytes);
  world.quote = EncodeTdxQuote(quote);

  TdxCollateral& collateral = world.collateral;
  collateral.tcb_info = plan.tcb_info_text.value_or(TcbInfoJson(plan.tcb_info));
  collateral.qe_identity = plan.qe_identity_text.value_or(QeIdentityJson(plan.qe_identity));
  collateral.tcb_info_signature_hex = ToHex(plan.signer_key.Sign(AsBytes(collateral.tcb_info)));
  collateral.qe_identity_signature_hex =
      ToHex(plan.signer_key.Sign(AsBytes(collateral.qe_identity)));
  collateral.tcb_info_chain_pem = TdxPem(world.signer_der) + TdxPem(world.root_der);
  collateral.qe_identity_chain_pem = collateral.tcb_info_chain_pem;
  collateral.root_crl = MakeTdxCrl(plan.root_crl, plan.root.common_name, plan.root_key);
  collateral.pck_crl = MakeTdxCrl(plan.pck_crl, plan.ca.common_name, plan.ca_key);
  return world;
}

TdxPolicy PolicyOfPlan(const TdxPlan& plan) {
  const TdReport& body = plan.quote.body;
  return {.mrtd = {body.mrtd},
          .rtmr0 = {body.rtmr[0]},
          .rtmr1 = {body.rtmr[1]},
          .rtmr2 = {body.rtmr[2]},
          .rtmr3 = {body.rtmr[3]},
          .mrconfigid = {body.mrconfigid},
          .mrowner = {body.mrowner},
          .mrownerconfig = {body.mrownerconfig},
          .mrservicetd = {TdxMeasurement{}},
          .allowed_xfam = uint64_t{0x602e7},
          .accept_septve_enabled = false,
          .accept_key_locker = false,
          .accept_perfmon = false,
          .accept_sw_hardening_needed = false,
          .min_tee_tcb_svn = TdxSvns{6, 1, 3},
          .min_tee_tcb_svn2 = body.tdx15 ? TdxSvns{7, 1, 3} : TdxSvns{},
          .fmspc = {plan.platform.fmspc},
          .ppid = {plan.platform.ppid}};
}

TdxVerifyOptions OptionsOfPlan() {
  return {.now = kTdxPlanNow,
          .crl_policy = TdxCrlPolicy::kRequired,
          .min_tcb_evaluation_data_number = uint32_t{17}};
}

}  // namespace talaria::attest
