#include "talaria/cvm/mask_pool.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "talaria/base/denormals.h"
#include "talaria/base/log.h"
#include "talaria/cvm/entropy.h"
#include "talaria/cvm/mask_batch.h"
#include "talaria/cvm/mask_pool_batch.h"
#include "talaria/cvm/mask_pool_groups.h"
#include "talaria/cvm/setup.h"
#include "talaria/ring/batch.h"
#include "talaria/ring/layout.h"

namespace talaria::cvm {
namespace {

static_assert(kBatchRows == ring::kDegree);

double ThreadCpuSeconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// What outlives the pool while tickets do.
class Core : public std::enable_shared_from_this<Core> {
  using Clock = std::chrono::steady_clock;

 public:
  Status Allocate(const MaskedModel& model, const MaskPoolOptions& options) {
    idle_ = options.idle;
    const MemoryPlan plan = PlanMemory(model.manifest);
    const uint64_t pass = plan.pool_batch;
    const uint64_t count = pass == 0 ? 0 : options.memory_budget / pass;
    const bool spares = options.memory_budget >= plan.Pools(count);
    if (count == 0) {
      return Status(Code::kResourceExhausted,
                    "mask pools: one batch of every group takes " +
                        std::to_string((pass >> 20) + 1) + " MiB, and the budget is " +
                        std::to_string(options.memory_budget >> 20) + " MiB");
    }
    TALARIA_ASSIGN_OR_RETURN(
        arena_, SecretMemory::Create(pass * count + (spares ? plan.pool_spares : 0), options.lock));
    pools_.groups.resize(model.groups.size());
    uint8_t* next = arena_.Expose().data();
    const auto add = [&](const MaskedGroup& group, ShapePool& shape) {
      const BatchExtent extent = BatchExtentOf(group.d_padded, group.o_padded);
      batches_.push_back(std::make_unique<PoolBatch>(
          BatchRows{next, next + extent.unmask_offset}, ring::RowPanelsBytes(group.d_padded),
          ring::RowPanelsBytes(group.o_padded), counters_));
      shape.free.push_back(batches_.back().get());
      next += extent.bytes;
    };
    std::map<std::pair<size_t, size_t>, size_t> groups_of;
    for (uint32_t g = 0; g < model.groups.size(); ++g) {
      const MaskedGroup& group = model.groups[g];
      const std::pair shape_key{size_t{group.d_padded}, size_t{group.o_padded}};
      ShapePool& shape = pools_.shapes[shape_key];
      pools_.groups[g].shape = &shape;
      pools_.groups[g].batches = count;
      for (uint64_t i = 0; i < count; ++i) add(group, shape);
      if (spares && ++groups_of[shape_key] == 2) {
        for (size_t i = 0; i < kSpareBatches; ++i) add(group, shape);
        shape.spares = kSpareBatches;
      }
    }
    TALARIA_CHECK(next <= arena_.Expose().data() + arena_.size());
    return OkStatus();
  }

  Status Draw(uint32_t g, uint32_t rows, std::vector<RowTicket>& out) {
    TALARIA_CHECK(g < pools_.groups.size());
    rows = std::min(rows, kBatchRows);
    // 256 rows end at most one; released after the lock, since that may call Recycle().
    std::shared_ptr<PoolBatch> exhausted;
    std::unique_lock lock(mutex_);
    GroupPool& pool = pools_.groups[g];
    // All or nothing, so that nobody waits while holding rows; a single batch has no more to wait
    // for.
    const auto enough = [&] {
      return Over() || pool.ready_rows >= rows || (pool.batches == 1 && pool.ready_rows > 0);
    };
    if (!enough()) {
      ++pool.waiting;
      changed_.notify_all();
      changed_.wait(lock, enough);
      --pool.waiting;
    }
    TALARIA_RETURN_IF_ERROR(OverStatus());
    last_draw_ = Clock::now();
    uint32_t left = static_cast<uint32_t>(std::min<uint64_t>(rows, pool.ready_rows));
    counters_.drawn.fetch_add(left, std::memory_order_relaxed);
    if (pools_.CountDraw(pool, left)) changed_.notify_all();
    while (left != 0) {
      const std::shared_ptr<PoolBatch>& batch = pool.ready.front();
      const uint32_t n = std::min(left, kBatchRows - batch->next_row);
      for (uint32_t i = 0; i < n; ++i) out.emplace_back(batch, batch->next_row++);
      left -= n;
      if (batch->next_row == kBatchRows) {
        exhausted = std::move(pool.ready.front());
        pool.ready.pop_front();
        ++pool.draining;
      }
    }
    return OkStatus();
  }

  // A fill thread.
  void Fill(BatchGenerator& generator) {
    std::vector<PoolBatch*> batches;
    std::vector<BatchRows> rows;
    std::unique_lock lock(mutex_);
    for (;;) {
      if (Over()) return;
      GroupPool* const chosen = pools_.Choose(AtOnce());
      if (chosen == nullptr) {
        WaitForWork(lock);
        continue;
      }
      GroupPool& pool = *chosen;
      const uint32_t group = static_cast<uint32_t>(chosen - pools_.groups.data());
      batches.clear();
      rows.clear();
      pools_.Take(pool, batches);
      for (PoolBatch* batch : batches) {
        batch->group = group;
        rows.push_back(batch->rows());
      }
      ++active_;
      lock.unlock();
      const double start = ThreadCpuSeconds(), tested = generator.self_test_seconds();
      const Status status = generator.Generate(group, rows, cancel_);
      counters_.generation_seconds.fetch_add(ThreadCpuSeconds() - start, std::memory_order_relaxed);
      counters_.self_test_seconds.fetch_add(generator.self_test_seconds() - tested,
                                            std::memory_order_relaxed);
      lock.lock();
      --active_;
      pool.filling -= batches.size();
      if (status.ok() && !Over()) {
        for (PoolBatch* batch : batches) {
          batch->Renew();
          pool.ready.emplace_back(batch,
                                  [core = shared_from_this()](PoolBatch* b) { core->Recycle(b); });
        }
        pool.ready_rows += batches.size() * kBatchRows;
        counters_.generated.fetch_add(batches.size() * kBatchRows, std::memory_order_relaxed);
        counters_.batches.fetch_add(batches.size(), std::memory_order_relaxed);
        counters_.passes.fetch_add(1, std::memory_order_relaxed);
      } else {
        if (status.ok()) {
          for (PoolBatch* batch : batches) batch->WipeRows();
        } else if (status.code() != Code::kCancelled) {
          // A failed self-test, or no entropy: no mask can be trusted from here on.
          LogError("mask pool: " + status.message());
          poisoned_ = true;
          cancel_.store(true, std::memory_order_relaxed);
        }
        pools_.GiveBack(pool, batches);
      }
      changed_.notify_all();
    }
  }

  Status WaitUntilFull() {
    std::unique_lock lock(mutex_);
    ++full_waiters_;
    changed_.notify_all();
    changed_.wait(lock, [&] {
      return Over() ||
             std::all_of(pools_.groups.begin(), pools_.groups.end(),
                         [](const GroupPool& p) { return p.own_free() == 0 && p.filling == 0; });
    });
    --full_waiters_;
    return OverStatus();
  }

  // Ends all waiting; returns when no fill thread generates any more and every row that nobody
  // holds is wiped.
  void End(bool poison) {
    std::vector<std::shared_ptr<PoolBatch>> dropped;
    {
      std::unique_lock lock(mutex_);
      (poison ? poisoned_ : stopped_) = true;
      cancel_.store(true, std::memory_order_relaxed);
      changed_.notify_all();
      changed_.wait(lock, [&] { return active_ == 0; });
      for (GroupPool& pool : pools_.groups) {
        pool.draining += pool.ready.size();
        std::move(pool.ready.begin(), pool.ready.end(), std::back_inserter(dropped));
        pool.ready.clear();
        pool.ready_rows = 0;
      }
      // The rows of tickets that live are theirs to wipe.
      for (const std::shared_ptr<PoolBatch>& batch : dropped) {
        while (batch->next_row < kBatchRows) batch->Drop(batch->next_row++);
      }
    }
  }

  bool ended() const {
    std::lock_guard lock(mutex_);
    return poisoned_;
  }

  MaskStats stats() const {
    MaskStats out;
    out.rows_generated = counters_.generated.load(std::memory_order_relaxed);
    out.rows_drawn = counters_.drawn.load(std::memory_order_relaxed);
    out.rows_spent = counters_.spent.load(std::memory_order_relaxed);
    out.rows_burnt = counters_.burnt.load(std::memory_order_relaxed);
    out.batches = counters_.batches.load(std::memory_order_relaxed);
    out.passes = counters_.passes.load(std::memory_order_relaxed);
    out.generation_cpu_seconds = counters_.generation_seconds.load(std::memory_order_relaxed);
    out.self_test_cpu_seconds = counters_.self_test_seconds.load(std::memory_order_relaxed);
    std::lock_guard lock(mutex_);
    for (const GroupPool& pool : pools_.groups) {
      out.rows_ready += pool.ready_rows;
      out.rows_capacity += pool.batches * kBatchRows;
    }
    return out;
  }

 private:
  bool Over() const { return stopped_ || poisoned_; }
  Status OverStatus() const {
    if (poisoned_) return Status(Code::kSessionEnded, "the session has ended");
    if (stopped_) return Status(Code::kCancelled, "the mask pool was stopped");
    return OkStatus();
  }

  bool AtOnce() const { return full_waiters_ > 0 || Clock::now() - last_draw_ >= idle_; }
  // A batch that is free but not yet worth filling is so when the pool has been idle.
  void WaitForWork(std::unique_lock<std::mutex>& lock) {
    const bool free = std::any_of(pools_.groups.begin(), pools_.groups.end(),
                                  [](const GroupPool& pool) { return pool.own_free() != 0; });
    free ? (void)changed_.wait_until(lock, last_draw_ + idle_) : changed_.wait(lock);
  }

  // The last ticket of a batch is gone, or the batch was dropped. All its rows are wiped.
  void Recycle(PoolBatch* batch) {
    {
      std::lock_guard lock(mutex_);
      GroupPool& pool = pools_.groups[batch->group];
      --pool.draining;
      pools_.GiveBack(pool, {&batch, 1});
    }
    changed_.notify_all();
  }

  SecretMemory arena_;
  PoolCounters counters_;
  std::vector<std::unique_ptr<PoolBatch>> batches_;
  std::atomic<bool> cancel_{false};

  mutable std::mutex mutex_;  // guards everything below, and next_row of the batches
  std::condition_variable changed_;
  PoolGroups pools_;
  int active_ = 0;  // fill threads that generate
  int full_waiters_ = 0;
  std::chrono::milliseconds idle_{};
  Clock::time_point last_draw_{};
  bool stopped_ = false, poisoned_ = false;
};

class Pool final : public MaskPool {
 public:
  Pool(std::shared_ptr<Core> core, std::vector<std::unique_ptr<BatchGenerator>> generators)
      : core_(std::move(core)), generators_(std::move(generators)) {
    for (auto& generator : generators_)
      threads_.emplace_back([this, &generator] { Run(*generator); });
  }
  ~Pool() override { Stop(); }

  Status Draw(uint32_t group, uint32_t rows, std::vector<RowTicket>& out) override {
    return rows == 0 ? OkStatus() : core_->Draw(group, rows, out);
  }
  MaskStats stats() const override { return core_->stats(); }
  bool ended() const override { return core_->ended(); }
  void Poison() override { core_->End(/*poison=*/true); }
  Status WaitUntilFull() override { return core_->WaitUntilFull(); }
  void Stop() override {
    core_->End(/*poison=*/false);
    std::lock_guard lock(threads_mutex_);
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }

 private:
  void Run(BatchGenerator& generator) {
    const ScopedFlushDenormals flush;
    // Rows are made ahead of time: whoever waits for a token goes first. Refusal is no harm.
    (void)setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), 10);
    const sched_param parameters{};
    (void)sched_setscheduler(0, SCHED_BATCH, &parameters);
    core_->Fill(generator);
  }

  std::shared_ptr<Core> core_;
  std::vector<std::unique_ptr<BatchGenerator>> generators_;
  std::mutex threads_mutex_;
  std::vector<std::thread> threads_;
};

}  // namespace

Result<std::unique_ptr<MaskPool>> MaskPool::Create(const MaskedModel& model,
                                                   MaskPoolOptions options) {
  if (options.fill_threads < 1 || model.groups.empty()) {
    return Status(Code::kInvalidArgument, "mask pool: at least one fill thread and one group");
  }
  if (!options.entropy) {
    const RdseedPolicy policy =
        options.lock == LockPolicy::kRequire ? RdseedPolicy::kRequire : RdseedPolicy::kUseIfPresent;
    options.entropy = [policy](std::span<uint8_t, 32> key) {
      return FreshKey(policy, "talaria/mask-batch/v1", key);
    };
  }
  auto core = std::make_shared<Core>();
  TALARIA_RETURN_IF_ERROR(core->Allocate(model, options));
  std::vector<std::unique_ptr<BatchGenerator>> generators;
  for (int i = 0; i < options.fill_threads; ++i) {
    TALARIA_ASSIGN_OR_RETURN(
        std::unique_ptr<BatchGenerator> generator,
        BatchGenerator::Create(model, options.isa, options.lock, options.entropy));
    generators.push_back(std::move(generator));
  }
  return std::unique_ptr<MaskPool>(std::make_unique<Pool>(std::move(core), std::move(generators)));
}

}  // namespace talaria::cvm
