#include "talaria/cvm/service.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "talaria/cvm/gateway_testing.h"
#include "talaria/cvm/run_folder.h"

namespace talaria::cvm {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }
mode_t ModeOf(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 ? info.st_mode & 0777 : 0;
}

TEST(RunFolderTest, AFreshOneIsClosedToOthersAndRemoved) {
  std::string path;
  {
    auto folder = RunFolder::Create("");
    ASSERT_TRUE(folder.ok());
    path = folder->path();
    EXPECT_EQ(ModeOf(path), 0700u);
    const RunFolder moved = std::move(*folder);
    EXPECT_TRUE(Exists(path));
    close(creat(moved.engine_socket().c_str(), 0600));
  }
  EXPECT_FALSE(Exists(path));
}

TEST(RunFolderTest, ANamedOneIsMadeAndRemoved) {
  TempFolder parent;
  const std::string path = parent.path() + "/run";
  const mode_t before = umask(0);
  {
    const auto folder = RunFolder::Create(path);
    ASSERT_TRUE(folder.ok());
    EXPECT_EQ(ModeOf(path), 0700u);
  }
  umask(before);
  EXPECT_FALSE(Exists(path));
}

TEST(RunFolderTest, AnExistingOneIsTakenOnlyIfItIsClosedAndStays) {
  TempFolder parent;
  const std::string path = parent.path() + "/run";
  ASSERT_EQ(mkdir(path.c_str(), 0755), 0);
  ASSERT_EQ(chmod(path.c_str(), 0755), 0);
  EXPECT_EQ(RunFolder::Create(path).status().code(), Code::kInvalidArgument);
  ASSERT_EQ(chmod(path.c_str(), 0700), 0);
  close(creat((path + "/llama.sock").c_str(), 0600));  // left over
  {
    const auto folder = RunFolder::Create(path);
    ASSERT_TRUE(folder.ok()) << folder.status().ToString();
    EXPECT_FALSE(Exists(folder->engine_socket()));
  }
  EXPECT_TRUE(Exists(path));
  rmdir(path.c_str());
}

TEST(RunFolderTest, RefusesFilesLinksAndLongPaths) {
  TempFolder parent;
  const std::string file = parent.path() + "/file", link = parent.path() + "/link";
  close(creat(file.c_str(), 0600));
  ASSERT_EQ(symlink(parent.path().c_str(), link.c_str()), 0);
  EXPECT_EQ(RunFolder::Create(file).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(RunFolder::Create(link).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(RunFolder::Create("/tmp/" + std::string(120, 'x')).status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(RunFolder::Create("/nonexistent/talaria").status().code(), Code::kIo);
  unlink(file.c_str());
  unlink(link.c_str());
}

TEST(LlamaServerArgumentsTest, TheListIsFixed) {
  Config config;
  config.context = 2048;
  config.slots = 3;
  config.threads = 2;
  model::Manifest manifest;
  manifest.model_name = "Tiny Model 1B";
  const std::vector<std::string> expected = {"-m",
                                             "/proc/self/fd/5",
                                             "--alias",
                                             "Tiny Model 1B",
                                             "-lm",
                                             "none",
                                             "-lzm",
                                             "off",
                                             "-fit",
                                             "off",
                                             "-dev",
                                             "none",
                                             "-ngl",
                                             "0",
                                             "--offline",
                                             "--no-mmproj",
                                             "--no-warmup",
                                             "-c",
                                             "2048",
                                             "-np",
                                             "3",
                                             "-t",
                                             "2",
                                             "-tb",
                                             "2",
                                             "-b",
                                             "512",
                                             "-ub",
                                             "512",
                                             "--host",
                                             "/run/x/llama.sock",
                                             "--no-ui",
                                             "--no-slots",
                                             "--cors-origins",
                                             "none",
                                             "--cache-ram",
                                             "0",
                                             "--ctx-checkpoints",
                                             "0",
                                             "--log-disable",
                                             "-lv",
                                             "0",
                                             "--no-cache-prompt",
                                             "--slot-prompt-similarity",
                                             "0"};
  EXPECT_EQ(LlamaServerArguments(config, manifest, "/run/x/llama.sock"), expected);
  config.prompt_cache_user = "ada";
  EXPECT_THAT(LlamaServerArguments(config, manifest, "/run/x/llama.sock"),
              Not(Contains("--no-cache-prompt")));
}

// The provider names the model; the name must not become another argument, another alias or
// nothing.
TEST(LlamaServerArgumentsTest, TheAliasIsHarmless) {
  const auto alias = [](const std::string& name) {
    model::Manifest manifest;
    manifest.model_name = name;
    return LlamaServerArguments({}, manifest, "/s")[3];
  };
  EXPECT_EQ(alias("a,b"), "a_b");
  EXPECT_EQ(alias("--props"), "props");
  EXPECT_EQ(alias(" - x\"y"), "x_y");
  EXPECT_EQ(alias(""), "model");
  EXPECT_EQ(alias("--"), "model");
}

TEST(FindTest, SaysWhatIsMissing) {
  EXPECT_EQ(FindPlugin("/nonexistent/plugin.so").status().code(), Code::kNotFound);
  EXPECT_THAT(FindPlugin("/nonexistent/plugin.so").status().message(),
              HasSubstr("/nonexistent/plugin.so"));
  EXPECT_EQ(FindEngineProgram("/nonexistent/llama-server", "llama-server").status().code(),
            Code::kNotFound);
  EXPECT_EQ(FindEngineProgram("", "no-such-program").status().code(), Code::kNotFound);
  EXPECT_EQ(*FindEngineProgram("/bin/sh", "llama-server"), "/bin/sh");
  EXPECT_EQ(*FindEngineProgram("", "/bin/sh"), "/bin/sh");
}

}  // namespace
}  // namespace talaria::cvm
