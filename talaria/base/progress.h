// Progress of long work: a bar on a terminal, JSON lines when piped.
#ifndef TALARIA_BASE_PROGRESS_H_
#define TALARIA_BASE_PROGRESS_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace talaria {

// Writes to standard error, at most ten times a second. One thread at a time.
class Progress {
 public:
  Progress(std::string_view what, uint64_t total);
  ~Progress();  // ends the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void Advance(uint64_t amount, std::string_view detail = {});

 private:
  void Draw(bool final);
  std::string what_, detail_;
  uint64_t total_, done_ = 0;
  bool terminal_;
  std::chrono::steady_clock::time_point started_, drawn_;
};

}  // namespace talaria

#endif  // TALARIA_BASE_PROGRESS_H_
