// A cloud for tests, in this process, on a Unix socket. Honest by itself; hooks let it lie and fail
// in every way the wire has.
#ifndef TALARIA_CVM_TESTING_FAKE_CLOUD_H_
#define TALARIA_CVM_TESTING_FAKE_CLOUD_H_

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "talaria/base/testing/temp_folder.h"
#include "talaria/cvm/testing/synthetic_model.h"
#include "talaria/wire/messages.h"
#include "talaria/wire/transport.h"

namespace talaria::cvm::testing {

struct Request {
  wire::Type type;
  std::vector<uint8_t> body;
  uint64_t number = 0;      // of this type, counted over all connections from 0
  uint64_t connection = 0;  // counted from 0
};

// What to do with the reply: a whole frame, length field included.
struct Reply {
  std::vector<uint8_t> frame;
  enum class Then {
    kGoOn,
    kClose,  // after sending
    kStall,  // after sending: stays silent until the cloud stops, whatever comes
  } then = Then::kGoOn;

  // Fields of a Product or Chunk frame.
  uint8_t* body() { return frame.data() + wire::kFrameHeaderBytes; }
  uint8_t* residue(size_t index) { return body() + wire::kCallHeaderBytes + 6 * index; }
};

class FakeCloud {
 public:
  // Called for each request with the honest reply; may change it. From the connection's thread.
  using Hook = std::function<void(const Request&, Reply&)>;

  explicit FakeCloud(const SyntheticModel& model);
  ~FakeCloud();
  FakeCloud(const FakeCloud&) = delete;
  FakeCloud& operator=(const FakeCloud&) = delete;

  void SetHook(Hook hook);
  // Stops listening and closes every connection; Start() comes back at the same address.
  void Stop();
  void Start();

  const std::string& endpoint() const { return endpoint_; }
  std::vector<Request> Requests(wire::Type type) const;  // as they came
  size_t CountRequests(wire::Type type) const { return Requests(type).size(); }
  uint64_t bytes_received() const { return bytes_received_.load(); }
  uint64_t connections() const { return connections_.load(); }

  // Honest frames, for hooks that send others.
  std::vector<uint8_t> ProductFrame(const Request& multiply) const;
  static std::vector<uint8_t> Frame(wire::Type type, Bytes body);

 private:
  void Serve(std::shared_ptr<wire::Transport> transport, uint64_t connection);
  Reply Answer(const Request& request) const;

  const SyntheticModel& model_;
  const TempFolder folder_;
  std::string endpoint_;
  std::atomic<uint64_t> bytes_received_{0}, connections_{0};
  mutable std::mutex mutex_;
  Hook hook_;
  std::vector<Request> requests_;
  std::unique_ptr<wire::Listener> listener_;
  std::list<std::shared_ptr<wire::Transport>> open_;
  std::vector<std::thread> threads_;
  std::thread accepting_;
  std::atomic<bool> stopping_{false};
};

}  // namespace talaria::cvm::testing

#endif  // TALARIA_CVM_TESTING_FAKE_CLOUD_H_
