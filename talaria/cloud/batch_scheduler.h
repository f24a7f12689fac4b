// Requests of many connections become few products: whose rows are multiplied next, and with whom.
//
// A product is computed by a thread that asked for one, the leader; there is no thread in between.
// Who finds the device idle leads at once. Who finds it busy waits, and when the leader's product
// ends, the next one takes rows of every waiting request for the same group. A leader whose own
// request is done soon names the next one and returns.
//
//   request ─▶ idle? ─▶ lead: [form a batch ─▶ product ─▶ hand out] until the own rows are done
//                │no                                                      │ wakes the next leader
//                └────▶ wait ─▶ done, or leader ◀─────────────────────────┘
//
// Fairness is between accounts, one a CVM however many connections it has, and is start-time fair
// queueing by work (rows times weights): who asks for little is served before who asks for much,
// whatever that has in the queue; who was idle has nothing saved up. In a batch the rows are shared
// evenly between accounts, and an account's between its requests. One that does not fit takes
// turns.
//
// Only who has asked for a product counts, from its first request until its end: a connection that
// is not attested cannot ask, so strangers, however many, change no product of anybody. The price
// is that somebody's first request may wait for one product of the size that it has when alone.
#ifndef TALARIA_CLOUD_BATCH_SCHEDULER_H_
#define TALARIA_CLOUD_BATCH_SCHEDULER_H_

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/result.h"
#include "talaria/gemm/device.h"

namespace talaria::cloud {

class BatchScheduler {
 public:
  struct Options {
    size_t max_places = 1;  // that ask; room for their requests is made once
    // How long a product waits for more rows, at most, counted from its first request's arrival:
    // only while nothing else is to be done and other connections were active just now. 0: never.
    std::chrono::microseconds window{0};
    // A connection whose last request came longer ago is not waited for.
    std::chrono::milliseconds active{10};
    // How long a leader whose request is done multiplies small requests of others before it names
    // the next leader, which takes a while to wake.
    std::chrono::microseconds lead_on{100};
    // Once, on the thread whose product found the device lost.
    std::function<void(const Status&)> on_lost = nullptr;
  };
  // Weights of one group, owned by the caller.
  struct Group {
    gemm::DeviceWeights* weights;
    size_t in_row_bytes, out_row_bytes;
    uint64_t row_work;  // of one row, in the same unit for all groups
  };
  struct Stats {
    uint64_t arrivals = 0;            // of requests
    uint64_t requests = 0, rows = 0;  // that were answered
    uint64_t products = 0;            // calls of the device
    uint64_t blocks = 0;              // of requests in them
  };

  // Whose connections count as one.
  class Account {
    friend class BatchScheduler;
    // All guarded by the scheduler's mutex.
    uint64_t work_ = 0;  // virtual time: what was multiplied for it
    // Of the batch that is formed.
    uint64_t arrival_ = 0;  // of its first request
    size_t wanted_ = 0, share_ = 0, requests_ = 0;
  };

  // What the scheduler knows of one connection, which has at most one request. Counts for nothing
  // before its first one. The scheduler outlives it.
  class Place {
   public:
    explicit Place(BatchScheduler& scheduler) : scheduler_(scheduler) {}  // an account of its own
    ~Place();
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;
    // Before its first request.
    void Join(std::shared_ptr<Account> account) { shared_ = std::move(account); }

   private:
    friend class BatchScheduler;
    enum class State { kIdle, kWaiting, kLeader, kDone };
    using Clock = std::chrono::steady_clock;

    Account& account() { return shared_ == nullptr ? own_ : *shared_; }
    size_t left() const { return rows_ - done_; }

    BatchScheduler& scheduler_;
    Account own_;
    std::shared_ptr<Account> shared_;
    // All guarded by the scheduler's mutex.
    bool has_asked_ = false;  // and is in places_
    std::condition_variable turn_;
    State state_ = State::kIdle;
    Status status_;
    uint32_t group_ = 0;
    Bytes planes_;
    MutableBytes out_;
    size_t rows_ = 0, done_ = 0;
    size_t now_ = 0;  // rows in the product that runs
    uint64_t arrival_ = 0;
    Clock::time_point asked_{};  // kept only where there is a window
  };

  BatchScheduler(std::vector<Group> groups, Options options);

  // out [rows][out_row_bytes] = planes [rows][in_row_bytes] times a group's weights. Sizes and
  // group are the caller's to check. Blocks; allocates nothing. kCancelled: `stopping` became true
  // before the last row was multiplied. kResourceExhausted, kUnavailable: of the device.
  Status Multiply(Place& place, uint32_t group, Bytes planes, size_t rows, MutableBytes out,
                  const std::atomic<bool>& stopping);
  Stats stats() const;

 private:
  using Lock = std::unique_lock<std::mutex>;

  void Lead(Place& self, const std::atomic<bool>& stopping, Lock& lock);
  bool LeadsOn(Place::Clock::time_point until, uint64_t own_work) const;
  uint64_t BatchWork() const;
  void AwaitCompany(const std::atomic<bool>& stopping, Lock& lock);
  Place::Clock::time_point CompanyUntil() const;
  Place& Next() const;
  void FormBatch();
  void ShareRows(size_t budget);
  void RunBatch(Lock& lock);
  void EndAll(const Status& status);
  void End(Place& place, Status status);

  const std::vector<Group> groups_;
  const Options options_;
  mutable std::mutex mutex_;  // not held during a product
  std::condition_variable company_;
  std::vector<Place*> places_;      // that have asked for a product
  std::vector<Place*> waiting_;     // with rows to be multiplied, the leader's own included
  std::vector<Place*> batch_;       // of the product that runs
  std::vector<Account*> accounts_;  // of the batch that is formed
  std::vector<gemm::RowBlock> blocks_;
  bool led_ = false;       // somebody is the leader
  bool forming_ = false;   // and waits for company
  uint64_t work_now_ = 0;  // the virtual time of the product that runs
  Status lost_;
  Stats stats_;
};

}  // namespace talaria::cloud

#endif  // TALARIA_CLOUD_BATCH_SCHEDULER_H_
