// Genuine collateral of Intel's and lists of a test AMD, from a server of our own over real sockets
// into a folder. The vendors' servers were not asked: the forms of their URLs and answers are those
// of their specifications.
#include "talaria/client/collateral_fetch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "talaria/attest/collateral_update.h"
#include "talaria/attest/refusal.h"
#include "talaria/attest/tdx/testing.h"
#include "talaria/attest/testing/collateral_folder.h"
#include "talaria/attest/testing/snp_authority.h"
#include "talaria/client/testing/pcs.h"

namespace talaria::client {
namespace {

using attest::AttestationTestdata;
using attest::CollateralChange;
using attest::CollateralUpdate;
using attest::Fmspc;
using attest::ReasonOf;
using attest::TdxCollateral;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::HttpsAnswer;
using testing::HttpsServer;
using testing::kPcsPckCrl;
using testing::kPcsQe;
using testing::kPcsRootCrl;
using testing::Pcs;
using testing::PcsOf;
using testing::PcsTcb;
using testing::ServePcs;
using testing::StatusAnswer;
using testing::Text;
using testing::UrlEncoded;
using testing::WholeAnswer;

constexpr attest::UnixTime kJuly2025 = 1751328000;      // within v4_uptodate's collateral
constexpr attest::UnixTime kFebruary2026 = 1771545600;  // within both of FMSPC 90c06f000000

class CollateralFetchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_.Write("server.pem", server_.certificate_pem());
    ASSERT_EQ(setenv("SSL_CERT_FILE", (folder_.path() + "/server.pem").c_str(), 1), 0);
    ASSERT_EQ(setenv("SSL_CERT_DIR", "/nonexistent", 1), 0);
    servers_.kds = server_.url();
    servers_.UsePccs(server_.url());
  }
  void Serve(const Pcs& pcs) { ServePcs(server_, pcs); }
  Result<CollateralChange> FetchInto(const std::string& fmspc_hex, attest::UnixTime now,
                                     const attest::IntelRoot& root = attest::PinnedIntelRoot()) {
    Fmspc fmspc;
    EXPECT_TRUE(FromHex(fmspc_hex, fmspc));
    const auto fetcher = MakeHttpsFetcher({.timeout_ms = 2000}).value();
    auto update = CollateralUpdate::Open(
        {.folder = Folder(), .now = now, .amd = attest::PinnedAmdRoots(), .intel = root});
    EXPECT_TRUE(update.ok()) << update.status().ToString();
    TALARIA_ASSIGN_OR_RETURN(const FetchedTdx fetched,
                             FetchTdx(*fetcher, servers_, {fmspc, PckCa::kPlatform}));
    return update->ReplaceTdx(fmspc, fetched.files, fetched.pck_ca_chain_pem);
  }
  std::string Folder() const { return folder_.path() + "/collateral"; }
  TdxCollateral Loaded() const {
    const auto collateral = attest::LoadCollateral(Folder());
    EXPECT_TRUE(collateral.ok()) << collateral.status().ToString();
    return collateral.ok() ? collateral->tdx.at(0).files : TdxCollateral();
  }

  const attest::CollateralFolder folder_;
  HttpsServer server_;
  VendorServers servers_;
};

TEST_F(CollateralFetchTest, GenuineCollateralVerifiesAGenuineQuote) {
  const Pcs genuine = PcsOf("v4_uptodate", "B0C06F000000");
  Serve(genuine);
  const auto change = FetchInto("b0c06f000000", kJuly2025);
  ASSERT_TRUE(change.ok()) << change.status().ToString();
  EXPECT_EQ(*change, CollateralChange::kNew);
  EXPECT_EQ(Loaded(), genuine.files);
  const auto verified =
      attest::VerifyTdxQuote(attest::TdxVector("v4_uptodate"), Loaded(), attest::PinnedIntelRoot(),
                             {.now = kJuly2025,
                              .crl_policy = attest::TdxCrlPolicy::kRequired,
                              .min_tcb_evaluation_data_number = 17});
  EXPECT_TRUE(verified.ok()) << verified.status().ToString();
  EXPECT_EQ(FetchInto("b0c06f000000", kJuly2025).value(), CollateralChange::kUnchanged);
  // Too late: Intel would have newer ones, this server has not.
  EXPECT_EQ(ReasonOf(FetchInto("b0c06f000000", kJuly2025 + 40 * 86'400).status()),
            "tdx-pck-crl-expired");
  EXPECT_EQ(Loaded(), genuine.files);
}

TEST_F(CollateralFetchTest, AGenuineOlderEditionIsRefused) {
  const Pcs newer = PcsOf("v5_no_tcb_level", "90C06F000000");
  Serve(newer);
  ASSERT_TRUE(FetchInto("90c06f000000", kFebruary2026).ok());
  Pcs older = newer;
  older.files.tcb_info = Text(attest::TdxVector("v5_2026", "collateral/tcb_info.json"));
  older.files.tcb_info_signature_hex =
      Text(attest::TdxVector("v5_2026", "collateral/tcb_info.sig.hex"));
  Serve(older);
  const auto refused = FetchInto("90c06f000000", kFebruary2026);
  EXPECT_EQ(ReasonOf(refused.status()), "collateral-older") << refused.status().ToString();
  EXPECT_THAT(refused.status().message(), HasSubstr("2026-02-01"));
  EXPECT_EQ(Loaded(), newer.files);
}

TEST_F(CollateralFetchTest, HostileAnswersLeaveTheFolderAsItWas) {
  const Pcs good = PcsOf("v4_uptodate", "B0C06F000000");
  Serve(good);
  ASSERT_TRUE(FetchInto("b0c06f000000", kJuly2025).ok());
  const auto expect = [&](const std::string& target, HttpsAnswer answer, Code code,
                          const std::string& words) {
    Serve(good);
    server_.Serve(target, std::move(answer));
    const auto result = FetchInto("b0c06f000000", kJuly2025);
    EXPECT_EQ(result.status().code(), code) << target << ": " << result.status().ToString();
    EXPECT_THAT(result.status().message(), HasSubstr(words)) << target;
    EXPECT_EQ(Loaded(), good.files);
  };
  const std::string tcb = PcsTcb("B0C06F000000");
  const std::string chain = UrlEncoded(good.files.tcb_info_chain_pem);
  for (const std::string& target :
       {tcb, std::string(kPcsQe), std::string(kPcsPckCrl), std::string(kPcsRootCrl)}) {
    expect(target, StatusAnswer(404), Code::kNotFound, "404");
    expect(target, StatusAnswer(429, "Retry-After: 9\r\n"), Code::kUnavailable, "Retry-After: 9");
    expect(target, StatusAnswer(500), Code::kUnavailable, "500");
    expect(target, StatusAnswer(301, "Location: " + server_.url() + target + "\r\n"),
           Code::kUnavailable, "redirections");
    expect(target, {.bytes = "HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n{"},
           Code::kUnavailable, "ends early");
    expect(target, WholeAnswer(std::string((1 << 20) + 1, 'x')), Code::kCorrupt, "larger");
  }
  expect(tcb, WholeAnswer("{}", {{"TCB-Info-Issuer-Chain", chain}}), Code::kUntrusted,
         "tdx-collateral-response");
  const std::string body = "{\"tcbInfo\":" + good.files.tcb_info + ",\"signature\":\"" +
                           good.files.tcb_info_signature_hex + "\"}";
  expect(tcb, WholeAnswer(body), Code::kUntrusted, "tdx-issuer-chain");
  expect(tcb, WholeAnswer(body, {{"TCB-Info-Issuer-Chain", chain + "%2"}}), Code::kUntrusted,
         "tdx-issuer-chain");
  expect(tcb, WholeAnswer(body, {{"TCB-Info-Issuer-Chain", UrlEncoded(good.ca_chain)}}),
         Code::kUntrusted, "tdx-collateral-chain");
  std::string flipped = body;
  flipped[flipped.find("17", 20)] = '9';
  expect(tcb, WholeAnswer(flipped, {{"TCB-Info-Issuer-Chain", chain}}), Code::kUntrusted,
         "tdx-tcb-info-signature");
  expect(std::string(kPcsPckCrl),
         WholeAnswer(Text(good.files.root_crl),
                     {{"SGX-PCK-CRL-Issuer-Chain", UrlEncoded(good.ca_chain)}}),
         Code::kUntrusted, "tdx-pck-crl");
  expect(std::string(kPcsRootCrl), WholeAnswer("00ff"), Code::kUntrusted, "tdx-root-crl");
  expect(std::string(kPcsRootCrl), WholeAnswer(""), Code::kUntrusted, "tdx-crl-missing");
  HttpsAnswer dripping = WholeAnswer(body, {{"TCB-Info-Issuer-Chain", chain}});
  dripping.drip_ms = 5;
  expect(tcb, dripping, Code::kUnavailable, "longer than 2000 ms");
}

TEST_F(CollateralFetchTest, ListsOfAmd) {
  const auto authority = attest::SnpAuthority::Create({.product = attest::SnpProduct::kGenoa});
  const auto der = authority->MakeCrl(kJuly2025 - 60, kJuly2025 + 60, {});
  server_.Serve("/vcek/v1/Genoa/crl", WholeAnswer(Text(der)));
  const auto fetcher = MakeHttpsFetcher({}).value();
  const auto list = FetchAmdCrl(*fetcher, servers_, attest::SnpProduct::kGenoa);
  ASSERT_TRUE(list.ok()) << list.status().ToString();
  EXPECT_EQ(*list, der);
  auto update =
      CollateralUpdate::Open({.folder = Folder(), .now = kJuly2025, .amd = authority->roots()});
  EXPECT_EQ(update->ReplaceAmdCrl(attest::SnpProduct::kGenoa, *list).value(),
            CollateralChange::kNew);
  EXPECT_EQ(FetchAmdCrl(*fetcher, servers_, attest::SnpProduct::kMilan).status().code(),
            Code::kNotFound);
}

// Says which URLs were wanted, and has nothing.
class NothingThere final : public Fetcher {
 public:
  Result<FetchedFile> Get(const std::string& url) override {
    urls.push_back(url);
    return FetchedFile{.body = {}, .headers = {}};
  }
  std::vector<std::string> urls;
};

TEST(CollateralFetch, AsksTheVendorsThemselvesUnlessToldOtherwise) {
  NothingThere fetcher;
  ASSERT_TRUE(FetchAmdCrl(fetcher, {}, attest::SnpProduct::kTurin).ok());
  EXPECT_FALSE(FetchTdx(fetcher, {}, {Fmspc{0xab, 1}, PckCa::kProcessor}).ok());
  EXPECT_THAT(fetcher.urls,
              ElementsAre("https://kdsintf.amd.com/vcek/v1/Turin/crl",
                          "https://api.trustedservices.intel.com/tdx/certification/v4/"
                          "tcb?fmspc=AB0100000000"));
  EXPECT_EQ(VendorServers{}.root_crl,
            "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der");
}

TEST(CollateralFetch, EvidenceSaysWhatItNeeds) {
  const auto tdx =
      WishOf(attest::Evidence{attest::EvidenceType::kTdx, attest::TdxVector("v4_uptodate"), {}});
  ASSERT_TRUE(tdx.ok()) << tdx.status().ToString();
  ASSERT_EQ(tdx->tdx.size(), 1u);
  EXPECT_EQ(ToHex(tdx->tdx[0].fmspc), "b0c06f000000");
  EXPECT_EQ(tdx->tdx[0].ca, PckCa::kPlatform);
  const auto snp = WishOf(attest::Evidence{
      attest::EvidenceType::kSevSnp, AttestationTestdata("snp/turin_v5/report.bin"), {}});
  ASSERT_TRUE(snp.ok()) << snp.status().ToString();
  EXPECT_THAT(snp->amd, ElementsAre(attest::SnpProduct::kTurin));
  EXPECT_EQ(WishOf(attest::Evidence{attest::EvidenceType::kSimulated, {1}, {}}).status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(WishOf(attest::Evidence{attest::EvidenceType::kTdx, {1}, {}}).status().code(),
            Code::kUntrusted);
}

TEST(CollateralFetch, IssuerChains) {
  EXPECT_EQ(DecodeIssuerChain("-a%0Ab%2Bc+%20").value(), "-a\nb+c+ ");
  for (const std::string& bad :
       {std::string(), std::string("%"), std::string("a%4"), std::string("%zz"), std::string("%00"),
        std::string("%80"), std::string("\x01"), std::string((32 << 10) + 1, 'a')}) {
    EXPECT_EQ(ReasonOf(DecodeIssuerChain(bad).status()), "tdx-issuer-chain") << bad.substr(0, 9);
  }
}

}  // namespace
}  // namespace talaria::client
