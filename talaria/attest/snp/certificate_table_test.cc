// The host's table of certificates: negative case 54 of doc/attestation.md.
#include "talaria/attest/snp/certificate_table.h"

#include <gtest/gtest.h>

#include "talaria/attest/testing/snp_case.h"

namespace talaria::attest {
namespace {

using namespace snp_case;

struct Entry {
  Guid guid;
  uint32_t offset;
  uint32_t size;
};

Buffer Table(const std::vector<Entry>& entries, size_t bytes_behind, bool ended = true) {
  Buffer out;
  ByteWriter writer(out);
  for (const Entry& entry : entries) {
    writer.Raw(entry.guid);
    writer.U32(entry.offset);
    writer.U32(entry.size);
  }
  if (ended) out.resize(out.size() + 24);
  for (size_t i = 0; i < bytes_behind; ++i) out.push_back(static_cast<uint8_t>(i + 1));
  return out;
}

std::string Parse(Bytes table) { return Outcome(ParseCertificateTable(table)); }

TEST(CertificateTable, FindsTheLeavesOfGenuineTables) {
  for (const char* name : {"milan_v5_bound", "genoa_v3", "turin_v5"}) {
    const Buffer table = Load("snp/" + std::string(name) + "/auxblob.bin");
    const auto parsed = ParseCertificateTable(table);
    ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
    EXPECT_EQ(ToHex(parsed->vcek), ToHex(Load("snp/" + std::string(name) + "/vek.der")));
    EXPECT_TRUE(parsed->vlek.empty());
  }
  const Buffer table = Load("snp/milan_v3_vlek_aws/auxblob.bin");
  EXPECT_EQ(ToHex(ParseCertificateTable(table)->vlek),
            ToHex(Load("snp/milan_v3_vlek_aws/vek.der")));
}

TEST(CertificateTable, Case54Bounds) {
  EXPECT_EQ(Parse(Table({{kVcekGuid, 48, 4}}, 4)), "");
  const std::pair<uint32_t, uint32_t> bad[] = {{47, 4},
                                               {0, 4},
                                               {48, 5},
                                               {49, 4},
                                               {52, 1},
                                               {48, 0},
                                               {0xfffffff0, 0x20},
                                               {48, 0xffffffff},
                                               {0xffffffff, 1},
                                               {53, 0},
                                               {0x80000000, 0x80000000}};
  for (const auto& [offset, size] : bad) {
    EXPECT_EQ(Parse(Table({{kVcekGuid, offset, size}}, 4)), "certificate-table")
        << offset << " " << size;
    // Also of an entry that nobody looks at.
    EXPECT_EQ(Parse(Table({{Guid{1}, offset, size}}, 4)), "certificate-table");
  }
}

TEST(CertificateTable, Case54TheLastEntry) {
  EXPECT_EQ(Parse({}), "certificate-table");
  EXPECT_EQ(Parse(Table({{kVcekGuid, 24, 4}}, 4, false)), "certificate-table");
  EXPECT_EQ(Parse(Table({{kVcekGuid, 24, 4}}, 0, false)), "certificate-table");
  EXPECT_EQ(Parse(Buffer(23)), "certificate-table");
  EXPECT_EQ(Parse(Table({{Guid{}, 1, 0}}, 4)), "certificate-table");
  EXPECT_EQ(Parse(Table({{Guid{}, 0, 1}}, 4)), "certificate-table");
}

TEST(CertificateTable, Case54NoEntriesAndUnknownOnes) {
  EXPECT_EQ(Parse(Table({}, 0)), "");
  EXPECT_TRUE(ParseCertificateTable(Table({}, 0))->vcek.empty());
  const Buffer table = Table({{Guid{1, 2, 3}, 72, 2}, {kVcekGuid, 74, 2}}, 4);
  EXPECT_EQ(ToHex(ParseCertificateTable(table)->vcek), "0304");
}

TEST(CertificateTable, Case11TheSameGuidTwice) {
  EXPECT_EQ(Parse(Table({{kVcekGuid, 72, 2}, {kVcekGuid, 74, 2}}, 4)), "certificate-table");
  EXPECT_EQ(Parse(Table({{Guid{9}, 72, 2}, {Guid{9}, 72, 2}}, 4)), "certificate-table");
}

TEST(CertificateTable, Oversize) {
  EXPECT_EQ(Parse(Buffer(kMaxCertificatesBytes)), "");
  EXPECT_EQ(Parse(Buffer(kMaxCertificatesBytes + 1)), "certificate-table");
}

TEST(CertificateTable, Case54WhatItHoldsIsNotBelieved) {
  const SnpReport report = GoodReport();
  const SnpVek vek = Authority().IssueVek(VekOptionsFor(report)).value();
  Buffer bytes = EncodeSnpReport(report);
  SignSnpReport(bytes, vek);
  const auto verify = [&](Bytes table) {
    return Outcome(VerifySnpReportWithTable(bytes, table, Authority().roots(), Options()));
  };
  EXPECT_EQ(verify(MakeCertificateTable(Authority(), SnpSigningKey::kVcek, vek.der)), "");
  // Other roots in the table change nothing, in both directions.
  const SnpAuthority forger = SnpAuthority::Create(ForgerOptions()).value();
  EXPECT_EQ(verify(MakeCertificateTable(forger, SnpSigningKey::kVcek, vek.der)), "");
  const SnpVek forged = forger.IssueVek(VekOptionsFor(report)).value();
  EXPECT_EQ(verify(MakeCertificateTable(forger, SnpSigningKey::kVcek, forged.der)), "snp-chain");
  // The ASK in the VCEK's place; the VCEK in the VLEK's; no leaf; no table.
  EXPECT_EQ(
      verify(MakeCertificateTable(Authority(), SnpSigningKey::kVcek, Authority().ask().der())),
      "vek-name");
  EXPECT_EQ(verify(MakeCertificateTable(Authority(), SnpSigningKey::kVlek, vek.der)),
            "vek-missing");
  EXPECT_EQ(verify(Table({}, 0)), "vek-missing");
  EXPECT_EQ(verify({}), "certificate-table");
  // A report that does not parse is refused as that.
  EXPECT_EQ(Outcome(VerifySnpReportWithTable({}, {}, Authority().roots(), Options())),
            "snp-length");
}

}  // namespace
}  // namespace talaria::attest
