// X.509 by itself, on AMD's genuine certificates and on those of our own authority. What is
// particular to a vendor is tested with that vendor's verifier.
#include "talaria/attest/x509.h"

#include <gtest/gtest.h>

#include "talaria/attest/testing/snp_case.h"

namespace talaria::attest {
namespace {

using namespace snp_case;

constexpr ChainOptions kChain = {.reason = "chain", .expired_reason = "expired", .strict = false};

Certificate Parse(Bytes der) { return Certificate::FromDer(der, "der").value(); }
Certificate IssueLeaf(SnpVekOptions options = VekOptionsFor(GoodReport())) {
  return Parse(Authority().IssueVek(options)->der);
}
std::string Text(const char* name) {
  const Buffer data = Load(name);
  return {data.begin(), data.end()};
}
std::string Pem(std::string_view text, size_t count) {
  return Outcome(Certificate::FromPem(text, count, "pem"));
}

TEST(CertificateDer, IsExactlyOneCertificate) {
  const Buffer der = Load("snp/milan_v3/vek.der");
  EXPECT_EQ(ToHex(Parse(der).der()), ToHex(der));
  EXPECT_EQ(Parse(der), Parse(der));
  EXPECT_NE(Parse(der), Parse(Load("snp/milan_v5/vek.der")));
  EXPECT_EQ(Outcome(Certificate::FromDer({}, "der")), "der");
  for (size_t size = 0; size < der.size(); size += 11) {
    EXPECT_EQ(Outcome(Certificate::FromDer(Bytes(der).first(size), "der")), "der");
  }
  Buffer longer = der;
  longer.push_back(0);
  EXPECT_EQ(Certificate::FromDer(longer, "der").status().message(),
            "der: found bytes behind a certificate");
  // The same in BER: a length in three bytes that fits in two.
  ASSERT_EQ(der[1], 0x82);
  Buffer ber = der;
  ber[1] = 0x83;
  ber.insert(ber.begin() + 2, 0x00);
  EXPECT_EQ(Certificate::FromDer(ber, "der").status().message(),
            "der: found a certificate that is not DER");
  EXPECT_EQ(Outcome(Certificate::FromDer(Buffer(kMaxCertificateBytes + 1, 0x30), "der")), "der");
}

TEST(CertificatePem, IsExactlySoManyAndNothingElse) {
  const std::string ark = Text("roots/amd/milan_ark.pem");
  const std::string ask = Text("roots/amd/milan_ask.pem");
  EXPECT_EQ(Pem(ark, 1), "");
  EXPECT_EQ(Pem("\n " + ark + "\r\n" + ask + "\n\n", 2), "");
  EXPECT_EQ(Pem(ark + ask + std::string(1, '\0'), 2), "");
  const auto both = Certificate::FromPem(ark + ask, 2, "pem");
  EXPECT_EQ(both->at(0).SubjectCommonName(), "ARK-Milan");
  EXPECT_EQ(both->at(1).SubjectCommonName(), "SEV-Milan");
  std::string crlf = ark;
  for (size_t at = 0; (at = crlf.find('\n', at)) != crlf.npos; at += 2) crlf.insert(at, "\r");
  EXPECT_EQ(Pem(crlf, 1), "");

  EXPECT_EQ(Pem("", 1), "pem");
  EXPECT_EQ(Pem("", 0), "");
  EXPECT_EQ(Pem(ark, 2), "pem");
  EXPECT_EQ(Pem(ark + ask, 1), "pem");
  EXPECT_EQ(Pem(ark, 0), "pem");
  EXPECT_EQ(Pem("x" + ark, 1), "pem");
  EXPECT_EQ(Pem(ark + "x", 1), "pem");
  EXPECT_EQ(Pem(ark + "x\n" + ask, 2), "pem");
  EXPECT_EQ(Pem(ark + std::string(2, '\0'), 1), "pem");
  EXPECT_EQ(Pem(std::string(1, '\0') + ark, 1), "pem");
  EXPECT_EQ(Pem(ark + std::string(1, '\0') + ask, 2), "pem");
  EXPECT_EQ(Pem(std::string(1 << 20, ' ') + ark, 1), "pem");
  EXPECT_EQ(Pem(ark.substr(0, ark.size() - 5), 1), "pem");
}

TEST(CertificatePem, HasOneFormOfBase64) {
  const std::string ark = Text("roots/amd/milan_ark.pem");
  const size_t body = ark.find('\n') + 1;
  const auto with = [&](size_t at, size_t size, const char* text) {
    std::string changed = ark;
    changed.replace(at, size, text);
    return Pem(changed, 1);
  };
  EXPECT_EQ(with(body, 0, "\n"), "");  // lines may break anywhere
  for (const char* odd : {" ", "-", "=", "\t", "A", "AAAA"}) {
    EXPECT_EQ(with(body + 8, 0, odd), "pem") << odd;
  }
  EXPECT_EQ(with(body + 8, 4, "==AA"), "pem");
  const size_t end = ark.find("Q==");
  ASSERT_NE(end, ark.npos);
  EXPECT_EQ(with(end, 3, "R=="), "pem");  // the bits that nobody reads
}

TEST(CertificateNames, AreReadAndCompared) {
  const SnpProductRoots& milan = PinnedAmdRoots().products[0];
  const Certificate leaf = Parse(Load("snp/milan_v3/vek.der"));
  EXPECT_EQ(leaf.SubjectCommonName(), "SEV-VCEK");
  EXPECT_EQ(leaf.IssuerCommonName(), "SEV-Milan");
  EXPECT_TRUE(leaf.IsIssuedNameOf(milan.ask));
  EXPECT_FALSE(leaf.IsIssuedNameOf(milan.asvk));
  EXPECT_TRUE(milan.ark.IsIssuedNameOf(milan.ark));
  EXPECT_TRUE(leaf.HasEcKey(Curve::kP384));
  EXPECT_FALSE(leaf.HasEcKey(Curve::kP256));
  EXPECT_FALSE(leaf.HasRsaKey(4096));
  EXPECT_TRUE(milan.ark.HasRsaKey(4096));
  EXPECT_FALSE(milan.ark.HasRsaKey(2048));
  EXPECT_FALSE(milan.ark.HasEcKey(Curve::kP384));
  EXPECT_EQ(leaf.not_before(), 1770253473);  // 2026-02-05 01:04:33
  EXPECT_EQ(leaf.not_after(), 1991178273);   // seven years later
  EXPECT_EQ(ToHex(milan.ark.SpkiSha256()),
            "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9");
}

TEST(CertificateExtensions, OneNoneOrTwo) {
  const std::string oid = "1.3.6.1.4.1.3704.1.3.1";
  SnpVekOptions options = VekOptionsFor(GoodReport());
  EXPECT_EQ(ToHex(IssueLeaf(options).Extension(oid, "ext")->value()), "020104");
  EXPECT_FALSE(IssueLeaf(options).Extension("1.2.3", "ext")->has_value());
  options.duplicated_extension = oid;
  EXPECT_EQ(Outcome(IssueLeaf(options).Extension(oid, "ext")), "ext");
  EXPECT_EQ(Outcome(IssueLeaf(options).Extension("1.2.3", "ext")), "");
}

TEST(CertificatePss, OneParameterOffIsNotAmds) {
  for (const SnpProductRoots& roots : PinnedAmdRoots().products) {
    EXPECT_TRUE(roots.ark.IsSignedWithPssSha384());
    EXPECT_TRUE(roots.ask.IsSignedWithPssSha384());
    EXPECT_TRUE(roots.asvk.IsSignedWithPssSha384());
  }
  SnpVekOptions options = VekOptionsFor(GoodReport());
  EXPECT_TRUE(IssueLeaf(options).IsSignedWithPssSha384());
  for (const RsaScheme scheme : {RsaScheme::kPssSha256, RsaScheme::kPssMgf1Sha256,
                                 RsaScheme::kPssSalt32, RsaScheme::kPkcs1Sha384}) {
    options.scheme = scheme;
    const Certificate leaf = IssueLeaf(options);
    EXPECT_FALSE(leaf.IsSignedWithPssSha384()) << static_cast<int>(scheme);
    // All of them are good signatures otherwise.
    EXPECT_EQ(Outcome(VerifyChain(leaf, {&Authority().ask(), 1}, Authority().ark(), kNow, kChain)),
              "");
  }
}

TEST(VerifyChain, Case11TakesExactlyTheChainItIsGiven) {
  const Certificate leaf = IssueLeaf();
  const Certificate& ark = Authority().ark();
  const Certificate& ask = Authority().ask();
  const Certificate& asvk = Authority().asvk();
  const auto verify = [&](const Certificate& end, const std::vector<Certificate>& between,
                          const Certificate& root) {
    return Outcome(VerifyChain(end, between, root, kNow, kChain));
  };
  EXPECT_EQ(verify(leaf, {ask}, ark), "");
  EXPECT_EQ(verify(ask, {}, ark), "");
  EXPECT_EQ(verify(leaf, {}, ark), "chain");           // one is missing
  EXPECT_EQ(verify(leaf, {}, ask), "chain");           // no partial chains
  EXPECT_EQ(verify(leaf, {ask, asvk}, ark), "chain");  // one that is not used
  EXPECT_EQ(verify(leaf, {asvk, ask}, ark), "chain");
  EXPECT_EQ(verify(leaf, {ask, ask}, ark), "chain");
  EXPECT_EQ(verify(leaf, {ask, ark}, ark), "chain");
  EXPECT_EQ(verify(leaf, {asvk}, ark), "chain");
  EXPECT_EQ(verify(leaf, {ask}, ask), "chain");
  EXPECT_EQ(verify(leaf, {ark}, ask), "chain");
  EXPECT_EQ(verify(ark, {}, ark), "chain");  // a root is no leaf
  EXPECT_EQ(verify(leaf, {leaf}, ark), "chain");
}

TEST(VerifyChain, ChecksTheRootsOwnSignature) {
  Buffer der(Authority().ark().der().begin(), Authority().ark().der().end());
  der.back() ^= 1;
  const Certificate broken = Parse(der);
  ASSERT_EQ(broken.SpkiSha256(), Authority().ark().SpkiSha256());
  EXPECT_EQ(Outcome(VerifyChain(Authority().ask(), {}, broken, kNow, kChain)), "chain");
}

TEST(VerifyChain, Case10EverySignatureInIt) {
  const Certificate leaf = IssueLeaf();
  for (const Certificate& one : {leaf, Authority().ask()}) {
    Buffer der(one.der().begin(), one.der().end());
    der.back() ^= 1;
    const Certificate broken = Parse(der);
    const bool is_leaf = one == leaf;
    const Certificate between = is_leaf ? Authority().ask() : broken;
    EXPECT_EQ(Outcome(VerifyChain(is_leaf ? broken : leaf, {&between, 1}, Authority().ark(), kNow,
                                  kChain)),
              "chain");
  }
}

TEST(VerifyChain, TimeIsTheCallers) {
  const Certificate leaf = IssueLeaf();
  const auto at = [&](UnixTime now) {
    return Outcome(VerifyChain(leaf, {&Authority().ask(), 1}, Authority().ark(), now, kChain));
  };
  EXPECT_EQ(at(1577836800), "");
  EXPECT_EQ(at(1577836799), "expired");
  EXPECT_EQ(at(4102444799), "");
  EXPECT_EQ(at(4102444800), "expired");  // OpenSSL takes the last second away
  EXPECT_EQ(at(0), "expired");
  EXPECT_EQ(at(-1), "expired");
}

TEST(VerifyChain, StrictWantsWhatAmdsLeavesLack) {
  ChainOptions strict = kChain;
  strict.strict = true;
  const SnpProductRoots& milan = PinnedAmdRoots().products[0];
  const Certificate leaf = Parse(Load("snp/milan_v3/vek.der"));
  EXPECT_EQ(Outcome(VerifyChain(leaf, {&milan.ask, 1}, milan.ark, kNow, strict)), "chain");
  EXPECT_EQ(Outcome(VerifyChain(leaf, {&milan.ask, 1}, milan.ark, kNow, kChain)), "");
  EXPECT_EQ(Outcome(VerifyChain(milan.ask, {}, milan.ark, kNow, strict)), "");
}

TEST(PublicKey, IsAPointOfItsCurve) {
  const auto point = [](Curve curve, const std::string& hex) {
    Buffer bytes(hex.size() / 2);
    TALARIA_CHECK(FromHex(hex, bytes));
    return Outcome(PublicKey::FromPoint(curve, bytes, "point"));
  };
  const std::string p256 =
      "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
      "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
  const std::string p384 =
      "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872"
      "760ab73617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a43"
      "1d7c90ea0e5f";
  EXPECT_EQ(point(Curve::kP256, p256), "");
  EXPECT_EQ(point(Curve::kP384, p384), "");
  EXPECT_EQ(point(Curve::kP384, p256), "point");
  EXPECT_EQ(point(Curve::kP256, p384), "point");
  EXPECT_EQ(point(Curve::kP256, ""), "point");
  EXPECT_EQ(point(Curve::kP256, p256.substr(2)), "point");
  EXPECT_EQ(point(Curve::kP256, p256.substr(0, 126) + "f4"), "point");
  EXPECT_EQ(point(Curve::kP256, std::string(128, '0')), "point");
  EXPECT_EQ(point(Curve::kP256, std::string(128, 'f')), "point");
}

TEST(PublicKey, Case7SignaturesOfTheRightSizeRangeAndCurve) {
  const Buffer report = Load("snp/milan_v3/report.bin");
  const PublicKey key = Parse(Load("snp/milan_v3/vek.der")).Key();
  const Bytes message = Bytes(report).first(0x2a0);
  const Buffer r(std::reverse_iterator(report.begin() + 0x2a0 + 48),
                 std::reverse_iterator(report.begin() + 0x2a0));
  const Buffer s(std::reverse_iterator(report.begin() + 0x2e8 + 48),
                 std::reverse_iterator(report.begin() + 0x2e8));
  EXPECT_TRUE(key.VerifyEcdsa(Curve::kP384, message, r, s));
  EXPECT_FALSE(key.VerifyEcdsa(Curve::kP384, message.first(0x29f), r, s));
  EXPECT_FALSE(key.VerifyEcdsa(Curve::kP384, {}, r, s));
  EXPECT_FALSE(key.VerifyEcdsa(Curve::kP256, message, r, s));
  EXPECT_FALSE(key.VerifyEcdsa(Curve::kP384, message, s, r));
  EXPECT_FALSE(key.VerifyEcdsa(Curve::kP384, message, Bytes(r).first(47), s));
  EXPECT_FALSE(key.VerifyEcdsa(Curve::kP384, message, r, {}));
  EXPECT_FALSE(key.VerifyEcdsa(Curve::kP384, message, Buffer(48), s));
  EXPECT_FALSE(key.VerifyEcdsa(Curve::kP384, message, r, Buffer(48, 0xff)));
  EXPECT_FALSE(Authority().ark().Key().VerifyEcdsa(Curve::kP384, message, r, s));
  EXPECT_FALSE(PublicKey().VerifyEcdsa(Curve::kP384, message, r, s));
}

TEST(CrlDer, Case15IsExactlyOneList) {
  const Buffer der = Authority().MakeCrl(kNow, kNow + 10, {7});
  const auto parse = [](Bytes bytes) { return Outcome(Crl::FromDer(bytes, "crl")); };
  EXPECT_EQ(parse(der), "");
  EXPECT_EQ(Crl::FromDer(der, "crl")->next_update(), kNow + 10);
  EXPECT_EQ(Crl::FromDer(Authority().MakeCrl(kNow, std::nullopt, {}), "crl")->next_update(), 0);
  EXPECT_EQ(parse({}), "crl");
  EXPECT_EQ(parse(Load("snp/milan_v3/vek.der")), "crl");
  EXPECT_EQ(parse(Buffer((1 << 20) + 1, 0x30)), "crl");
  for (size_t size = 0; size < der.size(); size += 13) {
    EXPECT_EQ(parse(Bytes(der).first(size)), "crl");
  }
  Buffer longer = der;
  longer.push_back(0);
  EXPECT_EQ(parse(longer), "crl");
}

TEST(CrlVerify, Case15SignerTimeAndSerials) {
  const auto verify = [](Bytes der, const Certificate& issuer, UnixTime now) {
    return Outcome(Crl::FromDer(der, "crl")->Verify(issuer, now, "signer", "stale"));
  };
  const Buffer der = Authority().MakeCrl(kNow, kNow + 10, {7, kSnpAskSerial});
  EXPECT_EQ(verify(der, Authority().ark(), kNow), "");
  EXPECT_EQ(verify(der, Authority().ark(), kNow + 10), "");
  EXPECT_EQ(verify(der, Authority().ark(), kNow - 1), "stale");
  EXPECT_EQ(verify(der, Authority().ark(), kNow + 11), "stale");
  EXPECT_EQ(verify(der, Authority().ask(), kNow), "signer");
  EXPECT_EQ(verify(der, SnpAuthority::Create(ForgerOptions())->ark(), kNow), "signer");
  // Signed by its issuer, which is not one that may.
  EXPECT_EQ(verify(Authority().MakeCrlOfAsk(kNow, kNow), Authority().ask(), kNow), "signer");
  Buffer broken = der;
  broken.back() ^= 1;
  EXPECT_EQ(verify(broken, Authority().ark(), kNow), "signer");
  const Crl crl = Crl::FromDer(der, "crl").value();
  EXPECT_TRUE(crl.Revokes(Authority().ask()));
  EXPECT_FALSE(crl.Revokes(Authority().asvk()));
  EXPECT_FALSE(crl.Revokes(IssueLeaf()));
}

}  // namespace
}  // namespace talaria::attest
