#include "fuzz/targets.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "talaria/attest/claim.h"
#include "talaria/attest/receipt.h"
#include "talaria/model/gguf_header.h"
#include "talaria/model/manifest.h"
#include "talaria/model/store_layout.h"
#include "talaria/wire/connection.h"
#include "talaria/wire/messages.h"
#include "talaria/wire/testing/memory_transport.h"

namespace talaria::fuzz {
namespace {

using wire::Type;

void ExpectBytes(Bytes got, Bytes expected) { TALARIA_CHECK(std::ranges::equal(got, expected)); }

template <class Header>
bool ExpectHeader(const Result<Header>& header, size_t header_bytes, Bytes rest, Bytes body) {
  if (!header.ok()) return false;
  std::vector<uint8_t> again(header_bytes);
  EncodeTo(*header, again.data());
  again.insert(again.end(), rest.begin(), rest.end());
  ExpectBytes(again, body);
  return true;
}

}  // namespace

bool Frames(Bytes input) {
  if (input.size() < 2) return false;
  const size_t piece = size_t{input[0]} + 1;
  const uint32_t limit = (uint32_t{input[1]} + 1) * 64;
  const Bytes stream = input.subspan(2);
  auto owned = std::make_unique<wire::MemoryTransport>(stream, piece, nullptr);
  const wire::MemoryTransport& transport = *owned;
  wire::Connection connection(std::move(owned), limit);
  size_t consumed = 0;
  Result<wire::Frame> frame = connection.Receive(0);
  for (; frame.ok(); frame = connection.Receive(0)) {
    TALARIA_CHECK(frame->body.size() < limit);
    // The frame is what lies in the stream at this place.
    std::vector<uint8_t> again;
    ByteWriter writer(again);
    writer.U32(static_cast<uint32_t>(frame->body.size() + 1));
    writer.U8(static_cast<uint8_t>(frame->type));
    writer.Raw(frame->body);
    TALARIA_CHECK(again.size() <= stream.size() - consumed);
    ExpectBytes(again, stream.subspan(consumed, again.size()));
    consumed += again.size();
  }
  const Code code = frame.status().code();
  TALARIA_CHECK(code == Code::kUnavailable || code == Code::kCorrupt);
  TALARIA_CHECK(connection.Receive(0).status().code() == code);
  TALARIA_CHECK(consumed <= connection.bytes_received() &&
                connection.bytes_received() <= transport.position());
  TALARIA_CHECK(transport.largest_request() <=
                size_t{64} << 10);  // limits here are below the first buffer
  return consumed != 0;
}

bool Messages(Bytes input) {
  if (input.empty()) return false;
  const Bytes body = input.subspan(1);
  const auto expect = [body](const auto& decoded) {
    if (decoded.ok()) ExpectBytes(Encode(*decoded), body);
    return decoded.ok();
  };
  Bytes rest;
  switch (static_cast<Type>(input[0])) {
    case Type::kHello:
      return expect(wire::DecodeHello(body));
    case Type::kHelloReply:
      return expect(wire::DecodeHelloReply(body));
    case Type::kFetch:
      return expect(wire::DecodeFetch(body));
    case Type::kError:
      return expect(wire::DecodeError(body));
    case Type::kChunk: {
      const auto header = wire::DecodeChunk(body, &rest);
      return ExpectHeader(header, wire::kChunkHeaderBytes, rest, body);
    }
    case Type::kMultiply: {
      const auto header = wire::DecodeMultiply(body, &rest);
      return ExpectHeader(header, wire::kCallHeaderBytes, rest, body);
    }
    case Type::kProduct: {
      const auto header = wire::DecodeProduct(body, &rest);
      return ExpectHeader(header, wire::kCallHeaderBytes, rest, body);
    }
    case Type::kPing:
    case Type::kPong:
    case Type::kDrain:
    case Type::kAttested:
      TALARIA_CHECK(wire::DecodeEmpty(body).ok() == body.empty());
      return body.empty();
    case Type::kAttest:
      return expect(attest::DecodeClaim(body));
  }
  return false;
}

bool Manifest(Bytes input) {
  const std::string_view text(reinterpret_cast<const char*>(input.data()), input.size());
  const Result<model::Manifest> manifest = model::DecodeManifest(text);
  if (!manifest.ok()) {
    const Code code = manifest.status().code();
    TALARIA_CHECK(code == Code::kCorrupt || code == Code::kUnsupported);
    return false;
  }
  TALARIA_CHECK(model::EncodeManifest(*manifest) == text);
  TALARIA_CHECK(model::ValidateManifest(*manifest).ok());
  (void)model::CoreDigest(*manifest);
  for (const model::Group& group : manifest->groups) {
    const size_t last = group.matrices.size() - 1;
    TALARIA_CHECK(model::ColumnOffset(group, last) + model::PaddedOutputs(group.matrices[last].o) ==
                  model::GroupOutputs(group));
  }
  const model::StoreLayout layout = model::LayoutOf(*manifest);
  uint64_t hole_bytes = 0;
  for (const model::Hole& hole : manifest->holes) hole_bytes += hole.bytes;
  TALARIA_CHECK(layout.skeleton_data_bytes + hole_bytes == manifest->skeleton_bytes);
  TALARIA_CHECK(layout.weights.size() == model::AllMatrices(*manifest).size());
  return true;
}

bool GgufHeader(Bytes input) {
  if (input.size() < 4) return false;
  const Bytes prefix = input.subspan(4);
  const uint64_t file_bytes = prefix.size() + uint64_t{LoadLe<uint32_t>(input.data())};
  const Result<model::GgufHeader> header = model::ParseGgufHeader(prefix, file_bytes);
  if (!header.ok()) return false;
  TALARIA_CHECK(header->data_offset <= file_bytes && header->tensors_offset <= prefix.size());
  const uint64_t data_bytes = file_bytes - header->data_offset;
  for (const model::GgufTensor& tensor : header->tensors) {
    TALARIA_CHECK(tensor.dimensions >= 1 && tensor.dimensions <= 4);
    TALARIA_CHECK(tensor.offset <= data_bytes && tensor.bytes <= data_bytes - tensor.offset);
    TALARIA_CHECK(model::FindGgufType(tensor.type) != nullptr);
  }
  return true;
}

bool Receipt(Bytes input) {
  const Result<attest::Receipt> receipt = attest::DecodeReceipt(input);
  if (!receipt.ok()) {
    TALARIA_CHECK(receipt.status().code() == Code::kUntrusted);
    return false;
  }
  ExpectBytes(attest::Encode(*receipt), input);
  return true;
}

}  // namespace talaria::fuzz
