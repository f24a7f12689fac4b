// Child processes as the benchmark needs them: whole output, wall time, and the operating system's
// own CPU accounting. A child is sent SIGTERM when the thread that started it ends, however that
// is: start what is to live longer than that from main()'s thread.
#ifndef TALARIA_BENCH_PROCESS_H_
#define TALARIA_BENCH_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "talaria/base/file.h"
#include "talaria/base/result.h"

namespace talaria::bench {

struct Usage {
  double cpu_seconds = 0;  // user and system
  double resident_peak_mib = 0;
  double resident_mib = 0;  // now; 0 for an ended process
};

struct Finished {
  int exit_code = 0;
  std::string output;  // standard output
  double wall_seconds = 0;
  Usage usage;
};

// Runs to the end; standard error goes to `error_log` (appended). kIo when it cannot be started,
// kUnavailable for a non-zero exit.
Result<Finished> RunProcess(const std::vector<std::string>& arguments,
                            const std::string& error_log);

double CpuSecondsOf(pid_t pid);  // user and system, until now; 0 without that process
Usage MemoryOf(pid_t pid);       // its memory alone; zeros without that process

// A process that is spoken to line by line on its standard input and output. Ended (SIGTERM, then
// SIGKILL) at destruction.
class Background {
 public:
  static Result<Background> Start(const std::vector<std::string>& arguments,
                                  const std::string& error_log);
  Background(Background&&) = default;
  Background& operator=(Background&&) = delete;
  ~Background();
  Status WriteLine(const std::string& line);
  Result<std::string> ReadLine(
      double timeout_seconds);               // kUnavailable at its end or after the time
  Usage Measure() const;                     // of the running process alone
  double MeasureEndedGrandchildren() const;  // CPU seconds of the ended children of its children
  pid_t Grandchild() const;                  // one that runs, or -1
  pid_t pid() const { return pid_; }
  bool ended() const;

 private:
  Background() = default;
  pid_t pid_ = -1;
  Fd in_, out_;
  std::string buffered_;
};

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_PROCESS_H_
