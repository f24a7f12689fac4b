// ProbeGraph: the probe in a child process, and the bytes that come back through a pipe.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ggml.h"
#include "talaria/base/file.h"
#include "talaria/cloud/graph_probe.h"

namespace talaria::cloud {
namespace {

constexpr size_t kMaxReportBytes = size_t{256} << 20;
constexpr size_t kMaxTextBytes = 1 << 16;
constexpr int kPollMs = 100;

int abort_pipe = -1;  // of the child: where ggml's last words go

void WriteAll(int fd, Bytes data) {
  while (!data.empty()) {
    const ssize_t n = write(fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    data = data.subspan(static_cast<size_t>(n));
  }
}

// ggml calls this just before it aborts.
void OnGgmlAbort(const char* text) {
  WriteAll(abort_pipe,
           EncodeGraphUses(Status(Code::kUnsupported,
                                  std::string("llama.cpp stopped on this model: ") + text)));
  _exit(1);
}

[[noreturn]] void RunChild(const ProbeOptions& options, int fd, pid_t parent) {
  // Dies with its parent and by the parent's hand, not by the terminal's Ctrl-C.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGINT, SIG_IGN);
  signal(SIGTERM, SIG_DFL);
  signal(SIGPIPE, SIG_DFL);
  if (getppid() != parent) _exit(1);
  setenv("GGML_NO_BACKTRACE", "1", 1);  // or ggml starts a debugger
  // Some of llama.cpp's complaints bypass its log; what matters comes through the pipe.
  if (const int null = open("/dev/null", O_WRONLY | O_CLOEXEC); null >= 0) {
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
  }
  abort_pipe = fd;
  ggml_set_abort_callback(OnGgmlAbort);
  WriteAll(fd, EncodeGraphUses(ProbeGraphHere(options)));
  _exit(0);
}

// Reads until the child closes its end. False: cancelled.
bool Collect(int fd, const std::atomic<bool>* cancel, std::vector<uint8_t>& report) {
  uint8_t buffer[1 << 16];
  while (report.size() <= kMaxReportBytes) {
    if (cancel != nullptr && cancel->load()) return false;
    pollfd waiting{fd, POLLIN, 0};
    if (poll(&waiting, 1, kPollMs) <= 0) continue;
    const ssize_t n = read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return true;
    report.insert(report.end(), buffer, buffer + n);
  }
  return true;
}

void PutText(ByteWriter& out, std::string_view text) {
  text = text.substr(0, kMaxTextBytes);
  out.U32(static_cast<uint32_t>(text.size()));
  out.Raw(AsBytes(text));
}

std::string GetText(ByteReader& in) {
  const uint32_t size = in.U32();
  const Bytes raw = in.Raw(size);
  return {raw.begin(), raw.end()};
}

}  // namespace

std::vector<uint8_t> EncodeGraphUses(const Result<GraphUses>& uses) {
  std::vector<uint8_t> bytes;
  ByteWriter out(bytes);
  out.U8(static_cast<uint8_t>(uses.status().code()));
  if (!uses.ok()) {
    PutText(out, uses.status().message());
    return bytes;
  }
  out.U8(uses->chooses_experts);
  out.U32(static_cast<uint32_t>(uses->weights.size()));
  for (const auto& [name, list] : uses->weights) {
    PutText(out, name);
    out.U32(static_cast<uint32_t>(list.size()));
    for (const WeightUse& use : list) {
      PutText(out, use.operation);
      out.U32(use.source);
      out.U8(use.view);
      out.U8(use.f32_input);
      out.U32(use.input);
      out.U32(use.order);
    }
  }
  return bytes;
}

Result<GraphUses> DecodeGraphUses(Bytes bytes) {
  const Status bad(Code::kInternal, "the probe's report cannot be read");
  ByteReader in(bytes);
  const uint8_t code = in.U8();
  if (!in.ok() || code > static_cast<uint8_t>(Code::kInternal)) return bad;
  if (code != static_cast<uint8_t>(Code::kOk)) {
    std::string message = GetText(in);
    return in.AtEnd() ? Status(static_cast<Code>(code), std::move(message)) : bad;
  }
  GraphUses uses;
  uses.chooses_experts = in.U8() != 0;
  const uint32_t weights = in.U32();
  for (uint32_t i = 0; i < weights && in.ok(); ++i) {
    std::vector<WeightUse>& list = uses.weights[GetText(in)];
    const uint32_t count = in.U32();
    for (uint32_t j = 0; j < count && in.ok(); ++j) {
      WeightUse use;
      use.operation = GetText(in);
      use.source = in.U32();
      use.view = in.U8() != 0;
      use.f32_input = in.U8() != 0;
      use.input = in.U32();
      use.order = in.U32();
      list.push_back(std::move(use));
    }
  }
  if (!in.AtEnd()) return bad;
  return uses;
}

Result<GraphUses> ProbeGraph(const ProbeOptions& options) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Status(Code::kIo, "pipe");
  Fd from_child(ends[0]), to_parent(ends[1]);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) return Status(Code::kResourceExhausted, "fork");
  if (child == 0) RunChild(options, to_parent.get(), parent);
  to_parent.Close();
  std::vector<uint8_t> report;
  const bool collected = Collect(from_child.get(), options.cancel, report);
  if (!collected) kill(child, SIGKILL);
  int state = 0;
  while (waitpid(child, &state, 0) < 0 && errno == EINTR) {
  }
  if (!collected) return Status(Code::kCancelled, "stopped");
  if (report.empty()) {
    const std::string how = WIFSIGNALED(state) ? "signal " + std::to_string(WTERMSIG(state))
                                               : "exit " + std::to_string(WEXITSTATUS(state));
    return Status(Code::kUnsupported, "llama.cpp crashed on this model (" + how + ")");
  }
  return DecodeGraphUses(report);
}

}  // namespace talaria::cloud
