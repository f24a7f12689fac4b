#include "talaria/base/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace talaria {

using Clock = std::chrono::steady_clock;

Progress::Progress(std::string_view what, uint64_t total)
    : what_(what),
      total_(std::max<uint64_t>(total, 1)),
      terminal_(isatty(STDERR_FILENO) == 1),
      started_(Clock::now()),
      drawn_(started_) {}

Progress::~Progress() { Draw(true); }

void Progress::Advance(uint64_t amount, std::string_view detail) {
  done_ = std::min(total_, done_ + amount);
  detail_ = detail;
  const auto wait = terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(1000);
  if (done_ < total_ && Clock::now() - drawn_ >= wait)
    Draw(false);  // the end is drawn once, by the destructor
}

void Progress::Draw(bool final) {
  drawn_ = Clock::now();
  const double seconds = std::chrono::duration<double>(drawn_ - started_).count();
  const double part = static_cast<double>(done_) / static_cast<double>(total_);
  if (!terminal_) {
    std::fprintf(stderr, "{\"progress\":\"%s\",\"done\":%.4f,\"seconds\":%.1f}\n", what_.c_str(),
                 part, seconds);
    return;
  }
  constexpr int kWidth = 30;
  const int filled = static_cast<int>(part * kWidth);
  std::string bar(static_cast<size_t>(filled), '#');
  bar.append(static_cast<size_t>(kWidth - filled), '.');
  std::fprintf(stderr, "\r\033[K%s [%s] %3.0f %% %5.1f s %s%s", what_.c_str(), bar.c_str(),
               part * 100, seconds, detail_.c_str(), final ? "\n" : "");
}

}  // namespace talaria
