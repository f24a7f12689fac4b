#include "bench/replay_load.h"

#include <algorithm>
#include <chrono>
#include <random>

#include "talaria/wire/connection.h"

namespace talaria::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kTimeoutMs = 60'000;  // of everything that a good connection waits for

Result<std::unique_ptr<wire::Connection>> Greeted(const std::string& address) {
  TALARIA_ASSIGN_OR_RETURN(const wire::Endpoint endpoint, wire::Endpoint::Parse(address));
  TALARIA_ASSIGN_OR_RETURN(auto transport, wire::Connect(endpoint, kTimeoutMs));
  auto connection = std::make_unique<wire::Connection>(std::move(transport), wire::kMaxFrameBytes);
  TALARIA_RETURN_IF_ERROR(
      connection->Send(wire::Type::kHello, {Encode(wire::Hello{})}, kTimeoutMs));
  TALARIA_ASSIGN_OR_RETURN(const wire::Frame frame, connection->Receive(kTimeoutMs));
  if (frame.type != wire::Type::kHelloReply)
    return Status(Code::kUnavailable, "the cloud refused the connection");
  return connection;
}

Status SendCall(wire::Connection& connection, uint64_t call, uint32_t group, uint32_t rows,
                Bytes planes, int timeout_ms) {
  uint8_t header[wire::kCallHeaderBytes];
  EncodeTo(wire::MultiplyHeader{call, group, rows}, header);
  return connection.Send(wire::Type::kMultiply, {header, planes}, timeout_ms);
}

}  // namespace

struct ReplayLoad::Replayer {
  std::unique_ptr<wire::Connection> connection;
  LoadResult result;
  std::thread thread;
};

Result<std::unique_ptr<ReplayLoad>> ReplayLoad::Start(const std::string& endpoint,
                                                      const Recording& recording, int connections) {
  std::unique_ptr<ReplayLoad> load(new ReplayLoad(recording));
  for (int i = 0; i < connections; ++i) {
    TALARIA_ASSIGN_OR_RETURN(auto connection, Greeted(endpoint));
    load->replayers_.push_back(std::make_unique<Replayer>());
    Replayer& replayer = *load->replayers_.back();
    replayer.connection = std::move(connection);
    replayer.thread = std::thread([&load = *load, &replayer, i] {
      load.go_.wait(false);
      load.Replay(replayer, static_cast<size_t>(i));
    });
  }
  load->go_ = true;
  load->go_.notify_all();
  return load;
}

ReplayLoad::ReplayLoad(const Recording& recording) : recording_(recording) {}
ReplayLoad::~ReplayLoad() { (void)Stop(); }

LoadResult ReplayLoad::Stop() {
  LoadResult sum;
  go_ = stop_ = true;
  go_.notify_all();
  for (const auto& replayer : replayers_) {
    replayer->thread.join();
    const LoadResult& one = replayer->result;
    sum.calls += one.calls;
    sum.rows += one.rows;
    sum.wrong += one.wrong;
    sum.lost.insert(sum.lost.end(), one.lost.begin(), one.lost.end());
    sum.latencies_ms.insert(sum.latencies_ms.end(), one.latencies_ms.begin(),
                            one.latencies_ms.end());
    sum.seconds = std::max(sum.seconds, one.seconds);
  }
  replayers_.clear();
  return sum;
}

// Passes over the model, as a CVM that decodes; each connection begins with another version.
void ReplayLoad::Replay(Replayer& replayer, size_t number) {
  LoadResult& result = replayer.result;
  const Clock::time_point begin = Clock::now();
  size_t next = number * recording_.groups % recording_.calls.size();
  while (!stop_) {
    const Recording::Call& call = recording_.calls[next];
    next = (next + 1) % recording_.calls.size();
    const Clock::time_point start = Clock::now();
    const Status sent = SendCall(*replayer.connection, result.calls, call.group, recording_.rows,
                                 call.planes, kTimeoutMs);
    const Result<wire::Frame> frame =
        sent.ok() ? replayer.connection->Receive(kTimeoutMs) : Result<wire::Frame>(sent);
    result.latencies_ms.push_back(
        std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    Bytes residues;
    const Status status = [&] {
      if (!frame.ok()) return frame.status();
      if (frame->type != wire::Type::kProduct) return Status(Code::kInternal, "not a product");
      const auto header = wire::DecodeProduct(frame->body, &residues);
      if (header.ok() && header->call != result.calls)
        return Status(Code::kInternal, "another call's product");
      return header.status();
    }();
    if (!status.ok()) {
      result.lost.push_back(status.ToString());
      break;
    }
    if (!std::ranges::equal(residues, call.expected)) ++result.wrong;
    ++result.calls;
    result.rows += recording_.rows;
  }
  result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  replayer.connection->Shutdown();
}

Misbehaviour::Misbehaviour(std::string endpoint, const Recording& recording)
    : endpoint_(std::move(endpoint)) {
  // More than the buffers of a socket hold, both ways.
  constexpr size_t kManyBytes = size_t{4} << 20;
  const auto widest = std::ranges::max_element(
      recording.calls, {}, [](const Recording::Call& call) { return call.expected.size(); });
  group_ = widest->group;
  while (many_planes_.size() < kManyBytes && many_rows_ < 512) {
    many_planes_.insert(many_planes_.end(), widest->planes.begin(), widest->planes.end());
    many_rows_ += recording.rows;
  }
  threads_.emplace_back([this] { NeverRead(); });
  threads_.emplace_back([this] { Flood(); });
  threads_.emplace_back([this] { SendGarbage(); });
}

Misbehaviour::~Misbehaviour() { (void)Stop(); }

Misbehaviour::Counts Misbehaviour::Stop() {
  stop_ = true;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  return {unread_, flooded_, garbage_};
}

namespace {
constexpr int kImpatientMs = 200;
}

void Misbehaviour::NeverRead() {
  while (!stop_) {
    const auto connection = Greeted(endpoint_);
    if (!connection.ok()) continue;
    Status status;
    for (uint64_t call = 0; !stop_; ++call) {
      status = SendCall(**connection, call, group_, many_rows_, many_planes_, kImpatientMs);
      if (status.ok()) {
        ++unread_;
      } else if (status.message().find("no progress") == std::string::npos) {
        break;  // thrown out
      } else {
        std::this_thread::sleep_for(std::chrono::milliseconds(kImpatientMs));
      }
    }
  }
}

void Misbehaviour::Flood() {
  while (!stop_) {
    const auto connection = Greeted(endpoint_);
    if (!connection.ok()) continue;
    std::thread reader([&] {
      while ((*connection)->Receive(kTimeoutMs).ok()) {
      }
    });
    for (uint64_t call = 0; !stop_; ++call) {
      if (!SendCall(**connection, call, group_, many_rows_, many_planes_, kTimeoutMs).ok()) break;
      ++flooded_;
    }
    (*connection)->Shutdown();
    reader.join();
  }
}

void Misbehaviour::SendGarbage() {
  std::mt19937_64 random(1);
  const auto endpoint = wire::Endpoint::Parse(endpoint_);
  while (!stop_) {
    std::vector<uint8_t> garbage(1 + random() % 5000);
    for (uint8_t& byte : garbage) byte = static_cast<uint8_t>(random());
    if (garbage_ % 2 == 0) {
      // A request that is none, after a proper greeting.
      const auto connection = Greeted(endpoint_);
      if (!connection.ok()) continue;
      (void)SendCall(**connection, random(), static_cast<uint32_t>(random() % (group_ + 2)),
                     static_cast<uint32_t>(random()), garbage, kImpatientMs);
      (void)(*connection)->Receive(kImpatientMs);
    } else if (const auto transport = wire::Connect(*endpoint, kImpatientMs); transport.ok()) {
      (void)(*transport)->Send({garbage}, kImpatientMs);
    }
    ++garbage_;
  }
}

}  // namespace talaria::bench
