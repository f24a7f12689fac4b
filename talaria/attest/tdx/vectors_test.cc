// Genuine quotes of genuine machines, under Intel's genuine root. What each must give is in
// testdata/attestation/expected.json. Where the other negative cases are: testing.h.
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "talaria/attest/tdx/signatures.h"
#include "talaria/attest/tdx/testing.h"

namespace talaria::attest {
namespace {

using nlohmann::json;

json Expected(std::string_view name) {
  const std::vector<uint8_t> text = AttestationTestdata("expected.json");
  return json::parse(text.begin(), text.end()).at("tdx").at(std::string(name));
}
UnixTime VerifyAt(std::string_view name) {
  return Expected(name).at("verify_at_unix").get<UnixTime>();
}
TdxVerifyOptions OptionsAt(UnixTime now, TdxCrlPolicy policy = TdxCrlPolicy::kRequired) {
  return {.now = now, .crl_policy = policy, .min_tcb_evaluation_data_number = uint32_t{0}};
}
Result<VerifiedTdxQuote> Verify(std::string_view quote, std::string_view collateral) {
  return VerifyTdxQuote(TdxVector(quote), TdxVectorCollateral(collateral), PinnedIntelRoot(),
                        OptionsAt(VerifyAt(collateral)));
}
std::string ReasonOfResult(const Result<VerifiedTdxQuote>& result) {
  return result.ok() ? "accepted" : std::string(ReasonOf(result.status()));
}
std::string HexLe64(uint64_t value) {
  std::array<uint8_t, 8> bytes{};
  std::memcpy(bytes.data(), &value, 8);
  return ToHex(bytes);
}

// Accepts exactly the TD of this quote, strictly otherwise.
TdxPolicy PolicyOf(const TdReport& body) {
  return {.mrtd = {body.mrtd},
          .rtmr0 = {body.rtmr[0]},
          .rtmr1 = {body.rtmr[1]},
          .rtmr2 = {body.rtmr[2]},
          .rtmr3 = {body.rtmr[3]},
          .mrconfigid = {body.mrconfigid},
          .mrowner = {TdxMeasurement{}},
          .mrownerconfig = {TdxMeasurement{}},
          .mrservicetd = {TdxMeasurement{}},
          .allowed_xfam = kXfamDefined,
          .accept_septve_enabled = false,
          .accept_key_locker = false,
          .accept_perfmon = false,
          .accept_sw_hardening_needed = false,
          .min_tee_tcb_svn = TdxSvns{},
          .min_tee_tcb_svn2 = TdxSvns{},
          .fmspc = Accepted<Fmspc>::Any(),
          .ppid = Accepted<Ppid>::Any()};
}

TEST(TdxRoot, IsTheOneCompiledIn) {
  const Certificate& root = PinnedIntelRoot().certificate;
  const std::vector<uint8_t> der = AttestationTestdata("roots/intel/sgx_root_ca.der");
  EXPECT_TRUE(std::ranges::equal(root.der(), der));
  EXPECT_EQ(ToHex(Sha256Of(root.der())),
            "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3");
  EXPECT_EQ(ToHex(root.SpkiSha256()),
            "a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e");
}

class TdxVectors : public testing::TestWithParam<std::string_view> {};

TEST_P(TdxVectors, FieldsAreWhatIsExpected) {
  const json expected = Expected(GetParam()), fields = expected.at("fields");
  const Result<TdxQuote> quote = ParseTdxQuote(TdxVector(GetParam()));
  ASSERT_TRUE(quote.ok()) << quote.status().ToString();
  const TdReport& body = quote->body;
  EXPECT_EQ(quote->version, fields.at("version"));
  EXPECT_EQ(ToHex(body.tee_tcb_svn), fields.at("tee_tcb_svn"));
  EXPECT_EQ(ToHex(body.mrseam), fields.at("mrseam"));
  EXPECT_EQ(ToHex(body.mrsignerseam), fields.at("mrsignerseam"));
  EXPECT_EQ(ToHex(body.seam_attributes), fields.at("seam_attr"));
  EXPECT_EQ(HexLe64(body.td_attributes), fields.at("td_attr"));
  EXPECT_EQ(HexLe64(body.xfam), fields.at("xfam"));
  EXPECT_EQ(ToHex(body.mrtd), fields.at("mrtd"));
  EXPECT_EQ(ToHex(body.mrconfigid), fields.at("mrconfigid"));
  EXPECT_EQ(ToHex(body.mrowner), fields.at("mrowner"));
  EXPECT_EQ(ToHex(body.mrownerconfig), fields.at("mrownerconfig"));
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(ToHex(body.rtmr[i]), fields.at("rtmr" + std::to_string(i)));
  }
  EXPECT_EQ(ToHex(body.report_data), fields.at("report_data"));
  ASSERT_EQ(body.tdx15.has_value(), fields.contains("tee_tcb_svn2"));
  if (body.tdx15) {
    EXPECT_EQ(ToHex(body.tdx15->tee_tcb_svn2), fields.at("tee_tcb_svn2"));
    EXPECT_EQ(ToHex(body.tdx15->mrservicetd), fields.at("mrservicetd"));
  }
  const QeReport& qe = quote->qe_report;
  EXPECT_EQ(ToHex(qe.cpusvn), fields.at("qe_cpusvn"));
  EXPECT_EQ(ToHex(qe.miscselect), fields.at("qe_misc"));
  EXPECT_EQ(ToHex(qe.attributes), fields.at("qe_attr"));
  EXPECT_EQ(ToHex(qe.mrenclave), fields.at("qe_mrenclave"));
  EXPECT_EQ(ToHex(qe.mrsigner), fields.at("qe_mrsigner"));
  EXPECT_EQ(qe.isvprodid, fields.at("qe_prodid"));
  EXPECT_EQ(qe.isvsvn, fields.at("qe_isvsvn"));
}

TEST_P(TdxVectors, SignaturesVerifyUnderTheRoot) {
  const json expected = Expected(GetParam()), pck = expected.at("pck");
  for (const auto& [check, holds] : expected.at("checks").items()) EXPECT_TRUE(holds) << check;
  const Result<TdxQuote> quote = ParseTdxQuote(TdxVector(GetParam()));
  ASSERT_TRUE(quote.ok());
  const UnixTime now = VerifyAt(GetParam());
  const Result<PckChain> chain = VerifyPckChain(quote->pck_chain_pem, PinnedIntelRoot(), now);
  ASSERT_TRUE(chain.ok()) << chain.status().ToString();
  const Status signatures = VerifyQuoteSignatures(*quote, *chain);
  EXPECT_TRUE(signatures.ok()) << signatures.ToString();
  const PckExtension& extension = chain->extension;
  EXPECT_EQ(ToHex(extension.ppid), pck.at("ppid"));
  EXPECT_EQ(extension.tcb_svns, (pck.at("comp").get<std::array<uint8_t, 16>>()));
  EXPECT_EQ(extension.pcesvn, pck.at("pcesvn"));
  EXPECT_EQ(ToHex(extension.cpusvn), pck.at("cpusvn"));
  EXPECT_EQ(ToHex(extension.pceid), pck.at("pceid"));
  EXPECT_EQ(ToHex(extension.fmspc), pck.at("fmspc"));
  EXPECT_EQ(extension.sgx_type, pck.at("sgxtype"));
  // Case 40, on genuine certificates.
  for (const UnixTime off : {chain->leaf.not_before() - 1, chain->leaf.not_after() + 1}) {
    EXPECT_EQ(ReasonOf(VerifyPckChain(quote->pck_chain_pem, PinnedIntelRoot(), off).status()),
              "tdx-pck-expired");
  }
}

INSTANTIATE_TEST_SUITE_P(Genuine, TdxVectors, testing::ValuesIn(kTdxVectors),
                         [](const auto& param) { return std::string(param.param); });

TEST(TdxVectorsWithCollateral, UpToDate) {
  for (const char* name : {"v4_uptodate", "v4_mrconfigid"}) {
    const auto verified = Verify(name, name);
    ASSERT_TRUE(verified.ok()) << name << ": " << verified.status().ToString();
    const json collateral = Expected(name).at("collateral");
    const json tcb = collateral.at("tcb");
    EXPECT_EQ(TcbStatusName(verified->tcb().qe), tcb.at("qe"));
    EXPECT_EQ(TcbStatusName(verified->tcb().platform), tcb.at("platform"));
    EXPECT_EQ(TcbStatusName(verified->tcb().module), tcb.at("module"));
    EXPECT_EQ(TcbStatusName(verified->tcb().converged), tcb.at("final"));
    EXPECT_EQ(verified->tcb_evaluation_data_number(), collateral.at("tcb_eval_num").at(0));
    EXPECT_TRUE(verified->revocation_checked());
    const TdReport& body = verified->body();
    const Status accepted = CheckTdxPolicy(*verified, PolicyOf(body), body.report_data);
    EXPECT_TRUE(accepted.ok()) << accepted.ToString();
    EXPECT_EQ(ReasonOf(CheckTdxPolicy(*verified, PolicyOf(body), {})), "tdx-report-data");
  }
}

TEST(TdxVectorsWithCollateral, Case44_NoLevel) {
  EXPECT_EQ(ReasonOfResult(Verify("v5_no_tcb_level", "v5_no_tcb_level")), "tdx-tcb-level");
  EXPECT_EQ(ReasonOfResult(Verify("v4_spr_2022", "v4_spr_2022")), "tdx-tcb-level");
}

TEST(TdxVectorsWithCollateral, Case44_OutOfDate) {
  const std::vector<uint8_t> quote = TdxVector("v4_outofdate");
  const TdxCollateral collateral = TdxVectorCollateral("v4_outofdate", false);
  const UnixTime now = VerifyAt("v4_outofdate");
  EXPECT_EQ(ReasonOfResult(VerifyTdxQuote(quote, collateral, PinnedIntelRoot(), OptionsAt(now))),
            "tdx-crl-missing");
  const auto verified = VerifyTdxQuote(quote, collateral, PinnedIntelRoot(),
                                       OptionsAt(now, TdxCrlPolicy::kAcceptMissing));
  ASSERT_TRUE(verified.ok()) << verified.status().ToString();
  EXPECT_EQ(verified->tcb().module, TcbStatus::kUpToDate);
  EXPECT_EQ(verified->tcb().platform, TcbStatus::kOutOfDate);
  EXPECT_FALSE(verified->revocation_checked());
  const TdReport& body = verified->body();
  EXPECT_EQ(ReasonOf(CheckTdxPolicy(*verified, PolicyOf(body), body.report_data)),
            "tdx-tcb-status");
}

TEST(TdxVectorsWithCollateral, TcbInfoOf2026) {
  // Its QE identity was not published: platform and module alone.
  TdxCollateral collateral;
  const auto text = [](const std::string& file) {
    const std::vector<uint8_t> data = TdxVector("v5_2026", "collateral/" + file);
    return std::string(data.begin(), data.end());
  };
  collateral.tcb_info = text("tcb_info.json");
  collateral.tcb_info_signature_hex = text("tcb_info.sig.hex");
  collateral.tcb_info_chain_pem = text("tcb_info_issuer_chain.pem");
  const UnixTime now = VerifyAt("v5_2026");
  // Published with a signer's certificate that had expired; Intel renewed it for the same key.
  EXPECT_EQ(ReasonOf(VerifyTcbInfo(collateral, {}, PinnedIntelRoot(), now, 0).status()),
            "tdx-collateral-chain-expired");
  collateral.tcb_info_chain_pem = TdxVectorCollateral("v5_no_tcb_level").tcb_info_chain_pem;
  const auto info = VerifyTcbInfo(collateral, {}, PinnedIntelRoot(), now, 0);
  ASSERT_TRUE(info.ok()) << info.status().ToString();
  const TdxQuote quote = *ParseTdxQuote(TdxVector("v5_2026"));
  const PckChain chain = *VerifyPckChain(quote.pck_chain_pem, PinnedIntelRoot(), now);
  const auto platform = EvaluatePlatform(quote.body, chain.extension, *info);
  ASSERT_TRUE(platform.ok()) << platform.status().ToString();
  EXPECT_EQ(platform->status, TcbStatus::kUpToDate);
  const auto module = EvaluateModule(quote.body, *info);
  ASSERT_TRUE(module.ok()) << module.status().ToString();
  EXPECT_EQ(*module, TcbStatus::kUpToDate);
}

TEST(TdxVectorsWithCollateral, Case43_CollateralOfAnotherPlatform) {
  // At a time when both are fresh, all of it is genuine.
  TdxCollateral collateral = TdxVectorCollateral("v4_mrconfigid");
  EXPECT_EQ(ReasonOfResult(VerifyTdxQuote(TdxVector("v4_uptodate"), collateral, PinnedIntelRoot(),
                                          OptionsAt(VerifyAt("v4_mrconfigid")))),
            "tdx-fmspc");
}

TEST(TdxVectorsWithCollateral, Case42_OutOfItsTime) {
  const std::vector<uint8_t> quote = TdxVector("v4_uptodate");
  const TdxCollateral collateral = TdxVectorCollateral("v4_uptodate");
  struct Row {
    UnixTime now;
    std::string reason;
  };
  // PCK CRL and QE identity end on 2025-07-19 at 10:00:35 and 10:32:27; the QE identity begins on
  // 2025-06-19 at 10:32:27, the other two a little before.
  for (const Row& row : {Row{1752919235, "accepted"}, Row{1752919236, "tdx-pck-crl-expired"},
                         Row{1750329147, "accepted"}, Row{1750329146, "tdx-qe-identity-expired"}}) {
    EXPECT_EQ(
        ReasonOfResult(VerifyTdxQuote(quote, collateral, PinnedIntelRoot(), OptionsAt(row.now))),
        row.reason)
        << row.now;
  }
  TdxVerifyOptions newer = OptionsAt(VerifyAt("v4_uptodate"));
  newer.min_tcb_evaluation_data_number = uint32_t{18};
  EXPECT_EQ(ReasonOfResult(VerifyTdxQuote(quote, collateral, PinnedIntelRoot(), newer)),
            "tdx-collateral-rollback");
}

// The policy on bodies of quotes whose collateral was not published, put under our own root.
std::string ReasonOfPolicyOn(std::string_view name,
                             const std::function<void(TdxPolicy&)>& edit = {}) {
  TdxPlan plan = DefaultTdxPlan();
  const TdxQuote genuine = *ParseTdxQuote(TdxVector(name));
  plan.quote.version = genuine.version;
  plan.quote.body = genuine.body;
  for (TdxModuleIdentity& identity : plan.tcb_info.module_identities) {
    identity.levels = {{0, TcbStatus::kUpToDate}};
  }
  plan.tcb_info.levels[0].tdx_svns = {};
  const TdxWorld world = BuildTdxWorld(plan);
  const auto verified = VerifyTdxQuote(world.quote, world.collateral, world.root, OptionsOfPlan());
  if (!verified.ok()) return verified.status().ToString();
  TdxPolicy policy = PolicyOf(genuine.body);
  if (edit) edit(policy);
  const Status status = CheckTdxPolicy(*verified, policy, genuine.body.report_data);
  return status.ok() ? "accepted" : std::string(ReasonOf(status));
}

TEST(TdxVectorsPolicy, Case48_Attributes) {
  EXPECT_EQ(ReasonOfPolicyOn("v4_debug"), "tdx-debug");
  const auto accept = [](TdxPolicy& p) { p.accept_septve_enabled = true; };
  for (const char* name : {"v4_azure_paravisor", "v4_spr_2022"}) {
    EXPECT_EQ(ReasonOfPolicyOn(name), "tdx-sept-ve");
    EXPECT_EQ(ReasonOfPolicyOn(name, accept), "accepted");
  }
}

TEST(TdxVectorsPolicy, Case49_ServiceTd) {
  EXPECT_EQ(ReasonOfPolicyOn("v5_servicetd"), "tdx-mrservicetd");
  const TdxMeasurement pinned = ParseTdxQuote(TdxVector("v5_servicetd"))->body.tdx15->mrservicetd;
  EXPECT_EQ(ReasonOfPolicyOn("v5_servicetd", [&](TdxPolicy& p) { p.mrservicetd = {pinned}; }),
            "accepted");
}

TEST(TdxVectorsPolicy, TheOthersAreAccepted) {
  for (const char* name : {"v4_uptodate", "v4_mrconfigid", "v4_outofdate", "v4_gcp_nonce",
                           "v5_2026", "v5_no_tcb_level"}) {
    EXPECT_EQ(ReasonOfPolicyOn(name), "accepted") << name;
  }
}

TEST(TdxVectorsPadding, Case30_AsPublished) {
  for (const char* name : {"v4_uptodate", "v4_mrconfigid", "v4_outofdate", "v4_azure_paravisor"}) {
    const auto padded = ParseTdxQuote(TdxVector(name, "quote_as_published.bin"));
    ASSERT_TRUE(padded.ok()) << name;
    EXPECT_EQ(padded->canonical_bytes, TdxVector(name).size());
  }
}

std::string ReasonOfSignatures(Bytes bytes, UnixTime now) {
  const Result<TdxQuote> quote = ParseTdxQuote(bytes);
  if (!quote.ok()) return std::string(ReasonOf(quote.status()));
  const Result<PckChain> chain = VerifyPckChain(quote->pck_chain_pem, PinnedIntelRoot(), now);
  if (!chain.ok()) return std::string(ReasonOf(chain.status()));
  const Status status = VerifyQuoteSignatures(*quote, *chain);
  return status.ok() ? "accepted" : std::string(ReasonOf(status));
}

TEST(TdxVectorsFlips, Case34_EveryByteUpToTheQeAuthData) {
  const UnixTime now = VerifyAt("v4_uptodate");
  std::vector<uint8_t> quote = TdxVector("v4_uptodate");
  ASSERT_EQ(ReasonOfSignatures(quote, now), "accepted");
  const auto wanted = [](size_t at) -> std::vector<std::string> {
    if (at < 2) return {"tdx-quote-version", "tdx-quote-body"};
    if (at < 4) return {"tdx-quote-key-type"};
    if (at < 8) return {"tdx-quote-tee-type"};
    if (at < 12) return {"tdx-quote-reserved"};
    if (at < 28) return {"tdx-quote-vendor"};
    if (at < 632) return {"tdx-quote-signature"};
    if (at < 636) return {"tdx-quote-length", "tdx-quote-truncated"};
    if (at < 700) return {"tdx-quote-signature"};
    if (at < 764) return {"tdx-key-binding"};
    if (at < 766) return {"tdx-quote-certification"};
    if (at < 770) return {"tdx-quote-length"};
    if (at < 1218) return {"tdx-qe-signature"};
    if (at < 1220) return {"tdx-quote-length", "tdx-quote-certification"};
    return {"tdx-key-binding"};
  };
  const std::string pem = ParseTdxQuote(quote)->pck_chain_pem;  // behind all these bytes
  const PckChain chain = *VerifyPckChain(pem, PinnedIntelRoot(), now);
  for (size_t at = 0; at < 1252; ++at) {
    const uint8_t mask = static_cast<uint8_t>(1 << (at % 8));
    quote[at] ^= mask;
    const Result<TdxQuote> parsed = ParseTdxQuote(quote);
    const Status status = parsed.ok() ? VerifyQuoteSignatures(*parsed, chain) : parsed.status();
    const std::string reason(ReasonOf(status));
    const std::vector<std::string> good = wanted(at);
    EXPECT_NE(std::find(good.begin(), good.end(), reason), good.end()) << at << ": " << reason;
    quote[at] ^= mask;
  }
}

TEST(TdxVectorsFlips, Case34_BytesOfTheChain) {
  // Line ends may differ; nothing else may, not even in the root that is never used.
  const UnixTime now = VerifyAt("v4_uptodate");
  std::vector<uint8_t> quote = TdxVector("v4_uptodate");
  for (size_t at = 1252; at < quote.size(); at += 11) {
    const uint8_t before = quote[at];
    quote[at] ^= 1;
    if (ReasonOfSignatures(quote, now) == "accepted") {
      EXPECT_TRUE(before == '\n' || before == '\0') << at;
    }
    quote[at] = before;
  }
}

TEST(TdxVectorsMixed, Case35And37_PartsOfOtherPlatforms) {
  const UnixTime now = VerifyAt("v4_mrconfigid");
  const TdxQuote ours = *ParseTdxQuote(TdxVector("v4_mrconfigid"));
  const TdxQuote theirs = *ParseTdxQuote(TdxVector("v4_uptodate"));
  const auto reason = [now](const TdxQuote& quote) {
    return ReasonOfSignatures(EncodeTdxQuote(quote), now);
  };
  ASSERT_EQ(reason(ours), "accepted");
  ASSERT_EQ(reason(theirs), "accepted");
  TdxQuote mixed = ours;
  mixed.pck_chain_pem = theirs.pck_chain_pem;
  EXPECT_EQ(reason(mixed), "tdx-qe-signature");
  mixed = ours;
  mixed.qe_report_bytes = theirs.qe_report_bytes;
  mixed.qe_report_signature = theirs.qe_report_signature;
  EXPECT_EQ(reason(mixed), "tdx-qe-signature");
  mixed = theirs;
  mixed.body = ours.body;
  mixed.signature = ours.signature;
  mixed.attestation_key = ours.attestation_key;
  EXPECT_EQ(reason(mixed), "tdx-key-binding");
  const TdxTestKey own = TdxTestKey::New();
  mixed = ours;
  mixed.body.report_data.fill(0);
  mixed.attestation_key = own.Public();
  mixed.signature = own.Sign(EncodeTdxSignedPart(mixed));
  EXPECT_EQ(reason(mixed), "tdx-key-binding");
}

}  // namespace
}  // namespace talaria::attest
