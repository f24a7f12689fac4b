#include "talaria/cvm/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

namespace talaria::cvm {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

const std::string kIdentity(64, 'a'), kProvider(64, 'b'), kTenant(64, 'c');

std::string Minimal() {
  return "[tenant]\nkey = \"" + kTenant +
         "\"\n[cloud]\nendpoint = \"unix:/run/cloud.sock\"\nprovider_key = \"" + kProvider +
         "\"\n[model]\nidentity = \"" + kIdentity + "\"\n[server]\nlisten = \"127.0.0.1:8080\"\n";
}

// Neither TLS nor evidence on either side.
const char kPlaintext[] =
    "[cloud]\nendpoint = \"unix:/c\"\nplaintext = true\n"
    "[model]\nidentity = \"any\"\n[server]\nlisten = \"unix:/l\"\nplaintext = true\n";

std::string ErrorOf(const std::string& text, bool simulated_tee = true) {
  const auto config = ParseConfig(text, "cvm.toml", simulated_tee);
  if (config.ok()) return "accepted";
  EXPECT_EQ(config.status().code(), Code::kInvalidArgument);
  return config.status().message();
}

TEST(ConfigTest, MinimalFileGetsTheDefaults) {
  const auto config = ParseConfig(Minimal(), "cvm.toml", false);
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->cloud_endpoint, "unix:/run/cloud.sock");
  EXPECT_EQ(config->listen, "127.0.0.1:8080");
  EXPECT_EQ(config->provider_key, kProvider);
  EXPECT_EQ(config->tenant_key, kTenant);
  EXPECT_FALSE(config->cloud_plaintext || config->server_plaintext);
  EXPECT_EQ(config->report_folder, "/sys/kernel/config/tsm/report");
  EXPECT_EQ(config->identity, kIdentity);
  EXPECT_EQ(config->check_vectors, 2);
  EXPECT_EQ(config->context, 4096u);
  EXPECT_EQ(config->slots, 1);
  EXPECT_EQ(config->max_body_bytes, 8u << 20);
  EXPECT_EQ(config->prompt_cache_user, "");
  EXPECT_EQ(config->pool_bytes, 0u);
  EXPECT_EQ(config->digest, Sha256Of(AsBytes(Minimal())));
}

TEST(ConfigTest, ReadsEveryKey) {
  const auto config = ParseConfig(R"(
[cloud]
endpoint = "[::1]:9000"
plaintext = true
idle_timeout_ms = 1500
max_retries = 0
[model]
identity = "any"
check_vectors = 1
[server]
listen = "unix:/tmp/front.sock"
plaintext = true
context = 8192
slots = 4
threads = 3
max_body_bytes = "2 MiB"
prompt_cache_user = "ada"
[tenant]
key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
[tee]
report_folder = "/tmp/tsm"
[masks]
pool_bytes = "3GiB"
fill_threads = 2
[engine]
llama_server = "/opt/bin/llama-server"
plugin = "/opt/lib/libggml-talaria.so"
run_dir = "/run/talaria"
)",
                                  "cvm.toml", true);
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->cloud_endpoint, "[::1]:9000");
  EXPECT_TRUE(config->cloud_plaintext && config->server_plaintext);
  EXPECT_TRUE(config->tenant_key.starts_with("0123456789"));
  EXPECT_EQ(config->report_folder, "/tmp/tsm");
  EXPECT_EQ(config->idle_timeout_ms, 1500);
  EXPECT_EQ(config->max_retries, 0);
  EXPECT_EQ(config->identity, "any");
  EXPECT_EQ(config->check_vectors, 1);
  EXPECT_EQ(config->listen, "unix:/tmp/front.sock");
  EXPECT_EQ(config->context, 8192u);
  EXPECT_EQ(config->slots, 4);
  EXPECT_EQ(config->threads, 3);
  EXPECT_EQ(config->max_body_bytes, 2u << 20);
  EXPECT_EQ(config->prompt_cache_user, "ada");
  EXPECT_EQ(config->pool_bytes, uint64_t{3} << 30);
  EXPECT_EQ(config->fill_threads, 2);
  EXPECT_EQ(config->llama_server, "/opt/bin/llama-server");
  EXPECT_EQ(config->plugin, "/opt/lib/libggml-talaria.so");
  EXPECT_EQ(config->run_dir, "/run/talaria");
}

TEST(ConfigTest, MissingMandatoryKeysAreNamed) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("cloud.endpoint is missing"));
  const std::string cloud = "[cloud]\nendpoint = \"unix:/c\"\n";
  EXPECT_THAT(ErrorOf(cloud), HasSubstr("cloud.provider_key is missing"));
  const std::string pinned = cloud + "provider_key = \"" + kProvider + "\"\n";
  EXPECT_THAT(ErrorOf(pinned), HasSubstr("model.identity is missing"));
  const std::string model = pinned + "[model]\nidentity = \"" + kIdentity + "\"\n";
  EXPECT_THAT(ErrorOf(model + "[server]\nslots = 1\n"),
              HasSubstr("cvm.toml:6: server.listen is missing"));
  EXPECT_THAT(ErrorOf(model + "[server]\nlisten = \"unix:/l\"\n"),
              HasSubstr("tenant.key is missing"));
}

TEST(ConfigTest, UnknownKeysAndTablesAreRefusedWithTheirLine) {
  EXPECT_EQ(ErrorOf(Minimal() + "port = 3\n"), "cvm.toml:10: server.port is not known");
  EXPECT_EQ(ErrorOf(Minimal() + "[gpu]\nx = 1\n"), "cvm.toml:10: gpu is not known");
  EXPECT_EQ(ErrorOf("verbose = true\n" + Minimal()), "cvm.toml:1: verbose is not known");
  EXPECT_EQ(ErrorOf(Minimal() + "[masks]\npool_bytes = 1\n\n[masks.more]\n"),
            "cvm.toml:13: masks.more is not known");
}

TEST(ConfigTest, WrongTypesAreRefused) {
  EXPECT_EQ(ErrorOf(Minimal() + "context = \"4096\"\n"),
            "cvm.toml:10: server.context must be an integer");
  EXPECT_EQ(ErrorOf(Minimal() + "context = 4096.0\n"),
            "cvm.toml:10: server.context must be an integer");
  EXPECT_EQ(ErrorOf(Minimal() + "plaintext = 1\n"),
            "cvm.toml:10: server.plaintext must be true or false");
  for (const std::string& name : {std::string(65, 'a'), std::string("\\t")}) {
    EXPECT_EQ(ErrorOf(Minimal() + "prompt_cache_user = \"" + name + "\"\n"),
              "cvm.toml:10: server.prompt_cache_user must be a user's name: at most 64 printable "
              "characters");
  }
  EXPECT_EQ(ErrorOf(Minimal() + "[engine]\nplugin = 7\n"),
            "cvm.toml:11: engine.plugin must be a string");
  EXPECT_EQ(ErrorOf("cloud = 3\n"), "cvm.toml:1: cloud must be a table");
  EXPECT_THAT(ErrorOf("[[cloud]]\nendpoint = \"unix:/c\"\n"), HasSubstr("cloud must be a table"));
  EXPECT_THAT(ErrorOf(Minimal() + "[masks]\npool_bytes = []\n"),
              HasSubstr("masks.pool_bytes must be a number of bytes"));
}

TEST(ConfigTest, RangesAreChecked) {
  for (const char* line :
       {"slots = 0", "slots = 65", "slots = -1", "context = 63", "context = 9223372036854775807",
        "threads = 0", "max_body_bytes = 10", "max_body_bytes = \"1 TiB\""}) {
    EXPECT_THAT(ErrorOf(Minimal() + line + "\n"), HasSubstr("must be between")) << line;
  }
  EXPECT_THAT(ErrorOf(Minimal() + "context = 128\nslots = 4\n"),
              HasSubstr("server.slots leaves less than 64 tokens"));
  EXPECT_THAT(ErrorOf("[cloud]\nendpoint = \"unix:/c\"\nmax_retries = 11\nplaintext = true\n"),
              HasSubstr("cvm.toml:3: cloud.max_retries"));
  EXPECT_THAT(ErrorOf("[cloud]\nendpoint = \"unix:/c\"\nplaintext = true\n[model]\nidentity = "
                      "\"any\"\ncheck_vectors = 3\n"),
              HasSubstr("model.check_vectors must be between 1 and 2"));
}

TEST(ConfigTest, SizesTakeUnits) {
  const auto size = [](const std::string& text) {
    const auto config =
        ParseConfig(Minimal() + "[masks]\npool_bytes = " + text + "\n", "cvm.toml", true);
    return config.ok() ? static_cast<int64_t>(config->pool_bytes) : -1;
  };
  EXPECT_EQ(size("0"), 0);
  EXPECT_EQ(size("12345"), 12345);
  EXPECT_EQ(size("\"900 MiB\""), 900ll << 20);
  EXPECT_EQ(size("\"7KiB\""), 7ll << 10);
  EXPECT_EQ(size("\"64 B\""), 64);
  for (const char* bad : {"-1", "\"\"", "\"MiB\"", "\"1 MB\"", "\"1.5 GiB\"", "\"-1 GiB\"",
                          "\"1  GiB\"", "\"1 GiB \"", "\"12\"", "1.5", "\"99999999999999999999 B\"",
                          "\"18014398509481984 KiB\"", "\"2000 TiB\""}) {
    EXPECT_EQ(size(bad), -1) << bad;
  }
}

TEST(ConfigTest, PlaintextAndIdentityAnyNeedTheSimulatedTee) {
  EXPECT_EQ(ErrorOf(kPlaintext, true), "accepted");
  EXPECT_THAT(ErrorOf(kPlaintext, false),
              HasSubstr("cvm.toml:3: cloud.plaintext may be true only together with "
                        "--insecure-simulated-tee"));
  EXPECT_THAT(ErrorOf(Minimal() + "plaintext = true\n", false),
              HasSubstr("cvm.toml:10: server.plaintext may be true only"));
  std::string text = Minimal();
  text.replace(text.find(kIdentity), kIdentity.size(), "any");
  EXPECT_THAT(ErrorOf(text, true), HasSubstr("model.identity may be \"any\" only where both"));
  EXPECT_THAT(ErrorOf(text + "plaintext = true\n", true), HasSubstr("only where both"));
}

TEST(ConfigTest, KeysAndDigestsAreHexadecimal) {
  std::string text;
  for (const std::string& bad : {std::string(63, 'a'), std::string(65, 'a'), std::string(64, 'g'),
                                 std::string(64, 'A'), std::string()}) {
    text = Minimal();
    text.replace(text.find(kIdentity), kIdentity.size(), bad);
    EXPECT_THAT(ErrorOf(text), HasSubstr("model.identity must be 64 lower-case hexadecimal digits"))
        << bad;
    text = Minimal();
    text.replace(text.find(kProvider), kProvider.size(), bad);
    EXPECT_THAT(ErrorOf(text), HasSubstr("cloud.provider_key must be 64 lower-case")) << bad;
    text = Minimal();
    text.replace(text.find(kTenant), kTenant.size(), bad);
    EXPECT_THAT(ErrorOf(text), HasSubstr("tenant.key must be 64 lower-case")) << bad;
  }
}

TEST(ConfigTest, EndpointsMustBeLocalWithTheSimulatedTee) {
  for (const char* remote :
       {"10.1.2.3:80", "0.0.0.0:8080", "example.org:443", "[2001:db8::1]:80"}) {
    std::string text = Minimal();
    text.replace(text.find("127.0.0.1:8080"), 14, remote);
    EXPECT_THAT(ErrorOf(text), HasSubstr("cvm.toml:9: server.listen must be a Unix socket"))
        << remote;
    EXPECT_EQ(ErrorOf(text, false), "accepted") << remote;
  }
  std::string text = Minimal();
  text.replace(text.find("127.0.0.1:8080"), 14, "nonsense");
  EXPECT_THAT(ErrorOf(text), HasSubstr("server.listen is not an endpoint"));
}

TEST(ConfigTest, PathsMustBeAbsolute) {
  EXPECT_THAT(ErrorOf(Minimal() + "[engine]\nrun_dir = \"run\"\n"),
              HasSubstr("cvm.toml:11: engine.run_dir must be an absolute path"));
  EXPECT_THAT(ErrorOf(Minimal() + "[engine]\nplugin = \"/a\\u0000b\"\n"), HasSubstr("holds a NUL"));
}

TEST(ConfigTest, BrokenTomlIsAnErrorWithItsLine) {
  EXPECT_THAT(ErrorOf("[cloud]\nendpoint = \n"), StartsWith("cvm.toml:2: "));
  EXPECT_THAT(ErrorOf("[cloud]\nendpoint = \"a\"\nendpoint = \"b\"\n"), StartsWith("cvm.toml:3: "));
  EXPECT_THAT(ErrorOf(Minimal() + "[server]\n"), StartsWith("cvm.toml:10: "));
  EXPECT_THAT(ErrorOf(std::string("\xff\xfe\x00", 3)), StartsWith("cvm.toml:"));
  EXPECT_THAT(ErrorOf("a = " + std::string(100000, '[')), StartsWith("cvm.toml:1: "));
}

TEST(ConfigTest, LoadsAFile) {
  EXPECT_EQ(LoadConfig("/nonexistent/cvm.toml", true).status().code(), Code::kNotFound);
  const std::string path =
      ::testing::TempDir() + "/talaria_config_test_" + std::to_string(getpid()) + ".toml";
  std::ofstream(path) << Minimal();
  const auto config = LoadConfig(path, true);
  unlink(path.c_str());
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->digest, Sha256Of(AsBytes(Minimal())));
}

// doc/cvm.example.toml is what people start from: it must load, and every key must be in it.
TEST(ConfigTest, TheExampleLoads) {
  const std::string path = TALARIA_EXAMPLE_CONFIG;
  const auto config = LoadConfig(path, false);
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  for (const char* key : {"endpoint",    "provider_key",   "plaintext",
                          "key",         "report_folder",  "idle_timeout_ms",
                          "max_retries", "identity",       "check_vectors",
                          "listen",      "context",        "slots",
                          "threads",     "max_body_bytes", "prompt_cache_user",
                          "pool_bytes",  "fill_threads",   "llama_server",
                          "plugin",      "run_dir"}) {
    EXPECT_THAT(text.str(), HasSubstr(std::string(key) + " = ")) << key;
  }
}

}  // namespace
}  // namespace talaria::cvm
