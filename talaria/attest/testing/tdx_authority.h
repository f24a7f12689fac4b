// An "Intel" of our own: root, PCK CA, PCK certificate, TCB signer, revocation lists, collateral
// and quotes that have the genuine form and anything in them. Only tests link it. Single-threaded.
//
//   TdxPlan plan = DefaultTdxPlan();          // accepted by PolicyOfPlan(plan) at kTdxPlanNow
//   plan.quote.body.td_attributes |= 1;       // one thing off
//   const TdxWorld world = BuildTdxWorld(plan);
#ifndef TALARIA_ATTEST_TESTING_TDX_AUTHORITY_H_
#define TALARIA_ATTEST_TESTING_TDX_AUTHORITY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "talaria/attest/tdx/policy.h"
#include "talaria/attest/tdx/verify.h"
#include "talaria/attest/x509.h"

namespace talaria::attest {

inline constexpr UnixTime kTdxPlanNow = 1750000000;  // 2025-06-15

// A private key. Copies share it.
class TdxTestKey {
 public:
  static TdxTestKey New(Curve curve = Curve::kP256);
  EcPoint Public() const;                 // P-256 only
  EcSignature Sign(Bytes message) const;  // P-256 only: ECDSA with SHA-256
  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

struct TdxCertificatePlan {
  std::string common_name;
  uint64_t serial = 0;
  bool is_ca = false;
  UnixTime not_before = kTdxPlanNow - 86400;
  UnixTime not_after = kTdxPlanNow + 86400;
  // Of PCK certificates: the extension's value, how often it is there.
  std::optional<std::vector<uint8_t>> pck_extension;
  int pck_extensions = 1;
};

struct TdxCrlPlan {
  bool there = true;
  UnixTime this_update = kTdxPlanNow - 3600;
  UnixTime next_update = kTdxPlanNow + 3600;
  std::vector<uint64_t> revoked;   // serial numbers
  std::optional<uint64_t> number;  // cRLNumber
};

struct TdxPlan {
  TdxTestKey root_key = TdxTestKey::New();
  TdxTestKey ca_key = TdxTestKey::New();
  TdxTestKey pck_key = TdxTestKey::New();
  TdxTestKey signer_key = TdxTestKey::New();
  TdxTestKey attestation_key = TdxTestKey::New();
  TdxCertificatePlan root, ca, pck, signer;
  // Instead of making one: to have two worlds under one root, or a foreign certificate.
  std::vector<uint8_t> root_der, ca_der, pck_der, signer_der;
  PckExtension platform;  // of the PCK certificate, unless pck.pck_extension is stated
  TdxCrlPlan root_crl, pck_crl;

  TdxQuote quote;      // what is not a signature, a key or a chain
  QeReport qe_report;  // REPORTDATA: from the attestation key, unless stated
  std::optional<std::array<uint8_t, 64>> qe_report_data;

  TcbInfo tcb_info;
  QeIdentity qe_identity;
  // Instead of the text made from the above; signed as it is.
  std::optional<std::string> tcb_info_text, qe_identity_text;
};

struct TdxWorld {
  std::vector<uint8_t> quote;
  TdxCollateral collateral;
  IntelRoot root;
  std::vector<uint8_t> root_der, ca_der, pck_der, signer_der;
};

// New keys each time; a TD 1.5 in a quote of version 5, up to date in everything.
TdxPlan DefaultTdxPlan();
TdxWorld BuildTdxWorld(const TdxPlan& plan);
// What accepts the plan's TD, machine and attributes as they are in DefaultTdxPlan().
TdxPolicy PolicyOfPlan(const TdxPlan& plan);
TdxVerifyOptions OptionsOfPlan();

// The pieces, for tests that put worlds together otherwise.
std::vector<uint8_t> MakeTdxCertificate(const TdxCertificatePlan& plan, const TdxTestKey& key,
                                        const std::string& issuer_name,
                                        const TdxTestKey& issuer_key);
std::vector<uint8_t> MakeTdxCrl(const TdxCrlPlan& plan, const std::string& issuer_name,
                                const TdxTestKey& issuer_key);
std::string TdxPem(const std::vector<uint8_t>& certificate_der);
std::string TcbInfoJson(const TcbInfo& info);
std::string QeIdentityJson(const QeIdentity& identity);
std::vector<uint8_t> DerElement(uint8_t tag, Bytes content);
std::vector<uint8_t> EncodePckExtension(const PckExtension& extension);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_TESTING_TDX_AUTHORITY_H_
