// Format of SNP reports: negative cases 1 to 5 of doc/attestation.md.
#include "talaria/attest/snp/report.h"

#include <gtest/gtest.h>

#include "talaria/attest/testing/snp_case.h"

namespace talaria::attest {
namespace {

using namespace snp_case;

std::string Parse(Bytes report, std::optional<SnpProduct> product = std::nullopt) {
  return Outcome(ParseSnpReport(report, product));
}

Buffer With(Buffer report, size_t offset, uint32_t value) {
  for (size_t i = 0; i < 4; ++i) report[offset + i] = static_cast<uint8_t>(value >> 8 * i);
  return report;
}

TEST(SnpReport, EveryFieldSurvivesEncodingAndParsing) {
  for (const SnpProduct product : kProducts) {
    SnpReport report = GoodReport(product);
    report.vmpl = 2;
    report.mask_chip_key = true;
    report.signing_key = SnpSigningKey::kVlek;
    report.current_tcb.microcode = 201;
    report.committed_tcb.snp = 25;
    report.launch_tcb.tee = 2;
    report.current_firmware.minor = 56;
    report.launch_mitigations = 0x1f;
    const auto parsed = ParseSnpReport(EncodeSnpReport(report), std::nullopt);
    ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
    EXPECT_EQ(*parsed, report) << SnpProductName(product);
  }
}

TEST(SnpReport, TheTcbOfTurinHasAnotherLayout) {
  Buffer bytes = EncodeSnpReport(GoodReport(SnpProduct::kTurin));
  const Buffer tcb = {1, 2, 3, 4, 0, 0, 0, 5};
  std::copy(tcb.begin(), tcb.end(), bytes.begin() + 0x180);
  EXPECT_EQ(ParseSnpReport(bytes, std::nullopt)->reported_tcb,
            (TcbVersion{.fmc = 1, .boot_loader = 2, .tee = 3, .snp = 4, .microcode = 5}));
  bytes = EncodeSnpReport(GoodReport(SnpProduct::kMilan));
  const Buffer milan = {1, 2, 0, 0, 0, 0, 3, 4};
  std::copy(milan.begin(), milan.end(), bytes.begin() + 0x180);
  EXPECT_EQ(ParseSnpReport(bytes, std::nullopt)->reported_tcb,
            (TcbVersion{.fmc = 0, .boot_loader = 1, .tee = 2, .snp = 3, .microcode = 4}));
}

TEST(SnpReport, Case1Length) {
  const Buffer report = Load("snp/milan_v3/report.bin");
  ASSERT_EQ(Parse(report), "");
  for (const size_t size : {0u, 1u, 0x2a0u, 1183u}) {
    EXPECT_EQ(Parse(Bytes(report).first(size)), "snp-length") << size;
  }
  for (const size_t size : {1185u, 4096u}) {
    Buffer longer = report;
    longer.resize(size);
    EXPECT_EQ(Parse(longer), "snp-length") << size;
  }
  Buffer with_header(32);  // MSG_REPORT_RSP
  with_header.insert(with_header.end(), report.begin(), report.end());
  EXPECT_EQ(Parse(with_header), "snp-length");
}

TEST(SnpReport, Case2Version) {
  const Buffer report = Load("snp/milan_v3/report.bin");
  for (const uint32_t version : {0u, 1u, 6u, 0xffffffffu, 0x300u}) {
    EXPECT_EQ(Parse(With(report, 0, version)), "snp-version") << version;
  }
  const Buffer old = Load("snp/milan_v2/report.bin");
  EXPECT_EQ(Parse(old), "snp-version");
  EXPECT_EQ(Parse(old, SnpProduct::kMilan), "");
  // Later versions name their product themselves.
  EXPECT_EQ(ParseSnpReport(report, SnpProduct::kTurin)->product, SnpProduct::kMilan);
}

TEST(SnpReport, Case3AlgorithmFlagsAndSigningKey) {
  const Buffer report = EncodeSnpReport(GoodReport());
  for (const uint32_t algorithm : {0u, 2u, 0x101u}) {
    EXPECT_EQ(Parse(With(report, 0x34, algorithm)), "snp-signature-algorithm") << algorithm;
  }
  for (int bit = 5; bit < 32; ++bit) {
    EXPECT_EQ(Parse(With(report, 0x48, 1u << bit)), "snp-reserved") << bit;
  }
  for (uint32_t key = 2; key < 8; ++key) {
    EXPECT_EQ(Parse(With(report, 0x48, key << 2)), "snp-signing-key") << key;
  }
}

TEST(SnpReport, Case4EveryReservedByteOfVersion5) {
  const Buffer report = EncodeSnpReport(GoodReport());
  const std::pair<size_t, size_t> ranges[] = {
      {0x4c, 0x50},   {0x18b, 0x1a0}, {0x1eb, 0x1ec}, {0x1ef, 0x1f0},
      {0x208, 0x2a0}, {0x2d0, 0x2e8}, {0x318, 0x330}, {0x330, 0x4a0},
      {0x3a, 0x3e},   {0x182, 0x186}, {0x1e2, 0x1e6}, {0x1f2, 0x1f6}};  // in the four TCBs
  for (const auto& [begin, end] : ranges) {
    for (size_t at = begin; at < end; ++at) {
      for (const uint8_t value : {uint8_t{0x01}, uint8_t{0x80}}) {
        Buffer changed = report;
        changed[at] = value;
        EXPECT_EQ(Parse(changed), "snp-reserved") << at;
      }
    }
  }
}

TEST(SnpReport, Case4WhatIsReservedInOlderVersionsAndOnTurin) {
  const Buffer old = Load("snp/milan_v2/report.bin");
  for (const size_t at : {0x188u, 0x189u, 0x18au, 0x1f8u, 0x207u}) {
    Buffer changed = old;
    changed[at] = 1;
    EXPECT_EQ(Parse(changed, SnpProduct::kMilan), "snp-reserved") << at;
  }
  const Buffer third = Load("snp/milan_v3/report.bin");
  for (const size_t at : {0x1f8u, 0x1ffu, 0x200u, 0x207u}) {
    Buffer changed = third;
    changed[at] = 1;
    EXPECT_EQ(Parse(changed), "snp-reserved") << at;
  }
  const Buffer turin = EncodeSnpReport(GoodReport(SnpProduct::kTurin));
  for (const size_t at : {0x184u, 0x186u}) {
    Buffer changed = turin;
    changed[at] = 1;
    EXPECT_EQ(Parse(changed), "snp-reserved") << at;
  }
}

TEST(SnpReport, Case5Cpuid) {
  const Buffer report = EncodeSnpReport(GoodReport());
  const auto parse = [&](uint8_t family, uint8_t model) {
    Buffer changed = report;
    changed[0x188] = family;
    changed[0x189] = model;
    // Its TCB would not have Turin's reserved bytes at zero.
    for (const size_t at : {0x38u, 0x180u, 0x1e0u, 0x1f0u}) {
      std::fill_n(changed.begin() + static_cast<ptrdiff_t>(at), 8, uint8_t{0});
    }
    return ParseSnpReport(changed, std::nullopt);
  };
  for (const int model : {0x00, 0x0f}) {
    EXPECT_EQ(parse(0x19, static_cast<uint8_t>(model))->product, SnpProduct::kMilan);
  }
  for (const int model : {0x10, 0x1f, 0xa0, 0xaf}) {
    EXPECT_EQ(parse(0x19, static_cast<uint8_t>(model))->product, SnpProduct::kGenoa);
  }
  for (const int model : {0x00, 0x11}) {
    EXPECT_EQ(parse(0x1a, static_cast<uint8_t>(model))->product, SnpProduct::kTurin);
  }
  const std::pair<uint8_t, uint8_t> unknown[] = {{0x00, 0x00}, {0x17, 0x31}, {0x18, 0x01},
                                                 {0x19, 0x20}, {0x19, 0x9f}, {0x19, 0xb0},
                                                 {0x1a, 0x12}, {0x1b, 0x00}};
  for (const auto& [family, model] : unknown) {
    EXPECT_EQ(Outcome(parse(family, model)), "snp-product") << int{family} << " " << int{model};
  }
}

TEST(SnpReport, Case22VmplThatNoGuestHas) {
  const Buffer report = EncodeSnpReport(GoodReport());
  for (const uint32_t vmpl : {4u, 0xffffffffu}) {
    EXPECT_EQ(Parse(With(report, 0x30, vmpl)), "snp-vmpl") << vmpl;
  }
}

TEST(TcbVersion, IsComparedPerComponent) {
  const TcbVersion floor{.fmc = 1, .boot_loader = 4, .tee = 1, .snp = 24, .microcode = 100};
  EXPECT_TRUE(floor.AtLeast(floor));
  for (uint8_t TcbVersion::*part : {&TcbVersion::fmc, &TcbVersion::boot_loader, &TcbVersion::tee,
                                    &TcbVersion::snp, &TcbVersion::microcode}) {
    // Higher everywhere, lower in one.
    TcbVersion tcb{.fmc = 9, .boot_loader = 9, .tee = 9, .snp = 99, .microcode = 255};
    EXPECT_TRUE(tcb.AtLeast(floor));
    tcb.*part = static_cast<uint8_t>(floor.*part - 1);
    EXPECT_FALSE(tcb.AtLeast(floor));
  }
  EXPECT_EQ(ToString(floor), "fmc 1, bl 4, tee 1, snp 24, ucode 100");
}

}  // namespace
}  // namespace talaria::attest
