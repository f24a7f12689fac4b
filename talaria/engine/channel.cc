#include "talaria/engine/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "talaria/engine/shared_region.h"

namespace talaria::engine {
namespace {

constexpr std::chrono::milliseconds kSleep{
    100};  // after which a sleeper looks whether its peer is still there
constexpr size_t kAlign = 64;

size_t RoundUp(size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// How the data area is cut up for calls; both sides compute it from the model and the size of the
// area.
class Layout {
 public:
  Layout(const ChannelModel& model, size_t data_bytes) {
    for (const ChannelGroup& group : model.groups) {
      Group g{group.d, 0, {}};
      for (const ChannelMember& member : group.members) {
        g.offsets.push_back(g.outputs);
        g.outputs += member.o;
      }
      const size_t row_bytes = (g.d + g.outputs) * sizeof(float);
      const size_t rows = data_bytes < kAlign ? 0 : (data_bytes - kAlign) / row_bytes;
      g.max_rows = static_cast<uint32_t>(std::min<size_t>(rows, kMaxRowsPerCall));
      groups_.push_back(std::move(g));
    }
  }
  // Bytes for `rows` rows of every group.
  static size_t Need(const ChannelModel& model, size_t rows) {
    size_t need = 0;
    for (const ChannelGroup& group : model.groups) {
      size_t outputs = 0;
      for (const ChannelMember& member : group.members) outputs += member.o;
      need = std::max(need, (group.d + outputs) * sizeof(float) * rows);
    }
    return need + kAlign;
  }
  uint32_t MaxRows(uint32_t group) const { return groups_[group].max_rows; }
  size_t groups() const { return groups_.size(); }
  size_t InputBytes(uint32_t group, uint32_t rows) const {
    return groups_[group].d * sizeof(float) * rows;
  }
  size_t OutputOffset(uint32_t group, uint32_t rows, uint32_t member) const {
    return RoundUp(InputBytes(group, rows)) + groups_[group].offsets[member] * sizeof(float) * rows;
  }

 private:
  struct Group {
    size_t d, outputs;
    std::vector<size_t> offsets;  // outputs of the members before this one
    uint32_t max_rows = 0;
  };
  std::vector<Group> groups_;
};

// Whether the other end of the socket was closed. Data that is still queued does not matter to the
// answer.
bool PeerGone(int socket) {
  pollfd p{socket, 0, 0};
  return poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

class Client final : public ChannelClient {
 public:
  Client(SharedRegion region, Fd socket, ChannelModel model)
      : region_(std::move(region)),
        socket_(std::move(socket)),
        model_(std::move(model)),
        layout_(model_, region_.data_bytes()),
        waiter_(std::chrono::microseconds(region_.header().spin_us)),
        harden_((region_.header().flags & kFlagHarden) != 0) {}

  static Result<std::unique_ptr<ChannelClient>> Make(SharedRegion region, Fd socket) {
    const size_t bytes = region.header().model_bytes;
    Result<ChannelModel> model = DecodeChannelModel(Bytes(region.data(), bytes));
    if (!model.ok()) return model.status();
    auto client = std::make_unique<Client>(std::move(region), std::move(socket), std::move(*model));
    for (uint32_t g = 0; g < client->layout_.groups(); ++g) {
      if (client->layout_.MaxRows(g) == 0)
        return Status(Code::kCorrupt, "the engine channel is smaller than one row");
    }
    return std::unique_ptr<ChannelClient>(std::move(client));
  }

  const ChannelModel& model() const override { return model_; }
  uint32_t MaxRows(uint32_t group) const override { return layout_.MaxRows(group); }
  bool harden() const override { return harden_; }
  float* Input() override { return reinterpret_cast<float*>(region_.data()); }
  const float* Output(uint32_t group, uint32_t rows, uint32_t member) const override {
    return reinterpret_cast<const float*>(region_.data() +
                                          layout_.OutputOffset(group, rows, member));
  }

  CallStatus Call(uint32_t group, uint32_t rows) override {
    TALARIA_CHECK(group < layout_.groups() && rows >= 1 && rows <= layout_.MaxRows(group));
    if (ended_) return CallStatus::kEnded;
    ChannelHeader& h = region_.header();
    const uint32_t before = sequence_++;
    Store(h.group, group);
    Store(h.rows, rows);
    Store(h.call_sequence, sequence_);
    Ring(h);
    // Every reply has the number of its call, so the word changes exactly once.
    if (!waiter_.Wait(h.reply_sequence, before, h.child_sleeps, kSleep)) {
      do {
        if (PeerGone(socket_.get())) return End();
      } while (!Waiter::Sleep(h.reply_sequence, before, h.child_sleeps, kSleep));
    }
    if (Load(h.reply_sequence) != sequence_) return End();
    const uint32_t status = Load(h.status);
    if (status >= static_cast<uint32_t>(CallStatus::kEnded)) return End();
    return static_cast<CallStatus>(status);
  }

  void Notify(ChildEvent event) override {
    const uint8_t byte = static_cast<uint8_t>(event);
    ssize_t sent;
    do {
      sent = send(socket_.get(), &byte, 1, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    ChannelHeader& h = region_.header();
    Increment(h.event_sequence);
    Ring(h);
  }

 private:
  static void Ring(ChannelHeader& h) {
    Increment(h.doorbell);
    Wake(h.doorbell, h.parent_sleeps);
  }
  CallStatus End() {
    ended_ = true;
    return CallStatus::kEnded;
  }

  SharedRegion region_;
  Fd socket_;
  const ChannelModel model_;
  const Layout layout_;
  Waiter waiter_;
  const bool harden_;
  uint32_t sequence_ = 0;
  bool ended_ = false;
};

class Server final : public ChannelServer {
 public:
  Server(SharedRegion region, Fd memory, Fd socket, Fd child_socket, const ChannelModel& model,
         ChannelOptions options)
      : region_(std::move(region)),
        memory_(std::move(memory)),
        socket_(std::move(socket)),
        child_socket_(std::move(child_socket)),
        layout_(model, region_.data_bytes()),
        waiter_(std::chrono::microseconds(options.parent_spin_us)) {}

  int shared_memory_fd() const override { return memory_.get(); }
  int child_socket_fd() const override { return child_socket_.get(); }
  void CloseChildSocket() override { child_socket_.Close(); }
  uint32_t MaxRows(uint32_t group) const override { return layout_.MaxRows(group); }

  Result<std::unique_ptr<ChannelClient>> ConnectInProcess() override {
    return Client::Make(region_, std::move(child_socket_));
  }

  Status Serve(const Handler& handler, const std::function<void(ChildEvent)>& on_event) override {
    ChannelHeader& h = region_.header();
    bool idle = false;  // slept once in vain: no spinning until there is a call
    for (;;) {
      // The doorbell is read first: whatever changes after it changes the doorbell again and so
      // ends the wait at once.
      const uint32_t bell = Load(h.doorbell);
      if (stop_.load(std::memory_order_acquire))
        return Status(Code::kCancelled, "the engine channel was stopped");
      const uint32_t call = Load(h.call_sequence);
      // Events after the call's number was read: none that the child sent before the call can be
      // missed.
      if (const uint32_t events = Load(h.event_sequence); events != events_seen_) {
        events_seen_ = events;
        TALARIA_RETURN_IF_ERROR(ReadEvents(on_event));
      }
      if (call != served_) {
        TALARIA_RETURN_IF_ERROR(Answer(call, handler));
        idle = false;
        continue;
      }
      if (idle ? Waiter::Sleep(h.doorbell, bell, h.parent_sleeps, kSleep)
               : waiter_.Wait(h.doorbell, bell, h.parent_sleeps, kSleep)) {
        continue;
      }
      idle = true;
      TALARIA_RETURN_IF_ERROR(ReadEvents(on_event));
    }
  }

  void Stop() override {
    stop_.store(true, std::memory_order_release);
    ChannelHeader& h = region_.header();
    Increment(h.doorbell);
    Wake(h.doorbell, h.parent_sleeps);
  }

 private:
  static Status Broken(const char* what) {
    return Status(Code::kSessionEnded,
                  std::string("the engine broke the channel's protocol: ") + what);
  }

  Status Answer(uint32_t call, const Handler& handler) {
    ChannelHeader& h = region_.header();
    // One copy of what the child wrote; everything below uses the copy.
    CallView view;
    view.group = Load(h.group);
    view.rows = Load(h.rows);
    if (call != served_ + 1) return Broken("sequence");
    if (view.group >= layout_.groups()) return Broken("group");
    if (view.rows == 0 || view.rows > layout_.MaxRows(view.group)) return Broken("rows");
    view.input = reinterpret_cast<const float*>(region_.data());
    view.output =
        reinterpret_cast<float*>(region_.data() + layout_.OutputOffset(view.group, view.rows, 0));
    const CallStatus status = handler(view);
    served_ = call;
    Store(h.status, static_cast<uint32_t>(status));
    Store(h.reply_sequence, call);
    Wake(h.reply_sequence, h.child_sleeps);
    return OkStatus();
  }

  // Takes what the child has sent; notices its end. What it sent before it died is still delivered.
  Status ReadEvents(const std::function<void(ChildEvent)>& on_event) {
    for (;;) {
      uint8_t message[2];
      const ssize_t n = recv(socket_.get(), message, sizeof message, MSG_DONTWAIT);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return OkStatus();
      if (n <= 0) return Status(Code::kUnavailable, "the engine has ended");
      if (n != 1) return Broken("event length");
      switch (static_cast<ChildEvent>(message[0])) {
        case ChildEvent::kAllMatricesLanded:
        case ChildEvent::kRefused:
          on_event(static_cast<ChildEvent>(message[0]));
          break;
        default:
          return Broken("event type");
      }
    }
  }

  SharedRegion region_;
  Fd memory_, socket_, child_socket_;
  const Layout layout_;
  Waiter waiter_;
  std::atomic<bool> stop_{false};
  uint32_t served_ = 0;  // number of the last answered call
  uint32_t events_seen_ = 0;
};

}  // namespace

Result<std::unique_ptr<ChannelServer>> ChannelServer::Create(ChannelModel model, size_t max_bytes,
                                                             ChannelOptions options) {
  const std::vector<uint8_t> encoded = Encode(model);
  if (Result<ChannelModel> back = DecodeChannelModel(encoded); !back.ok()) {
    return Status(Code::kInvalidArgument, back.status().message());
  }
  size_t data_bytes = std::min(Layout::Need(model, kMaxRowsPerCall),
                               std::max(max_bytes, kHeaderBytes) - kHeaderBytes);
  data_bytes = RoundUp(std::max({data_bytes, Layout::Need(model, 1), encoded.size()}));
  int sockets[2];
  // Sequenced packets keep the border between two events, and the peer's end shows as end of file.
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) != 0) {
    return Status(Code::kResourceExhausted,
                  std::string("cannot make the engine's socket pair: ") + std::strerror(errno));
  }
  Fd socket(sockets[0]), child_socket(sockets[1]), memory;
  TALARIA_ASSIGN_OR_RETURN(SharedRegion region, SharedRegion::Create(data_bytes, &memory));
  std::memcpy(region.data(), encoded.data(), encoded.size());
  ChannelHeader& header = region.header();
  header.model_bytes = encoded.size();
  header.spin_us = options.child_spin_us;
  header.flags = options.harden_child ? kFlagHarden : 0;
  return std::unique_ptr<ChannelServer>(
      std::make_unique<Server>(std::move(region), std::move(memory), std::move(socket),
                               std::move(child_socket), model, options));
}

Result<std::unique_ptr<ChannelClient>> ChannelClient::Connect(int shared_memory_fd, int socket_fd) {
  TALARIA_ASSIGN_OR_RETURN(SharedRegion region, SharedRegion::Map(shared_memory_fd));
  Fd socket(fcntl(socket_fd, F_DUPFD_CLOEXEC, 16));
  if (!socket.valid()) return Status(Code::kUnavailable, "no engine socket was inherited");
  return Client::Make(std::move(region), std::move(socket));
}

}  // namespace talaria::engine
