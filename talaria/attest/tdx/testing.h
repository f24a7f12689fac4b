// What the tests of this folder share. Where each negative case of TDX evidence (their numbers are
// those of doc/attestation.md) is tested; the tests' names carry the number:
//
//   29 sizes and truncation             quote_test.cc
//   30 trailing bytes                   quote_test.cc, vectors_test.cc
//   31 header and body type             quote_test.cc
//   32 certification types              quote_test.cc
//   33 PEM of the PCK chain             chain_test.cc; 1 MiB quote_test.cc
//   34 flip of every signed byte        vectors_test.cc
//   35 own attestation key              chain_test.cc, vectors_test.cc
//   36 attestation key off the curve    chain_test.cc
//   37 parts of other platforms         chain_test.cc, vectors_test.cc
//   38 upper half of QE REPORTDATA      chain_test.cc
//   39 roots and names                  chain_test.cc
//   40 expiry and revocation            revocation_test.cc
//   41 collateral signatures            collateral_test.cc
//   42 collateral age and kind          collateral_test.cc
//   43 collateral of another platform   collateral_test.cc, vectors_test.cc
//   44 TCB levels and status            tcb_test.cc, vectors_test.cc
//   45 collateral format                collateral_json_test.cc
//   46 TDX module                       tcb_test.cc
//   47 quoting enclave                  tcb_test.cc
//   48 TDATTRIBUTES                     policy_test.cc, vectors_test.cc
//   49 MRSERVICETD                      policy_test.cc, vectors_test.cc
//   50 measurements, REPORTDATA, XFAM   policy_test.cc
#ifndef TALARIA_ATTEST_TDX_TESTING_H_
#define TALARIA_ATTEST_TDX_TESTING_H_

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "talaria/attest/refusal.h"
#include "talaria/attest/testing/tdx_authority.h"
#include "talaria/base/file.h"

namespace talaria::attest {

inline constexpr std::string_view kTdxVectors[] = {
    "v4_uptodate", "v4_mrconfigid", "v4_outofdate",       "v4_spr_2022",  "v4_debug",
    "v5_2026",     "v5_servicetd",  "v4_azure_paravisor", "v4_gcp_nonce", "v5_no_tcb_level"};

inline std::vector<uint8_t> AttestationTestdata(const std::string& path) {
  const char* root = std::getenv("TALARIA_TESTDATA");
  EXPECT_NE(root, nullptr) << "TALARIA_TESTDATA is not set";
  if (root == nullptr) return {};
  Result<std::vector<uint8_t>> file = ReadFile(std::string(root) + "/attestation/" + path, 1 << 20);
  EXPECT_TRUE(file.ok()) << file.status().ToString();
  return file.ok() ? *file : std::vector<uint8_t>();
}

inline std::vector<uint8_t> TdxVector(std::string_view name,
                                      const std::string& file = "quote.bin") {
  return AttestationTestdata("tdx/" + std::string(name) + "/" + file);
}

// `with_crls`: false for a vector that was published without revocation lists.
inline TdxCollateral TdxVectorCollateral(std::string_view name, bool with_crls = true) {
  const auto bytes = [name](const std::string& file) {
    return TdxVector(name, "collateral/" + file);
  };
  const auto text = [&bytes](const std::string& file) {
    const std::vector<uint8_t> data = bytes(file);
    return std::string(data.begin(), data.end());
  };
  TdxCollateral out;
  out.tcb_info = text("tcb_info.json");
  out.tcb_info_signature_hex = text("tcb_info.sig.hex");
  out.tcb_info_chain_pem = text("tcb_info_issuer_chain.pem");
  out.qe_identity = text("qe_identity.json");
  out.qe_identity_signature_hex = text("qe_identity.sig.hex");
  out.qe_identity_chain_pem = text("qe_identity_issuer_chain.pem");
  if (with_crls) {
    out.root_crl = bytes("root_ca_crl.der");
    out.pck_crl = bytes("pck_crl.der");
  }
  return out;
}

// `text` with the one or first occurrence of `from` replaced.
inline std::string Replaced(std::string text, std::string_view from, std::string_view to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  if (at != std::string::npos) text.replace(at, from.size(), to);
  return text;
}

inline std::string ReasonOfVerify(const TdxWorld& world,
                                  const TdxVerifyOptions& options = OptionsOfPlan()) {
  const Result<VerifiedTdxQuote> verified =
      VerifyTdxQuote(world.quote, world.collateral, world.root, options);
  return verified.ok() ? "accepted" : std::string(ReasonOf(verified.status()));
}
inline std::string ReasonOfVerify(const TdxPlan& plan) {
  return ReasonOfVerify(BuildTdxWorld(plan));
}

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_TDX_TESTING_H_
