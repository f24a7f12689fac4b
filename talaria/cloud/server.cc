// Accepting connections, and their life: a thread per connection, because a product keeps one busy
// anyway and a slow peer then blocks nobody but its own thread.
#include "talaria/cloud/server.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <list>
#include <mutex>
#include <system_error>
#include <thread>

#include "talaria/base/bytes.h"
#include "talaria/base/limited_log.h"
#include "talaria/base/log.h"
#include "talaria/cloud/session.h"
#include "talaria/model/store.h"
#include "talaria/wire/transport.h"

namespace talaria::cloud {
namespace {

constexpr std::chrono::milliseconds kDrainGrace{
    1000};  // for replies that are under way when the server stops
constexpr std::chrono::milliseconds kAcceptPause{50};  // when the system has no descriptor left
constexpr int kRefusalTimeoutMs = 100;
constexpr int kMaxBatchWindowUs = 100'000;

Status CheckOptions(const ServerOptions& options) {
  const auto bad = [](const char* what) { return Status(Code::kInvalidArgument, what); };
  if (options.device.threads < 1) return bad("threads must be at least 1");
  if (options.max_connections < 1) return bad("max_connections must be at least 1");
  if (options.max_connections_per_cvm < 1) return bad("max_connections_per_cvm must be at least 1");
  if (options.batch_window_us < 0 || options.batch_window_us > kMaxBatchWindowUs)
    return bad("batch_window_us must be 0 to 100000: all connections wait for it");
  if (options.idle_timeout_ms < 0) return bad("idle_timeout_ms must not be negative");
  if (options.frame_timeout_ms < 1)
    return bad("frame_timeout_ms must be at least 1: a peer could block a thread for ever");
  if (options.hello_timeout_ms < 1 || options.evidence_timeout_ms < 1)
    return bad("hello_timeout_ms and evidence_timeout_ms must be at least 1");
  if ((options.gate != nullptr) == options.insecure_plaintext)
    return bad("either a gate or plaintext is needed");
#ifndef TALARIA_SIMULATED_TEE
  if (options.insecure_plaintext)
    return Status(Code::kUnsupported, "this program was built without the simulated TEE");
#endif
  return OkStatus();
}

class ServerImpl final : public Server {
 public:
  ServerImpl(ServerOptions options, model::Store store)
      : options_(std::move(options)), store_(std::move(store)) {}
  ~ServerImpl() override { EndSessions(); }

  Status Start(const wire::Endpoint& endpoint) {
    std::shared_ptr<gemm::Device> device = options_.test_device;
    if (device == nullptr) {
      TALARIA_ASSIGN_OR_RETURN(device, gemm::CreateDevice(options_.device));
    } else {
      TALARIA_RETURN_IF_ERROR(gemm::SelfTestDevice(*device));
    }
    LogInfo("products on " + device->name());
    TALARIA_ASSIGN_OR_RETURN(
        products_,
        ProductService::Create(store_, device,
                               {.max_places = static_cast<size_t>(options_.max_connections),
                                .window = std::chrono::microseconds(options_.batch_window_us),
                                .on_lost = [this](const Status& status) { OnDeviceLost(status); }},
                               options_.max_connections_per_cvm));
    for (const gemm::Device::Memory& memory : device->memory()) LogMemory(memory);
    TALARIA_ASSIGN_OR_RETURN(listener_, wire::Listener::Create(endpoint));
    return OkStatus();
  }

  Status Run() override {
    Status status;
    while (!stopping_) {
      Result<std::unique_ptr<wire::Transport>> transport = listener_->Accept();
      if (transport.ok()) {
        Admit(std::move(transport).value());
      } else if (transport.status().code() == Code::kResourceExhausted) {
        waiting_.Warn("a connection has to wait: " + transport.status().message());
        std::this_thread::sleep_for(kAcceptPause);
      } else {
        if (transport.status().code() != Code::kCancelled) status = transport.status();
        break;
      }
    }
    stopping_ = true;
    EndSessions();
    LogProducts();
    const std::lock_guard lock(mutex_);
    return lost_.ok() ? status : lost_;
  }

  // An atomic store and a write to an event descriptor: safe in a signal handler.
  void Stop() override {
    stopping_ = true;
    listener_->Shutdown();
  }

  std::string address() const override { return listener_->address(); }

 private:
  // On a connection's thread. The process ends, so that whoever supervises it starts it anew.
  void OnDeviceLost(const Status& status) {
    {
      const std::lock_guard lock(mutex_);
      lost_ = status.Annotate("the device was lost, and with it every product");
    }
    Stop();
  }

  static void LogMemory(const gemm::Device::Memory& memory) {
    const auto mebibytes = [](uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; };
    LogInfo("weights on " + memory.device + ": " + mebibytes(memory.weight_bytes) +
            (memory.free_bytes ? "; free there: " + mebibytes(*memory.free_bytes) : ""));
  }

  void LogProducts() const {
    const BatchScheduler::Stats stats = products_->stats();
    LogInfo("multiplied " + std::to_string(stats.rows) + " rows of " +
            std::to_string(stats.requests) + " requests in " + std::to_string(stats.products) +
            " products");
  }

  struct Worker {
    std::unique_ptr<Session> session;
    std::thread thread;
    bool finished = false;  // guarded by mutex_
  };

  void Admit(std::unique_ptr<wire::Transport> transport) {
    Reap();
    if (workers_.size() >= static_cast<size_t>(options_.max_connections)) {
      Refuse(std::move(transport));
      return;
    }
    workers_.push_back(std::make_unique<Worker>());
    Worker& worker = *workers_.back();
    worker.session = std::make_unique<Session>(
        std::move(transport), SessionContext{.store = store_,
                                             .products = *products_,
                                             .stopping = stopping_,
                                             .idle_timeout_ms = options_.idle_timeout_ms,
                                             .frame_timeout_ms = options_.frame_timeout_ms,
                                             .hello_timeout_ms = options_.hello_timeout_ms,
                                             .evidence_timeout_ms = options_.evidence_timeout_ms,
                                             .refused_connections = refused_connections_,
                                             .refused_claims = refused_claims_,
                                             .gate = options_.gate.get(),
                                             .observer = options_.observer.get(),
                                             .connection = admitted_++});
    try {
      worker.thread = std::thread([this, &worker] {
        worker.session->Run();
        const std::lock_guard lock(mutex_);
        worker.finished = true;
        finished_.notify_all();
      });
    } catch (const std::system_error&) {
      refused_threads_.Warn("the system refused a thread for a connection");
      workers_.pop_back();
      return;
    }
    LogCount();
  }

  // At most once a minute: whoever knocks must not fill the log.
  void LogCount() {
    const auto now = std::chrono::steady_clock::now();
    if (now - count_logged_ < std::chrono::minutes(1)) return;
    count_logged_ = now;
    LogInfo("connections: " + std::to_string(workers_.size()));
  }

  // Joins the threads whose connections are over.
  void Reap() {
    const auto finished = [this](const std::unique_ptr<Worker>& worker) {
      {
        const std::lock_guard lock(mutex_);
        if (!worker->finished) return false;
      }
      worker->thread.join();
      return true;
    };
    workers_.remove_if(finished);
  }

  void Refuse(std::unique_ptr<wire::Transport> transport) {
    if (!full_logged_)
      LogWarning("all " + std::to_string(workers_.size()) +
                 " connections are taken; more are refused");
    full_logged_ = true;
    wire::Connection connection(std::move(transport), wire::kMaxFrameBytes);
    (void)connection.Send(wire::Type::kError,
                          {Encode(wire::ErrorMessage{wire::ErrorCode::kOverloaded})},
                          kRefusalTimeoutMs);
  }

  // Asks, waits for a while, then ends what is left. Every wait of a session ends with its socket,
  // and a product ends at its next block of rows, so the threads end soon.
  void EndSessions() {
    if (workers_.empty()) return;
    const auto deadline = std::chrono::steady_clock::now() + kDrainGrace;
    for (const auto& worker : workers_) worker->session->Drain();
    {
      std::unique_lock lock(mutex_);
      finished_.wait_until(lock, deadline, [this] {
        return std::ranges::all_of(workers_, [](const auto& worker) { return worker->finished; });
      });
    }
    for (const auto& worker : workers_) worker->session->Abort();
    for (const auto& worker : workers_) worker->thread.join();
    LogInfo("ended " + std::to_string(workers_.size()) + " connections");
    workers_.clear();
  }

  const ServerOptions options_;
  const model::Store store_;
  std::unique_ptr<ProductService> products_;
  std::unique_ptr<wire::Listener> listener_;
  std::atomic<bool> stopping_{false};
  // Apart, so that nobody hides why a CVM was refused by knocking.
  LimitedLog refused_connections_{5, "connections refused"}, refused_claims_{30, "CVMs refused"},
      waiting_{5, "connections had to wait"}, refused_threads_{5, "connections without a thread"};
  std::mutex mutex_;
  std::condition_variable finished_;
  Status lost_;                                 // guarded by mutex_
  std::list<std::unique_ptr<Worker>> workers_;  // Run()'s thread only
  uint64_t admitted_ = 0;                       // likewise
  bool full_logged_ = false;
  std::chrono::steady_clock::time_point count_logged_{};
};

}  // namespace

Result<std::unique_ptr<Server>> Server::Create(ServerOptions options) {
  TALARIA_RETURN_IF_ERROR(CheckOptions(options));
  TALARIA_ASSIGN_OR_RETURN(const wire::Endpoint endpoint, wire::Endpoint::Parse(options.listen));
  if ((options.insecure_plaintext || options.local_only) && !endpoint.IsLocal()) {
    return Status(
        Code::kInvalidArgument,
        "listening on '" + options.listen +
            "': with the simulated TEE only a Unix socket or a loopback address is served");
  }
  TALARIA_ASSIGN_OR_RETURN(model::Store store, model::Store::Open(options.store));
  if (options.gate && !options.gate->AcceptsModel(store.identity())) {
    return Status(Code::kInvalidArgument,
                  "the policy does not accept the model of '" + options.store +
                      "': no CVM would be served; its identity is " + ToHex(store.identity()));
  }
  if (options.insecure_plaintext) {
    LogWarning("PLAINTEXT: no TLS and no attestation; whoever reaches " + options.listen +
               " can take the weights");
  }
  auto server = std::make_unique<ServerImpl>(std::move(options), std::move(store));
  TALARIA_RETURN_IF_ERROR(server->Start(endpoint));
  return std::unique_ptr<Server>(std::move(server));
}

}  // namespace talaria::cloud
