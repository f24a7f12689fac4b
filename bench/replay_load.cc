#include "bench/replay_load.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>

#include "talaria/gemm/product.h"
#include "talaria/ring/modq.h"
#include "talaria/wire/connection.h"

namespace talaria::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kTimeoutMs = 60'000;  // of everything that a good connection waits for
constexpr size_t kResidueBytes = 6;

std::vector<uint8_t> RandomPlanes(size_t rows, size_t d, uint64_t seed) {
  std::mt19937_64 random(seed);
  const size_t padded = gemm::PadInputs(d);
  std::vector<uint8_t> planes(rows * gemm::kPlanes * padded);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t k = 0; k < d; ++k) {
      const uint64_t residue = random() % ring::kQ;
      for (size_t p = 0; p < gemm::kPlanes; ++p)
        planes[(r * gemm::kPlanes + p) * padded + k] = static_cast<uint8_t>(residue >> (8 * p));
    }
  }
  return planes;
}

// Multiplies the rows of all versions with one matrix and puts the residues where the group's
// answer has them.
Status AddMatrix(const model::Store& store, uint32_t index, const model::Group& group,
                 size_t member, size_t group_number, Recording& recording) {
  const model::Matrix& matrix = group.matrices[member];
  std::vector<int8_t> weights(size_t{matrix.o} * group.d);
  TALARIA_RETURN_IF_ERROR(
      store.ReadStream({model::StreamKind::kWeights, index}, 0,
                       {reinterpret_cast<uint8_t*>(weights.data()), weights.size()}));
  const size_t part_bytes = gemm::PadOutputs(matrix.o) * kResidueBytes;
  const size_t row_bytes = size_t{model::GroupOutputs(group)} * kResidueBytes;
  std::vector<uint8_t> part(recording.rows * part_bytes);
  for (size_t call = group_number; call < recording.calls.size(); call += recording.groups) {
    Recording::Call& to = recording.calls[call];
    gemm::ReferenceProduct(weights, group.d, to.planes, recording.rows, part);
    for (size_t row = 0; row < recording.rows; ++row) {
      std::memcpy(&to.expected[row * row_bytes +
                               size_t{model::ColumnOffset(group, member)} * kResidueBytes],
                  &part[row * part_bytes], part_bytes);
    }
  }
  return OkStatus();
}

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

Result<Recording> Recording::Make(const model::Store& store, uint32_t rows, size_t versions) {
  Recording recording;
  recording.rows = rows;
  const std::vector<model::Group>& groups = store.manifest().groups;
  recording.groups = groups.size();
  for (size_t version = 0; version < versions; ++version) {
    for (size_t g = 0; g < groups.size(); ++g) {
      recording.calls.push_back(
          {static_cast<uint32_t>(g), RandomPlanes(rows, groups[g].d, version * 10'000 + g),
           std::vector<uint8_t>(rows * size_t{model::GroupOutputs(groups[g])} * kResidueBytes)});
    }
  }
  uint32_t index = 0;  // of the matrix, through all groups
  for (size_t g = 0; g < groups.size(); ++g) {
    for (size_t member = 0; member < groups[g].matrices.size(); ++member, ++index)
      TALARIA_RETURN_IF_ERROR(AddMatrix(store, index, groups[g], member, g, recording));
  }
  return recording;
}

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
