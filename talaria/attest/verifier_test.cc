// The whole judgement on simulated evidence: each test changes one thing of a claim that is
// accepted. Evidence of an authority of our own: verifier_authority_test.cc; genuine evidence:
// verifier_vectors_test.cc.
#include "talaria/attest/verifier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "talaria/attest/simulated/simulated_attester.h"
#include "talaria/attest/testing/verifier_case.h"

namespace talaria::attest {
namespace {

using namespace verifier_case;
using testing::Contains;
using testing::Pair;

constexpr UnixTime kNow = 1795000000;  // in 2026

// Simulated evidence only.
Policy GoodPolicy() {
  Policy policy = PolicyWithoutEvidence(CrlHandling::kRequired);
  policy.simulated = SimulatedPolicy{.measurements = std::vector{Filled<48>(0x4d)}};
  return policy;
}

VerifierOptions GoodOptions() {
  VerifierOptions options{.policy = GoodPolicy()};
  options.simulated = SimulatedTrust{SimulatedRoots(), SimulatedCrl()};
  return options;
}

SimulatedOptions GoodTee() {
  return {.measurement = Filled<48>(0x4d), .machine = SimulatedMachine::kCurrent, .debug = false};
}

// What an honest CVM sends over `channel`.
Claim MakeClaim(const Channel& channel = GoodChannel(), const Context& context = GoodContext(),
                const SimulatedOptions& tee = GoodTee()) {
  const auto attester = SimulatedAttester::Create(tee);
  EXPECT_TRUE(attester.ok());
  const auto evidence =
      (*attester)->Attest(DataOf(channel, (*attester)->type(), context), Deadline());
  EXPECT_TRUE(evidence.ok());
  return {context, *evidence};
}

std::string ReasonOfClaim(const Claim& claim, const VerifierOptions& options = GoodOptions(),
                          const Channel& channel = GoodChannel(), UnixTime now = kNow) {
  return Reason(claim, options, channel, now);
}
std::string ReasonOver(const Channel& channel) {
  return ReasonOfClaim(MakeClaim(), GoodOptions(), channel);
}
std::string ReasonOfTee(const SimulatedOptions& tee) {
  return ReasonOfClaim(MakeClaim(GoodChannel(), GoodContext(), tee));
}
std::string ReasonOfContext(const Context& context) {
  return ReasonOfClaim(MakeClaim(GoodChannel(), context));
}

TEST(Verifier, AcceptsTheGoodOneAndSaysWhatItIs) {
  const auto verifier = Verifier::Create(GoodOptions());
  ASSERT_TRUE(verifier.ok());
  const Claim claim = MakeClaim();
  const auto verdict = verifier->Verify(claim, GoodChannel(), kNow);
  ASSERT_TRUE(verdict.ok()) << verdict.status().ToString();
  EXPECT_EQ(verdict->type, EvidenceType::kSimulated);
  EXPECT_EQ(verdict->context, GoodContext());
  EXPECT_EQ(verdict->evidence_digest, DigestOf(claim.evidence));
  EXPECT_EQ(verdict->measurement, std::vector<uint8_t>(48, 0x4d));
  EXPECT_GT(verdict->valid_until, kNow);
  EXPECT_LE(verdict->valid_until, SimulatedCrl().next_update());
  EXPECT_EQ(verdict->facts.front(), (std::pair<std::string, std::string>("evidence", "simulated")));
  for (const auto& [name, value] :
       {std::pair("product", "Genoa"), std::pair("debug", "off"), std::pair("migration", "off"),
        std::pair("tcb", "boot loader 10, TEE 0, SNP 23, microcode 84"), std::pair("vmpl", "0"),
        std::pair("revocation", "checked: not revoked"), std::pair("check vectors", "2"),
        std::pair("build", "development")}) {
    EXPECT_THAT(verdict->facts, Contains(Pair(name, value)));
  }
  EXPECT_THAT(verdict->facts, Contains(Pair("measurement", ToHex(verdict->measurement))));
  EXPECT_THAT(verdict->facts, Contains(Pair("valid until", FormatUtc(verdict->valid_until))));
  EXPECT_EQ(*verifier->policy().max_age_s, 3600);
}

// --- The channel.

TEST(Verifier, RefusesEvidenceOfAnotherNonce) {
  Channel channel = GoodChannel();
  channel.nonce[31] ^= 1;
  EXPECT_EQ(ReasonOver(channel), "snp-report-data");
}

TEST(Verifier, RefusesEvidenceOfAnotherSession) {
  Channel channel = GoodChannel();
  channel.exporter[0] ^= 0x80;
  EXPECT_EQ(ReasonOver(channel), "snp-report-data");
}

TEST(Verifier, RefusesEvidenceOfOtherKeys) {
  Channel channel = GoodChannel();
  channel.cvm_key[5] ^= 1;
  EXPECT_EQ(ReasonOver(channel), "snp-report-data");
  channel = GoodChannel();
  channel.peer_key[5] ^= 1;
  EXPECT_EQ(ReasonOver(channel), "snp-report-data");
  channel = GoodChannel();
  channel.peer_key = {};
  EXPECT_EQ(ReasonOver(channel), "snp-report-data");
  channel = GoodChannel();
  std::swap(channel.cvm_key, channel.peer_key);
  EXPECT_EQ(ReasonOver(channel), "snp-report-data");
}

TEST(Verifier, RefusesEvidenceMadeForTheOtherSide) {
  Channel channel = GoodChannel();
  channel.role = Role::kClientToCloud;
  EXPECT_EQ(ReasonOver(channel), "snp-report-data");
  EXPECT_EQ(ReasonOfClaim(MakeClaim(channel), GoodOptions(), channel), "");
}

// --- The context.

TEST(Verifier, RefusesAContextThatWasNotAttested) {
  // The policy would take it; the evidence is of another one.
  Claim claim = MakeClaim();
  claim.context.check_vectors = 3;
  EXPECT_EQ(ReasonOfClaim(claim), "snp-report-data");
  claim = MakeClaim();
  claim.context.development = false;
  EXPECT_EQ(ReasonOfClaim(claim), "snp-report-data");
}

TEST(Verifier, RefusesAttestedContextsThatThePolicyDoesNotName) {
  Context context = GoodContext();
  context.tenant_key[0] ^= 1;
  EXPECT_EQ(ReasonOfContext(context), "tenant-key");
  context = GoodContext();
  context.model_identity[0] ^= 1;
  EXPECT_EQ(ReasonOfContext(context), "model-identity");
  context = GoodContext();
  context.configuration[0] ^= 1;
  EXPECT_EQ(ReasonOfContext(context), "configuration");
  context = GoodContext();
  context.check_vectors = 1;
  EXPECT_EQ(ReasonOfContext(context), "check-vectors");
  context = GoodContext();
  context.profile = 2;
  EXPECT_EQ(ReasonOfContext(context), "profile");
}

TEST(Verifier, RefusesADevelopmentBuildThatIsNotAllowed) {
  VerifierOptions options = GoodOptions();
  options.policy.context->allow_development = false;
  EXPECT_EQ(ReasonOfClaim(MakeClaim(), options), "development-build");
}

TEST(Verifier, SpeaksOfContextsOnlyWhenTheyAreAttested) {
  Context context = GoodContext();
  context.tenant_key[0] ^= 1;
  Channel channel = GoodChannel();
  channel.nonce[0] ^= 1;
  EXPECT_EQ(ReasonOfClaim(MakeClaim(channel, context)), "snp-report-data");
}

// --- Machine and guest.

TEST(Verifier, RefusesOtherGuestsAndMachines) {
  SimulatedOptions tee = GoodTee();
  tee.measurement[47] ^= 1;
  EXPECT_EQ(ReasonOfTee(tee), "snp-measurement");
  tee = GoodTee();
  tee.debug = true;
  EXPECT_EQ(ReasonOfTee(tee), "snp-debug");
  tee = GoodTee();
  tee.machine = SimulatedMachine::kOlderTcb;
  EXPECT_EQ(ReasonOfTee(tee), "snp-tcb-reported");
  tee = GoodTee();
  tee.machine = SimulatedMachine::kOtherChip;
  EXPECT_EQ(ReasonOfTee(tee), "snp-chip-not-allowed");
}

// Whoever trusts the simulated roots as if they were AMD's must still not take one type for
// another.
TEST(Verifier, TheTypeOfTheEvidenceIsBoundToo) {
  Claim claim = MakeClaim();
  claim.evidence.type = EvidenceType::kSevSnp;
  VerifierOptions options = GoodOptions();
  options.policy.crls = CrlHandling::kAcceptMissing;
  options.policy.sev_snp = SnpPolicyOf(*ParseSnpReport(claim.evidence.report, std::nullopt));
  options.amd = SimulatedRoots();
  EXPECT_EQ(ReasonOfClaim(claim, options), "snp-report-data");

  const ReportData bound = DataOf(GoodChannel(), EvidenceType::kSimulated, claim.context);
  const auto verdict = Verifier::Create(options)->VerifyReportData(claim, bound, kNow);
  ASSERT_TRUE(verdict.ok()) << verdict.status().ToString();
  EXPECT_THAT(verdict->facts, Contains(Pair("revocation", "not checked: no list at hand")));
}

TEST(Verifier, RefusesWhatHasExpired) {
  EXPECT_EQ(ReasonOfClaim(MakeClaim(), GoodOptions(), GoodChannel(), 1577836799), "snp-expired");
  EXPECT_EQ(ReasonOfClaim(MakeClaim(), GoodOptions(), GoodChannel(), 2600000000), "snp-expired");
}

TEST(Verifier, RefusesAReportThatWasChanged) {
  Claim claim = MakeClaim();
  claim.evidence.report[0x90] ^= 1;  // MEASUREMENT
  EXPECT_EQ(ReasonOfClaim(claim), "snp-signature");
  claim = MakeClaim();
  claim.evidence.certificates.clear();
  EXPECT_NE(ReasonOfClaim(claim), "");
  claim = MakeClaim();
  claim.evidence.report.pop_back();
  EXPECT_EQ(ReasonOfClaim(claim), "snp-length");
}

// --- Types of evidence.

TEST(Verifier, RefusesSimulatedEvidenceUnlessAskedFor) {
  VerifierOptions options = GoodOptions();
  options.simulated.reset();
  EXPECT_EQ(ReasonOfClaim(MakeClaim(), options), "simulated-not-accepted");
}

TEST(Verifier, RefusesSimulatedEvidenceUnderAnotherRoot) {
  VerifierOptions options = GoodOptions();
  options.simulated->roots = PinnedAmdRoots();
  EXPECT_EQ(ReasonOfClaim(MakeClaim(), options), "snp-chain");
}

TEST(Verifier, RefusesTypesWithoutASection) {
  Claim claim = MakeClaim();
  for (const EvidenceType type : {EvidenceType::kSevSnp, EvidenceType::kTdx}) {
    claim.evidence.type = type;
    EXPECT_EQ(ReasonOfClaim(claim), "evidence-type-not-accepted") << EvidenceTypeName(type);
  }
  claim = MakeClaim();
  VerifierOptions options = GoodOptions();
  options.policy.simulated.reset();
  options.policy.sev_snp = SnpPolicyOf(*ParseSnpReport(claim.evidence.report, std::nullopt));
  EXPECT_EQ(ReasonOfClaim(claim, options), "evidence-type-not-accepted");
}

TEST(Verifier, RefusesSimulatedEvidenceCalledGenuine) {
  Claim claim = MakeClaim();
  VerifierOptions options = GoodOptions();
  options.policy.crls = CrlHandling::kAcceptMissing;
  options.policy.sev_snp = SnpPolicyOf(*ParseSnpReport(claim.evidence.report, std::nullopt));
  claim.evidence.type = EvidenceType::kSevSnp;
  EXPECT_EQ(ReasonOfClaim(claim, options), "snp-chain");
}

TEST(Verifier, RefusesAReportCalledAQuote) {
  Claim claim = MakeClaim();
  VerifierOptions options = GoodOptions();
  const Accepted<TdxMeasurement> none = std::vector<TdxMeasurement>();
  options.policy.tdx = TdxSection{{.mrtd = none,
                                   .rtmr0 = none,
                                   .rtmr1 = none,
                                   .rtmr2 = none,
                                   .rtmr3 = none,
                                   .mrconfigid = none,
                                   .mrowner = none,
                                   .mrownerconfig = none,
                                   .mrservicetd = none,
                                   .allowed_xfam = kXfamX87AndSse,
                                   .accept_septve_enabled = false,
                                   .accept_key_locker = false,
                                   .accept_perfmon = false,
                                   .accept_sw_hardening_needed = false,
                                   .min_tee_tcb_svn = TdxSvns{},
                                   .min_tee_tcb_svn2 = TdxSvns{},
                                   .fmspc = std::vector<Fmspc>(),
                                   .ppid = std::vector<Ppid>()},
                                  0u};
  claim.evidence.type = EvidenceType::kTdx;
  EXPECT_THAT(ReasonOfClaim(claim, options), testing::StartsWith("tdx-quote-"));
}

TEST(Verifier, NeedsASectionAndAnAge) {
  VerifierOptions options = GoodOptions();
  options.policy.simulated.reset();
  EXPECT_EQ(Verifier::Create(options).status().code(), Code::kInvalidArgument);
  for (const int age : {0, -1, kMaxAgeS + 1}) {
    options = GoodOptions();
    options.policy.max_age_s = age;
    EXPECT_EQ(Verifier::Create(options).status().code(), Code::kInvalidArgument) << age;
  }
}

}  // namespace
}  // namespace talaria::attest
