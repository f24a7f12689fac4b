#include "talaria/cvm/launcher.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "talaria/base/testing/temp_folder.h"
#include "talaria/cvm/launcher_messages.h"

namespace talaria::cvm {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// A pipe whose writing end the child gets as descriptor 7.
class Pipe {
 public:
  Pipe() {
    int fds[2];
    EXPECT_EQ(pipe2(fds, O_CLOEXEC), 0);
    read_ = Fd(fds[0]);
    write_ = Fd(fds[1]);
  }
  int write_end() const { return write_.get(); }
  // Until the child has closed its end.
  std::string ReadAll() {
    write_.Close();
    std::string text;
    char buffer[512];
    ssize_t n;
    while ((n = read(read_.get(), buffer, sizeof buffer)) > 0)
      text.append(buffer, static_cast<size_t>(n));
    return text;
  }
  std::string ReadSome() {
    char buffer[512];
    const ssize_t n = read(read_.get(), buffer, sizeof buffer);
    return std::string(buffer, n > 0 ? static_cast<size_t>(n) : 0);
  }

 private:
  Fd read_, write_;
};

class LauncherTest : public testing::Test {
 protected:
  void SetUp() override {
    auto launcher = Launcher::Create();
    ASSERT_TRUE(launcher.ok()) << launcher.status().ToString();
    launcher_ = std::move(*launcher);
  }
  ChildProgram Program(std::vector<std::string> arguments) {
    ChildProgram program;
    program.path = TALARIA_LAUNCHER_TEST_CHILD;
    program.arguments = std::move(arguments);
    program.descriptors = {{pipe_.write_end(), 7}};
    program.sandbox = false;
    return program;
  }
  // Runs to its end; what it wrote.
  std::string Run(const ChildProgram& program, int exit_code = 0) {
    const Result<pid_t> pid = launcher_->Start(program);
    EXPECT_TRUE(pid.ok()) << pid.status().ToString();
    if (!pid.ok()) return "";
    std::string text = pipe_.ReadAll();
    const Result<int> exit = launcher_->Wait(20000);
    EXPECT_TRUE(exit.ok()) << exit.status().ToString();
    if (exit.ok()) {
      EXPECT_EQ(*exit, exit_code);
    }
    return text;
  }
  ChildProgram Sandboxed(std::vector<std::string> arguments) {
    ChildProgram program = Program(std::move(arguments));
    program.sandbox = true;
    return program;
  }
  // A network namespace needs root, or user namespaces for everybody: some containers give neither.
  bool SandboxIsPossible() {
    const Result<pid_t> pid = launcher_->Start(Sandboxed({"exit", "0"}));
    if (!pid.ok()) {
      EXPECT_EQ(pid.status().code(), Code::kUnsupported) << pid.status().ToString();
      return false;
    }
    EXPECT_TRUE(launcher_->Wait(-1).ok());
    return true;
  }
  Pipe pipe_;
  std::unique_ptr<Launcher> launcher_;
};

bool ProcessExists(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/stat");
  std::string number, name, state;
  return static_cast<bool>(status >> number >> name >> state) && state != "Z";
}

TEST_F(LauncherTest, ReportsTheExitCode) {
  Run(Program({"exit", "7"}), 7);
  EXPECT_EQ(*launcher_->Wait(0), 7) << "asking again gives the same";
}

TEST_F(LauncherTest, ReportsASignal) { Run(Program({"abort"}), 128 + SIGABRT); }

TEST_F(LauncherTest, OneAfterTheOther) {
  Run(Program({"exit", "1"}), 1);
  pipe_ = Pipe();
  Run(Program({"exit", "2"}), 2);
}

TEST_F(LauncherTest, WaitTimesOutAndKillEndsTheChild) {
  EXPECT_EQ(launcher_->Wait(0).status().code(), Code::kInvalidArgument);
  const Result<pid_t> pid = launcher_->Start(Program({"sleep"}));
  ASSERT_TRUE(pid.ok());
  EXPECT_EQ(pipe_.ReadSome(), "sleeping");
  EXPECT_EQ(launcher_->Wait(0).status().code(), Code::kUnavailable);
  EXPECT_EQ(launcher_->Wait(50).status().code(), Code::kUnavailable);
  EXPECT_EQ(launcher_->Start(Program({"exit", "0"})).status().code(), Code::kInvalidArgument)
      << "one child at a time";
  std::thread killer([&] { launcher_->Kill(); });
  const Result<int> exit = launcher_->Wait(-1);
  killer.join();
  ASSERT_TRUE(exit.ok());
  EXPECT_EQ(*exit, 128 + SIGKILL);
  EXPECT_FALSE(ProcessExists(*pid));
}

TEST_F(LauncherTest, TheEnvironmentIsExactlyWhatIsAsked) {
  ASSERT_EQ(setenv("TALARIA_LEAK", "1", 1), 0);
  ChildProgram program = Program({"environment"});
  program.environment = {{"GGML_NO_BACKTRACE", "1"}, {"A", "b=c"}};
  EXPECT_EQ(Run(program), "GGML_NO_BACKTRACE=1\nA=b=c\n");
}

TEST_F(LauncherTest, OnlyTheNamedDescriptorsAreOpen) {
  const Fd extra(
      open("/dev/null", O_RDONLY));  // without O_CLOEXEC, and after the launcher was forked
  EXPECT_EQ(Run(Program({"descriptors"})), "0 1 2 7 ");
}

TEST_F(LauncherTest, DescriptorsMayCross) {
  // Numbers that are also the launcher's own, in an order where each target is another's source.
  Pipe other;
  ChildProgram program = Program({"descriptors"});
  program.descriptors = {{other.write_end(), 3},
                         {other.write_end(), 4},
                         {pipe_.write_end(), 7},
                         {other.write_end(), 5}};
  EXPECT_EQ(Run(program), "0 1 2 3 4 5 7 ");
}

TEST_F(LauncherTest, OutputIsDropped) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  EXPECT_EQ(Run(Program({"output"})), "input empty");
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(LauncherTest, LimitsAreInPlaceWithoutTheSandboxToo) {
  ChildProgram program = Program({"describe"});
  program.working_directory = "/usr";
  rlimit stack{};
  ASSERT_EQ(getrlimit(RLIMIT_STACK, &stack), 0);
  const rlim_t most = std::min<rlim_t>(256, stack.rlim_max >> 20);
  EXPECT_THAT(Run(program), AllOf(HasSubstr("core=0 nnp=1 death=9 cwd=/usr"),
                                  HasSubstr("stack=" + std::to_string(most))));
}

TEST_F(LauncherTest, ErrorsBeforeExecAreReported) {
  ChildProgram program = Program({});
  program.path = "/nonexistent/program";
  const Result<pid_t> pid = launcher_->Start(program);
  EXPECT_EQ(pid.status().code(), Code::kIo);
  EXPECT_THAT(pid.status().message(), HasSubstr("cannot start /nonexistent/program"));
  program = Program({"exit", "0"});
  program.working_directory = "/nonexistent";
  EXPECT_EQ(launcher_->Start(program).status().code(), Code::kIo);
  Run(Program({"exit", "0"}));
}

TEST_F(LauncherTest, BadRequestsAreRefused) {
  ChildProgram program = Program({});
  program.descriptors = {{-1, 7}};
  EXPECT_EQ(launcher_->Start(program).status().code(), Code::kInvalidArgument);
  program.descriptors = {{0, 1}};
  EXPECT_EQ(launcher_->Start(program).status().code(), Code::kInvalidArgument);
  program.descriptors.clear();
  program.arguments = {std::string(1 << 20, 'x')};
  EXPECT_EQ(launcher_->Start(program).status().code(), Code::kInvalidArgument);
}

TEST_F(LauncherTest, TheChildDiesWithTheLauncherObject) {
  const Result<pid_t> pid = launcher_->Start(Program({"sleep"}));
  ASSERT_TRUE(pid.ok());
  EXPECT_EQ(pipe_.ReadSome(), "sleeping");
  launcher_.reset();
  EXPECT_FALSE(ProcessExists(*pid));
}

// A lost launcher is not a child that still runs: whoever waits must not wait for ever.
TEST_F(LauncherTest, ALostLauncherIsTheEnd) {
  const Result<pid_t> pid = launcher_->Start(Program({"sleep"}));
  ASSERT_TRUE(pid.ok());
  EXPECT_EQ(pipe_.ReadSome(), "sleeping");
  std::ifstream stat("/proc/" + std::to_string(*pid) + "/stat");
  std::string number, name, state;
  pid_t launcher = 0;
  ASSERT_TRUE(static_cast<bool>(stat >> number >> name >> state >> launcher));
  ASSERT_EQ(kill(launcher, SIGKILL), 0);
  EXPECT_EQ(launcher_->Wait(-1).status().code(), Code::kIo);
  EXPECT_EQ(launcher_->Wait(0).status().code(), Code::kIo);
  for (int i = 0; i < 500 && ProcessExists(*pid); ++i) usleep(10000);
  EXPECT_FALSE(ProcessExists(*pid));
}

// The whole chain: this test plays talaria-cvm and is killed.
TEST_F(LauncherTest, TheChildDiesWithTheParentProcess) {
  for (const bool sandbox : {false, true}) {
    launcher_.reset();
    Pipe numbers;
    const pid_t parent = fork();
    ASSERT_GE(parent, 0);
    if (parent == 0) {
      auto launcher = Launcher::Create();
      ChildProgram program = Program({"sleep"});
      program.sandbox = sandbox;
      program.sandbox_policy = SandboxPolicy::kWarnIfImpossible;
      const pid_t pid = launcher.ok() ? (*launcher)->Start(program).value() : -1;
      if (write(numbers.write_end(), &pid, sizeof pid) != sizeof pid) _exit(1);
      for (;;) pause();
    }
    const std::string answer = numbers.ReadSome();
    ASSERT_EQ(answer.size(), sizeof(pid_t));
    const pid_t child = LoadLe<pid_t>(reinterpret_cast<const uint8_t*>(answer.data()));
    EXPECT_TRUE(ProcessExists(child));
    kill(parent, SIGKILL);
    waitpid(parent, nullptr, 0);
    for (int i = 0; i < 500 && ProcessExists(child); ++i) usleep(10000);
    EXPECT_FALSE(ProcessExists(child)) << "sandbox " << sandbox;
  }
}

TEST_F(LauncherTest, TheSandboxForbids) {
  if (!SandboxIsPossible()) GTEST_SKIP() << "this machine refuses a network namespace";
  ChildProgram program = Sandboxed({"forbidden"});
  EXPECT_EQ(Run(program),
            "inet=EAFNOSUPPORT inet6=EAFNOSUPPORT netlink=EAFNOSUPPORT packet=EAFNOSUPPORT "
            "vsock=EAFNOSUPPORT unix=ok datagram=EAFNOSUPPORT packets=EAFNOSUPPORT "
            "limits=EPERM owner=EPERM connect=EPERM "
            "fork=EPERM vfork=EPERM ptrace=EPERM kill=EPERM self=ok vm=EPERM aio=EPERM uring=EPERM "
            "bpf=EPERM "
            "userns=EPERM priority=EPERM where=ok elsewhere=EPERM here=ok thread=ok ");
}

TEST_F(LauncherTest, OnlyTheNamedFilesCanBeOpened) {
  if (!SandboxIsPossible()) GTEST_SKIP() << "this machine refuses a network namespace";
  const TempFolder folder;
  ChildProgram program = Sandboxed({"files", TALARIA_LAUNCHER_TEST_CHILD, folder.path()});
  program.readable = {TALARIA_LAUNCHER_TEST_CHILD, "/lib",      "/lib64", "/usr/lib",
                      "/etc/ld.so.cache",          "/proc/self"};
  program.socket_folders = {folder.path()};
  const std::string said = Run(program);
  EXPECT_THAT(said, AllOf(HasSubstr("allowed=ok"), HasSubstr("other=EACCES"),
                          HasSubstr("pattern=EACCES"), HasSubstr("device=EACCES")));
  EXPECT_THAT(
      said, AllOf(HasSubstr("file=EACCES"), HasSubstr("socket=ok"), HasSubstr("elsewhere=EACCES")));
}

// Landlock keeps a file's bytes; modes, times and extended attributes are not its business, and
// would carry what the child knows to the disk.
TEST_F(LauncherTest, TheSandboxLeavesNoMarksOnFiles) {
  if (!SandboxIsPossible()) GTEST_SKIP() << "this machine refuses a network namespace";
  const TempFolder folder;
  const std::string file = folder.File("file");
  std::ofstream(file) << "kept";
  ChildProgram program = Sandboxed({"marks", file});
  program.readable = {TALARIA_LAUNCHER_TEST_CHILD, "/lib", "/lib64", "/usr/lib",
                      "/etc/ld.so.cache"};
  EXPECT_EQ(Run(program),
            "mode=EPERM modeat=EPERM owner=EPERM times=EPERM attribute=EPERM removal=EPERM "
            "cut=EPERM flags=EPERM orphan=EPERM ");
}

TEST_F(LauncherTest, TheSandboxHasNoCapabilitiesAndAFilter) {
  if (!SandboxIsPossible()) GTEST_SKIP() << "this machine refuses a network namespace";
  EXPECT_THAT(Run(Sandboxed({"describe"})),
              AllOf(HasSubstr("core=0 nnp=1 death=9"), HasSubstr("seccomp=2 caps=0")));
}

TEST_F(LauncherTest, TheSandboxHasAnotherNetwork) {
  if (!SandboxIsPossible()) GTEST_SKIP() << "this machine refuses a network namespace";
  const std::string inside = Run(Sandboxed({"netns"}));
  char link[100] = {};
  ASSERT_GT(readlink("/proc/self/ns/net", link, sizeof link - 1), 0);
  EXPECT_THAT(inside, testing::StartsWith("net:["));
  EXPECT_NE(inside, link);
}

TEST_F(LauncherTest, ASandboxedChildMayAbort) {
  ChildProgram program = Sandboxed({"abort"});
  program.sandbox_policy = SandboxPolicy::kWarnIfImpossible;
  Run(program, 128 + SIGABRT);
}

TEST(LauncherMessagesTest, ProgramsSurviveEncoding) {
  ChildProgram program;
  program.path = "/bin/x";
  program.arguments = {"a", "", "b c"};
  program.environment = {{"A", "1"}, {"B", ""}};
  program.descriptors = {{5, 3}, {6, 4}};
  program.working_directory = "/tmp";
  program.keep_output = true;
  program.sandbox = false;
  program.sandbox_policy = SandboxPolicy::kWarnIfImpossible;
  const std::vector<uint8_t> bytes = EncodeProgram(program);
  const Result<ChildProgram> back = DecodeProgram(bytes);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(EncodeProgram(*back), bytes);
  for (size_t n = 1; n < bytes.size(); ++n) EXPECT_FALSE(DecodeProgram(Bytes(bytes).first(n)).ok());
}

}  // namespace
}  // namespace talaria::cvm
