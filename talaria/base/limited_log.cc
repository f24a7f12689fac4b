#include "talaria/base/limited_log.h"

#include <utility>

#include "talaria/base/log.h"

namespace talaria {

LimitedLog::~LimitedLog() {
  if (left_out_ != 0) LogWarning(Count());
}

std::string LimitedLog::Count() {
  return std::to_string(std::exchange(left_out_, 0)) + " more " + what_ + " within a minute";
}

std::vector<std::string> LimitedLog::Lines(const std::string& text, Time now) {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> lines;
  if (written_ == 0 || now - minute_ >= std::chrono::minutes(1)) {
    if (left_out_ != 0) lines.push_back(Count());
    minute_ = now;
    written_ = 0;
  }
  if (written_ == lines_per_minute_) {
    ++left_out_;
  } else {
    ++written_;
    lines.push_back(text);
  }
  return lines;
}

void LimitedLog::Warn(const std::string& text) {
  for (const std::string& line : Lines(text, std::chrono::steady_clock::now())) LogWarning(line);
}

}  // namespace talaria
