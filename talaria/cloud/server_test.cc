// What the server answers: products, streams, errors. server_life_test.cc has clients that
// misbehave, limits and stopping.
#include "talaria/cloud/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <new>

#include "talaria/cloud/server_testing.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define TALARIA_COUNT_ALLOCATIONS 1
namespace {
std::atomic<int64_t> g_allocations{0};
}  // namespace
// Not inlined: GCC would then see free() beside new and warn.
[[gnu::noinline]] void* operator new(size_t size) {
  g_allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* p = std::malloc(size)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }
#endif

namespace talaria::cloud {
namespace {

using model::StreamKind;
using testing::HasSubstr;
using wire::ErrorCode;
using wire::Type;

const std::vector<TinyStore::Shape> kShapes = {{96, {64, 33, 1}}, {200, {130}}, {64, {40, 40}}};

TEST(ServerTest, ProductsEqualTheOracle) {
  const TinyStore store(kShapes);
  for (const Isa isa : SupportedIsas()) {
    ServerOptions options = TestOptions(store);
    options.device.isa = isa;
    const RunningServer server(options);
    Client client(server.address);
    const auto hello = client.Greet();
    ASSERT_TRUE(hello.ok()) << hello.status().ToString();
    EXPECT_EQ(hello->identity, model::ModelIdentity(EncodeManifest(store.manifest)));
    for (uint32_t group = 0; group < kShapes.size(); ++group) {
      for (const uint32_t rows : {1u, 2u, 17u, 64u, 600u}) {  // 600: more than one turn
        const Buffer planes = store.Planes(group, rows, group * 1000 + rows);
        const Result<Bytes> residues = client.Multiply(group, rows, planes);
        ASSERT_TRUE(residues.ok()) << residues.status().ToString();
        ASSERT_TRUE(std::ranges::equal(*residues, store.Oracle(group, planes, rows)))
            << IsaName(isa) << ", group " << group << ", rows " << rows;
      }
    }
  }
}

TEST(ServerTest, TheDocumentsWorkedExample) {
  const TinyStore store(2, {3, 1});
  const RunningServer server(TestOptions(store));
  Client client(server.address);
  ASSERT_TRUE(client.Greet().ok());
  client.Send(Type::kFetch, Encode(wire::Fetch{{StreamKind::kWeights, 0}, 0, 2}));
  const auto chunk = client.Receive();
  ASSERT_TRUE(chunk.ok());
  EXPECT_THAT(chunk->body, testing::ElementsAre(3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 1));
  Buffer planes(6 * 64);
  planes[0] = 1;
  const uint8_t digits[6] = {0x00, 0xc0, 0xff, 0xff, 0xff, 0xff};  // q - 1
  for (size_t i = 0; i < 6; ++i) planes[i * 64 + 1] = digits[i];
  const Result<Bytes> residues = client.Multiply(0, 1, planes);
  ASSERT_TRUE(residues.ok());
  Buffer expected(32 * 6);
  expected[0] = 2;
  EXPECT_TRUE(std::ranges::equal(*residues, expected));
}

TEST(ServerTest, StreamsComeOutWhole) {
  const TinyStore store(kShapes);
  const RunningServer server(TestOptions(store));
  Client client(server.address);
  ASSERT_TRUE(client.Greet().ok());
  const auto fetch_all = [&](StreamKind kind, uint32_t matrix, Bytes expected, size_t step) {
    const model::StreamId stream{kind, matrix};
    for (size_t offset = 0; offset < expected.size();) {
      const size_t n = std::min(step, expected.size() - offset);
      client.Send(Type::kFetch, Encode(wire::Fetch{stream, offset, static_cast<uint32_t>(n)}));
      const Result<wire::Frame> frame = client.Receive();
      ASSERT_TRUE(frame.ok()) << frame.status().ToString();
      ASSERT_EQ(frame->type, Type::kChunk);
      Bytes bytes;
      const auto chunk = wire::DecodeChunk(frame->body, &bytes);
      ASSERT_TRUE(chunk.ok());
      EXPECT_EQ(chunk->stream, stream);
      EXPECT_EQ(chunk->offset, offset);
      ASSERT_TRUE(std::ranges::equal(bytes, expected.subspan(offset, n)));
      offset += n;
    }
  };
  const std::string manifest = EncodeManifest(store.manifest);
  fetch_all(StreamKind::kManifest, 0, AsBytes(manifest), 100);
  fetch_all(StreamKind::kSkeleton, 0, store.skeleton, 777);  // across the holes
  for (uint32_t i = 0; i < store.weights.size(); ++i) {
    fetch_all(StreamKind::kScales, i, store.scales[i], 1000);
    fetch_all(StreamKind::kWeights, i,
              {reinterpret_cast<const uint8_t*>(store.weights[i].data()), store.weights[i].size()},
              5000);
    fetch_all(StreamKind::kHints, i, store.hints[i], wire::kMaxChunkBytes);
  }
}

TEST(ServerTest, PingAndOverTcp) {
  const TinyStore store(kShapes);
  ServerOptions options = TestOptions(store);
  options.listen = "127.0.0.1:0";
  const RunningServer server(options);
  EXPECT_THAT(server.address, testing::StartsWith("127.0.0.1:"));
  Client client(server.address);
  ASSERT_TRUE(client.Greet().ok());
  client.Send(Type::kPing, {});
  const auto pong = client.Receive();
  ASSERT_TRUE(pong.ok());
  EXPECT_EQ(pong->type, Type::kPong);
  const Buffer planes = store.Planes(1, 3, 9);
  const Result<Bytes> residues = client.Multiply(1, 3, planes);
  ASSERT_TRUE(residues.ok());
  EXPECT_TRUE(std::ranges::equal(*residues, store.Oracle(1, planes, 3)));
}

TEST(ServerTest, SeveralClientsAtOnce) {
  const TinyStore store(kShapes);
  const RunningServer server(TestOptions(store));
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (uint32_t t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      Client client(server.address);
      ASSERT_TRUE(client.Greet().ok());
      for (uint32_t i = 0; i < 12; ++i) {
        const uint32_t group = (t + i) % 3, rows = 1 + (t * 7 + i * 5) % 40;
        const Buffer planes = store.Planes(group, rows, t * 100 + i);
        const Result<Bytes> residues = client.Multiply(group, rows, planes);
        ASSERT_TRUE(residues.ok()) << residues.status().ToString();
        if (std::ranges::equal(*residues, store.Oracle(group, planes, rows))) ++right;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 72);
}

#ifdef TALARIA_COUNT_ALLOCATIONS
TEST(ServerTest, ARunningServerDoesNotAllocate) {
  const TinyStore store(kShapes);
  const RunningServer server(TestOptions(store));
  Client client(server.address);
  ASSERT_TRUE(client.Greet().ok());
  const Buffer planes = store.Planes(0, 20, 1);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(client.Multiply(0, 20, planes).ok());
  const int64_t before = g_allocations;
  for (uint32_t rows = 1; rows <= 20; ++rows) {
    ASSERT_TRUE(client.Multiply(0, rows, Bytes(planes).first(rows * 6 * 128)).ok());
  }
  EXPECT_EQ(g_allocations, before);  // client's side included
}
#endif

// Each request on a connection of its own: an error, and the end.
TEST(ServerTest, BadRequestsAreRefusedAndEndTheConnection) {
  const TinyStore store(kShapes);
  const RunningServer server(TestOptions(store));
  const uint64_t matrix_bytes = 96 * 64;
  const std::vector<wire::Fetch> fetches = {
      {{StreamKind::kWeights, 6}, 0, 1},  // there are six matrices
      {{StreamKind::kWeights, 0xffffffff}, 0, 1},
      {{StreamKind::kWeights, 0}, matrix_bytes, 1},
      {{StreamKind::kWeights, 0}, matrix_bytes - 1, 2},
      {{StreamKind::kWeights, 0}, ~uint64_t{0}, 2},  // offset + bytes overflows
      {{StreamKind::kWeights, 0}, 0, 0},
      {{StreamKind::kHints, 0}, 0, wire::kMaxChunkBytes + 1},
      {{StreamKind::kSkeleton, 0}, 3000, 1},
      {{StreamKind::kManifest, 1}, 0, 1},
      {{static_cast<StreamKind>(5), 0}, 0, 1},
  };
  for (size_t i = 0; i < fetches.size(); ++i) {
    Client client(server.address);
    ASSERT_TRUE(client.Greet().ok());
    client.Send(Type::kFetch, Encode(fetches[i]));
    EXPECT_EQ(client.ReceiveErrorAndEnd(), ErrorCode::kBadRequest) << i;
  }
  const Buffer planes = store.Planes(0, 4, 1);  // 4 * 6 * 128 bytes
  struct Call {
    uint32_t group, rows;
    size_t bytes;
  };
  const Call calls[] = {{3, 1, 768}, {0xffffffff, 1, 768}, {0, 0, 768},
                        {0, 2, 768}, {0, 1, 767},          {0, 1, 769},
                        {0, 1, 1},   {0, 0x55555556, 256}, {0, 0xffffffff, 768},
                        {1, 1, 768}};
  for (const Call& call : calls) {
    Client client(server.address);
    ASSERT_TRUE(client.Greet().ok());
    ASSERT_TRUE(client.SendMultiply(call.group, call.rows, Bytes(planes).first(call.bytes)).ok());
    EXPECT_EQ(client.ReceiveErrorAndEnd(), ErrorCode::kBadRequest)
        << call.group << " " << call.rows << " " << call.bytes;
  }
  for (const Type type : {Type::kHello, Type::kHelloReply, Type::kChunk, Type::kProduct,
                          Type::kError, Type::kPong, Type::kDrain}) {
    Client client(server.address);
    ASSERT_TRUE(client.Greet().ok());
    client.Send(type, {});
    EXPECT_EQ(client.ReceiveErrorAndEnd(), ErrorCode::kBadRequest) << static_cast<int>(type);
  }
  Client second_hello(server.address);
  ASSERT_TRUE(second_hello.Greet().ok());
  second_hello.Send(Type::kHello, Encode(wire::Hello{}));
  EXPECT_EQ(second_hello.ReceiveErrorAndEnd(), ErrorCode::kBadRequest);
  Client no_hello(server.address);
  no_hello.Send(Type::kPing, {});
  EXPECT_EQ(no_hello.ReceiveErrorAndEnd(), ErrorCode::kBadRequest);
  Client other_version(server.address);
  other_version.Send(Type::kHello, Encode(wire::Hello{.version = 1}));
  EXPECT_EQ(other_version.ReceiveErrorAndEnd(), ErrorCode::kUnsupportedVersion);
}

TEST(ServerTest, RepliesFitThePeersLimit) {
  const TinyStore store(kShapes);
  const RunningServer server(TestOptions(store));
  // Group 0 has 64 + 64 + 32 = 160 padded outputs, so 960 bytes a row: four rows and 17 bytes fit
  // in 4,096.
  const Buffer planes = store.Planes(0, 5, 1);
  Client fits(server.address);
  ASSERT_TRUE(fits.Greet(4096).ok());
  EXPECT_TRUE(fits.Multiply(0, 4, Bytes(planes).first(4 * 768)).ok());
  ASSERT_TRUE(fits.SendMultiply(0, 5, planes).ok());
  EXPECT_EQ(fits.ReceiveErrorAndEnd(), ErrorCode::kBadRequest);
  Client chunk(server.address);
  ASSERT_TRUE(chunk.Greet(4096).ok());
  chunk.Send(Type::kFetch, Encode(wire::Fetch{{StreamKind::kHints, 0}, 0, 4096 - 14}));
  EXPECT_TRUE(chunk.Receive().ok());
  chunk.Send(Type::kFetch, Encode(wire::Fetch{{StreamKind::kHints, 0}, 0, 4096 - 13}));
  EXPECT_EQ(chunk.ReceiveErrorAndEnd(), ErrorCode::kBadRequest);
}

TEST(ServerTest, CreateSaysWhatIsWrong) {
  SetLog("test", LogLevel::kError);
  const TinyStore store(kShapes);
  const auto create = [&](auto change) {
    ServerOptions options = TestOptions(store);
    change(options);
    return Server::Create(options).status();
  };
  EXPECT_EQ(create([](ServerOptions& o) { o.store += "-none"; }).code(), Code::kNotFound);
  const Status far = create([](ServerOptions& o) { o.listen = "0.0.0.0:0"; });
  EXPECT_EQ(far.code(), Code::kInvalidArgument);
  EXPECT_THAT(far.message(), HasSubstr("loopback"));
  EXPECT_EQ(create([](ServerOptions& o) { o.listen = "nonsense"; }).code(), Code::kInvalidArgument);
  const Status open = create([](ServerOptions& o) { o.insecure_plaintext = false; });
  EXPECT_EQ(open.code(), Code::kInvalidArgument);
  EXPECT_THAT(open.message(), HasSubstr("gate"));
  EXPECT_EQ(create([](ServerOptions& o) { o.device.threads = 0; }).code(), Code::kInvalidArgument);
  EXPECT_EQ(create([](ServerOptions& o) { o.max_connections = 0; }).code(), Code::kInvalidArgument);
  EXPECT_EQ(create([](ServerOptions& o) { o.frame_timeout_ms = 0; }).code(),
            Code::kInvalidArgument);
  EXPECT_EQ(create([](ServerOptions& o) { o.idle_timeout_ms = -1; }).code(),
            Code::kInvalidArgument);
  const RunningServer server(TestOptions(store));
  const Status used = create([](ServerOptions&) {});
  EXPECT_EQ(used.code(), Code::kIo);
  EXPECT_THAT(used.message(), HasSubstr("in use"));
}

TEST(ServerTest, ChangedWeightsAreFoundWhileLoading) {
  const TinyStore store(kShapes);
  const std::string path = store.path() + "/weights.gguf";
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(0, std::ios::end);
  const auto size = file.tellg();
  char last = 0;
  file.seekg(size - std::streamoff(1));
  file.get(last);
  file.seekp(size - std::streamoff(1));
  file.put(static_cast<char>(last ^ 1));
  file.close();
  const Status status = Server::Create(TestOptions(store)).status();
  EXPECT_EQ(status.code(), Code::kCorrupt);
  EXPECT_THAT(status.message(), HasSubstr("blk.5.weight"));
}

}  // namespace
}  // namespace talaria::cloud
