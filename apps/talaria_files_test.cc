// The program's files: collateral that it fetches, and releases of a builder.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <filesystem>

#include "apps/talaria_testing.h"
#include "talaria/attest/claim.h"
#include "talaria/attest/policy_file.h"
#include "talaria/attest/testing/snp_authority.h"
#include "talaria/client/testing/fake_cvm.h"
#include "talaria/client/testing/pcs.h"

namespace talaria {
namespace {

using client::testing::HttpsServer;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class FilesTest : public ProgramTest {
 protected:
  FilesTest() : ProgramTest("talaria") {}
};

// Against a server of our own with genuine collateral of July 2025, by a clock of that time.
class CollateralProgramTest : public ProgramTest {
 protected:
  CollateralProgramTest() : ProgramTest("talaria") {
    WriteFile("server.pem", server_.certificate_pem());
  }
  Outcome Fetch(const std::string& arguments) const {
    constexpr int64_t kJuly2025 = 1751328000;
    const std::string clock =
        std::string(std::getenv("TALARIA_BUILD_DIR")) + "/tests/libtalaria_test_clock.so";
    return Run("SSL_CERT_FILE=server.pem SSL_CERT_DIR=none LD_PRELOAD='" + clock +
               "' TALARIA_TEST_CLOCK_SHIFT_S=" + std::to_string(kJuly2025 - std::time(nullptr)) +
               " {} collateral fetch " + arguments + " --kds " + server_.url() + " --pccs " +
               server_.url() + "/");
  }
  HttpsServer server_;
};

// A preloaded library does not go with sanitizers.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_F(CollateralProgramTest, FetchesRenewsAndRefuses) {
  client::testing::Pcs pcs = client::testing::PcsOf("v4_uptodate", "B0C06F000000");
  ServePcs(server_, pcs);
  const attest::Claim claim{client::testing::GoodContext(),
                            {attest::EvidenceType::kTdx, attest::TdxVector("v4_uptodate"), {}}};
  WriteFile("claim", ToHex(Bytes(Encode(claim))));
  const Outcome first = Fetch("c --evidence claim");
  EXPECT_EQ(first.code, 0) << first.err;
  EXPECT_THAT(first.out, AllOf(HasSubstr("new        tdx/b0c06f000000"),
                               HasSubstr("2025-07-19 10:16:03 UTC")));
  EXPECT_EQ(Run("collateral show c").code, 0);
  const Outcome again = Fetch("c");
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("unchanged  tdx/b0c06f000000"));

  // Somebody else's list is not AMD's; what else was asked for is done all the same.
  const auto authority = attest::SnpAuthority::Create({.product = attest::SnpProduct::kGenoa});
  server_.Serve("/vcek/v1/Genoa/crl",
                client::testing::WholeAnswer(client::testing::Text(
                    authority->MakeCrl(1751328000 - 60, 1751328000 + 86'400, {}))));
  const Outcome forged = Fetch("c --product Genoa --fmspc B0C06F000000");
  EXPECT_EQ(forged.code, 7);
  EXPECT_THAT(forged.err, AllOf(HasSubstr("amd/genoa.crl: crl-invalid"), HasSubstr("1 of 2")));
  EXPECT_THAT(forged.out, HasSubstr("unchanged  tdx/b0c06f000000"));
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/c/amd/genoa.crl"));
  EXPECT_EQ(Fetch("c --product Milan").code, 2);  // 404
  EXPECT_EQ(Run("collateral show c").code, 0);

  pcs.files.tcb_info[100] ^= 1;
  ServePcs(server_, pcs);
  const Outcome changed = Fetch("c");
  EXPECT_EQ(changed.code, 7);
  EXPECT_THAT(changed.err, HasSubstr("the folder has what it had"));
  EXPECT_EQ(Fetch("none --fmspc b0c06f000001").code, 2);
}
#endif

TEST_F(CollateralProgramTest, WrongUsage) {
  EXPECT_THAT(Run("collateral fetch --help").out, AllOf(HasSubstr("--pccs"), HasSubstr("Example")));
  EXPECT_EQ(Run("collateral fetch").code, 2);
  const Outcome nothing = Run("collateral fetch c");
  EXPECT_EQ(nothing.code, 2);
  EXPECT_THAT(nothing.err, HasSubstr("--evidence"));
  EXPECT_EQ(Run("collateral fetch c --product Rome").code, 2);
  EXPECT_EQ(Run("collateral fetch c --fmspc 12").code, 2);
  EXPECT_EQ(Run("collateral fetch c --fmspc 000000000000 --pck-ca other").code, 2);
  EXPECT_EQ(Run("collateral fetch c --product Genoa --kds http://localhost").code, 2);
  // The server is not one that the system's certificates vouch for.
  const Outcome stranger = Run("collateral fetch c --product Genoa --kds " + server_.url());
  EXPECT_EQ(stranger.code, 5);
  EXPECT_THAT(stranger.err, HasSubstr("certificate"));
  EXPECT_TRUE(server_.heads().empty());
}

TEST_F(FilesTest, ABuildersReleaseMakesAPolicy) {
  const std::string h32(64, '1'), snp(96, '4'), tee(96, '7');
  const Outcome key = Run("release keygen builder.pem");
  ASSERT_EQ(key.code, 0) << key.err;
  WriteFile("builder.pub", key.out);
  EXPECT_NE(Run("release keygen builder.pem").code, 0);  // never over an old key
  const Outcome sign =
      Run("release sign r.toml --key builder.pem --name image --version 1.2 "
          "--measurement " +
          snp + " --simulated " + tee);
  ASSERT_EQ(sign.code, 0) << sign.err;
  const Outcome verify = Run("release verify r.toml --builder-key builder.pub");
  EXPECT_EQ(verify.code, 0) << verify.err;
  EXPECT_THAT(verify.out, AllOf(HasSubstr("good"), HasSubstr("1.2"), HasSubstr(snp)));

  const std::string rest = " --model " + h32 + " --configuration " + h32 + " --tenant-key " + h32;
  const std::string from = " --release r.toml --builder-key builder.pub";
  const Outcome init = Run("policy init --type simulated" + from + rest + " --out p.toml");
  ASSERT_EQ(init.code, 0) << init.err;
  EXPECT_EQ(Run("policy check p.toml").code, 0);
  EXPECT_THAT(Slurp(folder_ + "/p.toml"), AllOf(HasSubstr(tee), HasSubstr("image 1.2")));
  const Outcome real = Run("policy init --type sev-snp" + from + rest);
  EXPECT_THAT(real.out, AllOf(HasSubstr(snp), Not(HasSubstr("\"sev_snp.measurements\""))));
  // The builder has signed nothing of TDX.
  const Outcome tdx = Run("policy init --type tdx" + from + rest);
  EXPECT_EQ(tdx.code, 2);
  EXPECT_THAT(tdx.err, HasSubstr("no measurements of TDX"));

  // Evidence does not say what the measurement must be: its own is not in the policy.
  client::testing::FakeCvm cvm("unix:" + folder_ + "/cvm", {});
  const Outcome seen = Run("policy init --from-evidence unix:cvm" + from);
  EXPECT_EQ(seen.code, 0) << seen.err;
  EXPECT_THAT(seen.out, AllOf(HasSubstr(tee), Not(HasSubstr("\"simulated.measurements\"")),
                              Not(HasSubstr(ToHex(client::testing::GoodTee().measurement)))));
}

TEST_F(FilesTest, ReleasesThatAreRefused) {
  const std::string value(96, '4');
  WriteFile("builder.pub", Run("release keygen builder.pem").out);
  WriteFile("other.pub", Run("release keygen other.pem").out);
  const std::string sign = "release sign r.toml --key builder.pem --name image ";
  ASSERT_EQ(Run(sign + "--version 1 --measurement " + value).code, 0);
  const Outcome other = Run("release verify r.toml --builder-key other.pub");
  EXPECT_EQ(other.code, 7);
  EXPECT_THAT(other.err, HasSubstr("release-signature"));
  const std::string good = Slurp(folder_ + "/r.toml");
  std::string changed = good;
  changed[changed.find("444")] = '5';
  WriteFile("r.toml", changed);
  EXPECT_EQ(Run("release verify r.toml --builder-key builder.pub").code, 7);
  const Outcome init = Run("policy init --type sev-snp --release r.toml --builder-key builder.pub");
  EXPECT_EQ(init.code, 7);
  EXPECT_EQ(init.out, "");
  WriteFile("r.toml", std::string(300'000, 'x'));
  EXPECT_EQ(Run("release verify r.toml --builder-key builder.pub").code, 4);
  EXPECT_EQ(Run("release verify none --builder-key builder.pub").code, 2);
  EXPECT_EQ(Run("release verify r.toml --builder-key builder.pem").code, 3);
  EXPECT_EQ(Run("release verify r.toml").code, 2);
  EXPECT_EQ(Run("policy init --type sev-snp --release r.toml").code, 2);
  // What is not signed.
  EXPECT_EQ(Run("release sign r2 --key builder.pem --name image --version 1").code, 2);
  EXPECT_EQ(Run("release sign r2 --key builder.pem --name image --version 1 --mrtd " + value).code,
            2);
  EXPECT_EQ(Run("release sign r2 --key builder.pem --name image --version 1 --measurement 44").code,
            2);
  EXPECT_EQ(
      Run("release sign r2 --key builder.pub --name i --version 1 --measurement " + value).code, 2);
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/r2"));
}

}  // namespace
}  // namespace talaria
