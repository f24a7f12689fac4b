// Log lines that strangers cause, who choose how many there are: so many a minute are written, and
// of the others their number.
#ifndef TALARIA_BASE_LIMITED_LOG_H_
#define TALARIA_BASE_LIMITED_LOG_H_

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace talaria {

// All threads.
class LimitedLog {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // "N more WHAT within a minute" stands for the lines that were left out; written with the first
  // line after that minute, or at destruction.
  LimitedLog(int lines_per_minute, std::string what)
      : lines_per_minute_(lines_per_minute), what_(std::move(what)) {}
  ~LimitedLog();
  LimitedLog(const LimitedLog&) = delete;
  LimitedLog& operator=(const LimitedLog&) = delete;

  void Warn(const std::string& text);
  // What Warn(text) writes at `now`, which never goes back.
  std::vector<std::string> Lines(const std::string& text, Time now);

 private:
  std::string Count();

  const int lines_per_minute_;
  const std::string what_;
  std::mutex mutex_;
  Time minute_{};  // when the current one began
  int written_ = 0;
  uint64_t left_out_ = 0;
};

}  // namespace talaria

#endif  // TALARIA_BASE_LIMITED_LOG_H_
