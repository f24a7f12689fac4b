// A bounded reader of the head of a GGUF file: keys, tensor names, shapes, types and offsets, no
// tensor data. It accepts what ggml accepts (a test compares them on real files) and knows ggml's
// types by size only, so that it needs no ggml.
#ifndef TALARIA_MODEL_GGUF_HEADER_H_
#define TALARIA_MODEL_GGUF_HEADER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "talaria/base/bytes.h"
#include "talaria/base/result.h"

namespace talaria::model {

inline constexpr uint32_t kGgufTypeI8 = 24;  // ggml's number of signed bytes
inline constexpr uint64_t kMaxGgufHeaderBytes = uint64_t{1} << 30;
inline constexpr size_t kMaxGgufTensors = 1 << 17;
inline constexpr size_t kMaxGgufNameBytes = 63;  // ggml keeps names in 64 bytes

// A ggml type: `bytes` per `block` elements.
struct GgufType {
  uint32_t id;
  uint32_t block;
  uint32_t bytes;
  std::string_view name;
};
// Null for a type that is unknown or was removed.
const GgufType* FindGgufType(uint32_t id);

struct GgufTensor {
  std::string name;
  uint32_t dimensions = 0;           // 1..4
  uint64_t shape[4] = {1, 1, 1, 1};  // ne[0] first, which is the contiguous one
  uint32_t type = 0;
  uint64_t offset = 0;  // from data_offset
  uint64_t bytes = 0;   // without padding
};

struct GgufHeader {
  uint32_t version = 0;  // 2 or 3, which are the same bytes
  uint64_t keys = 0;
  uint64_t tensors_offset = 0;  // where the list of tensors starts: everything before it is keys
  uint64_t data_offset = 0;     // aligned
  uint64_t alignment = 32;
  uint64_t split_count = 0;              // above 1: one part of several
  std::string architecture, model_name;  // general.architecture, general.name; empty if absent
  std::vector<GgufTensor>
      tensors;  // their data lie in this order, each padded to `alignment`, without gaps
};

// `prefix` is the start of a file of `file_bytes` bytes. kCorrupt: not GGUF, truncated,
// inconsistent. kUnsupported: another version, big-endian, unknown type. kResourceExhausted: the
// prefix is shorter than the head; call again with more. Pure.
Result<GgufHeader> ParseGgufHeader(Bytes prefix, uint64_t file_bytes);

// The same for a file. Also hands out the bytes of the head, [0, data_offset).
Result<GgufHeader> ReadGgufHeader(const std::string& path, std::vector<uint8_t>* head);

// The head of a file with the given tensors (name, dimensions, shape and type are used; offset and
// bytes are filled in), preceded by `keys`: magic, version, counts and `keys` raw encoded key-value
// pairs. Padded to `alignment`. What ParseGgufHeader(result) gives back equals the input.
std::vector<uint8_t> EncodeGgufHeader(uint32_t version, uint64_t keys, Bytes raw_keys,
                                      uint64_t alignment, std::vector<GgufTensor>& tensors);
inline constexpr uint64_t kGgufKeysOffset =
    24;  // magic, version, number of tensors, number of keys

}  // namespace talaria::model

#endif  // TALARIA_MODEL_GGUF_HEADER_H_
