#include "talaria/cvm/launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <mutex>
#include <optional>

#include "talaria/base/log.h"
#include "talaria/cvm/launcher_messages.h"

namespace talaria::cvm {
namespace {

using Clock = std::chrono::steady_clock;

class Parent final : public Launcher {
 public:
  Parent(Fd socket, pid_t launcher) : socket_(std::move(socket)), launcher_(launcher) {}

  ~Parent() override {
    socket_.Close();  // the launcher kills its child and ends
    while (waitpid(launcher_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

  Result<pid_t> Start(const ChildProgram& program) override {
    const std::lock_guard lock(mutex_);
    if (program.descriptors.size() > kMaxDescriptors)
      return Status(Code::kInvalidArgument, "launcher: too many descriptors");
    std::vector<int> descriptors;
    for (const auto& [ours, theirs] : program.descriptors) {
      // Standard output may be given only where it is kept: the laboratory sends it to a file.
      const bool output = theirs == 1 && program.keep_output;
      if (ours < 0 || (theirs < 3 && !output) || theirs > 255)
        return Status(Code::kInvalidArgument, "launcher: descriptor numbers");
      descriptors.push_back(ours);
    }
    const std::vector<uint8_t> request = EncodeProgram(program);
    if (request.size() > kMaxLauncherMessage)
      return Status(Code::kInvalidArgument, "launcher: arguments too long");
    TALARIA_RETURN_IF_ERROR(SendPacket(socket_.get(), request, descriptors));
    for (;;) {
      TALARIA_ASSIGN_OR_RETURN(const Answer answer, Receive());
      switch (answer.type) {
        case LauncherReply::kStarted:
          running_ = true;
          exit_code_.reset();
          if (!answer.text.empty())
            LogWarning("the engine runs with less isolation, only because the TEE is simulated: " +
                       answer.text);
          return static_cast<pid_t>(answer.number);
        case LauncherReply::kFailed:
          return Status(static_cast<Code>(answer.number), "launcher: " + answer.text);
        case LauncherReply::kExited:  // of the child before, which nobody waited for
          running_ = false;
          break;
      }
    }
  }

  Result<int> Wait(int timeout_ms) override {
    const auto end = Clock::now() + std::chrono::milliseconds(timeout_ms);
    for (;;) {
      {
        // In slices, so that Wait() of another thread and Start() get their turn.
        const std::lock_guard lock(mutex_);
        if (exit_code_) return *exit_code_;
        if (!running_) return Status(Code::kInvalidArgument, "launcher: no child was started");
        int slice = 20;
        if (timeout_ms >= 0) {
          const auto left =
              std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
          slice = static_cast<int>(std::clamp<long>(left, 0, slice));
        }
        pollfd watched{socket_.get(), POLLIN, 0};
        if (poll(&watched, 1, slice) == 1) {
          TALARIA_ASSIGN_OR_RETURN(const Answer answer, Receive());
          if (answer.type != LauncherReply::kExited)
            return Status(Code::kInternal, "launcher: unexpected answer");
          running_ = false;
          exit_code_ = static_cast<int>(answer.number);
          return *exit_code_;
        }
      }
      if (timeout_ms >= 0 && Clock::now() >= end)
        return Status(Code::kUnavailable, "the child is running");
    }
  }

  void Kill() override {
    const uint8_t request = static_cast<uint8_t>(LauncherRequest::kKill);
    (void)SendPacket(socket_.get(), Bytes(&request, 1), {})
        .ok();  // without a launcher there is no child
  }

 private:
  struct Answer {
    LauncherReply type;
    uint32_t number;
    std::string text;
  };
  Result<Answer> Receive() {
    const Result<std::vector<uint8_t>> received = ReceivePacket(socket_.get(), nullptr);
    // Not kUnavailable, which would mean that the child runs. It died with the launcher.
    if (!received.ok()) return Status(Code::kIo, "launcher: it was lost, and the engine with it");
    const std::vector<uint8_t>& packet = *received;
    ByteReader reader(packet);
    Answer answer{};
    answer.type = static_cast<LauncherReply>(reader.U8());
    answer.number = reader.U32();
    const Bytes text = reader.Raw(reader.remaining());
    if (!reader.AtEnd()) return Status(Code::kInternal, "launcher: answer");
    answer.text.assign(text.begin(), text.end());
    return answer;
  }

  Fd socket_;
  const pid_t launcher_;
  std::mutex mutex_;  // reading from the socket, and what follows
  bool running_ = false;
  std::optional<int> exit_code_;
};

}  // namespace

Result<std::unique_ptr<Launcher>> Launcher::Create() {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) != 0) {
    return Status(Code::kIo, std::string("launcher: ") + std::strerror(errno));
  }
  Fd ours(sockets[0]), theirs(sockets[1]);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return Status(Code::kIo, std::string("launcher: fork: ") + std::strerror(errno));
  if (pid == 0) {
    // A session of its own: an interrupt from the terminal ends the parent in an orderly way, not
    // this process first.
    setsid();
    prctl(PR_SET_NAME, "talaria-launch", 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);  // out of reach for the child, which may have the same user
    const rlimit no_core{0, 0};
    if (setrlimit(RLIMIT_CORE, &no_core) != 0 || prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0 ||
        getppid() != parent)
      _exit(1);
    const int socket = theirs.get() == 3 ? 3 : dup2(theirs.get(), 3);
    if (socket != 3 || close_range(4, ~0u, 0) != 0) _exit(1);
    fcntl(socket, F_SETFD, FD_CLOEXEC);
    RunLauncher(socket);
  }
  theirs.Close();
  return std::unique_ptr<Launcher>(std::make_unique<Parent>(std::move(ours), pid));
}

}  // namespace talaria::cvm
