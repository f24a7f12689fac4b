#include "bench/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace talaria::bench {
namespace {

using Clock = std::chrono::steady_clock;
double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}
double Seconds(const timeval& t) {
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
}

struct Pipes {
  Fd child_in, our_in, child_out, our_out;
};

Result<Pipes> MakePipes() {
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0) return Status(Code::kIo, "pipe");
  Pipes p;
  p.child_in = Fd(in[0]);
  p.our_in = Fd(in[1]);
  if (pipe2(out, O_CLOEXEC) != 0) return Status(Code::kIo, "pipe");
  p.our_out = Fd(out[0]);
  p.child_out = Fd(out[1]);
  return p;
}

// In the child, between fork() and exec(): only what may be done there while other threads of the
// parent held locks.
[[noreturn]] void BecomeProgram(char* const* argv, const char* error_log, const Pipes& pipes,
                                pid_t parent, int report) {
  // However the benchmark ends, even killed: a cloud or a llama-server does not run on.
  const bool bound = prctl(PR_SET_PDEATHSIG, SIGTERM) == 0;
  if (getppid() != parent) _exit(1);  // it ended before
  const int log = bound ? open(error_log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
  if (log >= 0 && dup2(pipes.child_in.get(), 0) == 0 && dup2(pipes.child_out.get(), 1) == 1 &&
      dup2(log, 2) == 2) {
    execvp(argv[0], argv);
  }
  const int error = errno;
  [[maybe_unused]] const ssize_t said = write(report, &error, sizeof error);
  _exit(127);
}

Result<pid_t> Spawn(const std::vector<std::string>& arguments, const std::string& error_log,
                    const Pipes& pipes) {
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  int failure[2];  // closed by exec(), or says why there was none
  if (pipe2(failure, O_CLOEXEC) != 0) return Status(Code::kIo, "pipe");
  const Fd report(failure[0]);
  Fd child_report(failure[1]);
  const pid_t parent = getpid(), pid = fork();
  if (pid == 0) BecomeProgram(argv.data(), error_log.c_str(), pipes, parent, child_report.get());
  child_report.Close();
  int error = pid < 0 ? errno : 0;
  if (pid >= 0 && read(report.get(), &error, sizeof error) > 0) waitpid(pid, nullptr, 0);
  if (error != 0) return Status(Code::kIo, arguments[0] + ": " + std::strerror(error));
  return pid;
}

// Fields of proc(5)'s stat file, counted from 1: 4 is the parent, 16 and 17 are the times of ended
// children.
struct Stat {
  pid_t parent = -1;
  double ended_children_seconds = 0;
};

Stat ReadStat(const std::string& pid) {
  Stat stat;
  std::ifstream file("/proc/" + pid + "/stat");
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const size_t after_name = text.rfind(')');
  if (after_name == std::string::npos) return stat;
  std::istringstream fields(text.substr(after_name + 2));
  const double tick = 1.0 / static_cast<double>(sysconf(_SC_CLK_TCK));
  std::string field;
  for (int number = 3; number <= 17 && fields >> field; ++number) {
    if (number == 4) stat.parent = static_cast<pid_t>(std::stol(field));
    if (number == 16 || number == 17) stat.ended_children_seconds += std::stod(field) * tick;
  }
  return stat;
}

std::vector<std::pair<pid_t, Stat>> ChildrenOf(pid_t parent) {
  std::vector<std::pair<pid_t, Stat>> children;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const Stat stat = ReadStat(name);
    if (stat.parent == parent) children.emplace_back(static_cast<pid_t>(std::stol(name)), stat);
  }
  return children;
}

}  // namespace

// Its clock, which counts nanoseconds, and not proc(5)'s ticks of 10 ms: short work has none.
double CpuSecondsOf(pid_t pid) {
  clockid_t clock{};
  timespec now{};
  if (pid <= 0 || clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &now) != 0)
    return 0;
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

Result<Finished> RunProcess(const std::vector<std::string>& arguments,
                            const std::string& error_log) {
  TALARIA_ASSIGN_OR_RETURN(Pipes pipes, MakePipes());
  const auto start = Clock::now();
  TALARIA_ASSIGN_OR_RETURN(const pid_t pid, Spawn(arguments, error_log, pipes));
  pipes.child_in.Close();
  pipes.child_out.Close();
  pipes.our_in.Close();
  Finished done;
  char chunk[65536];
  for (;;) {
    const ssize_t n = read(pipes.our_out.get(), chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done.output.append(chunk, static_cast<size_t>(n));
  }
  int status = 0;
  rusage usage{};
  while (wait4(pid, &status, 0, &usage) < 0 && errno == EINTR) {
  }
  done.wall_seconds = Since(start);
  done.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  done.usage.cpu_seconds = Seconds(usage.ru_utime) + Seconds(usage.ru_stime);
  done.usage.resident_peak_mib = static_cast<double>(usage.ru_maxrss) / 1024;
  if (done.exit_code != 0) {
    return Status(Code::kUnavailable, arguments[0] + " ended with exit code " +
                                          std::to_string(done.exit_code) + "; see " + error_log);
  }
  return done;
}

Result<Background> Background::Start(const std::vector<std::string>& arguments,
                                     const std::string& error_log) {
  TALARIA_ASSIGN_OR_RETURN(Pipes pipes, MakePipes());
  Background b;
  TALARIA_ASSIGN_OR_RETURN(b.pid_, Spawn(arguments, error_log, pipes));
  b.in_ = std::move(pipes.our_in);
  b.out_ = std::move(pipes.our_out);
  return b;
}

Background::~Background() {
  if (!out_.valid()) return;  // moved from
  in_.Close();
  kill(pid_, SIGTERM);
  for (int i = 0; i < 100; ++i) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) != 0) return;
    usleep(50000);
  }
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

Status Background::WriteLine(const std::string& line) {
  const std::string text = line + "\n";
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = write(in_.get(), text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Status(Code::kUnavailable, "the process does not take its commands");
    done += static_cast<size_t>(n);
  }
  return OkStatus();
}

Result<std::string> Background::ReadLine(double timeout_seconds) {
  const auto start = Clock::now();
  for (;;) {
    if (const size_t end = buffered_.find('\n'); end != std::string::npos) {
      std::string line = buffered_.substr(0, end);
      buffered_.erase(0, end + 1);
      return line;
    }
    pollfd p{out_.get(), POLLIN, 0};
    const double left = timeout_seconds - Since(start);
    if (left <= 0) return Status(Code::kUnavailable, "the process did not answer in time");
    if (poll(&p, 1, static_cast<int>(left * 1000) + 1) <= 0) continue;
    char chunk[4096];
    const ssize_t n = read(out_.get(), chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Status(Code::kUnavailable, "the process ended");
    buffered_.append(chunk, static_cast<size_t>(n));
  }
}

bool Background::ended() const {
  siginfo_t info{};  // left for the destructor to reap
  return waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
         info.si_pid != 0;
}

Usage MemoryOf(pid_t pid) {
  Usage usage;
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);) {
    const auto value = [&] {
      return std::stod(line.substr(line.find_first_of("0123456789"))) / 1024;
    };
    if (line.rfind("VmHWM:", 0) == 0) usage.resident_peak_mib = value();
    if (line.rfind("VmRSS:", 0) == 0) usage.resident_mib = value();
  }
  return usage;
}

Usage Background::Measure() const {
  Usage usage = MemoryOf(pid_);
  usage.cpu_seconds = CpuSecondsOf(pid_);
  return usage;
}

double Background::MeasureEndedGrandchildren() const {
  double seconds = 0;
  for (const auto& [pid, stat] : ChildrenOf(pid_)) seconds += stat.ended_children_seconds;
  return seconds;
}

pid_t Background::Grandchild() const {
  for (const auto& [pid, stat] : ChildrenOf(pid_)) {
    const auto grandchildren = ChildrenOf(pid);
    if (!grandchildren.empty()) return grandchildren[0].first;
  }
  return -1;
}

}  // namespace talaria::bench
