// The launcher process itself: one thread, no keys, one child at a time.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "talaria/cvm/launcher_messages.h"
#include "talaria/cvm/sandbox.h"

namespace talaria::cvm {
namespace {

// llama.cpp parses a user's grammars and schemas by recursion. With it fits four times what the
// gateway lets through (gateway_filter.h); only what is used takes memory.
constexpr rlim_t kStackBytes = rlim_t{256} << 20;

// --- Between fork and exec. What goes wrong is reported through a pipe that exec closes: 'W' text
// for a warning, 'E' code text for a failure, each ended by a zero byte.
class Report {
 public:
  explicit Report(int fd) : fd_(fd) {}
  void Warn(const Status& status) { Line('W', status); }
  [[noreturn]] void Fail(const Status& status) {
    Line('E', status);
    _exit(127);
  }
  [[noreturn]] void Fail(const std::string& what) {
    Fail(Status(Code::kIo, what + ": " + std::strerror(errno)));
  }

 private:
  void Line(char kind, const Status& status) {
    std::string line{kind, static_cast<char>(status.code())};
    line += status.message();
    line += '\0';
    [[maybe_unused]] const ssize_t n = write(fd_, line.data(), line.size());
  }
  int fd_;
};

void ResetSignals() {
  for (int signal = 1; signal < NSIG; ++signal) {
    struct sigaction action {};
    action.sa_handler = SIG_DFL;
    sigaction(signal, &action, nullptr);  // SIGKILL and SIGSTOP refuse
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

// `report` is moved above all target numbers; everything that is not a target is closed by exec.
void PlaceDescriptors(const ChildProgram& program, std::vector<Fd>& received, int& report) {
  int above = 3;
  for (const auto& d : program.descriptors) above = std::max(above, d.second + 1);
  report = fcntl(report, F_DUPFD_CLOEXEC, above);
  if (report < 0) _exit(127);
  std::vector<int> high;
  for (const Fd& fd : received) high.push_back(fcntl(fd.get(), F_DUPFD_CLOEXEC, above));
  for (size_t i = 0; i < high.size(); ++i) {
    if (high[i] < 0 || dup2(high[i], program.descriptors[i].second) < 0)
      Report(report).Fail("descriptors");
  }
  if (close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) != 0) Report(report).Fail("close_range");
  for (const auto& d : program.descriptors) fcntl(d.second, F_SETFD, 0);
}

void RedirectStandardStreams(bool keep_output, Report& report) {
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) report.Fail("/dev/null");
  dup2(null, 0);
  if (!keep_output) {
    dup2(null, 1);
    dup2(null, 2);
  }
}

void CheckSandbox(const Status& status, SandboxPolicy policy, Report& report) {
  if (status.ok()) return;
  if (policy == SandboxPolicy::kRequire) report.Fail(status);
  report.Warn(status);
}

// The child dies with the launcher. A new user namespace clears the setting, so this comes after
// it.
void DieWithLauncher(pid_t launcher, Report& report) {
  if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) report.Fail("PR_SET_PDEATHSIG");
  if (getppid() != launcher) _exit(127);  // it has died in the meantime
}

[[noreturn]] void BecomeProgram(const ChildProgram& program, pid_t launcher,
                                std::vector<Fd>& received, int report_fd) {
  PlaceDescriptors(program, received, report_fd);
  Report report(report_fd);
  RedirectStandardStreams(program.keep_output, report);
  if (!program.working_directory.empty() && chdir(program.working_directory.c_str()) != 0)
    report.Fail("chdir " + program.working_directory);
  const rlimit no_core{0, 0};
  if (setrlimit(RLIMIT_CORE, &no_core) != 0) report.Fail("RLIMIT_CORE");
  // Its threads' too: glibc takes their size from this limit.
  rlimit stack{};
  if (getrlimit(RLIMIT_STACK, &stack) != 0) report.Fail("RLIMIT_STACK");
  stack.rlim_cur = std::min<rlim_t>(kStackBytes, stack.rlim_max);
  if (setrlimit(RLIMIT_STACK, &stack) != 0) report.Fail("RLIMIT_STACK");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) report.Fail("PR_SET_NO_NEW_PRIVS");
  ResetSignals();
  std::vector<std::string> environment;
  for (const auto& [name, value] : program.environment) environment.push_back(name + "=" + value);
  std::vector<char*> argv, envp;
  argv.push_back(const_cast<char*>(program.path.c_str()));
  for (const std::string& argument : program.arguments)
    argv.push_back(const_cast<char*>(argument.c_str()));
  for (std::string& variable : environment) envp.push_back(variable.data());
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  if (program.sandbox) {
    CheckSandbox(EnterEmptyNetwork(), program.sandbox_policy, report);
    CheckSandbox(DropCapabilities(), program.sandbox_policy, report);
    if (!program.readable.empty() || !program.socket_folders.empty())
      CheckSandbox(RestrictFiles(program.readable, program.socket_folders), program.sandbox_policy,
                   report);
#if !defined(__SANITIZE_THREAD__)  // whose runtime makes a file for itself
    // It has no file to write, and what it could write would lie on the host's disk.
    const rlimit no_files{0, 0};
    if (!program.keep_output && setrlimit(RLIMIT_FSIZE, &no_files) != 0)
      report.Fail("RLIMIT_FSIZE");
#endif
  }
  DieWithLauncher(launcher, report);
  if (program.sandbox) CheckSandbox(InstallFilter(), program.sandbox_policy, report);
  execve(program.path.c_str(), argv.data(), envp.data());
  report.Fail("cannot start " + program.path);
}

// --- The launcher

class Process {
 public:
  explicit Process(int socket) : socket_(socket) {}

  [[noreturn]] void Run() {
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, nullptr);
    const int signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0) _exit(1);
    for (;;) {
      pollfd watched[2] = {{socket_, POLLIN, 0}, {signals, POLLIN, 0}};
      if (poll(watched, 2, -1) < 0 && errno != EINTR) End();
      signalfd_siginfo info;
      while (read(signals, &info, sizeof info) > 0) {
      }
      Reap();
      if (watched[0].revents != 0) Take();
    }
  }

 private:
  [[noreturn]] void End() {
    if (child_ > 0) {
      kill(child_, SIGKILL);
      waitpid(child_, nullptr, 0);
    }
    _exit(0);
  }

  void Reply(LauncherReply type, uint32_t number, const std::string& text) {
    std::vector<uint8_t> out;
    ByteWriter writer(out);
    writer.U8(static_cast<uint8_t>(type));
    writer.U32(number);
    writer.Raw(AsBytes(text));
    if (!SendPacket(socket_, out, {}).ok()) End();
  }

  void Reap() {
    int status = 0;
    if (child_ <= 0 || waitpid(child_, &status, WNOHANG) != child_) return;
    child_ = -1;
    Reply(LauncherReply::kExited,
          static_cast<uint32_t>(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)),
          "");
  }

  void Take() {
    std::vector<Fd> descriptors;
    Result<std::vector<uint8_t>> packet = ReceivePacket(socket_, &descriptors);
    if (!packet.ok() || packet->empty()) End();
    switch (static_cast<LauncherRequest>((*packet)[0])) {
      case LauncherRequest::kKill:
        if (child_ > 0) kill(child_, SIGKILL);
        return;
      case LauncherRequest::kStart: {
        Result<ChildProgram> program = DecodeProgram(*packet);
        if (!program.ok() || program->descriptors.size() != descriptors.size()) End();
        return Start(*program, descriptors);
      }
    }
    End();
  }

  void Start(const ChildProgram& program, std::vector<Fd>& descriptors) {
    if (child_ > 0) return Fail(Status(Code::kInvalidArgument, "a child is running"));
    int report[2];
    if (pipe2(report, O_CLOEXEC) != 0) return Fail(Status(Code::kIo, std::strerror(errno)));
    const pid_t launcher = getpid();
    const pid_t pid = fork();
    if (pid < 0) {
      close(report[0]);
      close(report[1]);
      return Fail(Status(Code::kIo, std::string("fork: ") + std::strerror(errno)));
    }
    if (pid == 0) BecomeProgram(program, launcher, descriptors, report[1]);
    close(report[1]);
    std::string text;
    char buffer[1024];
    ssize_t n;
    while ((n = read(report[0], buffer, sizeof buffer)) > 0 || (n < 0 && errno == EINTR)) {
      if (n > 0) text.append(buffer, static_cast<size_t>(n));
    }
    close(report[0]);
    std::string warnings;
    for (size_t at = 0; at + 2 <= text.size();) {
      const size_t end = std::min(text.find('\0', at + 2), text.size());
      const std::string message = text.substr(at + 2, end - at - 2);
      if (text[at] == 'E') {
        waitpid(pid, nullptr, 0);
        return Fail(Status(static_cast<Code>(text[at + 1]), message));
      }
      warnings += (warnings.empty() ? "" : "; ") + message;
      at = end + 1;
    }
    child_ = pid;
    Reply(LauncherReply::kStarted, static_cast<uint32_t>(pid), warnings);
  }

  void Fail(const Status& status) {
    Reply(LauncherReply::kFailed, static_cast<uint32_t>(status.code()), status.message());
  }

  int socket_;
  pid_t child_ = -1;
};

}  // namespace

void RunLauncher(int socket) { Process(socket).Run(); }

}  // namespace talaria::cvm
