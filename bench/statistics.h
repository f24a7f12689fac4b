// Median and spread of a few samples.
#ifndef TALARIA_BENCH_STATISTICS_H_
#define TALARIA_BENCH_STATISTICS_H_

#include <algorithm>
#include <vector>

namespace talaria::bench {

struct Summary {
  double median = 0, min = 0, max = 0;
  // (max - min) / median after the lowest and the highest fifth are dropped: one disturbed run does
  // not hide the rest.
  double spread = 0;
};

inline Summary Summarise(std::vector<double> samples) {
  Summary s;
  if (samples.empty()) return s;
  std::sort(samples.begin(), samples.end());
  const size_t n = samples.size(), cut = n / 5;
  s.min = samples.front();
  s.max = samples.back();
  s.median = n % 2 == 1 ? samples[n / 2] : (samples[n / 2 - 1] + samples[n / 2]) / 2;
  if (s.median != 0) s.spread = (samples[n - 1 - cut] - samples[cut]) / s.median;
  return s;
}

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_STATISTICS_H_
