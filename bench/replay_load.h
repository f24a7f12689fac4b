// Load on a cloud without a CVM: connections that send recorded masked rows, whose products are
// known, over the real protocol, and compare every answer.
#ifndef TALARIA_BENCH_REPLAY_LOAD_H_
#define TALARIA_BENCH_REPLAY_LOAD_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/recording.h"
#include "talaria/base/result.h"

namespace talaria::bench {

struct LoadResult {
  uint64_t calls = 0, rows = 0;
  uint64_t wrong = 0;             // answers
  std::vector<std::string> lost;  // why connections ended before their time
  std::vector<double> latencies_ms;
  double seconds = 0;
};

class ReplayLoad {
 public:
  // Connects and greets; all start together. kUnavailable.
  static Result<std::unique_ptr<ReplayLoad>> Start(const std::string& endpoint,
                                                   const Recording& recording, int connections);
  ~ReplayLoad();
  LoadResult Stop();

 private:
  struct Replayer;
  explicit ReplayLoad(const Recording& recording);
  void Replay(Replayer& replayer, size_t number);

  const Recording& recording_;
  std::atomic<bool> go_{false}, stop_{false};
  std::vector<std::unique_ptr<Replayer>> replayers_;
};

// Clients that no cloud wants: one that never reads its answers, one that sends requests without
// end, and one that sends garbage. They connect again whenever they are thrown out.
class Misbehaviour {
 public:
  Misbehaviour(std::string endpoint, const Recording& recording);
  ~Misbehaviour();
  struct Counts {
    uint64_t unread = 0, flooded = 0, garbage = 0;  // requests sent, or pieces of garbage
  };
  Counts Stop();

 private:
  void NeverRead();
  void Flood();
  void SendGarbage();

  const std::string endpoint_;
  std::vector<uint8_t> many_planes_;  // of the widest answer, many rows
  uint32_t many_rows_ = 0, group_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> unread_{0}, flooded_{0}, garbage_{0};
  std::vector<std::thread> threads_;
};

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_REPLAY_LOAD_H_
