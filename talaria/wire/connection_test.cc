#include "talaria/wire/connection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <chrono>
#include <random>
#include <thread>

#include "talaria/wire/testing/memory_transport.h"

namespace talaria::wire {
namespace {

using testing::HasSubstr;
using Buffer = std::vector<uint8_t>;

Buffer RandomBytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  Buffer out(size);
  for (uint8_t& b : out) b = static_cast<uint8_t>(random());
  return out;
}

void AppendFrame(Buffer& out, Type type, Bytes body) {
  ByteWriter writer(out);
  writer.U32(static_cast<uint32_t>(body.size() + 1));
  writer.U8(static_cast<uint8_t>(type));
  writer.Raw(body);
}

struct Pair {
  std::unique_ptr<Connection> a, b;
};

Pair SocketPair(uint32_t limit = kMaxFrameBytes) {
  int fds[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  return {std::make_unique<Connection>(TransportFromSocket(Fd(fds[0])), limit),
          std::make_unique<Connection>(TransportFromSocket(Fd(fds[1])), limit)};
}

// A connection that receives `input` in pieces; the transport stays readable.
struct FromMemory {
  FromMemory(const Buffer& input, size_t piece, uint32_t limit = kMaxFrameBytes) {
    auto owned = std::make_unique<MemoryTransport>(input, piece, nullptr);
    transport = owned.get();
    connection = std::make_unique<Connection>(std::move(owned), limit);
  }
  MemoryTransport* transport;
  std::unique_ptr<Connection> connection;
};

TEST(ConnectionTest, FramesOfAllSizesInPiecesOfAllSizes) {
  // Around the first buffer (65,536), its doublings, and far over them.
  const size_t sizes[] = {0,      1,      100,    65530, 65531,   65532, 65536,
                          131067, 131072, 300000, 3,     1 << 20, 0,     70000};
  Buffer stream;
  std::vector<Buffer> bodies;
  for (const size_t size : sizes) {
    bodies.push_back(RandomBytes(size, size + 1));
    AppendFrame(stream, Type::kProduct, bodies.back());
  }
  for (const size_t piece : {size_t{1}, size_t{7}, size_t{4096}, size_t{65536}, size_t{1} << 30}) {
    const FromMemory from(stream, piece);
    for (const Buffer& body : bodies) {
      const Result<Frame> frame = from.connection->Receive(0);
      ASSERT_TRUE(frame.ok()) << frame.status().ToString();
      EXPECT_EQ(frame->type, Type::kProduct);
      ASSERT_TRUE(std::ranges::equal(frame->body, body))
          << "piece " << piece << ", body " << body.size();
    }
    const Result<Frame> end = from.connection->Receive(0);
    EXPECT_EQ(end.status().code(), Code::kUnavailable);
    EXPECT_THAT(end.status().message(), testing::Not(HasSubstr("inside a frame")));
    EXPECT_EQ(from.connection->bytes_received(), stream.size());
  }
}

TEST(ConnectionTest, SendAndReceiveOverASocket) {
  const Pair pair = SocketPair();
  std::thread sender([&] {
    for (size_t size : {0, 1, 70000, 5 << 20, 12}) {
      const Buffer body = RandomBytes(size, size);
      const Bytes all(body);
      EXPECT_TRUE(
          pair.a->Send(Type::kChunk, {all.first(size / 3), Bytes(), all.subspan(size / 3)}, 5000)
              .ok());
    }
  });
  for (size_t size : {0, 1, 70000, 5 << 20, 12}) {
    const Result<Frame> frame = pair.b->Receive(5000);
    ASSERT_TRUE(frame.ok()) << frame.status().ToString();
    ASSERT_TRUE(std::ranges::equal(frame->body, RandomBytes(size, size)));
  }
  sender.join();
  EXPECT_EQ(pair.a->bytes_sent(), pair.b->bytes_received());
}

TEST(ConnectionTest, EveryCutIsAnErrorInsideTheFrame) {
  Buffer stream;
  AppendFrame(stream, Type::kPing, {});
  AppendFrame(stream, Type::kFetch, RandomBytes(17, 1));
  for (size_t size = 0; size < stream.size(); ++size) {
    const FromMemory from(Buffer(stream.begin(), stream.begin() + static_cast<ptrdiff_t>(size)),
                          1000);
    Result<Frame> frame = from.connection->Receive(0);
    if (frame.ok()) frame = from.connection->Receive(0);
    ASSERT_EQ(frame.status().code(), Code::kUnavailable);
    const bool between = size == 0 || size == 5;
    EXPECT_EQ(frame.status().message().starts_with("inside a frame"), !between) << size;
  }
}

TEST(ConnectionTest, LengthsOverTheLimitAreRefusedBeforeAnythingIsAllocated) {
  for (const uint32_t length : {1001u, 65536u, kMaxFrameBytes + 1, 0x80000000u, 0xffffffffu}) {
    Buffer stream;
    ByteWriter(stream).U32(length);
    stream.push_back(static_cast<uint8_t>(Type::kProduct));
    stream.resize(5000);
    const FromMemory from(stream, 5, 1000);
    const Result<Frame> frame = from.connection->Receive(0);
    EXPECT_EQ(frame.status().code(), Code::kCorrupt);
    EXPECT_THAT(frame.status().message(), HasSubstr("over the limit"));
    EXPECT_EQ(from.transport->position(), 5u);
    EXPECT_EQ(from.connection->Receive(0).status().code(), Code::kCorrupt);  // and for ever
  }
  // The limit itself is allowed, and nobody's limit exceeds the protocol's.
  Buffer stream;
  AppendFrame(stream, Type::kProduct, Buffer(999));
  EXPECT_TRUE(FromMemory(stream, 100, 1000).connection->Receive(0).ok());
  Buffer huge;
  ByteWriter(huge).U32(kMaxFrameBytes + 1);
  huge.push_back(1);
  EXPECT_EQ(FromMemory(huge, 5, 0xffffffff).connection->Receive(0).status().code(), Code::kCorrupt);
}

TEST(ConnectionTest, MemoryFollowsWhatArrivesNotWhatIsAnnounced) {
  Buffer stream;
  ByteWriter(stream).U32(kMaxFrameBytes);
  stream.push_back(static_cast<uint8_t>(Type::kProduct));
  {
    const FromMemory from(stream, 1000);
    EXPECT_EQ(from.connection->Receive(0).status().code(), Code::kUnavailable);
    EXPECT_LE(from.transport->largest_request(), 64u << 10);
  }
  stream.resize(1 << 20);
  const FromMemory from(stream, 1000);
  EXPECT_EQ(from.connection->Receive(0).status().code(), Code::kUnavailable);
  EXPECT_LE(from.transport->largest_request(), 2u << 20);
}

TEST(ConnectionTest, UnknownTypesAndEmptyFramesAreViolations) {
  for (int type = 0; type < 256; ++type) {
    Buffer stream;
    AppendFrame(stream, static_cast<Type>(type), RandomBytes(3, 1));
    const Result<Frame> frame = FromMemory(stream, 100).connection->Receive(0);
    EXPECT_EQ(frame.status().code(), type >= 1 && type <= 12 ? Code::kOk : Code::kCorrupt) << type;
  }
  EXPECT_EQ(FromMemory({0, 0, 0, 0, 1}, 100).connection->Receive(0).status().code(),
            Code::kCorrupt);
}

TEST(ConnectionTest, AFrameThatNobodyCanReceiveIsNotSent) {
  Buffer sent;
  Connection connection(std::make_unique<MemoryTransport>(Bytes(), 1, &sent), kMaxFrameBytes);
  const Buffer body(kMaxFrameBytes);
  EXPECT_EQ(connection.Send(Type::kProduct, {body}, 0).code(), Code::kInvalidArgument);
  EXPECT_TRUE(sent.empty());
  EXPECT_TRUE(connection.Send(Type::kProduct, {Bytes(body).first(kMaxFrameBytes - 1)}, 0).ok());
  EXPECT_EQ(sent.size(), kMaxFrameBytes + 4u);
}

TEST(ConnectionTest, TheTwoTimeOutsAreToldApart) {
  const Pair pair = SocketPair();
  const auto between = pair.b->Receive(20, 10000).status();
  EXPECT_EQ(between.code(), Code::kUnavailable);
  EXPECT_THAT(between.message(), HasSubstr("20 ms"));

  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  const auto raw = TransportFromSocket(Fd(fds[0]));
  Connection half(TransportFromSocket(Fd(fds[1])), kMaxFrameBytes);
  const Buffer start{9, 0, 0, 0, 8, 1, 2};
  ASSERT_TRUE(raw->Send({start}, 1000).ok());
  const auto inside = half.Receive(0, 30).status();
  EXPECT_EQ(inside.code(), Code::kUnavailable);
  EXPECT_THAT(inside.message(), HasSubstr("inside a frame"));
  // That is final, even if the rest arrives after all; a time-out between frames is not.
  ASSERT_TRUE(raw->Send({Bytes(start).first(6)}, 1000).ok());
  EXPECT_EQ(half.Receive(1000).status().code(), Code::kUnavailable);
  ASSERT_TRUE(pair.a->Send(Type::kPing, {}, 1000).ok());
  EXPECT_TRUE(pair.b->Receive(1000).ok());
}

TEST(ConnectionTest, OneThreadSendsWhileOneReceivesAndAThirdShutsDown) {
  const Pair pair = SocketPair();
  std::thread echo([&] {
    for (;;) {
      const Result<Frame> frame = pair.b->Receive(5000);
      if (!frame.ok() || !pair.b->Send(frame->type, {frame->body}, 5000).ok()) return;
    }
  });
  std::atomic<bool> stopped{false};
  std::thread sender([&] {
    const Buffer body = RandomBytes(1000, 3);
    Status status;
    while (status.ok()) status = pair.a->Send(Type::kMultiply, {body}, 5000);
    EXPECT_TRUE(stopped) << status.ToString();
  });
  int received = 0;
  std::thread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    stopped = true;
    pair.a->Shutdown();
  });
  Result<Frame> frame = pair.a->Receive(5000);
  for (; frame.ok(); frame = pair.a->Receive(5000)) ++received;
  EXPECT_EQ(frame.status().code(), Code::kCancelled);
  EXPECT_GT(received, 0);
  stopper.join();
  sender.join();
  echo.join();
}

}  // namespace
}  // namespace talaria::wire
