#include "talaria/gemm/thread_team.h"

#include <sched.h>

#include <chrono>
#include <string>
#include <system_error>

#include "talaria/base/log.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace talaria::gemm {
namespace {

constexpr uint64_t kOpen = uint64_t{1} << 31;
constexpr uint64_t kInside = kOpen - 1;
// A decoding client comes back within this time, and to wake a sleeping helper takes longer than a
// token's product. Whoever else wants the processor gets it meanwhile.
constexpr std::chrono::microseconds kSpin{1000};
constexpr int kPausesPerLook = 32;  // between looks at the clock

uint32_t Epoch(uint64_t word) { return static_cast<uint32_t>(word >> 32); }

void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Calls `done` for about kSpin; its last answer.
template <class F>
bool SpinUntil(F done) {
  if (done()) return true;
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      Pause();
      if (done()) return true;
    }
    sched_yield();
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

// Sleeping follows one pattern on both sides: the sleeper announces itself, then looks once more,
// under the mutex; the other side changes word_, then looks for sleepers. All four are sequentially
// consistent, so one of the two sees the other.

ThreadTeam::Impl::Impl(int threads) {
  for (int i = 1; i < threads; ++i) {
    try {
      helpers_.emplace_back([this] { HelperLoop(); });
    } catch (const std::system_error&) {
      LogWarning("only " + std::to_string(size()) + " of " + std::to_string(threads) +
                 " product threads could start");
      break;
    }
  }
}

ThreadTeam::Impl::~Impl() {
  {
    std::lock_guard lock(mutex_);
    stop_.store(true);
  }
  start_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

uint64_t ThreadTeam::Impl::AwaitEpoch(uint32_t seen) {
  const auto changed = [&] { return Epoch(word_.load()) != seen || stop_.load(); };
  if (!SpinUntil(changed)) {
    std::unique_lock lock(mutex_);
    sleepers_.fetch_add(1);
    start_.wait(lock, changed);
    sleepers_.fetch_sub(1);
  }
  return word_.load();
}

void ThreadTeam::Impl::HelperLoop() {
  uint32_t seen = 0;
  while (true) {
    uint64_t word = AwaitEpoch(seen);
    if (stop_.load()) return;
    seen = Epoch(word);
    // Enter while this epoch is open. A failed exchange means another helper came or went, or the
    // gate closed.
    bool inside = false;
    while (!inside && (word & kOpen) != 0) {
      seen = Epoch(word);
      inside = word_.compare_exchange_weak(word, word + 1);
    }
    if (!inside) continue;
    job_.work(job_.context);
    const uint64_t before = word_.fetch_sub(1);
    if ((before & kInside) == 1 && (before & kOpen) == 0 && caller_sleeps_.load()) {
      std::lock_guard lock(mutex_);
      finish_.notify_one();
    }
  }
}

void ThreadTeam::Impl::Run(void (*work)(void*), void* context, bool wake) {
  if (helpers_.empty()) {
    work(context);
    return;
  }
  job_ = {work, context};
  // Nobody is inside and nobody can come in while the gate is closed, so a plain store cannot lose
  // a count.
  word_.store((static_cast<uint64_t>(Epoch(word_.load()) + 1) << 32) | kOpen);
  if (wake && sleepers_.load() > 0) {
    { std::lock_guard lock(mutex_); }
    start_.notify_all();
  }
  work(context);
  word_.fetch_and(~kOpen);
  const auto empty = [&] { return (word_.load() & kInside) == 0; };
  if (!SpinUntil(empty)) {
    std::unique_lock lock(mutex_);
    caller_sleeps_.store(true);
    finish_.wait(lock, empty);
    caller_sleeps_.store(false);
  }
}

ThreadTeam::ThreadTeam(int threads) : impl_(std::make_unique<Impl>(threads)) {}
ThreadTeam::~ThreadTeam() = default;
int ThreadTeam::size() const { return impl_->size(); }

}  // namespace talaria::gemm
