// How a call in this process is timed: CPU time of the calling thread, which a busy neighbour
// disturbs least.
#ifndef TALARIA_BENCH_TIME_CALLS_H_
#define TALARIA_BENCH_TIME_CALLS_H_

#include <time.h>

#include <cstddef>
#include <functional>
#include <vector>

#include "bench/statistics.h"

namespace talaria::bench {

struct Timing {
  int runs = 7;
  double seconds = 0.01;                  // a run repeats its call for at least so long
  size_t cold_bytes = size_t{160} << 20;  // calls rotate over so much: beyond a core's caches
};

// What is timed, with all that it works on.
using Call = std::function<void()>;

inline double ThreadCpuSeconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Of one call, on average over a run.
template <class F>
double SecondsPerCall(double least_seconds, F&& call) {
  const double start = ThreadCpuSeconds();
  double elapsed = 0;
  size_t calls = 0;
  do {
    call();
    ++calls;
    elapsed = ThreadCpuSeconds() - start;
  } while (elapsed < least_seconds);
  return elapsed / static_cast<double>(calls);
}

// Seconds per call, times `scale`.
template <class F>
Summary TimeCalls(const Timing& timing, double scale, F call) {
  call();
  std::vector<double> samples;
  for (int run = 0; run < timing.runs; ++run)
    samples.push_back(SecondsPerCall(timing.seconds, call) * scale);
  return Summarise(std::move(samples));
}

// Two calls in turns: a sample is of one run of each, so that a change of the machine's speed hits
// both.
struct Turn {
  double a_seconds = 0, b_seconds = 0;
};
inline std::vector<Turn> TimeTurns(const Timing& timing, const Call& a, const Call& b) {
  a();
  b();
  std::vector<Turn> turns;
  for (int run = 0; run < timing.runs; ++run) {
    turns.push_back({.a_seconds = SecondsPerCall(timing.seconds, a),
                     .b_seconds = SecondsPerCall(timing.seconds, b)});
  }
  return turns;
}

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_TIME_CALLS_H_
