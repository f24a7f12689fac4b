#include "talaria/wire/messages.h"

#include <cstring>

namespace talaria::wire {
namespace {

Status Malformed(std::string_view what) {
  return Status(Code::kCorrupt, "malformed " + std::string(what));
}

bool IsErrorCode(uint16_t value) {
  return value >= static_cast<uint16_t>(ErrorCode::kBadRequest) &&
         value <= static_cast<uint16_t>(ErrorCode::kUnsupportedVersion);
}

bool IsFrameLimit(uint32_t value) { return value >= kMinFrameLimit && value <= kMaxFrameBytes; }

// Only kinds of one matrix may name one.
bool ReadStream(ByteReader& in, model::StreamId* out) {
  const uint8_t kind = in.U8();
  out->matrix = in.U32();
  if (kind > static_cast<uint8_t>(model::StreamKind::kHints)) return false;
  out->kind = static_cast<model::StreamKind>(kind);
  const bool whole_model =
      out->kind == model::StreamKind::kManifest || out->kind == model::StreamKind::kSkeleton;
  return !whole_model || out->matrix == 0;
}

// The version stands first in every version's Hello, so that a stranger can be told apart from
// garbage.
Status CheckVersion(ByteReader& in, std::string_view what) {
  const uint16_t version = in.U16();
  if (!in.ok()) return Malformed(what);
  if (version != kProtocolVersion) {
    return Status(Code::kUnsupported, "protocol version " + std::to_string(version) + ", want " +
                                          std::to_string(kProtocolVersion));
  }
  return OkStatus();
}

// MultiplyHeader and ProductHeader have one form.
template <class Header>
void EncodeCall(const Header& m, uint8_t* out) {
  std::memcpy(out, &m.call, 8);
  std::memcpy(out + 8, &m.group, 4);
  std::memcpy(out + 12, &m.rows, 4);
}

template <class Header>
Result<Header> DecodeCall(Bytes body, Bytes* rest, std::string_view what) {
  ByteReader in(body);
  Header out;
  out.call = in.U64();
  out.group = in.U32();
  out.rows = in.U32();
  if (!in.ok() || out.rows == 0 || in.remaining() == 0) return Malformed(what);
  *rest = in.Raw(in.remaining());
  return out;
}

}  // namespace

bool IsType(uint8_t value) {
  return value >= static_cast<uint8_t>(Type::kHello) &&
         value <= static_cast<uint8_t>(Type::kAttested);
}

std::vector<uint8_t> Encode(const Hello& m) {
  std::vector<uint8_t> out;
  ByteWriter writer(out);
  writer.U16(m.version);
  writer.U32(m.max_frame_bytes);
  return out;
}

std::vector<uint8_t> Encode(const HelloReply& m) {
  std::vector<uint8_t> out;
  ByteWriter writer(out);
  writer.U16(m.version);
  writer.Raw(m.identity);
  writer.U32(m.max_frame_bytes);
  writer.U32(m.manifest_bytes);
  writer.U8(m.attested ? 1 : 0);
  writer.Raw(m.nonce);
  return out;
}

std::vector<uint8_t> Encode(const Fetch& m) {
  std::vector<uint8_t> out;
  ByteWriter writer(out);
  writer.U8(static_cast<uint8_t>(m.stream.kind));
  writer.U32(m.stream.matrix);
  writer.U64(m.offset);
  writer.U32(m.bytes);
  return out;
}

std::vector<uint8_t> Encode(const ErrorMessage& m) {
  std::vector<uint8_t> out;
  ByteWriter(out).U16(static_cast<uint16_t>(m.code));
  return out;
}

void EncodeTo(const ChunkHeader& m, uint8_t* out) {
  out[0] = static_cast<uint8_t>(m.stream.kind);
  std::memcpy(out + 1, &m.stream.matrix, 4);
  std::memcpy(out + 5, &m.offset, 8);
}

void EncodeTo(const MultiplyHeader& m, uint8_t* out) { EncodeCall(m, out); }
void EncodeTo(const ProductHeader& m, uint8_t* out) { EncodeCall(m, out); }

Result<Hello> DecodeHello(Bytes body) {
  ByteReader in(body);
  TALARIA_RETURN_IF_ERROR(CheckVersion(in, "Hello"));
  Hello out;
  out.max_frame_bytes = in.U32();
  if (!in.AtEnd() || !IsFrameLimit(out.max_frame_bytes)) return Malformed("Hello");
  return out;
}

Result<HelloReply> DecodeHelloReply(Bytes body) {
  ByteReader in(body);
  TALARIA_RETURN_IF_ERROR(CheckVersion(in, "HelloReply"));
  HelloReply out;
  out.identity = in.Array<32>();
  out.max_frame_bytes = in.U32();
  out.manifest_bytes = in.U32();
  const uint8_t attested = in.U8();
  out.attested = attested == 1;
  out.nonce = in.Array<32>();
  // A nonce exactly when there is something to attest.
  const bool has_nonce = out.nonce != std::array<uint8_t, 32>{};
  if (!in.AtEnd() || !IsFrameLimit(out.max_frame_bytes) || out.manifest_bytes == 0 ||
      attested > 1 || has_nonce == out.attested) {
    return Malformed("HelloReply");
  }
  return out;
}

Result<Fetch> DecodeFetch(Bytes body) {
  ByteReader in(body);
  Fetch out;
  const bool valid = ReadStream(in, &out.stream);
  out.offset = in.U64();
  out.bytes = in.U32();
  if (!in.AtEnd() || !valid || out.bytes == 0 || out.bytes > kMaxChunkBytes)
    return Malformed("Fetch");
  return out;
}

Result<ErrorMessage> DecodeError(Bytes body) {
  ByteReader in(body);
  const uint16_t code = in.U16();
  if (!in.AtEnd() || !IsErrorCode(code)) return Malformed("Error");
  return ErrorMessage{static_cast<ErrorCode>(code)};
}

Status DecodeEmpty(Bytes body) {
  return body.empty() ? OkStatus() : Malformed("message: it has no body");
}

Result<ChunkHeader> DecodeChunk(Bytes body, Bytes* rest) {
  ByteReader in(body);
  ChunkHeader out;
  const bool valid = ReadStream(in, &out.stream);
  out.offset = in.U64();
  if (!in.ok() || !valid || in.remaining() == 0 || in.remaining() > kMaxChunkBytes)
    return Malformed("Chunk");
  *rest = in.Raw(in.remaining());
  return out;
}

Result<MultiplyHeader> DecodeMultiply(Bytes body, Bytes* rest) {
  return DecodeCall<MultiplyHeader>(body, rest, "Multiply");
}

Result<ProductHeader> DecodeProduct(Bytes body, Bytes* rest) {
  return DecodeCall<ProductHeader>(body, rest, "Product");
}

}  // namespace talaria::wire
