// The terminal's side of `talaria chat`.
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <utility>

#include "apps/client_commands.h"
#include "talaria/base/log.h"
#include "talaria/client/verdict_text.h"

namespace talaria {
namespace {

constexpr int kVerifyTimeoutMs = 120'000;
constexpr size_t kMaxLineBytes = 1 << 20;

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "set by a signal handler");

void OnInterrupt(int) { interrupted.store(true); }

// Lines of standard input. Not of the C library's: a signal must end the wait.
class Lines {
 public:
  enum class Kind { kLine, kEnd, kInterrupted };
  Kind Next(std::string& line) {
    for (;;) {
      const size_t end = read_.find('\n');
      if (end != std::string::npos) {
        line = read_.substr(0, end);
        read_.erase(0, end + 1);
        return Kind::kLine;
      }
      if (ended_ || read_.size() > kMaxLineBytes) {
        line = std::exchange(read_, {});
        return line.empty() ? Kind::kEnd : Kind::kLine;
      }
      std::array<char, 4096> piece;
      const ssize_t n = read(STDIN_FILENO, piece.data(), piece.size());
      if (n > 0) {
        read_.append(piece.data(), static_cast<size_t>(n));
      } else if (n < 0 && errno == EINTR) {
        if (interrupted) {
          read_.clear();
          return Kind::kInterrupted;
        }
      } else {
        ended_ = true;
      }
    }
  }

 private:
  std::string read_;
  bool ended_ = false;
};

void Say(const std::string& text) { std::fputs(text.c_str(), stderr); }

Status ShowVerdict(client::AttestedPeer& peer, const std::string& url) {
  if (const auto attested = peer.current()) {
    Say(client::VerdictText(*attested, url) + "\n");
    return OkStatus();
  }
  Say(client::RefusalText(peer.last_error(), url));
  return peer.last_error();
}

}  // namespace

Status RunChat(const PeerArguments& arguments, client::ChatOptions options) {
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  options.receipts = arguments.receipts;
  if (!options.receipts.empty())
    TALARIA_RETURN_IF_ERROR(client::MakeCopiesFolder(options.receipts));
  TALARIA_ASSIGN_OR_RETURN(const auto peer, MakePeer(arguments));
  TALARIA_ASSIGN_OR_RETURN(options.token, ReadToken(arguments.token_file));
  const Status verified = peer->Verify(client::After(kVerifyTimeoutMs));
  (void)ShowVerdict(*peer, arguments.url);
  TALARIA_RETURN_IF_ERROR(verified);

  struct sigaction action {};
  action.sa_handler = OnInterrupt;  // without SA_RESTART: it ends a read()
  sigaction(SIGINT, &action, nullptr);
  const bool terminal = isatty(STDIN_FILENO) != 0;
  if (terminal) Say("Ctrl-C stops an answer, Ctrl-D ends; /clear, /verdict.\n");
  client::Chat chat(std::move(options), *peer);
  Lines lines;
  Status last;  // of standard input that is not a terminal: the first failure ends it
  for (;;) {
    interrupted = false;
    if (terminal) Say("> ");
    std::string line;
    const Lines::Kind kind = lines.Next(line);
    if (kind == Lines::Kind::kInterrupted) {
      if (!terminal) return Status(Code::kCancelled, "stopped by a signal");
      Say("\n");
      continue;
    }
    if (kind == Lines::Kind::kEnd) {
      if (terminal) Say("\n");
      return OkStatus();
    }
    if (line.empty()) continue;
    if (line == "/clear") {
      chat.Clear();
      Say("The conversation begins anew.\n");
      continue;
    }
    if (line == "/verdict") {
      (void)ShowVerdict(*peer, arguments.url);
      continue;
    }
    client::TerminalFilter filter;
    const bool screen = isatty(STDOUT_FILENO) != 0;
    const Status status = chat.Ask(
        line,
        [&](std::string_view text) {
          const std::string clean = screen ? filter.Clean(text) : std::string(text);
          std::fwrite(clean.data(), 1, clean.size(), stdout);
          std::fflush(stdout);
        },
        interrupted);
    std::fputs("\n", stdout);
    std::fflush(stdout);
    if (status.ok()) continue;
    if (!terminal) return status;
    if (status.code() == Code::kCancelled) {
      Say("(stopped: the model does not remember this question)\n");
      continue;
    }
    LogError(status.ToString());
    if (status.code() == Code::kUntrusted) return status;
  }
}

}  // namespace talaria
