// The leaf and its agreement with the report: negative cases 13 (its key) and 16 to 19 of
// doc/attestation.md. Each test changes one thing of what is signed by our own authority, so that
// no other check can be what refuses it.
#include "talaria/attest/snp/vek.h"

#include <gtest/gtest.h>

#include "talaria/attest/testing/snp_case.h"

namespace talaria::attest {
namespace {

using namespace snp_case;

constexpr const char* kBl = "1.3.6.1.4.1.3704.1.3.1";
constexpr const char* kReservedSpl = "1.3.6.1.4.1.3704.1.3.5";
constexpr const char* kFmc = "1.3.6.1.4.1.3704.1.3.9";
constexpr const char* kName = "1.3.6.1.4.1.3704.1.2";
constexpr const char* kHwid = "1.3.6.1.4.1.3704.1.4";
constexpr const char* kCsp = "1.3.6.1.4.1.3704.1.5";

// The good report under a VEK with `oid` changed.
std::string With(const char* oid, std::optional<Buffer> content, SnpReport report = GoodReport()) {
  SnpVekOptions options = VekOptionsFor(report);
  options.extensions[oid] = std::move(content);
  return Outcome(SignAndVerify(EncodeSnpReport(report), options, report.product));
}

std::string Name(std::string_view text, uint8_t tag = 0x16) {
  Buffer content(text.begin(), text.end());
  content.insert(content.begin(), {tag, static_cast<uint8_t>(text.size())});
  return With(kName, content);
}

TEST(SnpVek, TheFieldsOfGenuineOnes) {
  const Vek milan = ParseVek(Load("snp/milan_v3/vek.der")).value();
  EXPECT_EQ(milan.kind, SnpSigningKey::kVcek);
  EXPECT_EQ(milan.product, SnpProduct::kMilan);
  EXPECT_EQ(milan.tcb, (TcbVersion{.boot_loader = 4, .tee = 0, .snp = 24, .microcode = 219}));
  EXPECT_EQ(milan.hardware_id.size(), 64u);
  const Vek turin = ParseVek(Load("snp/turin_v5/vek.der")).value();
  EXPECT_EQ(turin.tcb,
            (TcbVersion{.fmc = 1, .boot_loader = 1, .tee = 1, .snp = 4, .microcode = 81}));
  EXPECT_EQ(ToHex(turin.hardware_id), "59790fb1c39f35c1");
  const Vek vlek = ParseVek(Load("snp/milan_v3_vlek_aws/vek.der")).value();
  EXPECT_EQ(vlek.kind, SnpSigningKey::kVlek);
  EXPECT_EQ(vlek.csp_id, "CN=cc-us-east-2.amazonaws.com");
  EXPECT_TRUE(vlek.hardware_id.empty());
  // A genuine one with its hardware number in an OCTET STRING.
  EXPECT_EQ(
      ParseVek(Load("snp/milan_v2_rolledback/vek_other_chip_octetstring.der"))->hardware_id.size(),
      64u);
}

TEST(SnpVek, Case13AnotherKindOfKey) {
  for (const std::string& key : {GenerateEcKeyPem(Curve::kP256), GenerateRsaKeyPem(2048)}) {
    SnpVekOptions options = VekOptionsFor(GoodReport());
    options.key_pem = key;
    EXPECT_EQ(Outcome(ParseVek(Authority().IssueVek(options)->der)), "vek-key");
  }
}

TEST(SnpVek, Case16GarbageTruncatedAndLongerDer) {
  const Buffer der = Load("snp/milan_v3/vek.der");
  EXPECT_EQ(Outcome(ParseVek({})), "vek-format");
  EXPECT_EQ(Outcome(ParseVek(Buffer(1000, 0x30))), "vek-format");
  EXPECT_EQ(Outcome(ParseVek(Buffer(kMaxCertificateBytes + 1))), "vek-format");
  for (size_t size = 0; size < der.size(); size += 7) {
    EXPECT_EQ(Outcome(ParseVek(Bytes(der).first(size))), "vek-format") << size;
  }
  Buffer longer = der;
  longer.push_back(0);
  EXPECT_EQ(Outcome(ParseVek(longer)), "vek-format");
  longer = der;
  longer.insert(longer.end(), der.begin(), der.end());
  EXPECT_EQ(Outcome(ParseVek(longer)), "vek-format");
}

TEST(SnpVek, NamesAreExact) {
  for (const char* subject : {"VCEK", "SEV-VCEK ", "sev-vcek", "SEV-VCEK-Milan"}) {
    SnpVekOptions options = VekOptionsFor(GoodReport());
    options.subject = subject;
    EXPECT_EQ(Outcome(SignAndVerify(EncodeSnpReport(GoodReport()), options)), "vek-name");
  }
}

TEST(SnpVek, ProductNames) {
  EXPECT_EQ(Name("Milan"), "");
  EXPECT_EQ(Name("Milan-B1"), "");
  for (const char* name : {"", "milan", "Milan-", "MilanB0", "Rome", "Mila", " Milan"}) {
    EXPECT_EQ(Name(name), "vek-extension") << name;
  }
  EXPECT_EQ(Name("Milan", 0x13), "vek-extension");  // a PrintableString
  EXPECT_EQ(Name("Genoa"), "vek-product");
  EXPECT_EQ(With(kName, std::nullopt), "vek-extension");
  EXPECT_EQ(With(kName, Buffer{0x16, 6, 'M', 'i', 'l', 'a', 'n'}), "vek-extension");
}

TEST(SnpVek, Case17EveryComponentOneHigherAndOneLower) {
  for (const SnpProduct product : kProducts) {
    for (uint8_t TcbVersion::*part : {&TcbVersion::fmc, &TcbVersion::boot_loader, &TcbVersion::tee,
                                      &TcbVersion::snp, &TcbVersion::microcode}) {
      if (part == &TcbVersion::fmc && product != SnpProduct::kTurin) continue;
      for (const int step : {-1, 1}) {
        const SnpReport report = GoodReport(product);
        SnpVekOptions options = VekOptionsFor(report);
        options.tcb.*part = static_cast<uint8_t>(options.tcb.*part + step);
        EXPECT_EQ(Outcome(SignAndVerify(EncodeSnpReport(report), options, product)), "vek-tcb");
      }
    }
  }
}

TEST(SnpVek, Case17TurinReadWithMilansLayout) {
  // Bytes 2 1 .. 24 .. 200 as Milan would name them.
  const SnpReport report = GoodReport(SnpProduct::kTurin);  // fmc 2, bl 4, tee 1, snp 24, 200
  SnpVekOptions options = VekOptionsFor(report);
  options.tcb = {.fmc = 0, .boot_loader = 2, .tee = 4, .snp = 0, .microcode = 200};
  EXPECT_EQ(Outcome(SignAndVerify(EncodeSnpReport(report), options, SnpProduct::kTurin)),
            "vek-tcb");
}

TEST(SnpVek, Case17ComponentsThatOnlyOneSideHas) {
  EXPECT_EQ(With(kFmc, Buffer{2, 1, 0}), "vek-extension");  // Milan has none
  EXPECT_EQ(With(kFmc, std::nullopt, GoodReport(SnpProduct::kTurin)), "vek-extension");
  EXPECT_EQ(With(kReservedSpl, Buffer{2, 1, 1}), "vek-extension");
  EXPECT_EQ(With(kReservedSpl, std::nullopt), "");
}

TEST(SnpVek, Case18HardwareIdThatDiffersInOneByte) {
  for (const SnpProduct product : kProducts) {
    for (const size_t at : {size_t{0}, product == SnpProduct::kTurin ? size_t{7} : size_t{63}}) {
      const SnpReport report = GoodReport(product);
      SnpVekOptions options = VekOptionsFor(report);
      options.chip_id[at] ^= 1;
      EXPECT_EQ(Outcome(SignAndVerify(EncodeSnpReport(report), options, product)), "vek-chip");
    }
  }
  SnpReport report = GoodReport(SnpProduct::kTurin);
  report.chip_id[8] = 1;
  EXPECT_EQ(Outcome(SignAndVerify(report)), "vek-chip");
}

TEST(SnpVek, Case18SizesOfHardwareIds) {
  EXPECT_EQ(With(kHwid, std::nullopt), "vek-extension");
  for (const size_t size : {0u, 8u, 10u, 63u, 65u, 67u, 128u}) {
    EXPECT_EQ(With(kHwid, Buffer(size, 4)), "vek-extension") << size;
  }
  const SnpReport turin = GoodReport(SnpProduct::kTurin);
  for (const size_t size : {7u, 9u, 64u, 66u}) {
    EXPECT_EQ(With(kHwid, Buffer(size, 4), turin), "vek-extension") << size;
  }
}

TEST(SnpVek, Case18TheOctetStringAndTheNumberThatLooksLikeOne) {
  const SnpReport report = GoodReport();
  Buffer wrapped(report.chip_id.begin(), report.chip_id.end());
  wrapped.insert(wrapped.begin(), {4, 64});
  EXPECT_EQ(With(kHwid, wrapped), "");
  wrapped[0] = 3;
  EXPECT_EQ(With(kHwid, wrapped), "vek-extension");
  wrapped[0] = 4;
  wrapped[1] = 63;
  EXPECT_EQ(With(kHwid, wrapped), "vek-extension");
  SnpReport raw = report;
  raw.chip_id[0] = 4;
  raw.chip_id[1] = 62;
  EXPECT_EQ(Outcome(SignAndVerify(raw)), "");
}

TEST(SnpVek, Case18WhatBelongsToTheOtherKindOfKey) {
  EXPECT_EQ(With(kCsp, Buffer{0x16, 1, 'x'}), "vek-extension");
  SnpReport vlek = GoodReport();
  vlek.signing_key = SnpSigningKey::kVlek;
  EXPECT_EQ(With(kHwid, Buffer(64, 1), vlek), "vek-extension");
  EXPECT_EQ(With(kCsp, std::nullopt, vlek), "vek-extension");
  EXPECT_EQ(With(kCsp, Buffer{0x16, 1, '\n'}, vlek), "vek-extension");
}

TEST(SnpVek, Case19IntegersThatAreNotCanonical) {
  const Buffer bad[] = {{0x02, 0x01, 0x84},              // negative
                        {0x02, 0x02, 0x00, 0x04},        // not the shortest
                        {0x02, 0x02, 0x01, 0x04},        // 260
                        {0x02, 0x03, 0x00, 0x00, 0x04},  // longer still
                        {0x02, 0x81, 0x01, 0x04},        // a long length
                        {0x02, 0x01, 0x04, 0x00},        // something behind
                        {0x02, 0x01},
                        {0x02, 0x00},
                        {0x02},
                        {},
                        {0x04, 0x01, 0x04}};  // an OCTET STRING
  for (const Buffer& content : bad) {
    EXPECT_EQ(With(kBl, content), "vek-extension") << ToHex(content);
  }
  EXPECT_EQ(With(kBl, Buffer{0x02, 0x01, 0x04}), "");
  EXPECT_EQ(With("1.3.6.1.4.1.3704.1.1", Buffer{0x02, 0x02, 0x00, 0x00}), "vek-extension");
}

TEST(SnpVek, Case19ExtensionsThatAreMissingOrThereTwice) {
  for (const char* last : {"1", "2", "3.1", "3.2", "3.3", "3.8", "4"}) {
    const std::string oid = std::string("1.3.6.1.4.1.3704.1.") + last;
    EXPECT_EQ(With(oid.c_str(), std::nullopt), "vek-extension") << oid;
    SnpVekOptions options = VekOptionsFor(GoodReport());
    options.duplicated_extension = oid;
    EXPECT_EQ(Outcome(SignAndVerify(EncodeSnpReport(GoodReport()), options)), "vek-extension")
        << oid;
  }
}

}  // namespace
}  // namespace talaria::attest
