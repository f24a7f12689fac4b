#include "talaria/cloud/batch_scheduler.h"

#include <algorithm>
#include <new>
#include <tuple>

namespace talaria::cloud {
namespace {

// With others about that have asked for products, a product is a fraction of what the device would
// take at once: that long a single row waits for a long prompt. Not less than keeps the device
// busy.
constexpr size_t kCompanyFraction = 4;
constexpr size_t kMinProductRows = 32;

Status MultiplyOn(gemm::DeviceWeights& weights, std::span<const gemm::RowBlock> blocks) {
  try {
    return weights.Multiply(blocks);
  } catch (const std::bad_alloc&) {
    return {Code::kResourceExhausted, "no memory for a product"};
  }
}

}  // namespace

BatchScheduler::Place::~Place() {
  const std::lock_guard lock(scheduler_.mutex_);
  std::erase(scheduler_.places_, this);
}

BatchScheduler::BatchScheduler(std::vector<Group> groups, Options options)
    : groups_(std::move(groups)), options_(std::move(options)) {
  for (std::vector<Place*>* list : {&places_, &waiting_, &batch_})
    list->reserve(options_.max_places);
  accounts_.reserve(options_.max_places);
  blocks_.reserve(options_.max_places);
}

BatchScheduler::Stats BatchScheduler::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

Status BatchScheduler::Multiply(Place& place, uint32_t group, Bytes planes, size_t rows,
                                MutableBytes out, const std::atomic<bool>& stopping) {
  TALARIA_CHECK(group < groups_.size() && rows > 0);
  TALARIA_CHECK(planes.size() == rows * groups_[group].in_row_bytes &&
                out.size() == rows * groups_[group].out_row_bytes);
  Lock lock(mutex_);
  if (!lost_.ok()) return lost_;
  if (!place.has_asked_) {
    TALARIA_CHECK(places_.size() < options_.max_places);
    places_.push_back(&place);
    place.has_asked_ = true;
  }
  place.group_ = group;
  place.planes_ = planes;
  place.out_ = out;
  place.rows_ = rows;
  place.done_ = 0;
  place.status_ = OkStatus();
  Account& account = place.account();
  account.work_ = std::max(account.work_, work_now_);
  place.arrival_ = stats_.arrivals++;
  if (options_.window.count() > 0) place.asked_ = Place::Clock::now();
  place.state_ = Place::State::kWaiting;
  waiting_.push_back(&place);
  if (!led_) {
    led_ = true;
    place.state_ = Place::State::kLeader;
  } else {
    if (forming_) company_.notify_one();
    place.turn_.wait(lock, [&] { return place.state_ != Place::State::kWaiting; });
  }
  if (place.state_ == Place::State::kLeader) Lead(place, stopping, lock);
  place.state_ = Place::State::kIdle;
  return place.status_;
}

// Returns when the leader's own request has ended and the next one leads, or nobody waits.
void BatchScheduler::Lead(Place& self, const std::atomic<bool>& stopping, Lock& lock) {
  Place::Clock::time_point lead_until{};
  uint64_t own_work = 0;
  do {
    if (options_.window.count() > 0) AwaitCompany(stopping, lock);
    if (stopping.load(std::memory_order_relaxed)) {
      EndAll({Code::kCancelled, "stopping"});
      break;
    }
    FormBatch();
    const uint64_t work = BatchWork();
    RunBatch(lock);
    if (self.state_ == Place::State::kLeader || waiting_.empty()) continue;
    // Waking the next leader takes longer than a small product, and the device idles meanwhile.
    if (lead_until == Place::Clock::time_point{}) {
      lead_until = Place::Clock::now() + options_.lead_on;
      own_work = work;
    }
  } while (self.state_ == Place::State::kLeader || LeadsOn(lead_until, own_work));
  led_ = !waiting_.empty();
  if (!led_) return;
  Place& next = Next();
  next.state_ = Place::State::kLeader;
  next.turn_.notify_one();
}

// Whether a leader whose own request is done multiplies for others, too: nothing that takes longer
// than its own, and for a moment only.
bool BatchScheduler::LeadsOn(Place::Clock::time_point until, uint64_t own_work) const {
  if (waiting_.empty() || options_.window.count() > 0) return false;
  const Place& next = Next();
  return next.left() * groups_[next.group_].row_work <= own_work && Place::Clock::now() < until;
}

uint64_t BatchScheduler::BatchWork() const {
  uint64_t rows = 0;
  for (const Place* place : batch_) rows += place->now_;
  return rows * groups_[batch_[0]->group_].row_work;
}

// Who is served least.
BatchScheduler::Place& BatchScheduler::Next() const {
  return **std::ranges::min_element(waiting_, {}, [](Place* place) {
    return std::tuple(place->account().work_, place->arrival_);
  });
}

void BatchScheduler::AwaitCompany(const std::atomic<bool>& stopping, Lock& lock) {
  forming_ = true;
  while (!stopping.load(std::memory_order_relaxed)) {
    const Place& first = Next();
    const auto until = std::min(first.asked_ + options_.window, CompanyUntil());
    const bool alone =
        std::ranges::all_of(waiting_, [&](const Place* p) { return p->group_ == first.group_; });
    if (!alone || Place::Clock::now() >= until) break;
    company_.wait_until(lock, until);
  }
  forming_ = false;
}

// Until when somebody who asks for nothing now counts as active.
BatchScheduler::Place::Clock::time_point BatchScheduler::CompanyUntil() const {
  Place::Clock::time_point until{};
  for (const Place* place : places_) {
    if (place->state_ == Place::State::kIdle && place->asked_ != Place::Clock::time_point{})
      until = std::max(until, place->asked_ + options_.active);
  }
  return until;
}

// Rows of all requests for the group of the one that is served next.
void BatchScheduler::FormBatch() {
  Place& first = Next();
  const Group& group = groups_[first.group_];
  work_now_ = std::max(work_now_, first.account().work_);
  size_t budget = group.weights->max_rows();
  if (places_.size() > 1)
    budget = std::min(budget, std::max(kMinProductRows, budget / kCompanyFraction));
  batch_.clear();
  for (Place* place : waiting_) {
    if (place->group_ == first.group_) batch_.push_back(place);
  }
  ShareRows(budget);
  blocks_.clear();
  for (Place* place : batch_) {
    const size_t now = place->now_;
    blocks_.push_back(
        {place->planes_.subspan(place->done_ * group.in_row_bytes, now * group.in_row_bytes), now,
         place->out_.subspan(place->done_ * group.out_row_bytes, now * group.out_row_bytes)});
  }
}

// An even share for each account, and of that for each of its requests; what small ones leave goes
// to larger ones. Who gets nothing leaves the batch.
void BatchScheduler::ShareRows(size_t budget) {
  std::ranges::sort(batch_, {}, &Place::arrival_);
  accounts_.clear();
  for (Place* place : batch_) {
    Account& account = place->account();
    if (account.requests_++ == 0) {
      accounts_.push_back(&account);
      account.arrival_ = place->arrival_;
      account.wanted_ = account.share_ = 0;
    }
    account.wanted_ += place->left();
  }
  for (Account* account : accounts_) account->requests_ = 0;
  // When there are more of them than rows, who is served least comes first.
  if (accounts_.size() > budget) {
    std::ranges::sort(accounts_, {}, [](const Account* account) {
      return std::tuple(account->work_, account->arrival_);
    });
    accounts_.resize(budget);
  }
  std::ranges::sort(accounts_, {}, &Account::wanted_);
  for (size_t i = 0; i < accounts_.size(); ++i) {
    accounts_[i]->share_ = std::min(accounts_[i]->wanted_, budget / (accounts_.size() - i));
    budget -= accounts_[i]->share_;
  }
  // An account's first requests, as many as it has rows.
  std::erase_if(batch_, [](Place* place) {
    Account& account = place->account();
    if (account.requests_ == account.share_) return true;
    ++account.requests_;
    return false;
  });
  std::ranges::sort(batch_, {}, &Place::left);
  for (Place* place : batch_) {
    Account& account = place->account();
    place->now_ = std::min(place->left(), account.share_ / account.requests_--);
    account.share_ -= place->now_;
  }
}

void BatchScheduler::RunBatch(Lock& lock) {
  const Group& group = groups_[batch_[0]->group_];
  ++stats_.products;
  stats_.blocks += blocks_.size();
  lock.unlock();
  Status status = MultiplyOn(*group.weights, blocks_);
  // What is too much together may be small enough one by one: nobody suffers for another's rows.
  const bool apart = status.code() == Code::kResourceExhausted && batch_.size() > 1;
  lock.lock();
  for (size_t i = 0; i < batch_.size(); ++i) {
    Place& place = *batch_[i];
    if (apart && status.code() != Code::kUnavailable) {
      ++stats_.products;
      ++stats_.blocks;
      lock.unlock();
      status = MultiplyOn(*group.weights, {&blocks_[i], 1});
      lock.lock();
    }
    place.account().work_ += place.now_ * group.row_work;
    place.done_ += place.now_;
    if (!status.ok()) {
      End(place, status);
    } else if (place.done_ == place.rows_) {
      ++stats_.requests;
      stats_.rows += place.rows_;
      End(place, OkStatus());
    }
  }
  if (status.code() != Code::kUnavailable) return;
  // Nothing can be multiplied any more.
  lost_ = status;
  EndAll(status);
  if (options_.on_lost != nullptr) {
    lock.unlock();
    options_.on_lost(status);
    lock.lock();
  }
}

void BatchScheduler::EndAll(const Status& status) {
  while (!waiting_.empty()) End(*waiting_.back(), status);
}

// The owner of a place that waits may return, and its place die, as soon as the mutex is free.
void BatchScheduler::End(Place& place, Status status) {
  std::erase(waiting_, &place);
  const bool leader = place.state_ == Place::State::kLeader;
  place.status_ = std::move(status);
  place.state_ = Place::State::kDone;
  if (!leader) place.turn_.notify_one();
}

}  // namespace talaria::cloud
