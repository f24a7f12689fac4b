#include "talaria/attest/simulated/simulated_attester.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "talaria/attest/refusal.h"
#include "talaria/attest/snp/policy.h"
#include "talaria/attest/snp/verify.h"
#include "talaria/base/file.h"

namespace talaria::attest {
namespace {

constexpr UnixTime kFirstSecond = 1577836800;  // 2020-01-01 00:00:00
constexpr UnixTime kLastSecond = 2524607998;   // 2049-12-31 23:59:58: OpenSSL excludes notAfter
constexpr UnixTime kNow = 1795000000;          // in 2026

SimulatedMeasurement Measurement() {
  SimulatedMeasurement out;
  out.fill(0x4d);
  return out;
}
ReportData Data() {
  ReportData out;
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<uint8_t>(i + 1);
  return out;
}
SnpChipId Chip(uint8_t byte) {
  SnpChipId out;
  out.fill(byte);
  return out;
}

SimulatedOptions Current() {
  return {.measurement = Measurement(), .machine = SimulatedMachine::kCurrent, .debug = false};
}

Evidence Attest(const SimulatedOptions& options) {
  const auto attester = SimulatedAttester::Create(options);
  if (!attester.ok()) return {};
  EXPECT_EQ((*attester)->type(), EvidenceType::kSimulated);
  const auto evidence = (*attester)->Attest(Data(), Deadline());
  return evidence.ok() ? *evidence : Evidence{};
}

// As strict as a policy can be: a current machine in good order meets all of it.
SnpPolicy Strict() {
  return {.products = std::vector<SnpProductPolicy>{{.product = SnpProduct::kGenoa,
                                                     .min_tcb = kSimulatedTcb,
                                                     .required_platform_info =
                                                         snp_platform_info::kAliasCheckComplete,
                                                     .required_launch_mitigations = 0x3f,
                                                     .required_current_mitigations = 0x3f}},
          .measurements = std::vector{Measurement()},
          .host_data = std::vector{SnpHostData{}},
          .id_key_digests = std::vector{SnpKeyDigest{}},
          .author_key_digests = std::vector{SnpKeyDigest{}},
          .family_ids = std::vector{SnpImageId{}},
          .image_ids = std::vector{SnpImageId{}},
          .chips = SnpChips::Listed(std::vector{Chip(kSimulatedChipByte)}),
          .vmpl = 0u,
          .min_guest_svn = 1u,
          .required_guest_policy = uint64_t{0},
          .allow_smt = false,
          .allow_cxl = false,
          .vlek_csp_ids = std::vector<std::string>{},
          .allow_provisional_firmware = false};
}

Result<VerifiedSnpReport> Verify(const Evidence& evidence, UnixTime now,
                                 const SnpRoots& roots = SimulatedRoots()) {
  return VerifySnpReportWithTable(evidence.report, evidence.certificates, roots,
                                  {.now = now,
                                   .crl_policy = SnpCrlPolicy::kRequired,
                                   .crl = SimulatedCrl(),
                                   .version_2_product = std::nullopt});
}

Status Check(const SimulatedOptions& options, const SnpPolicy& policy,
             const ReportData& expected = Data()) {
  const auto verified = Verify(Attest(options), kNow);
  if (!verified.ok()) return verified.status();
  return CheckSnpPolicy(*verified, policy, expected);
}

TEST(SimulatedAttester, ACurrentMachineMeetsAStrictPolicy) {
  const Status status = Check(Current(), Strict());
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST(SimulatedAttester, VerifiesFrom2020To2049) {
  const Evidence evidence = Attest(Current());
  EXPECT_TRUE(Verify(evidence, kFirstSecond).ok());
  EXPECT_TRUE(Verify(evidence, kLastSecond).ok());
  EXPECT_EQ(ReasonOf(Verify(evidence, kFirstSecond - 1).status()), "snp-expired");
  EXPECT_EQ(ReasonOf(Verify(evidence, kLastSecond + 1).status()), "snp-expired");
}

// The one thing that must never happen, and the pin is what prevents it.
TEST(SimulatedAttester, AmdsRootsRefuseIt) {
  EXPECT_EQ(ReasonOf(VerifySnpReportWithTable(Attest(Current()).report,
                                              Attest(Current()).certificates, PinnedAmdRoots(),
                                              {.now = kNow,
                                               .crl_policy = SnpCrlPolicy::kAcceptMissing,
                                               .crl = std::nullopt,
                                               .version_2_product = std::nullopt})
                         .status()),
            "snp-chain");
  for (const SnpProductRoots& amd : PinnedAmdRoots().products) {
    EXPECT_NE(amd.ark_spki_sha256, SimulatedRoots().products.at(0).ark_spki_sha256);
  }
}

TEST(SimulatedAttester, ItSaysWhatItWasTold) {
  const auto report = ParseSnpReport(Attest(Current()).report, std::nullopt);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->version, 5u);
  EXPECT_EQ(report->measurement, Measurement());
  EXPECT_EQ(report->report_data, Data());
  EXPECT_EQ(report->reported_tcb, kSimulatedTcb);
  EXPECT_EQ(report->chip_id, Chip(kSimulatedChipByte));
}

TEST(SimulatedAttester, AChangedReportIsRefused) {
  Evidence evidence = Attest(Current());
  evidence.report[0x90] ^= 1;  // MEASUREMENT
  EXPECT_EQ(ReasonOf(Verify(evidence, kNow).status()), "snp-signature");
}

TEST(SimulatedAttester, WhatAPolicyForbidsIsRefusedForThatReason) {
  SimulatedOptions options = Current();
  options.debug = true;
  EXPECT_EQ(ReasonOf(Check(options, Strict())), "snp-debug");
  options = Current();
  options.measurement[47] ^= 1;
  EXPECT_EQ(ReasonOf(Check(options, Strict())), "snp-measurement");
  options = Current();
  options.machine = SimulatedMachine::kOlderTcb;
  EXPECT_EQ(ReasonOf(Check(options, Strict())), "snp-tcb-reported");
  options.machine = SimulatedMachine::kOtherChip;
  EXPECT_EQ(ReasonOf(Check(options, Strict())), "snp-chip-not-allowed");
  ReportData other = Data();
  other[63] ^= 1;
  EXPECT_EQ(ReasonOf(Check(Current(), Strict(), other)), "snp-report-data");
}

// Nothing else is wrong with them: the floor or the list decides.
TEST(SimulatedAttester, OtherMachinesMeetAPolicyThatAllowsThem) {
  SnpPolicy policy = Strict();
  policy.products->at(0).min_tcb->snp = kSimulatedTcb.snp - 1;
  SimulatedOptions options = Current();
  options.machine = SimulatedMachine::kOlderTcb;
  EXPECT_TRUE(Check(options, policy).ok()) << Check(options, policy).ToString();
  policy = Strict();
  policy.chips = SnpChips::Listed(std::vector{Chip(kSimulatedOtherChipByte)});
  options.machine = SimulatedMachine::kOtherChip;
  EXPECT_TRUE(Check(options, policy).ok()) << Check(options, policy).ToString();
}

// The list decides, and nothing else: without one, a policy that takes VLEKs takes the machine.
TEST(SimulatedAttester, ARevokedMachineIsRefusedByTheList) {
  SimulatedOptions options = Current();
  options.machine = SimulatedMachine::kRevoked;
  const Evidence evidence = Attest(options);
  const auto verified = Verify(evidence, kNow);
  EXPECT_EQ(ReasonOf(verified.status()), "snp-revoked");
  EXPECT_THAT(verified.status().message(), testing::HasSubstr("SEV-VLEK-Genoa"));
  const auto unlisted =
      VerifySnpReportWithTable(evidence.report, evidence.certificates, SimulatedRoots(),
                               {.now = kNow,
                                .crl_policy = SnpCrlPolicy::kAcceptMissing,
                                .crl = std::nullopt,
                                .version_2_product = std::nullopt});
  ASSERT_TRUE(unlisted.ok()) << unlisted.status().ToString();
  SnpPolicy policy = Strict();
  policy.vlek_csp_ids = std::vector{unlisted->csp_id()};
  policy.chips = SnpChips::Any();
  const Status status = CheckSnpPolicy(*unlisted, policy, Data());
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST(SimulatedAttester, TheVceksOfTwoMachinesAreNotInterchangeable) {
  SimulatedOptions options = Current();
  Evidence mixed = Attest(options);
  options.machine = SimulatedMachine::kOlderTcb;
  mixed.certificates = Attest(options).certificates;
  EXPECT_EQ(ReasonOf(Verify(mixed, kNow).status()), "vek-tcb");
  options.machine = SimulatedMachine::kOtherChip;
  mixed.certificates = Attest(options).certificates;
  EXPECT_EQ(ReasonOf(Verify(mixed, kNow).status()), "vek-chip");
}

TEST(MeasureFile, IsTheSha384OfTheBytes) {
  const std::string path = testing::TempDir() + "/measured";
  (void)unlink(path.c_str());
  {
    // More than one block: printf 'a%.0s' $(seq 3000000) | sha384sum
    const auto file = CreateFile(path);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(WriteAt(*file, 0, std::vector<uint8_t>(3'000'000, 'a')).ok());
  }
  const auto measured = MeasureFile(path);
  ASSERT_TRUE(measured.ok()) << measured.status().ToString();
  EXPECT_EQ(ToHex(*measured),
            "3e3c68ed6c6b77e674b8ab6d6ab347f3d5987be5e5aa20e2e16483ea044b04b5"
            "5233bb22d4f242745e119e56727f801e");
  EXPECT_EQ(MeasureFile(path + ".not").status().code(), Code::kNotFound);
  EXPECT_TRUE(MeasureFile("/proc/self/exe").ok());
  (void)unlink(path.c_str());
}

}  // namespace
}  // namespace talaria::attest
