#include "talaria/attest/collateral_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "talaria/attest/testing/collateral_folder.h"
#include "talaria/attest/testing/snp_authority.h"

namespace talaria::attest {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

constexpr char kFmspc[] = "b0c06f000000";
constexpr UnixTime kThis = 1772000000;
constexpr UnixTime kNext = 1773000000;

std::vector<uint8_t> GenoaCrl() {
  static const SnpAuthority authority =
      SnpAuthority::Create({.product = SnpProduct::kGenoa}).value();
  return authority.MakeCrl(kThis, kNext, {});
}

// Everything that a folder may hold.
void Fill(const CollateralFolder& folder) {
  folder.AddTdx(kFmspc, "v4_uptodate");
  folder.Write("amd/genoa.crl", GenoaCrl());
}

std::string In(const std::string& name) { return std::string("tdx/") + kFmspc + "/" + name; }

void Refused(const CollateralFolder& folder, Code code, const std::string& file,
             const std::string& what) {
  const Status status = LoadCollateral(folder.path()).status();
  EXPECT_EQ(status.code(), code) << status.ToString();
  EXPECT_THAT(status.message(), StartsWith(folder.path() + (file.empty() ? "" : "/") + file));
  EXPECT_THAT(status.message(), HasSubstr(what));
}

TEST(CollateralFiles, LoadsWhatTheFolderHolds) {
  const CollateralFolder folder;
  Fill(folder);
  const auto collateral = LoadCollateral(folder.path());
  ASSERT_TRUE(collateral.ok()) << collateral.status().ToString();
  ASSERT_EQ(collateral->amd.size(), 1u);
  EXPECT_EQ(collateral->amd[0].product, SnpProduct::kGenoa);
  EXPECT_EQ(collateral->amd[0].crl.next_update(), kNext);
  ASSERT_EQ(collateral->tdx.size(), 1u);
  EXPECT_EQ(ToHex(collateral->tdx[0].fmspc), kFmspc);
  const TdxCollateral& files = collateral->tdx[0].files;
  EXPECT_EQ(files.tcb_info, folder.Read(In("tcb_info.json")));
  EXPECT_EQ(files.tcb_info_signature_hex, folder.Read(In("tcb_info.sig.hex")));
  EXPECT_EQ(files.tcb_info_chain_pem, folder.Read(In("tcb_info_issuer_chain.pem")));
  EXPECT_EQ(files.qe_identity, folder.Read(In("qe_identity.json")));
  EXPECT_EQ(files.qe_identity_signature_hex, folder.Read(In("qe_identity.sig.hex")));
  EXPECT_EQ(files.qe_identity_chain_pem, folder.Read(In("qe_identity_issuer_chain.pem")));
  const auto text = [](const std::vector<uint8_t>& der) {
    return std::string(der.begin(), der.end());
  };
  EXPECT_EQ(text(files.root_crl), folder.Read(In("root_ca_crl.der")));
  EXPECT_EQ(text(files.pck_crl), folder.Read(In("pck_crl.der")));
}

TEST(CollateralFiles, OneVendorIsEnough) {
  const CollateralFolder amd;
  amd.Write("amd/genoa.crl", GenoaCrl());
  EXPECT_TRUE(LoadCollateral(amd.path()).ok());
  const CollateralFolder intel;
  intel.AddTdx(kFmspc, "v4_uptodate");
  EXPECT_TRUE(LoadCollateral(intel.path()).ok());
}

TEST(CollateralFiles, NothingAtAllIsAnError) {
  const CollateralFolder folder;
  Refused(folder, Code::kInvalidArgument, "", "holds no collateral");
  std::filesystem::create_directory(folder.path() + "/amd");
  Refused(folder, Code::kInvalidArgument, "", "holds no collateral");
  EXPECT_EQ(LoadCollateral(folder.path() + "/none").status().code(), Code::kNotFound);
  folder.Write("file", std::string("x"));
  EXPECT_THAT(LoadCollateral(folder.path() + "/file").status().message(),
              EndsWith("is not a folder"));
}

TEST(CollateralFiles, EveryFileOfAPlatformButTheListsMustBeThere) {
  for (const char* name :
       {"tcb_info.json", "tcb_info.sig.hex", "tcb_info_issuer_chain.pem", "qe_identity.json",
        "qe_identity.sig.hex", "qe_identity_issuer_chain.pem"}) {
    const CollateralFolder folder;
    Fill(folder);
    folder.Remove(In(name));
    Refused(folder, Code::kNotFound, In(name), "is missing");
    folder.Write(In(name), std::string());
    Refused(folder, Code::kCorrupt, In(name), "is empty");
  }
  const CollateralFolder folder;
  Fill(folder);
  folder.Remove(In("root_ca_crl.der"));
  folder.Remove(In("pck_crl.der"));
  const auto collateral = LoadCollateral(folder.path());
  ASSERT_TRUE(collateral.ok()) << collateral.status().ToString();
  EXPECT_TRUE(collateral->tdx[0].files.root_crl.empty());
  EXPECT_TRUE(collateral->tdx[0].files.pck_crl.empty());
}

TEST(CollateralFiles, UnknownNamesAreErrors) {
  for (const std::string& name :
       {std::string("readme.txt"), std::string("AMD"), std::string("amd/milan.crl.old"),
        std::string("amd/Genoa.crl"), std::string("tdx/B0C06F000000/x"),
        std::string("tdx/b0c06f0000/x"), std::string("tdx/notes"), In("tcb_info.json~"),
        In("extra")}) {
    const CollateralFolder folder;
    Fill(folder);
    folder.Write(name, std::string("x"));
    const std::string shown = name.ends_with("/x") ? name.substr(0, name.size() - 2) : name;
    Refused(folder, Code::kInvalidArgument, shown, "is not known");
  }
  const CollateralFolder folder;
  Fill(folder);
  folder.Write("amd/\x1b[2J", std::string("x"));
  Refused(folder, Code::kInvalidArgument, "amd/?[2J", "is not known");
}

TEST(CollateralFiles, WhatIsNotOfItsFormatIsNamed) {
  for (const std::string& name :
       {std::string("amd/genoa.crl"), In("tcb_info.json"), In("tcb_info.sig.hex"),
        In("tcb_info_issuer_chain.pem"), In("qe_identity.json"), In("qe_identity.sig.hex"),
        In("qe_identity_issuer_chain.pem"), In("root_ca_crl.der"), In("pck_crl.der")}) {
    const CollateralFolder folder;
    Fill(folder);
    folder.Write(name, std::string("not this"));
    Refused(folder, Code::kCorrupt, name, "");
  }
}

TEST(CollateralFiles, APlatformsFolderBearsItsName) {
  const CollateralFolder folder;
  folder.AddTdx("b0c06f000001", "v4_uptodate");
  Refused(folder, Code::kCorrupt, "tdx/b0c06f000001/tcb_info.json",
          "is of FMSPC b0c06f000000, its folder of b0c06f000001");
}

TEST(CollateralFiles, SizesAreBounded) {
  const CollateralFolder folder;
  Fill(folder);
  folder.Write("amd/milan.crl", std::string(kMaxCollateralFileBytes + 1, 'x'));
  const Status status = LoadCollateral(folder.path()).status();
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("amd/milan.crl"));
  folder.Remove("amd/milan.crl");
  for (size_t i = 0; i <= kMaxCollateralPlatforms; ++i) {
    folder.Write("tdx/" + std::to_string(100000 + i) + "000000/x", std::string("x"));
  }
  Refused(folder, Code::kInvalidArgument, "tdx", "holds too much");
}

TEST(CollateralFiles, SaysWhenEachMustBeRenewedTheSoonestFirst) {
  const CollateralFolder folder;
  Fill(folder);
  const auto expiries = ExpiryOf(*LoadCollateral(folder.path()));
  ASSERT_TRUE(expiries.ok()) << expiries.status().ToString();
  ASSERT_EQ(expiries->size(), 7u);
  std::vector<std::string> files;
  for (size_t i = 0; i < expiries->size(); ++i) {
    files.push_back((*expiries)[i].file);
    if (i > 0) {
      EXPECT_LE((*expiries)[i - 1].next_update, (*expiries)[i].next_update);
    }
  }
  EXPECT_THAT(files, testing::UnorderedElementsAre(
                         "amd/genoa.crl", In("tcb_info.json"), In("tcb_info_issuer_chain.pem"),
                         In("qe_identity.json"), In("qe_identity_issuer_chain.pem"),
                         In("root_ca_crl.der"), In("pck_crl.der")));
  for (const CollateralExpiry& expiry : *expiries) {
    if (expiry.file == "amd/genoa.crl") {
      EXPECT_EQ(expiry.next_update, kNext);
      EXPECT_EQ(expiry.what, "revocation list of ARK-Genoa");
    }
    if (expiry.file == In("tcb_info.json")) {
      EXPECT_EQ(expiry.what, "TCB info, evaluation 17");
    }
  }
  EXPECT_EQ(ExpiryOf(Collateral{})->size(), 0u);
  const Collateral broken{.amd = {}, .tdx = {{Fmspc{}, {}}}};
  EXPECT_EQ(ExpiryOf(broken).status().code(), Code::kCorrupt);
}

}  // namespace
}  // namespace talaria::attest
