// How a ThreadTeam runs one job. Internal to talaria/gemm.
#ifndef TALARIA_GEMM_THREAD_TEAM_H_
#define TALARIA_GEMM_THREAD_TEAM_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "talaria/gemm/product.h"

namespace talaria::gemm {

// A job is a function that every thread calls once; it takes its pieces from a counter of its own
// until none is left. So a helper may join at any time or not at all: the caller works too, then
// closes the gate and waits only for those inside.
//
//   word_ = epoch (32 bits) | open (1 bit) | threads inside (31 bits)
//   caller:  writes job_, opens a new epoch ... works ... closes ... waits for 0 inside
//   helper:  sees a new epoch that is open: enters (compare-and-swap), works, leaves
struct ThreadTeam::Impl {
  explicit Impl(int threads);
  ~Impl();

  // Runs work(context) on the caller's thread and on helpers. Without `wake`, helpers that already
  // sleep are let lie: waking one costs the caller a system call, more than a short job saves. Not
  // reentrant; one caller at a time.
  void Run(void (*work)(void* context), void* context, bool wake);

  template <class F>
  void Run(F& work, bool wake) {
    Run([](void* context) { (*static_cast<F*>(context))(); }, &work, wake);
  }

  int size() const { return static_cast<int>(helpers_.size()) + 1; }

 private:
  struct Job {
    void (*work)(void*) = nullptr;
    void* context = nullptr;
  };
  void HelperLoop();
  // Waits for an epoch other than `seen`; returns the word that has it.
  uint64_t AwaitEpoch(uint32_t seen);

  std::atomic<uint64_t> word_{0};
  Job job_;           // written by the caller while nobody is inside, read by those inside
  std::mutex mutex_;  // for sleeping only
  std::condition_variable start_;
  std::condition_variable finish_;
  std::atomic<int> sleepers_{0};
  std::atomic<bool> caller_sleeps_{false};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> helpers_;
};

}  // namespace talaria::gemm

#endif  // TALARIA_GEMM_THREAD_TEAM_H_
