// Runs tasks in order on one thread of its own, so that digests and inner products overlap with the
// transfer.
#ifndef TALARIA_CVM_SETUP_WORKER_H_
#define TALARIA_CVM_SETUP_WORKER_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "talaria/base/denormals.h"
#include "talaria/base/result.h"

namespace talaria::cvm::internal {

class SetupWorker {
 public:
  using Task = std::function<Status()>;

  // When Post(task n) has returned, task n - kDepth - 1 and all before it have ended: a buffer may
  // be used again after kBuffers tasks.
  static constexpr size_t kDepth = 4;
  static constexpr size_t kBuffers = kDepth + 2;

  explicit SetupWorker(bool own_thread) {
    if (own_thread) thread_ = std::thread([this] { Run(); });
  }
  ~SetupWorker() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      tasks_.clear();
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }
  SetupWorker(const SetupWorker&) = delete;
  SetupWorker& operator=(const SetupWorker&) = delete;

  // Waits for room. The error of an earlier task, if one failed: nothing runs after it.
  Status Post(Task task) {
    if (!thread_.joinable()) {
      if (failure_.ok()) failure_ = task();
      return failure_;
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return tasks_.size() < kDepth || !failure_.ok(); });
    if (!failure_.ok()) return failure_;
    tasks_.push_back(std::move(task));
    changed_.notify_all();
    return OkStatus();
  }

  // Waits for all tasks.
  Status Finish() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return (tasks_.empty() && !running_) || !failure_.ok(); });
    return failure_;
  }

 private:
  void Run() {
    const ScopedFlushDenormals flush;
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
      if (stopping_) return;
      {
        const Task task = std::move(tasks_.front());
        tasks_.pop_front();
        running_ = true;
        lock.unlock();
        changed_.notify_all();
        Status status = task();
        lock.lock();
        running_ = false;
        if (!status.ok()) {
          failure_ = std::move(status);
          tasks_.clear();
        }
      }
      changed_.notify_all();
      if (!failure_.ok()) return;
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;
  bool running_ = false, stopping_ = false;
  Status failure_;
  std::thread thread_;
};

}  // namespace talaria::cvm::internal

#endif  // TALARIA_CVM_SETUP_WORKER_H_
