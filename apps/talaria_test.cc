// The program as its users meet it: exit codes, messages, settings. Runs the binary against a fake
// CVM in this process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/talaria_testing.h"
#include "talaria/attest/policy_file.h"
#include "talaria/client/testing/fake_cvm.h"
#include "talaria/tenant/revocations.h"
#include "talaria/tenant/token.h"

namespace talaria {
namespace {

using client::testing::FakeCvm;
using client::testing::FakeCvmOptions;
using client::testing::FakeExchange;
using ::testing::AllOf;
using ::testing::HasSubstr;

class TalariaTest : public ProgramTest {
 protected:
  TalariaTest() : ProgramTest("talaria") {
    WriteFile("policy.toml", attest::WritePolicy(client::testing::GoodPolicy(), {}));
  }
  void StartCvm(FakeCvmOptions options = {}) {
    cvm_.reset();
    cvm_.emplace("unix:" + folder_ + "/cvm", std::move(options));
  }

  std::optional<FakeCvm> cvm_;
};

const char kPeer[] = " unix:cvm --policy policy.toml --insecure-simulated-tee ";

TEST_F(TalariaTest, HelpAndVersion) {
  const Outcome help = Run("--help");
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.out, AllOf(HasSubstr("verify"), HasSubstr("proxy"), HasSubstr("Exit codes")));
  for (const char* command : {"verify", "proxy", "chat"}) {
    const Outcome one = Run(std::string(command) + " --help");
    EXPECT_EQ(one.code, 0);
    EXPECT_THAT(one.out,
                AllOf(HasSubstr("--policy"), HasSubstr("TALARIA_POLICY"), HasSubstr("Example")));
  }
  EXPECT_THAT(Run("--version").out, HasSubstr("simulated TEE"));
}

TEST_F(TalariaTest, WrongUsageIsCode2) {
  EXPECT_EQ(Run("").code, 2);
  EXPECT_EQ(Run("cook").code, 2);
  EXPECT_EQ(Run("verify").code, 2);
  EXPECT_THAT(Run("verify unix:cvm").err, HasSubstr("--policy"));
  EXPECT_EQ(Run("verify unix:cvm --policy missing.toml").code, 2);
  EXPECT_EQ(Run("verify http://cvm:1 --policy policy.toml").code, 2);
  EXPECT_EQ(Run("proxy unix:cvm --policy policy.toml").code, 2);
  EXPECT_EQ(Run("proxy unix:cvm --policy policy.toml --listen 0.0.0.0:0").code, 2);
  WriteFile("bad.toml", "max_age = 1\n");
  EXPECT_EQ(Run("verify unix:cvm --policy bad.toml").code, 2);
}

TEST_F(TalariaTest, SettingsComeFromFlagsThenVariablesThenTheFile) {
  WriteFile("settings.toml",
            "[proxy]\nurl = \"unix:file\"\npolicy = \"file.toml\"\nlisten = \"unix:file\"\nwait = "
            "5\n");
  const Outcome all = Run(
      "TALARIA_POLICY=variable.toml TALARIA_LISTEN=unix:variable {} --config settings.toml proxy "
      "--listen unix:flag --check-config");
  EXPECT_EQ(all.code, 0) << all.err;
  EXPECT_THAT(all.out, AllOf(HasSubstr("url = unix:file\n"), HasSubstr("policy = variable.toml\n"),
                             HasSubstr("listen = unix:flag\n"), HasSubstr("wait = 5\n")));
  WriteFile("insecure.toml", "[proxy]\ninsecure-simulated-tee = true\n");
  const Outcome insecure =
      Run("--config insecure.toml proxy" + std::string(kPeer) + "--listen unix:p");
  EXPECT_EQ(insecure.code, 2);
  EXPECT_THAT(insecure.err, HasSubstr("only be given on the command line"));
}

TEST_F(TalariaTest, VerifyTrusts) {
  StartCvm();
  const Outcome text = Run(std::string("verify") + kPeer);
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_THAT(text.out,
              AllOf(HasSubstr("DEVELOPMENT ONLY"), HasSubstr("model identity"),
                    HasSubstr(ToHex(client::testing::GoodContext().model_identity)),
                    HasSubstr("key exchange"), HasSubstr("check vectors"), HasSubstr("valid until"),
                    HasSubstr("evidence digest"), HasSubstr("revocation")));
  const Outcome json = Run(std::string("verify --json --save-claim claim") + kPeer);
  ASSERT_EQ(json.code, 0) << json.err;
  const auto verdict = nlohmann::json::parse(json.out);
  EXPECT_TRUE(verdict["trusted"].get<bool>());
  EXPECT_EQ(verdict["evidence"], "simulated");
  EXPECT_EQ(verdict["cvm_key"], ToHex(cvm_->key()));
  const Outcome draft = Run("policy init --from-evidence claim --out draft.toml");
  EXPECT_EQ(draft.code, 0) << draft.err;
  const Outcome check = Run("policy check draft.toml");
  EXPECT_EQ(check.code, 2);
  EXPECT_THAT(check.err, HasSubstr("unconfirmed"));
}

TEST_F(TalariaTest, VerifyRefusesWithCode7AndAReason) {
  FakeCvmOptions options;
  options.tee.debug = true;
  StartCvm(std::move(options));
  const Outcome text = Run(std::string("verify") + kPeer);
  EXPECT_EQ(text.code, 7);
  EXPECT_THAT(text.out, AllOf(HasSubstr("NOT TRUSTED"), HasSubstr("snp-debug: found"),
                              HasSubstr("wanted no DEBUG")));
  const Outcome json = Run(std::string("verify --json") + kPeer);
  EXPECT_EQ(json.code, 7);
  const auto verdict = nlohmann::json::parse(json.out);
  EXPECT_FALSE(verdict["trusted"].get<bool>());
  EXPECT_EQ(verdict["reason"], "snp-debug");
  StartCvm();
  const Outcome without = Run("verify unix:cvm --policy policy.toml");
  EXPECT_EQ(without.code, 7);
  EXPECT_THAT(without.out, HasSubstr("simulated-not-accepted"));
  cvm_.reset();
  EXPECT_EQ(Run(std::string("verify") + kPeer).code, 5);
}

TEST_F(TalariaTest, ProxyOfAnUntrustedCvmIsCode7) {
  FakeCvmOptions options;
  options.tee.measurement[0] ^= 1;
  StartCvm(std::move(options));
  const Outcome proxy = Run(std::string("proxy --listen unix:proxy") + kPeer);
  EXPECT_EQ(proxy.code, 7);
  EXPECT_THAT(proxy.err, HasSubstr("snp-measurement"));
}

TEST_F(TalariaTest, ReceiptsWantAFolderBeforeAnythingIsSent) {
  StartCvm();
  for (const char* command : {"proxy --listen unix:proxy.sock", "chat </dev/null"}) {
    const Outcome outcome =
        Run("{} " + std::string(command) + " " + cvm_->address() +
            " --policy policy.toml --insecure-simulated-tee --receipts no/such");
    EXPECT_EQ(outcome.code, 1) << command;
    EXPECT_THAT(outcome.err, HasSubstr("no/such: No such file or directory")) << command;
    EXPECT_EQ(cvm_->attestations(), 0) << command;
  }
}

TEST_F(TalariaTest, ProxyServesUntilTheSignal) {
  StartCvm();
  // The shell's child is the program itself, so $! is its process.
  const Outcome proxy =
      Run(std::string("{} proxy --listen unix:proxy") + kPeer +
          "& pid=$!; for i in $(seq 200); do [ -S proxy ] && break; sleep 0.05; done; sleep 0.5; "
          "kill -TERM $pid; wait $pid");
  EXPECT_EQ(proxy.code, 0) << proxy.err;
  EXPECT_THAT(proxy.err,
              AllOf(HasSubstr("listening"), HasSubstr("DEVELOPMENT ONLY"), HasSubstr("stopping")));
  EXPECT_NE(access((folder_ + "/proxy").c_str(), F_OK), 0);
}

TEST_F(TalariaTest, ChatAnswersLinesOfStandardInput) {
  FakeCvmOptions options;
  options.answer = [](FakeExchange& exchange) {
    EXPECT_EQ(exchange.headers.at("authorization"), "Bearer tlr1_x");
    exchange.Head(200, "text/event-stream");
    exchange.Piece("data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n");
    exchange.Piece("data: [DONE]\n\n");
    exchange.End();
  };
  StartCvm(std::move(options));
  WriteFile("token", "tlr1_x\n");
  const Outcome chat =
      Run("printf 'Hi\\n/verdict\\n/clear\\nAgain\\n' | {} chat --token-file token" +
          std::string(kPeer));
  EXPECT_EQ(chat.code, 0) << chat.err;
  EXPECT_EQ(chat.out, "Hello\nHello\n");
  EXPECT_THAT(chat.err, AllOf(HasSubstr("verified"), HasSubstr("begins anew")));
  EXPECT_EQ(cvm_->requests(), 2);
  FakeCvmOptions lying;
  lying.tee.debug = true;
  StartCvm(std::move(lying));
  EXPECT_EQ(Run("echo Hi | {} chat" + std::string(kPeer)).code, 7);
  EXPECT_EQ(cvm_->requests(), 0);
}

TEST_F(TalariaTest, PoliciesAreCheckedAndExplained) {
  const Outcome check = Run("policy check policy.toml");
  EXPECT_EQ(check.code, 0) << check.err;
  EXPECT_THAT(check.out, HasSubstr("digest"));
  EXPECT_THAT(Run("policy explain policy.toml").out, HasSubstr("PROTECTS NOTHING"));
  const std::string h32 = std::string(64, '1'), h48 = std::string(96, '4');
  const Outcome init = Run("policy init --type simulated --measurement " + h48 + " --model " + h32 +
                           " --configuration " + h32 + " --tenant-key " + h32 + " --out p.toml");
  EXPECT_EQ(init.code, 0) << init.err;
  EXPECT_EQ(Run("policy check p.toml").code, 0);
  EXPECT_EQ(Run("policy init --type simulated --measurement 44").code, 2);
  EXPECT_EQ(Run("policy init --type other --measurement " + h48).code, 2);
}

TEST_F(TalariaTest, ImagesAndKeys) {
  WriteFile("image", "abc");
  const Outcome measure = Run("image measure image");
  EXPECT_EQ(measure.out,
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed"
            "8086072ba1e7cc2358baeca134c825a7\n");
  EXPECT_THAT(measure.err, HasSubstr("not what SEV-SNP or TDX measure"));
  const Outcome key = Run("key init client.pem");
  EXPECT_EQ(key.code, 0);
  EXPECT_THAT(key.out, HasSubstr("PUBLIC KEY"));
  StartCvm({.ask_for_client_key = true});
  EXPECT_EQ(Run("verify --client-key client.pem" + std::string(kPeer)).code, 0);
}

TEST_F(TalariaTest, TenantsIssueAndRevoke) {
  const Outcome init = Run("tenant init tenant.pem");
  ASSERT_EQ(init.code, 0) << init.err;
  tenant::PublicKey key;
  ASSERT_TRUE(FromHex(init.out.substr(0, 64), key));
  EXPECT_NE(Run("tenant init tenant.pem").code, 0);  // never over an old key

  WriteFile("client.pub", Run("key init client.pem").out);
  const Outcome issue =
      Run("tenant issue --key tenant.pem --user alice --days 2 --unlimited-tokens "
          "--concurrent-requests 3 --client-public-key client.pub");
  ASSERT_EQ(issue.code, 0) << issue.err;
  const auto token = tenant::VerifyToken(issue.out.substr(0, issue.out.size() - 1), key);
  ASSERT_TRUE(token.ok()) << token.status().ToString();
  EXPECT_EQ(token->user, "alice");
  EXPECT_EQ(token->tokens_per_day, tenant::kUnlimitedTokens);
  EXPECT_EQ(token->concurrent_requests, 3);
  EXPECT_EQ(token->expires - token->not_before, 2 * 86'400 + 300);
  EXPECT_EQ(token->client_key, wire::SpkiDigestFromPemFile(folder_ + "/client.pub").value());
  EXPECT_THAT(issue.err, HasSubstr(ToHex(Bytes(token->id))));

  const std::string id = ToHex(Bytes(token->id)), other = std::string(32, '0');
  ASSERT_EQ(Run("tenant revoke --key tenant.pem --list list.json " + id).code, 0);
  ASSERT_EQ(Run("tenant revoke --key tenant.pem --list list.json " + other).code, 0);
  const auto json = nlohmann::json::parse(Slurp(folder_ + "/list.json"));
  const std::string hex = json["list"];
  std::vector<uint8_t> bytes(hex.size() / 2);
  ASSERT_TRUE(FromHex(hex, bytes));
  const auto list = tenant::VerifyRevocations(bytes, key);
  ASSERT_TRUE(list.ok());
  EXPECT_EQ(list->version, 2u);
  EXPECT_EQ(list->ids.size(), 2u);
  EXPECT_TRUE(list->Contains(token->id));
  // Somebody else's list is not carried on.
  ASSERT_EQ(Run("tenant init other.pem").code, 0);
  EXPECT_EQ(Run("tenant revoke --key other.pem --list list.json " + id).code, 7);
  EXPECT_EQ(Run("tenant revoke --key tenant.pem --list list.json xyz").code, 2);
}

}  // namespace
}  // namespace talaria
