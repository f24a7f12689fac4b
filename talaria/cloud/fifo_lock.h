// A lock that is granted in the order in which it was asked for: a connection with many rows cannot
// starve one with few.
#ifndef TALARIA_CLOUD_FIFO_LOCK_H_
#define TALARIA_CLOUD_FIFO_LOCK_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace talaria::cloud {

// For std::lock_guard. All waiters are woken at each hand-over: there are at most as many as
// connections, and it is held for milliseconds.
class FifoLock {
 public:
  void lock() {
    std::unique_lock guard(mutex_);
    const uint64_t ticket = next_++;
    turn_.wait(guard, [&] { return serving_ == ticket; });
  }
  void unlock() {
    {
      std::lock_guard guard(mutex_);
      ++serving_;
    }
    turn_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable turn_;
  uint64_t next_ = 0, serving_ = 0;
};

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_FIFO_LOCK_H_
