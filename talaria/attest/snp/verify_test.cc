// Who signed a report: negative cases 3, 5 to 8, 10 to 16 of doc/attestation.md, and the table of
// where all of SNP's cases are:
//
//   1 - 5    report_test.cc; 5 (a product that is not the chain's) also here
//   6 - 8    here
//   9        vectors_test.cc
//   10 - 13  here; 11 (order, number, duplicates of a chain) x509_test.cc; 12 also vectors_test.cc
//   14       here and vectors_test.cc
//   15       here, the lists themselves in x509_test.cc
//   16       vek_test.cc; PEM in x509_test.cc
//   17 - 19  vek_test.cc
//   20       here and vectors_test.cc
//   21 - 28  policy_test.cc; the genuine ones of 21, 22, 24, 26 vectors_test.cc
//   54       certificate_table_test.cc
#include "talaria/attest/snp/verify.h"

#include <gtest/gtest.h>

#include <set>

#include "talaria/attest/testing/snp_case.h"

namespace talaria::attest {
namespace {

using namespace snp_case;

struct Made {
  Buffer report;
  SnpVek vek;
};
Made MakeGood(const SnpAuthority& authority, const SnpReport& report, SnpVekOptions options) {
  Made made{EncodeSnpReport(report), authority.IssueVek(options).value()};
  SignSnpReport(made.report, made.vek);
  return made;
}
Made MakeGood(const SnpReport& report = GoodReport()) {
  return MakeGood(Authority(report.product), report, VekOptionsFor(report));
}
std::string Verify(const Made& made, const SnpRoots& roots = Authority().roots(),
                   const SnpVerifyOptions& options = Options()) {
  return Outcome(VerifySnpReport(made.report, made.vek.der, roots, options));
}

// r at 0x2a0, s at 0x2e8, both little-endian.
void SetNumber(Buffer& report, size_t offset, Bytes little_endian) {
  std::fill_n(report.begin() + static_cast<ptrdiff_t>(offset), 48, uint8_t{0});
  std::copy(little_endian.begin(), little_endian.end(),
            report.begin() + static_cast<ptrdiff_t>(offset));
}
// The order of P-384, little-endian.
Buffer Order() {
  Buffer big(48);
  TALARIA_CHECK(
      FromHex("ffffffffffffffffffffffffffffffffffffffffffffffff"
              "c7634d81f4372ddf581a0db248b0a77aecec196accc52973",
              big));
  return {big.rbegin(), big.rend()};
}

TEST(SnpVerify, AGoodReportOfEveryProductAndKindOfKey) {
  for (const SnpProduct product : kProducts) {
    for (const SnpSigningKey kind : {SnpSigningKey::kVcek, SnpSigningKey::kVlek}) {
      SnpReport report = GoodReport(product);
      report.signing_key = kind;
      const auto verified = SignAndVerify(report);
      ASSERT_TRUE(verified.ok()) << verified.status().ToString();
      EXPECT_EQ(verified->report(), report);
      EXPECT_EQ(verified->csp_id(), kind == SnpSigningKey::kVlek ? "CN=cloud.test" : "");
    }
  }
}

TEST(SnpVerify, Case3SigningKeysThatSignNothing) {
  for (const int key : {2, 6, 7}) {
    Buffer report = EncodeSnpReport(GoodReport());
    report[0x48] = static_cast<uint8_t>(key << 2);
    EXPECT_EQ(Outcome(SignAndVerify(report, VekOptionsFor(GoodReport()))), "snp-signing-key");
  }
}

TEST(SnpVerify, Case4ReservedBytesThatAreSigned) {
  for (const size_t at : {0x4cu, 0x18bu, 0x1ebu, 0x208u, 0x29fu}) {
    Buffer report = EncodeSnpReport(GoodReport());
    report[at] = 1;
    EXPECT_EQ(Outcome(SignAndVerify(report, VekOptionsFor(GoodReport()))), "snp-reserved") << at;
  }
}

TEST(SnpVerify, Case5AReportOfAnotherProductThanItsChain) {
  SnpReport report = GoodReport();
  const SnpVekOptions options = VekOptionsFor(report);
  report.cpuid = {0x19, 0x11, 0x01};  // Genoa, under Milan's key
  EXPECT_EQ(Outcome(SignAndVerify(EncodeSnpReport(report), options)), "vek-product");
  // The key says Genoa too, but Milan's ASK made it.
  report.product = SnpProduct::kGenoa;
  SnpVekOptions lying = options;
  lying.extensions["1.3.6.1.4.1.3704.1.2"] = Buffer{0x16, 5, 'G', 'e', 'n', 'o', 'a'};
  const Made made = MakeGood(Authority(), report, lying);
  EXPECT_EQ(Verify(made, Authority(SnpProduct::kGenoa).roots()), "snp-chain");
  EXPECT_EQ(Verify(made), "snp-roots");
  SnpProductRoots milan = Authority().product_roots();
  milan.product = SnpProduct::kGenoa;
  EXPECT_EQ(Verify(made, {{milan}}), "snp-chain-name");
}

TEST(SnpVerify, Case6NoByteOfAReportCanBeChanged) {
  const Buffer report = Load("snp/milan_v3/report.bin");
  const Buffer vek = Load("snp/milan_v3/vek.der");
  ASSERT_EQ(Outcome(VerifySnpReport(report, vek, PinnedAmdRoots(), Options())), "");
  const std::set<std::string> reasons = {"snp-version",     "snp-signature-algorithm",
                                         "snp-reserved",    "snp-vmpl",
                                         "snp-signing-key", "snp-product",
                                         "vek-kind",        "vek-product",
                                         "snp-signature"};
  std::set<std::string> seen;
  Buffer changed = report;
  for (size_t at = 0; at < report.size(); ++at) {
    changed[at] ^= static_cast<uint8_t>(1u << at % 8);
    const std::string reason = Outcome(VerifySnpReport(changed, vek, PinnedAmdRoots(), Options()));
    changed[at] = report[at];
    EXPECT_TRUE(reasons.contains(reason)) << at << " " << reason;
    // What has no rule of its own is the signature's to catch.
    if ((at >= 0x50 && at < 0x180) || (at >= 0x1a0 && at < 0x1e0) || (at >= 0x2a0 && at < 0x2d0) ||
        (at >= 0x2e8 && at < 0x318)) {
      EXPECT_EQ(reason, "snp-signature") << at;
    }
    seen.insert(reason);
  }
  EXPECT_GE(seen.size(), 5u);
}

TEST(SnpVerify, Case7NumbersThatAreNoSignature) {
  const Made good = MakeGood();
  ASSERT_EQ(Verify(good), "");
  const Buffer zero(48), order = Order(), ones(48, 0xff);
  const Bytes r = Bytes(good.report).subspan(0x2a0, 48);
  const Bytes s = Bytes(good.report).subspan(0x2e8, 48);
  const Buffer r_reversed(r.rbegin(), r.rend()), s_reversed(s.rbegin(), s.rend());
  const std::pair<Bytes, Bytes> numbers[] = {{zero, s},
                                             {r, zero},
                                             {zero, zero},
                                             {order, s},
                                             {r, order},
                                             {ones, s},
                                             {r, ones},
                                             {s, r},
                                             {r_reversed, s},
                                             {r, s_reversed},
                                             {r_reversed, s_reversed}};
  for (size_t i = 0; i < std::size(numbers); ++i) {
    Made made = good;
    SetNumber(made.report, 0x2a0, numbers[i].first);
    SetNumber(made.report, 0x2e8, numbers[i].second);
    EXPECT_EQ(Verify(made), "snp-signature") << i;
  }
}

TEST(SnpVerify, Case8TheOtherSignatureIsValidAndTheDigestDoesNotChange) {
  const Made good = MakeGood();
  Made other = good;
  const Buffer order = Order();
  int borrow = 0;
  for (size_t i = 0; i < order.size(); ++i) {  // s becomes n - s
    const int difference = order[i] - good.report[0x2e8 + i] - borrow;
    borrow = difference < 0 ? 1 : 0;
    other.report[0x2e8 + i] = static_cast<uint8_t>(difference);
  }
  ASSERT_NE(other.report, good.report);
  const auto first = VerifySnpReport(good.report, good.vek.der, Authority().roots(), Options());
  const auto second = VerifySnpReport(other.report, good.vek.der, Authority().roots(), Options());
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->signed_digest(), second->signed_digest());
}

TEST(SnpVerify, Case10AForgerWithAllNamesAndSerials) {
  const SnpAuthority forger = SnpAuthority::Create(ForgerOptions()).value();
  EXPECT_EQ(forger.ark().SubjectCommonName(), Authority().ark().SubjectCommonName());
  const SnpReport report = GoodReport();
  const Made forged = MakeGood(forger, report, VekOptionsFor(report));
  ASSERT_EQ(Verify(forged, forger.roots()), "");  // perfect but for the root
  EXPECT_EQ(Verify(forged), "snp-chain");
  EXPECT_EQ(Verify(forged, PinnedAmdRoots()), "snp-chain");
  SnpProductRoots roots = forger.product_roots();
  roots.ark_spki_sha256 = Authority().product_roots().ark_spki_sha256;
  EXPECT_EQ(Verify(forged, {{roots}}), "snp-ark-pin");
  roots = Authority().product_roots();
  roots.ask = forger.ask();
  EXPECT_EQ(Verify(forged, {{roots}}), "snp-chain");
}

TEST(SnpVerify, Case11CertificatesInWrongPlaces) {
  const Made good = MakeGood();
  const SnpProductRoots right = Authority().product_roots();
  SnpProductRoots roots = right;
  roots.ark = right.ask;
  EXPECT_EQ(Verify(good, {{roots}}), "snp-ark-pin");
  roots.ark_spki_sha256 = right.ask.SpkiSha256();
  EXPECT_EQ(Verify(good, {{roots}}), "snp-chain-name");
  roots = right;
  roots.ask = right.asvk;
  EXPECT_EQ(Verify(good, {{roots}}), "snp-chain-name");
  roots.ask = right.ark;
  EXPECT_EQ(Verify(good, {{roots}}), "snp-chain-name");
  roots = right;
  roots.ark = Authority(SnpProduct::kGenoa).ark();
  EXPECT_EQ(Verify(good, {{roots}}), "snp-chain-name");  // the tests' products share a key
  roots.ark = PinnedAmdRoots().products[1].ark;
  EXPECT_EQ(Verify(good, {{roots}}), "snp-ark-pin");
  EXPECT_EQ(Verify(good, {}), "snp-roots");
  Made leaf = good;
  leaf.vek.der.assign(right.ask.der().begin(), right.ask.der().end());
  EXPECT_EQ(Verify(leaf), "vek-name");
  // An intermediate whose name is the root's.
  SnpAuthorityOptions options;
  options.ask.subject = "ARK-Milan";
  const SnpAuthority odd = SnpAuthority::Create(options).value();
  const SnpReport report = GoodReport();
  EXPECT_EQ(Verify(MakeGood(odd, report, VekOptionsFor(report)), odd.roots()), "snp-chain-name");
}

TEST(SnpVerify, Case12TheTwoKindsOfKeysAreNotMixed) {
  SnpReport report = GoodReport();
  const SnpVekOptions vcek = VekOptionsFor(report);
  report.signing_key = SnpSigningKey::kVlek;
  const SnpVekOptions vlek = VekOptionsFor(report);
  EXPECT_EQ(Outcome(SignAndVerify(EncodeSnpReport(report), vcek)), "vek-kind");
  EXPECT_EQ(Outcome(SignAndVerify(EncodeSnpReport(GoodReport()), vlek)), "vek-kind");
  // Right kind, but from the other intermediate.
  SnpVekOptions other = vlek;
  other.other_issuer = true;
  EXPECT_EQ(Outcome(SignAndVerify(EncodeSnpReport(report), other)), "snp-chain");
  other = vcek;
  other.other_issuer = true;
  EXPECT_EQ(Outcome(SignAndVerify(EncodeSnpReport(GoodReport()), other)), "snp-chain");
}

TEST(SnpVerify, Case13OtherAlgorithms) {
  const SnpReport report = GoodReport();
  for (const RsaScheme scheme : {RsaScheme::kPssSha256, RsaScheme::kPssMgf1Sha256,
                                 RsaScheme::kPssSalt32, RsaScheme::kPkcs1Sha384}) {
    SnpVekOptions options = VekOptionsFor(report);
    options.scheme = scheme;
    EXPECT_EQ(Outcome(SignAndVerify(EncodeSnpReport(report), options)), "snp-chain-algorithm");
    for (SnpCaOptions SnpAuthorityOptions::*place :
         {&SnpAuthorityOptions::ark, &SnpAuthorityOptions::ask}) {
      SnpAuthorityOptions authority;
      (authority.*place).scheme = scheme;
      const SnpAuthority odd = SnpAuthority::Create(authority).value();
      EXPECT_EQ(Verify(MakeGood(odd, report, VekOptionsFor(report)), odd.roots()),
                "snp-chain-algorithm");
    }
  }
  for (std::string SnpAuthorityKeys::*place : {&SnpAuthorityKeys::ark, &SnpAuthorityKeys::ask}) {
    SnpAuthorityOptions authority;
    authority.keys.*place = GenerateRsaKeyPem(2048);
    const SnpAuthority small = SnpAuthority::Create(authority).value();
    EXPECT_EQ(Verify(MakeGood(small, report, VekOptionsFor(report)), small.roots()),
              "snp-chain-key");
  }
}

TEST(SnpVerify, Case14TimeBeforeAndAfterEveryCertificate) {
  SnpAuthorityOptions authority;
  authority.ark.not_before = 1000;
  authority.ark.not_after = 9000;
  authority.ask.not_before = 2000;
  authority.ask.not_after = 8000;
  const SnpAuthority timed = SnpAuthority::Create(authority).value();
  SnpVekOptions options = VekOptionsFor(GoodReport());
  options.not_before = 3000;
  options.not_after = 7000;
  const auto at = [&](const Made& made, UnixTime now) {
    return Verify(made, timed.roots(), Options(now));
  };
  const Made narrow_leaf = MakeGood(timed, GoodReport(), options);
  EXPECT_EQ(at(narrow_leaf, 3000), "");
  EXPECT_EQ(at(narrow_leaf, 6999), "");
  EXPECT_EQ(at(narrow_leaf, 2999), "snp-expired");
  EXPECT_EQ(at(narrow_leaf, 7000), "snp-expired");
  options.not_before = 0;
  options.not_after = 10000;
  const Made wide_leaf = MakeGood(timed, GoodReport(), options);
  EXPECT_EQ(at(wide_leaf, 2000), "");
  EXPECT_EQ(at(wide_leaf, 1999), "snp-expired");
  EXPECT_EQ(at(wide_leaf, 8000), "snp-expired");
  authority.ask.not_before = 0;
  authority.ask.not_after = 10000;
  const SnpAuthority narrow_root = SnpAuthority::Create(authority).value();
  const Made under_it = MakeGood(narrow_root, GoodReport(), options);
  EXPECT_EQ(Verify(under_it, narrow_root.roots(), Options(1000)), "");
  EXPECT_EQ(Verify(under_it, narrow_root.roots(), Options(999)), "snp-expired");
  EXPECT_EQ(Verify(under_it, narrow_root.roots(), Options(9000)), "snp-expired");
}

TEST(SnpVerify, Case15RevocationLists) {
  const SnpAuthority& authority = Authority();
  const Made good = MakeGood();
  SnpReport vlek_report = GoodReport();
  vlek_report.signing_key = SnpSigningKey::kVlek;
  const Made with_vlek = MakeGood(vlek_report);
  const auto verify = [&](const Made& made, SnpCrlPolicy policy, std::optional<Buffer> der) {
    SnpVerifyOptions options = Options();
    options.crl_policy = policy;
    if (der) options.crl = Crl::FromDer(*der, "crl-format").value();
    return Verify(made, authority.roots(), options);
  };
  const auto both = {SnpCrlPolicy::kRequired, SnpCrlPolicy::kAcceptMissing};
  EXPECT_EQ(verify(good, SnpCrlPolicy::kRequired, std::nullopt), "crl-missing");
  EXPECT_EQ(verify(good, SnpCrlPolicy::kAcceptMissing, std::nullopt), "");
  for (const SnpCrlPolicy policy : both) {
    EXPECT_EQ(verify(good, policy, authority.MakeCrl(kNow, kNow, {7})), "");
    EXPECT_EQ(verify(good, policy, authority.MakeCrl(kNow - 9, kNow - 1, {})), "crl-expired");
    EXPECT_EQ(verify(good, policy, authority.MakeCrl(kNow + 1, kNow + 9, {})), "crl-expired");
    EXPECT_EQ(verify(good, policy, authority.MakeCrl(kNow, std::nullopt, {})), "crl-expired");
    EXPECT_EQ(verify(good, policy, authority.MakeCrlOfAsk(kNow, kNow)), "crl-invalid");
    const SnpAuthority forger = SnpAuthority::Create(ForgerOptions()).value();
    EXPECT_EQ(verify(good, policy, forger.MakeCrl(kNow, kNow, {})), "crl-invalid");
    const Buffer lists_ask = authority.MakeCrl(kNow, kNow, {7, kSnpAskSerial});
    EXPECT_EQ(verify(good, policy, lists_ask), "snp-revoked");
    EXPECT_EQ(verify(with_vlek, policy, lists_ask), "");
    EXPECT_EQ(verify(with_vlek, policy, authority.MakeCrl(kNow, kNow, {kSnpAsvkSerial})),
              "snp-revoked");
  }
}

TEST(SnpVerify, Case20MaskedChipIds) {
  SnpReport report = GoodReport();
  report.chip_id = {};
  EXPECT_EQ(Outcome(SignAndVerify(report)), "snp-chip-masked");
  report = GoodReport();
  report.mask_chip_key = true;
  EXPECT_EQ(Outcome(SignAndVerify(report)), "snp-chip-masked");
}

TEST(SnpVerify, OptionsCannotBeForgotten) {
  static_assert(!std::is_default_constructible_v<SnpVerifyOptions>);
  static_assert(!std::is_default_constructible_v<VerifiedSnpReport>);
}

}  // namespace
}  // namespace talaria::attest
