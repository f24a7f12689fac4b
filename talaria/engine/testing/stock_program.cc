#include "talaria/engine/testing/stock_program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "talaria/base/file.h"

namespace talaria::engine::testing {
namespace {

std::string Contents(int fd) {
  std::string text;
  char buffer[4096];
  ssize_t n;
  off_t at = 0;
  while ((n = pread(fd, buffer, sizeof buffer, at)) > 0) {
    text.append(buffer, static_cast<size_t>(n));
    at += n;
  }
  return text;
}

}  // namespace

Result<StockResult> RunStockProgram(const StockProgram& program, ChannelServer* server,
                                    const ChannelServer::Handler& handler) {
  std::vector<std::string> words{program.path};
  words.insert(words.end(), program.arguments.begin(), program.arguments.end());
  std::vector<std::string> environment{"GGML_NO_BACKTRACE=1"};
  if (!program.plugin.empty()) environment.push_back("GGML_BACKEND_PATH=" + program.plugin);
  std::vector<char*> argv, envp;
  for (std::string& w : words) argv.push_back(w.data());
  for (std::string& e : environment) envp.push_back(e.data());
  argv.push_back(nullptr);
  envp.push_back(nullptr);

  std::vector<std::pair<int, int>> descriptors = program.descriptors;
  if (server != nullptr) {
    descriptors.emplace_back(server->shared_memory_fd(), kSharedMemoryFd);
    descriptors.emplace_back(server->child_socket_fd(), kSocketFd);
  }
  const Fd out(memfd_create("out", MFD_CLOEXEC)), err(memfd_create("err", MFD_CLOEXEC)),
      null(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!out.valid() || !err.valid() || !null.valid()) return Status(Code::kIo, std::strerror(errno));

  const pid_t pid = fork();
  if (pid < 0) return Status(Code::kIo, std::strerror(errno));
  if (pid == 0) {  // only async-signal-safe calls from here
    constexpr int kHigh = 200;
    for (size_t i = 0; i < descriptors.size(); ++i)
      dup2(descriptors[i].first, kHigh + static_cast<int>(i));
    dup2(null.get(), 0);
    if (!program.inherit_output) {
      dup2(out.get(), 1);
      dup2(err.get(), 2);
    }
    for (size_t i = 0; i < descriptors.size(); ++i)
      dup2(kHigh + static_cast<int>(i), descriptors[i].second);
    int last = 2;
    for (const auto& d : descriptors) last = std::max(last, d.second);
    close_range(static_cast<unsigned>(last) + 1, ~0u, 0);
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  StockResult result;
  std::thread serving;
  if (server != nullptr) {
    server->CloseChildSocket();
    serving = std::thread([&] {
      result.served = server->Serve(handler, [&](ChildEvent e) { result.events.push_back(e); });
    });
  }
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(program.timeout_s);
  int status = 0;
  while (waitpid(pid, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > end) kill(pid, SIGKILL);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  if (serving.joinable()) serving.join();  // ends with the child
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.out = Contents(out.get());
  result.err = Contents(err.get());
  return result;
}

}  // namespace talaria::engine::testing
