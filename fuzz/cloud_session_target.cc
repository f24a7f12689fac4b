// The cloud's side of a connection, with a tiny store behind it.
#include <atomic>
#include <memory>

#include "fuzz/targets.h"
#include "talaria/base/log.h"
#include "talaria/cloud/server_tiny_store.h"
#include "talaria/cloud/session.h"
#include "talaria/wire/testing/memory_transport.h"

namespace talaria::fuzz {
namespace {

struct Cloud {
  Cloud() : tiny({{2, {1}}, {64, {33, 2}}}), store(model::Store::Open(tiny.path()).value()) {
    SetLog("fuzz", LogLevel::kError);
    products = cloud::ProductService::Create(store, gemm::CreateCpuDevice(1, Isa::kPortable), {}, 4)
                   .value();
  }
  cloud::TinyStore tiny;
  model::Store store;
  std::unique_ptr<cloud::ProductService> products;
  std::atomic<bool> stopping{false};
  LimitedLog refused{5, "refused"};
};

}  // namespace

bool CloudSession(Bytes input) {
  static Cloud cloud;  // loaded once
  std::vector<uint8_t> sent;
  cloud::Session session(std::make_unique<wire::MemoryTransport>(input, 1000, &sent),
                         {.store = cloud.store,
                          .products = *cloud.products,
                          .stopping = cloud.stopping,
                          .idle_timeout_ms = 0,
                          .frame_timeout_ms = 0,
                          .hello_timeout_ms = 1,
                          .evidence_timeout_ms = 1,
                          .refused_connections = cloud.refused,
                          .refused_claims = cloud.refused,
                          .gate = nullptr});
  session.Run();
  // What the cloud says is well-formed: HelloReply first or an error at once, nothing after an
  // error.
  wire::Connection client(std::make_unique<wire::MemoryTransport>(sent, 1000, nullptr),
                          wire::kMaxFrameBytes);
  bool error = false, greeted = false;
  size_t received = 0;
  for (Result<wire::Frame> frame = client.Receive(0); frame.ok(); frame = client.Receive(0)) {
    TALARIA_CHECK(!error);
    received += wire::kFrameHeaderBytes + frame->body.size();
    Bytes rest;
    switch (frame->type) {
      case wire::Type::kHelloReply:
        TALARIA_CHECK(!greeted && wire::DecodeHelloReply(frame->body).ok());
        greeted = true;
        break;
      case wire::Type::kChunk:
        TALARIA_CHECK(greeted && wire::DecodeChunk(frame->body, &rest).ok());
        break;
      case wire::Type::kProduct:
        TALARIA_CHECK(greeted && wire::DecodeProduct(frame->body, &rest).ok());
        break;
      case wire::Type::kPong:
        TALARIA_CHECK(greeted && frame->body.empty());
        break;
      case wire::Type::kError:
        TALARIA_CHECK(wire::DecodeError(frame->body).ok());
        error = true;
        break;
      default:
        TALARIA_CHECK(false);
    }
  }
  TALARIA_CHECK(received == sent.size());
  return greeted && !error;
}

}  // namespace talaria::fuzz
