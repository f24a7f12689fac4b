// Frames and messages between CVM and cloud: doc/wire.md. A frame is u32 length (of what follows),
// u8 type, body; integers little-endian; every decoder is bounded and canonical: Encode(Decode(x))
// == x, reserved bytes are zero, nothing may follow.
//
//   CVM                                   cloud
//   Hello {version, limits}      ->                     exactly once, first
//                                <-       HelloReply {version, model identity, limits, challenge}
//   Attest {context, evidence}   ->                     unless the channel is attested already
//                                <-       Attested
//   Fetch {stream, offset, n}    ->
//                                <-       Chunk {stream, offset, bytes}
//   Multiply {call, group, rows, planes}  ->
//                                <-       Product {call, group, rows, residues}
//   Ping -> <- Pong;   <- Drain (no new calls, please);   <- Error {code} and the connection closes
#ifndef TALARIA_WIRE_MESSAGES_H_
#define TALARIA_WIRE_MESSAGES_H_

#include <array>
#include <cstdint>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/digest.h"
#include "talaria/base/result.h"
#include "talaria/model/stream.h"

namespace talaria::wire {

inline constexpr uint16_t kProtocolVersion = 2;
inline constexpr uint32_t kMaxFrameBytes = 64u << 20;  // length field; nobody may announce more
inline constexpr size_t kFrameHeaderBytes = 5;
inline constexpr uint32_t kMinFrameLimit = 4096;  // nobody may announce less
inline constexpr uint32_t kMaxChunkBytes = 4u << 20;

enum class Type : uint8_t {
  kHello = 1,
  kHelloReply = 2,
  kFetch = 3,
  kChunk = 4,
  kMultiply = 5,
  kProduct = 6,
  kError = 7,
  kPing = 8,
  kPong = 9,
  kDrain = 10,
  kAttest = 11,  // body: attest::Claim (attest/claim.h)
  kAttested = 12,
};
enum class ErrorCode : uint16_t {
  kBadRequest = 1,
  kNotAttested = 2,
  kOverloaded = 3,
  kInternal = 4,
  kDraining = 5,
  kUnsupportedVersion = 6,
};

struct Hello {
  uint16_t version = kProtocolVersion;
  uint32_t max_frame_bytes = kMaxFrameBytes;  // the CVM's limit, kMinFrameLimit..kMaxFrameBytes
};
struct HelloReply {
  uint16_t version = kProtocolVersion;
  Digest identity{};
  uint32_t max_frame_bytes = kMaxFrameBytes;  // the cloud's limit, kMinFrameLimit..kMaxFrameBytes
  uint32_t manifest_bytes = 0;                // >= 1
  bool attested = false;  // the channel's key is attested; otherwise only Attest is answered
  std::array<uint8_t, 32> nonce{};  // for Attest; zero when attested
};
struct Fetch {
  model::StreamId stream;
  uint64_t offset = 0;
  uint32_t bytes = 0;
};  // 1 <= bytes <= kMaxChunkBytes
struct ChunkHeader {
  model::StreamId stream;
  uint64_t offset = 0;
};  // the bytes follow
// rows >= 1 in both.
struct MultiplyHeader {
  uint64_t call = 0;
  uint32_t group = 0;
  uint32_t rows = 0;
};  // rows x [6][d_padded] follow
struct ProductHeader {
  uint64_t call = 0;
  uint32_t group = 0;
  uint32_t rows = 0;
};  // rows x [o_padded] x 6 bytes follow
struct ErrorMessage {
  ErrorCode code = ErrorCode::kInternal;
};

inline constexpr size_t kCallHeaderBytes = 16;   // MultiplyHeader and ProductHeader, encoded
inline constexpr size_t kChunkHeaderBytes = 13;  // u8 kind, u32 matrix, u64 offset

// Whether a byte is the number of a frame type.
bool IsType(uint8_t value);

// Bodies (without the frame header). Ping, Pong, Drain and Attested have empty ones.
std::vector<uint8_t> Encode(const Hello& m);
std::vector<uint8_t> Encode(const HelloReply& m);
std::vector<uint8_t> Encode(const Fetch& m);
std::vector<uint8_t> Encode(const ErrorMessage& m);
void EncodeTo(const ChunkHeader& m, uint8_t* out /*[kChunkHeaderBytes]*/);
void EncodeTo(const MultiplyHeader& m, uint8_t* out /*[kCallHeaderBytes]*/);
void EncodeTo(const ProductHeader& m, uint8_t* out /*[kCallHeaderBytes]*/);

// kCorrupt when the body is not exactly that message; kUnsupported for a Hello or HelloReply of
// another version, whatever follows the version. For the headers, `rest` is set to what follows, at
// least one byte.
Result<Hello> DecodeHello(Bytes body);
Result<HelloReply> DecodeHelloReply(Bytes body);
Result<Fetch> DecodeFetch(Bytes body);
Result<ErrorMessage> DecodeError(Bytes body);
Status DecodeEmpty(Bytes body);  // Ping, Pong, Drain, Attested
Result<ChunkHeader> DecodeChunk(Bytes body, Bytes* rest);
Result<MultiplyHeader> DecodeMultiply(Bytes body, Bytes* rest);
Result<ProductHeader> DecodeProduct(Bytes body, Bytes* rest);

}  // namespace talaria::wire

#endif  // TALARIA_WIRE_MESSAGES_H_
