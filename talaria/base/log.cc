#include "talaria/base/log.h"

#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>

namespace talaria {
namespace {

std::string& Program() {
  static std::string program = "talaria";
  return program;
}
std::atomic<LogLevel> g_level{LogLevel::kInfo};

void Write(LogLevel level, std::string_view name, std::string_view text) {
  if (level > g_level.load(std::memory_order_relaxed)) return;
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc{};
  gmtime_r(&now.tv_sec, &utc);
  char stamp[40];
  const int n = std::snprintf(stamp, sizeof stamp, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ ",
                              utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour,
                              utc.tm_min, utc.tm_sec, now.tv_nsec / 1000000);
  std::string line(stamp, static_cast<size_t>(n));
  line.append(Program()).append(" ").append(name).append(": ").append(text).append("\n");
  // One write per line, so that the lines of several threads and processes do not mix.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

void SetLog(std::string_view program, LogLevel level) {
  Program() = program;
  g_level = level;
}
void LogError(std::string_view text) { Write(LogLevel::kError, "error", text); }
void LogWarning(std::string_view text) { Write(LogLevel::kWarning, "warning", text); }
void LogInfo(std::string_view text) { Write(LogLevel::kInfo, "info", text); }

}  // namespace talaria
