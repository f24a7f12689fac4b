// A device for tests: multiplies with the oracle, and does on top what a script says. Every call is
// recorded.
#ifndef TALARIA_CLOUD_TESTING_FAKE_DEVICE_H_
#define TALARIA_CLOUD_TESTING_FAKE_DEVICE_H_

#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "talaria/gemm/device.h"
#include "talaria/gemm/product.h"

namespace talaria::cloud::testing {

struct FakeCall {
  size_t weights;            // of which CreateWeights, counted from 0
  std::vector<size_t> rows;  // of each block
  size_t total() const {
    size_t sum = 0;
    for (const size_t n : rows) sum += n;
    return sum;
  }
};

class FakeDevice final : public gemm::Device {
 public:
  // Called for every Multiply, before it multiplies. May block, and fail it.
  using Script = std::function<Status(const FakeCall&)>;

  explicit FakeDevice(size_t max_rows = 64) : max_rows_(max_rows) {}
  std::string name() const override { return "fake"; }
  std::vector<Memory> memory() const override { return {{"fake", 0, std::nullopt}}; }
  void SetScript(Script script) {
    const std::lock_guard lock(mutex_);
    script_ = std::move(script);
  }
  // Flips a bit of every later product.
  void Lie() {
    const std::lock_guard lock(mutex_);
    lies_ = true;
  }
  std::vector<FakeCall> calls() const {
    const std::lock_guard lock(mutex_);
    return calls_;
  }
  void ForgetCalls() {
    const std::lock_guard lock(mutex_);
    calls_.clear();
  }

  Result<std::unique_ptr<gemm::DeviceWeights>> CreateWeights(size_t d,
                                                             size_t padded_outputs) override {
    return std::unique_ptr<gemm::DeviceWeights>(
        std::make_unique<Weights>(*this, created_++, d, padded_outputs));
  }

 private:
  class Weights final : public gemm::DeviceWeights {
   public:
    Weights(FakeDevice& device, size_t index, size_t d, size_t padded_outputs)
        : device_(device), index_(index), d_(d), weights_(padded_outputs * d) {}
    Status SetColumns(size_t first, std::span<const int8_t> weights) override {
      if (first * d_ + weights.size() > weights_.size())
        return {Code::kInvalidArgument, "columns out of range"};
      std::memcpy(&weights_[first * d_], weights.data(), weights.size());
      return OkStatus();
    }
    size_t max_rows() const override { return device_.max_rows_; }
    Status Multiply(std::span<const gemm::RowBlock> blocks) override {
      FakeCall call{index_, {}};
      for (const gemm::RowBlock& block : blocks) call.rows.push_back(block.rows);
      Script script;
      bool lies;
      {
        const std::lock_guard lock(device_.mutex_);
        TALARIA_CHECK(!device_.busy_);  // one call at a time, whoever makes it
        device_.busy_ = true;
        device_.calls_.push_back(call);
        script = device_.script_;
        lies = device_.lies_;
      }
      const Status status = script ? script(call) : OkStatus();
      if (status.ok()) {
        TALARIA_CHECK(!blocks.empty() && call.total() <= device_.max_rows_);
        for (const gemm::RowBlock& block : blocks) {
          gemm::ReferenceProduct(weights_, d_, block.planes, block.rows, block.out);
          if (lies) block.out[0] ^= 1;
        }
      }
      const std::lock_guard lock(device_.mutex_);
      device_.busy_ = false;
      return status;
    }

   private:
    FakeDevice& device_;
    const size_t index_, d_;
    std::vector<int8_t> weights_;  // [padded_outputs][d]
  };

  const size_t max_rows_;
  size_t created_ = 0;
  mutable std::mutex mutex_;
  Script script_;
  bool lies_ = false, busy_ = false;
  std::vector<FakeCall> calls_;
};

// Holds products back until the test lets them go, one by one.
class Barrier {
 public:
  // For FakeDevice::SetScript: announces the call, then waits for Pass.
  Status Wait() {
    std::unique_lock lock(mutex_);
    ++arrived_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return passes_ > 0 || open_; });
    if (!open_) --passes_;
    return OkStatus();
  }
  // Until the n-th call, counted from 1, has come.
  void Await(size_t n) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return arrived_ >= n; });
  }
  void Pass(size_t n = 1) {
    const std::lock_guard lock(mutex_);
    passes_ += n;
    changed_.notify_all();
  }
  void Open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t arrived_ = 0, passes_ = 0;
  bool open_ = false;
};

}  // namespace talaria::cloud::testing

#endif  // TALARIA_CLOUD_TESTING_FAKE_DEVICE_H_
