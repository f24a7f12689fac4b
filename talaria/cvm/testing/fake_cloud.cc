#include "talaria/cvm/testing/fake_cloud.h"

#include <stdlib.h>
#include <unistd.h>

#include <cstring>

#include "talaria/gemm/product.h"
#include "talaria/ring/layout.h"

namespace talaria::cvm::testing {

using wire::Type;

FakeCloud::FakeCloud(const SyntheticModel& model) : model_(model) {
  endpoint_ = "unix:" + folder_.File("socket");
  Start();
}

FakeCloud::~FakeCloud() { Stop(); }

void FakeCloud::SetHook(Hook hook) {
  std::lock_guard lock(mutex_);
  hook_ = std::move(hook);
}

void FakeCloud::Start() {
  stopping_ = false;
  Result<wire::Endpoint> endpoint = wire::Endpoint::Parse(endpoint_);
  Result<std::unique_ptr<wire::Listener>> listener = wire::Listener::Create(*endpoint);
  TALARIA_CHECK(listener.ok());
  listener_ = std::move(listener).value();
  accepting_ = std::thread([this] {
    for (;;) {
      Result<std::unique_ptr<wire::Transport>> accepted = listener_->Accept();
      if (!accepted.ok()) return;
      const std::shared_ptr<wire::Transport> transport = std::move(accepted).value();
      std::lock_guard lock(mutex_);
      if (stopping_) return;
      open_.push_back(transport);
      threads_.emplace_back([this, transport, n = connections_++] { Serve(transport, n); });
    }
  });
}

void FakeCloud::Stop() {
  if (!listener_) return;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const auto& transport : open_) transport->Shutdown();
  }
  listener_->Shutdown();
  accepting_.join();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  open_.clear();
  listener_.reset();
}

std::vector<Request> FakeCloud::Requests(Type type) const {
  std::lock_guard lock(mutex_);
  std::vector<Request> out;
  for (const Request& request : requests_) {
    if (request.type == type) out.push_back(request);
  }
  return out;
}

std::vector<uint8_t> FakeCloud::Frame(Type type, Bytes body) {
  std::vector<uint8_t> out;
  ByteWriter writer(out);
  writer.U32(static_cast<uint32_t>(1 + body.size()));
  writer.U8(static_cast<uint8_t>(type));
  writer.Raw(body);
  return out;
}

std::vector<uint8_t> FakeCloud::ProductFrame(const Request& multiply) const {
  Bytes planes;
  const Result<wire::MultiplyHeader> header = wire::DecodeMultiply(multiply.body, &planes);
  TALARIA_CHECK(header.ok() && header->group < model_.manifest.groups.size());
  const model::Group& group = model_.manifest.groups[header->group];
  const size_t rows = header->rows, o_padded = model::GroupOutputs(group);
  TALARIA_CHECK(planes.size() == rows * 6 * gemm::PadInputs(group.d));
  std::vector<uint8_t> body(wire::kCallHeaderBytes + rows * o_padded * ring::kResidueBytes);
  wire::EncodeTo(wire::ProductHeader{header->call, header->group, header->rows}, body.data());
  for (uint32_t m = 0; m < group.matrices.size(); ++m) {
    const SyntheticModel::Matrix& matrix = model_.matrix(header->group, m);
    const size_t row_bytes = gemm::PadOutputs(matrix.o) * ring::kResidueBytes;
    std::vector<uint8_t> product(rows * row_bytes);
    gemm::ReferenceProduct(matrix.weights, matrix.d, planes, rows, product);
    for (size_t r = 0; r < rows; ++r) {
      std::memcpy(body.data() + wire::kCallHeaderBytes +
                      (r * o_padded + model::ColumnOffset(group, m)) * ring::kResidueBytes,
                  product.data() + r * row_bytes, row_bytes);
    }
  }
  return Frame(Type::kProduct, body);
}

Reply FakeCloud::Answer(const Request& request) const {
  const auto error = [](wire::ErrorCode code) {
    return Reply{Frame(Type::kError, wire::Encode(wire::ErrorMessage{code})), Reply::Then::kClose};
  };
  switch (request.type) {
    case Type::kHello: {
      wire::HelloReply reply;
      reply.identity = model_.identity();
      reply.manifest_bytes =
          static_cast<uint32_t>(model_.Stream({model::StreamKind::kManifest, 0}).size());
      reply.attested = true;
      return {Frame(Type::kHelloReply, wire::Encode(reply))};
    }
    case Type::kFetch: {
      const Result<wire::Fetch> fetch = wire::DecodeFetch(request.body);
      TALARIA_CHECK(fetch.ok());
      const Bytes stream = model_.Stream(fetch->stream);
      if (fetch->offset > stream.size() || fetch->bytes > stream.size() - fetch->offset)
        return error(wire::ErrorCode::kBadRequest);
      std::vector<uint8_t> body(wire::kChunkHeaderBytes + fetch->bytes);
      wire::EncodeTo(wire::ChunkHeader{fetch->stream, fetch->offset}, body.data());
      std::memcpy(body.data() + wire::kChunkHeaderBytes, stream.data() + fetch->offset,
                  fetch->bytes);
      return {Frame(Type::kChunk, body)};
    }
    case Type::kMultiply:
      return {ProductFrame(request)};
    default:
      return error(wire::ErrorCode::kBadRequest);
  }
}

void FakeCloud::Serve(std::shared_ptr<wire::Transport> transport, uint64_t connection) {
  const auto receive = [&](MutableBytes out) {
    if (out.empty()) return true;
    if (!transport->ReceiveSome(out, out.size(), 0).ok()) return false;
    bytes_received_ += out.size();
    return true;
  };
  for (;;) {
    uint8_t header[wire::kFrameHeaderBytes];
    if (!receive(header)) break;
    Request request{static_cast<Type>(header[4]),
                    std::vector<uint8_t>(LoadLe<uint32_t>(header) - 1), 0, connection};
    if (!receive(request.body)) break;
    Hook hook;
    {
      std::lock_guard lock(mutex_);
      for (const Request& earlier : requests_)
        request.number += earlier.type == request.type ? 1 : 0;
      requests_.push_back(request);
      hook = hook_;
    }
    Reply reply = Answer(request);
    if (hook) hook(request, reply);
    if (!reply.frame.empty() && !transport->Send({Bytes(reply.frame)}, 0).ok()) break;
    if (reply.then == Reply::Then::kClose) break;
    if (reply.then == Reply::Then::kStall) {
      uint8_t ignored[1];
      while (receive(ignored)) {
      }
      break;
    }
  }
  transport->Shutdown();
}

}  // namespace talaria::cvm::testing
