// Both ends of the channel as two threads of this process, on one mapping (so that the thread
// sanitizer sees both), and a child that lies.
#include "talaria/engine/channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "talaria/engine/shared_region.h"

namespace talaria::engine {
namespace {

ChannelModel TwoGroups() {
  return {{{8, {{"blk.0.attn_q.weight", 0, 8}, {"blk.0.attn_k.weight", 0, 4}}},
           {16, {{"token_embd.weight", 1, 100}}}}};
}

std::unique_ptr<ChannelServer> MakeServer(size_t max_bytes = 1 << 20, ChannelOptions options = {}) {
  auto server = ChannelServer::Create(TwoGroups(), max_bytes, options);
  EXPECT_TRUE(server.ok()) << server.status().ToString();
  return std::move(*server);
}

// Serves in a thread; the result is there after Join().
class Serving {
 public:
  Serving(ChannelServer& server, ChannelServer::Handler handler) : server_(server) {
    thread_ = std::thread([this, handler = std::move(handler)] {
      status_ = server_.Serve(handler, [this](ChildEvent e) { events_.push_back(e); });
    });
  }
  ~Serving() {
    if (thread_.joinable()) {
      EXPECT_EQ(StopAndJoin().code(), Code::kCancelled);
    }
  }
  Status Join() {
    thread_.join();
    return status_;
  }
  Status StopAndJoin() {
    server_.Stop();
    return Join();
  }
  const std::vector<ChildEvent>& events() const { return events_; }  // after Join()

 private:
  ChannelServer& server_;
  Status status_;
  std::vector<ChildEvent> events_;
  std::thread thread_;
};

CallStatus Nothing(const CallView&) { return CallStatus::kOk; }

// Every output of member m is the sum of its row plus m.
CallStatus Sums(const CallView& call) {
  const ChannelModel model = TwoGroups();
  const ChannelGroup& group = model.groups[call.group];
  float* out = call.output;
  for (size_t m = 0; m < group.members.size(); ++m) {
    for (uint32_t r = 0; r < call.rows; ++r) {
      float sum = static_cast<float>(m);
      for (uint32_t i = 0; i < group.d; ++i) sum += call.input[r * group.d + i];
      for (uint32_t j = 0; j < group.members[m].o; ++j) *out++ = sum;
    }
  }
  return CallStatus::kOk;
}

TEST(ChannelModelTest, EncodesAndDecodes) {
  const std::vector<uint8_t> bytes = Encode(TwoGroups());
  const Result<ChannelModel> model = DecodeChannelModel(bytes);
  ASSERT_TRUE(model.ok());
  EXPECT_EQ(Encode(*model), bytes);
  EXPECT_EQ(model->groups[0].members[1].name, "blk.0.attn_k.weight");
  EXPECT_EQ(model->groups[1].members[0].role, 1);
}

TEST(ChannelModelTest, EveryTruncationAndEveryExtraByteIsRefused) {
  std::vector<uint8_t> bytes = Encode(TwoGroups());
  for (size_t n = 0; n < bytes.size(); ++n)
    EXPECT_FALSE(DecodeChannelModel(Bytes(bytes).first(n)).ok()) << n;
  bytes.push_back(0);
  EXPECT_EQ(DecodeChannelModel(bytes).status().code(), Code::kCorrupt);
}

TEST(ChannelModelTest, WhatDecodesIsCanonical) {
  const std::vector<uint8_t> good = Encode(TwoGroups());
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int bit : {0, 3, 7}) {
      std::vector<uint8_t> bytes = good;
      bytes[i] = static_cast<uint8_t>(bytes[i] ^ (1 << bit));
      const Result<ChannelModel> model = DecodeChannelModel(bytes);
      if (model.ok()) {
        EXPECT_EQ(Encode(*model), bytes) << i;
      }
    }
  }
}

TEST(ChannelModelTest, BadModelsAreRefused) {
  const auto code = [](ChannelModel model) {
    return ChannelServer::Create(std::move(model), 1 << 20).status().code();
  };
  EXPECT_EQ(code({}), Code::kInvalidArgument);
  ChannelModel m = TwoGroups();
  m.groups[0].members.clear();
  EXPECT_EQ(code(m), Code::kInvalidArgument);
  m = TwoGroups();
  m.groups[1].members[0].name = std::string(64, 'x');
  EXPECT_EQ(code(m), Code::kInvalidArgument);
  m = TwoGroups();
  m.groups[1].members[0] = m.groups[0].members[0];  // twice
  EXPECT_EQ(code(m), Code::kInvalidArgument);
  m = TwoGroups();
  m.groups[0].d = 0;
  EXPECT_EQ(code(m), Code::kInvalidArgument);
}

TEST(ChannelTest, CarriesRowsAndProducts) {
  auto server = MakeServer();
  auto client = server->ConnectInProcess();
  ASSERT_TRUE(client.ok());
  Serving serving(*server, Sums);
  ASSERT_EQ((*client)->model().groups.size(), 2u);
  for (uint32_t call = 0; call < 2000; ++call) {
    const uint32_t group = call % 2, rows = 1 + call % 5;
    const ChannelGroup& g = (*client)->model().groups[group];
    for (uint32_t i = 0; i < rows * g.d; ++i)
      (*client)->Input()[i] = static_cast<float>(call + i / g.d);
    ASSERT_EQ((*client)->Call(group, rows), CallStatus::kOk);
    for (uint32_t m = 0; m < g.members.size(); ++m) {
      const float* out = (*client)->Output(group, rows, m);
      for (uint32_t r = 0; r < rows; ++r) {
        for (uint32_t j = 0; j < g.members[m].o; ++j) {
          ASSERT_EQ(out[r * g.members[m].o + j], static_cast<float>(g.d * (call + r) + m));
        }
      }
    }
  }
  EXPECT_EQ(serving.StopAndJoin().code(), Code::kCancelled);
}

TEST(ChannelTest, WorksWithoutSpinning) {
  auto server = MakeServer(1 << 20, {.parent_spin_us = 0, .child_spin_us = 0});
  auto client = server->ConnectInProcess();
  ASSERT_TRUE(client.ok());
  Serving serving(*server, Sums);
  for (int i = 0; i < 500; ++i) ASSERT_EQ((*client)->Call(0, 3), CallStatus::kOk);
}

TEST(ChannelTest, PassesEveryStatus) {
  auto server = MakeServer();
  auto client = server->ConnectInProcess();
  ASSERT_TRUE(client.ok());
  Serving serving(*server,
                  [](const CallView& call) { return static_cast<CallStatus>(call.rows - 1); });
  EXPECT_EQ((*client)->Call(0, 1), CallStatus::kOk);
  EXPECT_EQ((*client)->Call(0, 2), CallStatus::kNotFinite);
  EXPECT_EQ((*client)->Call(0, 3), CallStatus::kFailed);
  EXPECT_EQ((*client)->Call(0, 1), CallStatus::kOk);
  EXPECT_EQ((*client)->Call(0, 4), CallStatus::kEnded);
  EXPECT_EQ((*client)->Call(0, 1), CallStatus::kEnded) << "the end is final";
}

TEST(ChannelTest, MaxRowsFollowsTheMemory) {
  auto large = MakeServer(1 << 26);
  EXPECT_EQ(large->MaxRows(0), kMaxRowsPerCall);
  EXPECT_EQ(large->MaxRows(1), kMaxRowsPerCall);
  auto tiny = MakeServer(0);
  EXPECT_GE(tiny->MaxRows(0), 1u);
  EXPECT_EQ(tiny->MaxRows(1), 1u);
  auto client = tiny->ConnectInProcess();
  ASSERT_TRUE(client.ok());
  EXPECT_EQ((*client)->MaxRows(0), tiny->MaxRows(0));
  EXPECT_EQ((*client)->MaxRows(1), tiny->MaxRows(1));
  Serving serving(*tiny, Sums);
  EXPECT_EQ((*client)->Call(1, 1), CallStatus::kOk);
}

TEST(ChannelTest, EventsComeBeforeLaterCalls) {
  auto server = MakeServer();
  auto client = server->ConnectInProcess();
  ASSERT_TRUE(client.ok());
  std::vector<std::string> order;  // only touched by the serving thread until it has joined
  std::thread thread([&] {
    const Status status = server->Serve(
        [&](const CallView&) {
          order.emplace_back("call");
          return CallStatus::kOk;
        },
        [&](ChildEvent event) {
          order.emplace_back(event == ChildEvent::kAllMatricesLanded ? "landed" : "refused");
        });
    EXPECT_EQ(status.code(), Code::kUnavailable);
  });
  (*client)->Call(0, 1);
  (*client)->Notify(ChildEvent::kAllMatricesLanded);
  (*client)->Call(0, 1);
  (*client)->Notify(ChildEvent::kRefused);
  client->reset();  // the child's end; what it sent before still counts
  thread.join();
  EXPECT_THAT(order, testing::ElementsAre("call", "landed", "call", "refused"));
}

TEST(ChannelTest, TheServerNoticesTheChildsEnd) {
  auto server = MakeServer();
  auto client = server->ConnectInProcess();
  ASSERT_TRUE(client.ok());
  Serving serving(*server, Nothing);
  client->reset();
  EXPECT_EQ(serving.Join().code(), Code::kUnavailable);
}

TEST(ChannelTest, TheClientNoticesTheParentsEnd) {
  auto server = MakeServer();
  auto client = server->ConnectInProcess();
  ASSERT_TRUE(client.ok());
  std::thread thread([&] { EXPECT_EQ((*client)->Call(0, 1), CallStatus::kEnded); });
  usleep(20000);
  server.reset();
  thread.join();
}

TEST(ChannelTest, AnotherProcessConnects) {
  auto server = MakeServer();
  const pid_t pid = fork();
  if (pid == 0) {
    auto client = ChannelClient::Connect(server->shared_memory_fd(), server->child_socket_fd());
    if (!client.ok()) _exit(1);
    for (uint32_t i = 0; i < 8; ++i) (*client)->Input()[i] = 1;
    if ((*client)->Call(0, 1) != CallStatus::kOk) _exit(2);
    if ((*client)->Output(0, 1, 1)[3] != 9) _exit(3);
    (*client)->Notify(ChildEvent::kAllMatricesLanded);
    _exit(0);
  }
  server->CloseChildSocket();
  std::vector<ChildEvent> events;
  EXPECT_EQ(server->Serve(Sums, [&](ChildEvent e) { events.push_back(e); }).code(),
            Code::kUnavailable);
  EXPECT_THAT(events, testing::ElementsAre(ChildEvent::kAllMatricesLanded));
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(ChannelTest, ForeignDescriptorsAreRefused) {
  EXPECT_EQ(ChannelClient::Connect(-1, -1).status().code(), Code::kUnavailable);
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  EXPECT_EQ(ChannelClient::Connect(pipe_fds[0], pipe_fds[1]).status().code(), Code::kUnavailable);
  close(pipe_fds[0]);
  close(pipe_fds[1]);
  Fd memory;
  Result<SharedRegion> region = SharedRegion::Create(4096, &memory);
  ASSERT_TRUE(region.ok());
  region->header().version = kChannelVersion + 1;
  EXPECT_EQ(ChannelClient::Connect(memory.get(), 0).status().code(), Code::kUnsupported);
  region->header().version = kChannelVersion;
  region->header().data_bytes = 8192;
  EXPECT_EQ(ChannelClient::Connect(memory.get(), 0).status().code(), Code::kCorrupt);
}

TEST(ChannelTest, TheMemoryCannotBeResized) {
  auto server = MakeServer();
  EXPECT_NE(ftruncate(server->shared_memory_fd(), 0), 0);
  EXPECT_NE(ftruncate(server->shared_memory_fd(), 1 << 30), 0);
}

// A child that writes what it likes: whatever it is, Serve() ends with kSessionEnded and the
// handler was not called.
class HostileChildTest : public testing::Test {
 protected:
  Status ServeAfter(const std::function<void(ChannelHeader&, int socket)>& attack) {
    auto server = MakeServer();
    Result<SharedRegion> region = SharedRegion::Map(server->shared_memory_fd());
    EXPECT_TRUE(region.ok());
    attack(region->header(), server->child_socket_fd());
    return server->Serve(
        [](const CallView&) {
          ADD_FAILURE() << "the handler was called";
          return CallStatus::kOk;
        },
        [](ChildEvent) { ADD_FAILURE() << "an event was delivered"; });
  }
};

TEST_F(HostileChildTest, CallsOutOfRange) {
  struct Case {
    uint32_t sequence, group, rows;
  };
  for (const Case c : {Case{1, 2, 1}, Case{1, 0xffffffff, 1}, Case{1, 0, 0}, Case{1, 0, 513},
                       Case{1, 0, 0xffffffff}, Case{2, 0, 1}, Case{0xffffffff, 0, 1}}) {
    const Status status = ServeAfter([&](ChannelHeader& h, int) {
      h.group = c.group;
      h.rows = c.rows;
      h.call_sequence = c.sequence;
    });
    EXPECT_EQ(status.code(), Code::kSessionEnded) << c.sequence << " " << c.group << " " << c.rows;
  }
}

TEST_F(HostileChildTest, EventsThatDoNotExist) {
  for (const std::string& message : {std::string("\x00", 1), std::string("\x03", 1),
                                     std::string("\xff", 1), std::string("\x01\x01", 2)}) {
    const Status status = ServeAfter([&](ChannelHeader& h, int socket) {
      EXPECT_EQ(send(socket, message.data(), message.size(), 0),
                static_cast<ssize_t>(message.size()));
      h.event_sequence = 1;
    });
    EXPECT_EQ(status.code(), Code::kSessionEnded);
  }
}

// The parent's own constants are not read back from the memory: nothing that the child writes there
// moves a pointer.
TEST_F(HostileChildTest, RewritingTheHeaderChangesNothing) {
  auto server = MakeServer();
  auto client = server->ConnectInProcess();
  ASSERT_TRUE(client.ok());
  Serving serving(*server, Sums);
  ASSERT_EQ((*client)->Call(0, 1), CallStatus::kOk);
  Result<SharedRegion> region = SharedRegion::Map(server->shared_memory_fd());
  ASSERT_TRUE(region.ok());
  region->header().data_bytes = ~uint64_t{0};
  region->header().model_bytes = ~uint64_t{0};
  region->header().magic = 0;
  EXPECT_EQ((*client)->Call(1, server->MaxRows(1)), CallStatus::kOk);
}

}  // namespace
}  // namespace talaria::engine
