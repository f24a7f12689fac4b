// Ctrl-C while the demo model is provisioned: exit code 130 and nothing left behind.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include "talaria/base/testing/temp_folder.h"

namespace talaria {
namespace {

namespace fs = std::filesystem;

std::string DemoModel() {
  const std::string command =
      std::string("'") + std::getenv("TALARIA_TESTDATA") + "/../scripts/setup' --print-model";
  FILE* pipe = popen(command.c_str(), "r");
  std::array<char, 4096> line{};
  if (pipe == nullptr || std::fgets(line.data(), line.size(), pipe) == nullptr) return "";
  pclose(pipe);
  std::string path(line.data());
  if (!path.empty() && path.back() == '\n') path.pop_back();
  return path;
}

TEST(TalariaCloudSignalTest, InterruptedProvisioningLeavesNothing) {
  const std::string program = std::string(std::getenv("TALARIA_BUILD_DIR")) + "/bin/talaria-cloud",
                    model = DemoModel();
  ASSERT_TRUE(fs::exists(model)) << model;
  const TempFolder temp;
  const std::string &folder = temp.path(), store = temp.File("store");
  for (const int signal_number : {SIGINT, SIGTERM}) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      if (std::freopen("/dev/null", "w", stderr) == nullptr) _exit(99);
      execl(program.c_str(), "talaria-cloud", "provision", model.c_str(), store.c_str(), nullptr);
      _exit(99);
    }
    // The folder aside appears when the plan stands; a second later it is in the middle of the
    // work.
    for (int i = 0; i < 1200 && fs::is_empty(folder); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    std::this_thread::sleep_for(std::chrono::seconds(1));
    EXPECT_FALSE(fs::exists(store));
    kill(child, signal_number);
    int state = 0;
    waitpid(child, &state, 0);
    EXPECT_TRUE(WIFEXITED(state) && WEXITSTATUS(state) == 130) << state;
    EXPECT_TRUE(fs::is_empty(folder));
  }
}

}  // namespace
}  // namespace talaria
