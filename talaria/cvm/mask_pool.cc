#include "talaria/cvm/mask_pool.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "talaria/base/denormals.h"
#include "talaria/base/log.h"
#include "talaria/cvm/entropy.h"
#include "talaria/cvm/mask_batch.h"
#include "talaria/cvm/setup.h"
#include "talaria/ring/batch.h"
#include "talaria/ring/layout.h"

namespace talaria::cvm {
namespace {

static_assert(kBatchRows == ring::kDegree);
constexpr size_t kWordBits = 64;
// A group with no more rows is filled with what is free. Below the rows of a message (128), so that
// a prompt, which takes a group's rows in such pieces, leaves two batches free at once; enough for
// the tokens that are decoded while the groups are filled, one after another.
constexpr uint64_t kFewRows = 96;

double ThreadCpuSeconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

struct Counters {
  std::atomic<uint64_t> generated{0}, drawn{0}, spent{0}, burnt{0}, batches{0}, passes{0};
  std::atomic<double> generation_seconds{0}, self_test_seconds{0};  // CPU
};

// One batch's share of the arena, and which of its rows are used.
class Batch final : public RowOwner {
 public:
  Batch(BatchRows rows, size_t mask_bytes, size_t unmask_bytes, Counters& counters)
      : rows_(rows), mask_bytes_(mask_bytes), unmask_bytes_(unmask_bytes), counters_(counters) {}

  MaskRowView Spend(uint32_t row) override {
    TALARIA_CHECK(MarkUsed(row));
    counters_.spent.fetch_add(1, std::memory_order_relaxed);
    return {rows_.mask + ring::RowPanelsOffset(row, 0),
            rows_.unmask + ring::RowPanelsOffset(row, 0), ring::kPanelBytes, true};
  }

  void Burn(uint32_t row) override {
    if (MarkUsed(row)) counters_.burnt.fetch_add(1, std::memory_order_relaxed);
    WipeRow(row);
  }
  // A row that was never drawn.
  void Drop(uint32_t row) {
    (void)MarkUsed(row);
    WipeRow(row);
  }

  void WipeRow(uint32_t row) {
    for (size_t at = ring::RowPanelsOffset(row, 0); at < mask_bytes_; at += ring::kPanelBytes) {
      Wipe(rows_.mask + at, ring::kPanelRowBytes);
    }
    for (size_t at = ring::RowPanelsOffset(row, 0); at < unmask_bytes_; at += ring::kPanelBytes) {
      Wipe(rows_.unmask + at, ring::kPanelRowBytes);
    }
  }

  void WipeRows() {
    Wipe(rows_.mask, mask_bytes_);
    Wipe(rows_.unmask, unmask_bytes_);
  }
  // Fresh rows are in: nothing of it is used. The pool's mutex orders this before every ticket.
  void Renew() {
    for (auto& word : used_) word.store(0, std::memory_order_relaxed);
    next_row = 0;
  }

  const BatchRows& rows() const { return rows_; }
  // Guarded by the pool's mutex.
  uint32_t group = 0;     // that has it
  uint32_t next_row = 0;  // to be drawn

 private:
  // False when it already was.
  bool MarkUsed(uint32_t row) {
    TALARIA_CHECK(row < kBatchRows);
    const uint64_t bit = uint64_t{1} << row % kWordBits;
    return (used_[row / kWordBits].fetch_or(bit, std::memory_order_acq_rel) & bit) == 0;
  }

  const BatchRows rows_;
  const size_t mask_bytes_, unmask_bytes_;
  Counters& counters_;
  std::array<std::atomic<uint64_t>, kBatchRows / kWordBits> used_{};
};

// The groups of one shape.
struct ShapePool {
  std::vector<Batch*> free;  // wiped
  size_t spares = 0;         // of them, beyond what every group may have of its own
};

struct GroupPool {
  ShapePool* shape = nullptr;
  size_t batches = 0;                        // of its own; it has more with spares
  std::deque<std::shared_ptr<Batch>> ready;  // the first one is being drawn from
  size_t filling = 0, draining = 0;          // draining: all rows handed out, some still in use
  size_t waiting = 0;                        // callers
  uint64_t ready_rows = 0;
  // A visit is a run of draws from this group and no other.
  uint64_t visit = 0, visit_rows = 0;  // the last one: its number, and the rows that it took
  uint64_t most_rows = 0;              // that a visit took

  size_t held() const { return ready.size() + filling + draining; }
  size_t own_free() const { return held() < batches ? batches - held() : 0; }
  // That are there or being made.
  uint64_t rows() const { return ready_rows + filling * kBatchRows; }
};

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
    groups_.resize(model.groups.size());
    uint8_t* next = arena_.Expose().data();
    const auto add = [&](const MaskedGroup& group, ShapePool& shape) {
      const BatchExtent extent = BatchExtentOf(group.d_padded, group.o_padded);
      batches_.push_back(std::make_unique<Batch>(BatchRows{next, next + extent.unmask_offset},
                                                 ring::RowPanelsBytes(group.d_padded),
                                                 ring::RowPanelsBytes(group.o_padded), counters_));
      shape.free.push_back(batches_.back().get());
      next += extent.bytes;
    };
    std::map<std::pair<size_t, size_t>, size_t> groups_of;
    for (uint32_t g = 0; g < model.groups.size(); ++g) {
      const MaskedGroup& group = model.groups[g];
      const std::pair shape_key{size_t{group.d_padded}, size_t{group.o_padded}};
      ShapePool& shape = shapes_[shape_key];
      groups_[g].shape = &shape;
      groups_[g].batches = count;
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
    TALARIA_CHECK(g < groups_.size());
    rows = std::min(rows, kBatchRows);
    std::shared_ptr<Batch> exhausted;  // 256 rows end at most one; released after the lock, since
                                       // that may call Recycle()
    std::unique_lock lock(mutex_);
    GroupPool& pool = groups_[g];
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
    if (pool.visit != visit_ || visit_ == 0) {
      pool.visit = ++visit_;
      pool.visit_rows = 0;
    }
    uint32_t left = static_cast<uint32_t>(std::min<uint64_t>(rows, pool.ready_rows));
    counters_.drawn.fetch_add(left, std::memory_order_relaxed);
    pool.ready_rows -= left;
    pool.visit_rows += left;
    pool.most_rows = std::max(pool.most_rows, pool.visit_rows);
    if (pool.ready_rows <= kFewRows && pool.ready_rows + left > kFewRows) changed_.notify_all();
    while (left != 0) {
      const std::shared_ptr<Batch>& batch = pool.ready.front();
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
    std::vector<Batch*> batches;
    std::vector<BatchRows> rows;
    std::unique_lock lock(mutex_);
    for (;;) {
      if (Over()) return;
      GroupPool* const chosen = Choose();
      if (chosen == nullptr) {
        WaitForWork(lock);
        continue;
      }
      GroupPool& pool = *chosen;
      const uint32_t group = static_cast<uint32_t>(chosen - groups_.data());
      batches.clear();
      rows.clear();
      Take(pool, batches);
      for (Batch* batch : batches) {
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
        for (Batch* batch : batches) {
          batch->Renew();
          pool.ready.emplace_back(batch,
                                  [core = shared_from_this()](Batch* b) { core->Recycle(b); });
        }
        pool.ready_rows += batches.size() * kBatchRows;
        counters_.generated.fetch_add(batches.size() * kBatchRows, std::memory_order_relaxed);
        counters_.batches.fetch_add(batches.size(), std::memory_order_relaxed);
        counters_.passes.fetch_add(1, std::memory_order_relaxed);
      } else {
        if (status.ok()) {
          for (Batch* batch : batches) batch->WipeRows();
        } else if (status.code() != Code::kCancelled) {
          // A failed self-test, or no entropy: no mask can be trusted from here on.
          LogError("mask pool: " + status.message());
          poisoned_ = true;
          cancel_.store(true, std::memory_order_relaxed);
        }
        GiveBack(pool, batches);
      }
      changed_.notify_all();
    }
  }

  Status WaitUntilFull() {
    std::unique_lock lock(mutex_);
    ++full_waiters_;
    changed_.notify_all();
    changed_.wait(lock, [&] {
      return Over() || std::all_of(groups_.begin(), groups_.end(), [](const GroupPool& p) {
               return p.own_free() == 0 && p.filling == 0;
             });
    });
    --full_waiters_;
    return OverStatus();
  }

  // Ends all waiting; returns when no fill thread generates any more and every row that nobody
  // holds is wiped.
  void End(bool poison) {
    std::vector<std::shared_ptr<Batch>> dropped;
    {
      std::unique_lock lock(mutex_);
      (poison ? poisoned_ : stopped_) = true;
      cancel_.store(true, std::memory_order_relaxed);
      changed_.notify_all();
      changed_.wait(lock, [&] { return active_ == 0; });
      for (GroupPool& pool : groups_) {
        pool.draining += pool.ready.size();
        std::move(pool.ready.begin(), pool.ready.end(), std::back_inserter(dropped));
        pool.ready.clear();
        pool.ready_rows = 0;
      }
      // The rows of tickets that live are theirs to wipe.
      for (const std::shared_ptr<Batch>& batch : dropped) {
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
    for (const GroupPool& pool : groups_) {
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

  // The group to fill: one that somebody waits for, else the emptiest.
  GroupPool* Choose() {
    GroupPool* best = nullptr;
    for (GroupPool& pool : groups_) {
      if (!WorthFilling(pool)) continue;
      if (best == nullptr || Urgency(pool) < Urgency(*best)) best = &pool;
    }
    return best;
  }
  bool WorthFilling(const GroupPool& pool) const {
    if (Short(pool)) return true;
    if (pool.own_free() == 0) return false;
    const bool few = pool.rows() <= kFewRows && pool.draining == 0;
    return AtOnce() || pool.waiting > 0 || few || RunsOut(pool) || Free(pool) >= Share(pool);
  }
  bool AtOnce() const { return full_waiters_ > 0 || Clock::now() - last_draw_ >= idle_; }
  // What a pass over the hints is worth waiting for.
  static size_t Share(const GroupPool& pool) {
    return std::clamp(pool.batches / 2, std::min(pool.batches, size_t{2}),
                      ring::kMaxBatchesPerPass);
  }
  // A prompt is taking its rows, and will have to wait if it takes as many as those before.
  bool RunsOut(const GroupPool& pool) const {
    return pool.visit == visit_ && pool.visit_rows > kFewRows &&
           pool.rows() + pool.visit_rows < pool.most_rows;
  }
  // The next prompt would have to wait.
  bool Short(const GroupPool& pool) const {
    return pool.visit != visit_ && pool.rows() < pool.most_rows && pool.held() <= pool.batches &&
           pool.own_free() + pool.shape->spares >= Share(pool);
  }
  // Spares are for who gives them back soon.
  size_t Free(const GroupPool& pool) const {
    return pool.own_free() + (RunsOut(pool) || Short(pool) ? pool.shape->spares : 0);
  }
  // Least first. Every group has the same capacity, so this orders by the fraction; then by who was
  // visited longest ago, which a prompt visits next.
  static std::tuple<bool, uint64_t, uint64_t> Urgency(const GroupPool& pool) {
    return {pool.waiting == 0, pool.rows(), pool.visit};
  }
  void Take(GroupPool& pool, std::vector<Batch*>& out) {
    const size_t own = pool.own_free();
    const size_t count =
        std::min(std::max(own, std::min(Free(pool), Share(pool))), ring::kMaxBatchesPerPass);
    for (size_t i = 0; i < count; ++i) {
      out.push_back(pool.shape->free.back());
      pool.shape->free.pop_back();
    }
    pool.filling += count;
    pool.shape->spares -= count - std::min(count, own);
  }
  // `pool` has let go of the batches, which are wiped.
  void GiveBack(GroupPool& pool, std::span<Batch* const> batches) {
    pool.shape->free.insert(pool.shape->free.end(), batches.begin(), batches.end());
    pool.shape->spares += batches.size() - std::min(batches.size(), pool.own_free());
  }
  // A batch that is free but not yet worth filling is so when the pool has been idle.
  void WaitForWork(std::unique_lock<std::mutex>& lock) {
    const bool free = std::any_of(groups_.begin(), groups_.end(),
                                  [](const GroupPool& pool) { return pool.own_free() != 0; });
    free ? (void)changed_.wait_until(lock, last_draw_ + idle_) : changed_.wait(lock);
  }

  // The last ticket of a batch is gone, or the batch was dropped. All its rows are wiped.
  void Recycle(Batch* batch) {
    {
      std::lock_guard lock(mutex_);
      GroupPool& pool = groups_[batch->group];
      --pool.draining;
      GiveBack(pool, {&batch, 1});
    }
    changed_.notify_all();
  }

  SecretMemory arena_;
  Counters counters_;
  std::vector<std::unique_ptr<Batch>> batches_;
  std::atomic<bool> cancel_{false};

  mutable std::mutex mutex_;  // guards everything below, and next_row of the batches
  std::condition_variable changed_;
  std::map<std::pair<size_t, size_t>, ShapePool> shapes_;  // by padded widths
  std::vector<GroupPool> groups_;
  int active_ = 0;  // fill threads that generate
  int full_waiters_ = 0;
  std::chrono::milliseconds idle_{};
  Clock::time_point last_draw_{};
  uint64_t visit_ = 0;  // the number of the latest visit
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
