// The program as its users meet it: exit codes, messages, settings. Runs the binary.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "apps/talaria_testing.h"
#include "talaria/model/testing/small_store.h"

namespace talaria {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class TalariaCloudTest : public ProgramTest {
 protected:
  TalariaCloudTest() : ProgramTest("talaria-cloud") {}
  void WriteStore() const {
    ASSERT_TRUE(model::testing::WriteSmallStore(folder_ + "/store", 1).ok());
  }
};

TEST_F(TalariaCloudTest, HelpAndVersion) {
  const Outcome help = Run("--help");
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.out,
              AllOf(HasSubstr("provision"), HasSubstr("verify"), HasSubstr("Exit codes")));
  const Outcome provision = Run("provision --help");
  EXPECT_EQ(provision.code, 0);
  EXPECT_THAT(provision.out, AllOf(HasSubstr("--keep-local"), HasSubstr("TALARIA_THREADS"),
                                   HasSubstr("Examples")));
  const Outcome version = Run("--version");
  EXPECT_EQ(version.code, 0);
#ifdef TALARIA_SIMULATED_TEE
  EXPECT_THAT(version.out, HasSubstr("simulated TEE"));
#else
  EXPECT_EQ(version.out.find("simulated"), std::string::npos);
#endif
}

TEST_F(TalariaCloudTest, WrongUsageIsCode2) {
  EXPECT_EQ(Run("").code, 2);
  EXPECT_EQ(Run("cook").code, 2);
  EXPECT_EQ(Run("provision").code, 2);
  EXPECT_EQ(Run("provision a.gguf b --threads 0").code, 2);
  EXPECT_EQ(Run("provision a.gguf b --threads many").code, 2);
  EXPECT_EQ(Run("TALARIA_THREADS=many {} provision a.gguf b").code, 2);
  EXPECT_EQ(Run("inspect --wrong store").code, 2);
  const Outcome missing = Run("provision missing.gguf store");
  EXPECT_EQ(missing.code, 2);
  EXPECT_THAT(missing.err, HasSubstr("missing.gguf"));
  const Outcome no_store = Run("inspect .");
  EXPECT_EQ(no_store.code, 2);
  EXPECT_THAT(no_store.err, HasSubstr("is not a store"));
}

TEST_F(TalariaCloudTest, RefusedInputIsCode3) {
  WriteFile("model.gguf", "not a model, but long enough to look at");
  const Outcome garbage = Run("provision model.gguf store");
  EXPECT_EQ(garbage.code, 3);
  EXPECT_THAT(garbage.err, HasSubstr("GGUF"));
  EXPECT_FALSE(fs::exists(folder_ + "/store"));
}

TEST_F(TalariaCloudTest, InspectsAndVerifies) {
  WriteStore();
  const Outcome text = Run("inspect store");
  EXPECT_EQ(text.code, 0);
  EXPECT_THAT(text.out, AllOf(HasSubstr("blk.0.ffn_down.weight"), HasSubstr("tied_head"),
                              HasSubstr("identity")));
  const Outcome inspected = Run("inspect store --json");
  ASSERT_EQ(inspected.code, 0);
  const auto json = nlohmann::json::parse(inspected.out);
  EXPECT_EQ(json["manifest"]["groups"].size(), 3u);
  const Outcome verified = Run("verify store --json");
  ASSERT_EQ(verified.code, 0);
  EXPECT_EQ(nlohmann::json::parse(verified.out)["identity"], json["identity"]);
  // One bit.
  std::fstream hints(folder_ + "/store/hints.bin", std::ios::in | std::ios::out | std::ios::binary);
  hints.seekg(500);
  const int byte = hints.get();
  hints.seekp(500);
  hints.put(static_cast<char>(byte ^ 4));
  hints.close();
  const Outcome damaged = Run("verify store");
  EXPECT_EQ(damaged.code, 3);
  EXPECT_THAT(damaged.err, AllOf(HasSubstr("hints.bin"), HasSubstr("attn_q")));
}

TEST_F(TalariaCloudTest, FlagGoesBeforeVariableBeforeFile) {
  WriteFile("cloud.toml",
            "[serve]\nstore = \"from-file\"\nthreads = 3\nlisten = \"unix:file\"\nmax-connections "
            "= 5\n\n[provision]\nthreads = 9\n");
  const Outcome all =
      Run("TALARIA_THREADS=4 TALARIA_LISTEN=unix:variable {} --config cloud.toml serve "
          "--check-config --listen unix:flag");
  EXPECT_EQ(all.code, 0) << all.err;
  EXPECT_THAT(all.out, AllOf(HasSubstr("store = from-file"), HasSubstr("threads = 4"),
                             HasSubstr("listen = unix:flag"), HasSubstr("max-connections = 5")));
  const Outcome by_variable = Run("TALARIA_CONFIG=cloud.toml {} serve --check-config");
  EXPECT_THAT(by_variable.out, AllOf(HasSubstr("threads = 3"), HasSubstr("listen = unix:file")));
}

TEST_F(TalariaCloudTest, SettingsFileIsChecked) {
  const std::pair<const char*, const char*> cases[] = {
      {"[serve]\nthread = 3\n", "thread"},
      {"[server]\n", "server"},
      {"threads = 3\n", "threads"},
      {"[serve]\nthreads = 0\n", "threads"},
      {"[serve]\nthreads = 1.5\n", "threads"},
      {"[serve]\ninsecure-simulated-tee = true\n", "command line"},
      {"[serve]\ninsecure-plaintext = true\n", "command line"},
      {"[serve\n", "cloud.toml"},
  };
  for (const auto& [text, expected] : cases) {
    WriteFile("cloud.toml", text);
    const Outcome outcome = Run("--config cloud.toml serve --check-config");
    EXPECT_EQ(outcome.code, 2) << text;
    EXPECT_THAT(outcome.err, HasSubstr(expected));
  }
  EXPECT_EQ(Run("--config none.toml serve --check-config").code, 2);
}

TEST_F(TalariaCloudTest, ServesNothingWithoutAttestation) {
  WriteStore();
  const Outcome refused = Run("serve store --listen unix:socket");
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("--policy"));
  const Outcome plain = Run("serve store --listen unix:socket --insecure-plaintext");
  EXPECT_EQ(plain.code, 2);
  EXPECT_THAT(plain.err, HasSubstr("--insecure-simulated-tee"));
  EXPECT_FALSE(fs::exists(folder_ + "/socket"));
  EXPECT_EQ(Run("serve store").code, 2);
  EXPECT_EQ(Run("serve --listen unix:socket --insecure-simulated-tee").code, 2);
}

TEST_F(TalariaCloudTest, ListsDevicesAndMeasuresThem) {
  const std::string no_gpu = "TALARIA_CUDA_LIBRARY=/nonexistent.so {} ";
  const Outcome text = Run(no_gpu + "devices");
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_THAT(text.out,
              AllOf(HasSubstr("cpu ("), HasSubstr("no GPU: "), HasSubstr("/nonexistent")));
  EXPECT_EQ(text.out.find("256 rows"), std::string::npos);

  WriteStore();
  const Outcome measured = Run(no_gpu + "devices store --threads 1");
  EXPECT_EQ(measured.code, 0) << measured.err;
  EXPECT_THAT(measured.out, AllOf(HasSubstr("1 threads"), HasSubstr("16 rows")));
  const Outcome json = Run(no_gpu + "devices store --json");
  const auto parsed = nlohmann::json::parse(json.out, nullptr, false);
  ASSERT_TRUE(parsed.is_object()) << json.out;
  ASSERT_EQ(parsed["devices"].size(), 1u);
  EXPECT_EQ(parsed["devices"][0]["device"], "cpu");
  EXPECT_EQ(parsed["devices"][0]["usable"], true);
  EXPECT_EQ(parsed["devices"][0]["passes"][2]["rows"], 256);
  EXPECT_GT(parsed["devices"][0]["passes"][2]["seconds"], 0.0);
  EXPECT_THAT(parsed["no_gpu"].get<std::string>(), HasSubstr("/nonexistent"));

  EXPECT_EQ(Run("devices nowhere").code, 2);
  EXPECT_EQ(Run("devices --threads 0").code, 2);
}

TEST_F(TalariaCloudTest, KeyIsMadeOnceAndShown) {
  const Outcome made = Run("key provider.pem");
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_THAT(made.out, HasSubstr("provider_key = \""));
  EXPECT_THAT(made.err, HasSubstr("made a new key"));
  EXPECT_EQ(fs::status(folder_ + "/provider.pem").permissions(), fs::perms(0600));
  const Outcome again = Run("key provider.pem");
  EXPECT_EQ(again.out, made.out);
  EXPECT_EQ(again.err.find("made"), std::string::npos);
  fs::permissions(folder_ + "/provider.pem", fs::perms(0644));
  EXPECT_EQ(Run("key provider.pem").code, 2);
}

#ifdef TALARIA_SIMULATED_TEE
TEST_F(TalariaCloudTest, ServesUntilASignal) {
  WriteStore();
  EXPECT_NE(
      Run("serve store --listen 0.0.0.0:0 --insecure-simulated-tee --insecure-plaintext").code,
      0);  // local addresses only
  for (const int signal_number : {SIGINT, SIGTERM}) {
    fs::remove(folder_ + "/err");
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      if (chdir(folder_.c_str()) != 0 || std::freopen("err", "w", stderr) == nullptr) _exit(99);
      execl(program_.c_str(), "talaria-cloud", "serve", "store", "--listen", "unix:socket",
            "--insecure-simulated-tee", "--insecure-plaintext", nullptr);
      _exit(99);
    }
    for (int i = 0; i < 600 && Slurp(folder_ + "/err").find("serving") == std::string::npos; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    kill(child, signal_number);
    int state = 0;
    waitpid(child, &state, 0);
    EXPECT_TRUE(WIFEXITED(state) && WEXITSTATUS(state) == 0) << state << Slurp(folder_ + "/err");
    EXPECT_THAT(Slurp(folder_ + "/err"), HasSubstr("PLAINTEXT"));
  }
}
#endif

}  // namespace
}  // namespace talaria
