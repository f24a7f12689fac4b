#include "talaria/cvm/front.h"

#include <chrono>
#include <condition_variable>
#include <list>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "talaria/base/limited_log.h"
#include "talaria/base/log.h"
#include "talaria/cvm/front_connection.h"

namespace talaria::cvm {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr int kPauseMs = 100;  // out of descriptors or memory: the connection stays in the queue
constexpr int kPollMs = 5;

class FrontImpl final : public Front {
 public:
  FrontImpl(FrontOptions options, std::unique_ptr<wire::Listener> listener)
      : options_(std::make_shared<const FrontOptions>(std::move(options))),
        listener_(std::move(listener)) {}

  ~FrontImpl() override { Stop(); }

  Status Start() {
    try {
      acceptor_ = std::thread([this] { AcceptAll(); });
    } catch (const std::system_error&) {
      return Status(Code::kResourceExhausted, "no thread for the front");
    }
    return OkStatus();
  }

  void Stop() override {
    const std::lock_guard stopping(stop_mutex_);  // a second caller returns when all is stopped
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    wake_.notify_all();
    listener_->Shutdown();
    if (acceptor_.joinable()) acceptor_.join();
    // Nobody adds any more. First all at once, then each is waited for.
    std::list<FrontConnection> last;
    {
      const std::lock_guard lock(mutex_);
      last.swap(connections_);
    }
    for (FrontConnection& connection : last) connection.Stop();
  }

  void AwaitAnswers(int timeout_ms) override {
    const auto end = Clock::now() + milliseconds(timeout_ms);
    while (HasUnsent() && Clock::now() < end) std::this_thread::sleep_for(milliseconds(kPollMs));
  }

  std::string address() const override { return listener_->address(); }

 private:
  void AcceptAll() {
    for (;;) {
      Result<std::unique_ptr<wire::Transport>> client = listener_->Accept();
      std::unique_lock lock(mutex_);
      if (stopped_) return;
      // Their threads have nothing left to do.
      connections_.remove_if([](const FrontConnection& connection) { return connection.done(); });
      if (client.ok()) {
        if (connections_.size() >= static_cast<size_t>(options_->max_connections)) continue;
        connections_.emplace_back(options_, std::move(client).value());
        if (const Status started = connections_.back().Start(); !started.ok()) {
          refused_threads_.Warn(started.ToString());
          connections_.pop_back();
        }
        continue;
      }
      if (client.status().code() != Code::kResourceExhausted) {
        LogError("the front is broken: " + client.status().ToString());
        return;
      }
      wake_.wait_for(lock, milliseconds(kPauseMs), [this] { return stopped_; });
    }
  }

  bool HasUnsent() {
    const std::lock_guard lock(mutex_);
    for (FrontConnection& connection : connections_)
      if (connection.HasUnsent()) return true;
    return false;
  }

  const std::shared_ptr<const FrontOptions> options_;
  const std::unique_ptr<wire::Listener> listener_;
  std::thread acceptor_;
  std::mutex stop_mutex_;  // before mutex_
  std::mutex mutex_;       // for all below
  std::condition_variable wake_;
  bool stopped_ = false;
  std::list<FrontConnection> connections_;
  LimitedLog refused_threads_{5, "clients without a thread"};
};

}  // namespace

Result<std::unique_ptr<Front>> Front::Create(FrontOptions options) {
  TALARIA_CHECK(options.gateway != nullptr && options.key != nullptr &&
                options.attester != nullptr && options.context != nullptr);
  TALARIA_ASSIGN_OR_RETURN(const wire::Endpoint endpoint, wire::Endpoint::Parse(options.listen));
  TALARIA_ASSIGN_OR_RETURN(std::unique_ptr<wire::Listener> listener,
                           wire::Listener::Create(endpoint));
  auto front = std::make_unique<FrontImpl>(std::move(options), std::move(listener));
  TALARIA_RETURN_IF_ERROR(front->Start());
  return std::unique_ptr<Front>(std::move(front));
}

}  // namespace talaria::cvm
