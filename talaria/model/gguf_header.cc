#include "talaria/model/gguf_header.h"

#include <algorithm>
#include <unordered_set>

#include "talaria/base/file.h"

namespace talaria::model {
namespace {

// ggml 0.25: number, elements and bytes of a block, name. The numbers that are missing were removed
// from ggml.
constexpr GgufType kTypes[] = {
    {0, 1, 4, "f32"},         {1, 1, 2, "f16"},         {2, 32, 18, "q4_0"},
    {3, 32, 20, "q4_1"},      {6, 32, 22, "q5_0"},      {7, 32, 24, "q5_1"},
    {8, 32, 34, "q8_0"},      {9, 32, 36, "q8_1"},      {10, 256, 84, "q2_K"},
    {11, 256, 110, "q3_K"},   {12, 256, 144, "q4_K"},   {13, 256, 176, "q5_K"},
    {14, 256, 210, "q6_K"},   {15, 256, 292, "q8_K"},   {16, 256, 66, "iq2_xxs"},
    {17, 256, 74, "iq2_xs"},  {18, 256, 98, "iq3_xxs"}, {19, 256, 50, "iq1_s"},
    {20, 32, 18, "iq4_nl"},   {21, 256, 110, "iq3_s"},  {22, 256, 82, "iq2_s"},
    {23, 256, 136, "iq4_xs"}, {24, 1, 1, "i8"},         {25, 1, 2, "i16"},
    {26, 1, 4, "i32"},        {27, 1, 8, "i64"},        {28, 1, 8, "f64"},
    {29, 256, 56, "iq1_m"},   {30, 1, 2, "bf16"},       {34, 256, 54, "tq1_0"},
    {35, 256, 66, "tq2_0"},   {39, 32, 17, "mxfp4"},    {40, 64, 36, "nvfp4"},
    {41, 128, 18, "q1_0"},    {42, 64, 18, "q2_0"},
};

// Value types of keys.
enum : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
  kValueTypes
};
constexpr uint8_t kValueBytes[kValueTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

Status Corrupt(const std::string& what) { return Status(Code::kCorrupt, "GGUF: " + what); }

uint64_t PadTo(uint64_t x, uint64_t alignment) {
  return (x + alignment - 1) / alignment * alignment;
}

std::string_view AsText(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Reads the prefix. When it ends too early, the reason depends on whether the file ends there too.
class HeadReader {
 public:
  HeadReader(Bytes prefix, uint64_t file_bytes)
      : size_(prefix.size()), file_bytes_(file_bytes), in_(prefix) {}
  ByteReader& in() { return in_; }
  uint64_t position() const { return size_ - in_.remaining(); }
  uint64_t LeftInFile() const { return file_bytes_ - position(); }
  // A length that the file cannot hold is corrupt, not a reason to read more.
  Result<Bytes> Text() {
    const uint64_t size = in_.U64();
    if (!in_.ok()) return Short();
    if (size > LeftInFile()) return Corrupt("a string is longer than the file");
    const Bytes text = in_.Raw(size);
    if (!in_.ok()) return Short();
    return text;
  }
  Status Short() const {
    if (size_ < file_bytes_)
      return Status(Code::kResourceExhausted, "GGUF: the prefix ends inside the header");
    return Corrupt("the file ends inside its header");
  }

 private:
  uint64_t size_, file_bytes_;
  ByteReader in_;
};

Status SkipArray(HeadReader& reader) {
  ByteReader& in = reader.in();
  const uint32_t type = in.U32();
  const uint64_t count = in.U64();
  if (!in.ok()) return reader.Short();
  if (type >= kValueTypes || type == kArray) return Corrupt("an array has an invalid element type");
  const uint64_t element = type == kString ? 8 : kValueBytes[type];
  if (count > reader.LeftInFile() / element) return Corrupt("an array is longer than the file");
  if (type != kString) {
    in.Raw(count * element);
    return in.ok() ? OkStatus() : reader.Short();
  }
  for (uint64_t i = 0; i < count; ++i) {
    if (auto text = reader.Text(); !text.ok()) return text.status();
  }
  return OkStatus();
}

Status ReadKey(HeadReader& reader, std::unordered_set<std::string_view>& seen, GgufHeader& header) {
  ByteReader& in = reader.in();
  TALARIA_ASSIGN_OR_RETURN(const Bytes key_bytes, reader.Text());
  const std::string_view key = AsText(key_bytes);
  if (key.empty() || !seen.insert(key).second) return Corrupt("a key is empty or occurs twice");
  const uint32_t type = in.U32();
  if (!in.ok()) return reader.Short();
  if (type >= kValueTypes) return Corrupt("a key has an invalid type");
  if (type == kArray) return SkipArray(reader);
  if (type == kString) {
    TALARIA_ASSIGN_OR_RETURN(const Bytes value, reader.Text());
    if (key == "general.architecture") header.architecture = AsText(value);
    if (key == "general.name") header.model_name = AsText(value);
    return OkStatus();
  }
  const Bytes raw = in.Raw(kValueBytes[type]);
  if (!in.ok()) return reader.Short();
  if (key == "general.alignment") {
    if (type != kU32) return Corrupt("general.alignment has the wrong type");
    header.alignment = LoadLe<uint32_t>(raw.data());
    if (!std::has_single_bit(header.alignment) || header.alignment > (1 << 20))
      return Corrupt("general.alignment is off");
  }
  if (key == "split.count" && type == kU16) header.split_count = LoadLe<uint16_t>(raw.data());
  return OkStatus();
}

// Fills in the number of bytes. Shapes are bounded so that nothing overflows.
Status CheckShape(GgufTensor& tensor) {
  const GgufType* type = FindGgufType(tensor.type);
  if (type == nullptr) {
    return Status(Code::kUnsupported,
                  "GGUF: " + tensor.name + " has the unknown type " + std::to_string(tensor.type));
  }
  uint64_t elements = 1;
  for (const uint64_t n : tensor.shape) {
    if (n == 0 || n > (uint64_t{1} << 48) / elements)
      return Corrupt(tensor.name + " has an impossible shape");
    elements *= n;
  }
  if (tensor.shape[0] % type->block != 0)
    return Corrupt(tensor.name + " has rows that are no multiple of its type's block");
  tensor.bytes = elements / type->block * type->bytes;
  return OkStatus();
}

Status ReadTensor(HeadReader& reader, GgufTensor& tensor) {
  ByteReader& in = reader.in();
  TALARIA_ASSIGN_OR_RETURN(const Bytes name, reader.Text());
  if (name.empty() || name.size() > kMaxGgufNameBytes ||
      std::find(name.begin(), name.end(), 0) != name.end()) {
    return Corrupt("a tensor's name is empty, too long or not text");
  }
  tensor.name = AsText(name);
  tensor.dimensions = in.U32();
  if (!in.ok()) return reader.Short();
  if (tensor.dimensions < 1 || tensor.dimensions > 4)
    return Corrupt(tensor.name + " has an impossible number of dimensions");
  for (uint32_t i = 0; i < tensor.dimensions; ++i) tensor.shape[i] = in.U64();
  tensor.type = in.U32();
  tensor.offset = in.U64();
  if (!in.ok()) return reader.Short();
  return CheckShape(tensor);
}

}  // namespace

const GgufType* FindGgufType(uint32_t id) {
  for (const GgufType& type : kTypes) {
    if (type.id == id) return &type;
  }
  return nullptr;
}

Result<GgufHeader> ParseGgufHeader(Bytes prefix, uint64_t file_bytes) {
  if (prefix.size() > file_bytes)
    return Status(Code::kInvalidArgument, "GGUF: the prefix is longer than the file");
  HeadReader reader(prefix, file_bytes);
  ByteReader& in = reader.in();
  GgufHeader header;
  const Bytes magic = in.Raw(4);
  if (in.ok() && AsText(magic) != "GGUF")
    return Corrupt("the file does not start with \"GGUF\": is it a model in GGUF format?");
  header.version = in.U32();
  const uint64_t tensors = in.U64();
  header.keys = in.U64();
  if (!in.ok()) return reader.Short();
  if (header.version != 2 && header.version != 3) {
    return Status(Code::kUnsupported, "GGUF: version " + std::to_string(header.version) +
                                          " (2 and 3, little-endian, are read)");
  }
  if (tensors == 0) return Corrupt("no tensors");
  // The smallest key takes 14 bytes.
  if (tensors > kMaxGgufTensors || header.keys > file_bytes / 14)
    return Corrupt("an impossible number of tensors or keys");
  std::unordered_set<std::string_view> seen;
  for (uint64_t i = 0; i < header.keys; ++i) TALARIA_RETURN_IF_ERROR(ReadKey(reader, seen, header));
  header.tensors_offset = reader.position();

  std::unordered_set<std::string> names;
  uint64_t end = 0;  // of the data so far, padded
  for (uint64_t i = 0; i < tensors; ++i) {
    GgufTensor tensor;
    TALARIA_RETURN_IF_ERROR(ReadTensor(reader, tensor));
    if (!names.insert(tensor.name).second) return Corrupt(tensor.name + " occurs twice");
    if (tensor.offset != end)
      return Corrupt(tensor.name + " does not start where the tensor before it ends");
    end += PadTo(tensor.bytes, header.alignment);
    if (end > (uint64_t{1} << 50)) return Corrupt("the tensors are impossibly large");
    header.tensors.push_back(std::move(tensor));
  }
  header.data_offset = PadTo(reader.position(), header.alignment);
  const GgufTensor& last = header.tensors.back();
  const uint64_t needed = header.data_offset + last.offset + last.bytes;
  if (needed > file_bytes) {
    return Corrupt("the file is truncated: it has " + std::to_string(file_bytes) +
                   " bytes and its tensors need " + std::to_string(needed));
  }
  return header;
}

Result<GgufHeader> ReadGgufHeader(const std::string& path, std::vector<uint8_t>* head) {
  TALARIA_ASSIGN_OR_RETURN(const Fd fd, OpenForReading(path));
  TALARIA_ASSIGN_OR_RETURN(const uint64_t file_bytes, FileSize(fd));
  std::vector<uint8_t> prefix;
  for (uint64_t size = uint64_t{1} << 24;; size *= 4) {
    prefix.resize(std::min({size, file_bytes, kMaxGgufHeaderBytes}));
    if (Status s = ReadAt(fd, 0, prefix); !s.ok()) return s.Annotate(path);
    Result<GgufHeader> header = ParseGgufHeader(prefix, file_bytes);
    if (!header.ok() && header.status().code() == Code::kResourceExhausted &&
        prefix.size() < kMaxGgufHeaderBytes)
      continue;
    if (!header.ok()) return header.status().Annotate(path);
    if (head != nullptr) {
      // Only padding can lie between the two.
      if (prefix.size() < header->data_offset) {
        prefix.resize(header->data_offset);
        if (Status s = ReadAt(fd, 0, prefix); !s.ok()) return s.Annotate(path);
      }
      prefix.resize(header->data_offset);
      *head = std::move(prefix);
    }
    return header;
  }
}

std::vector<uint8_t> EncodeGgufHeader(uint32_t version, uint64_t keys, Bytes raw_keys,
                                      uint64_t alignment, std::vector<GgufTensor>& tensors) {
  std::vector<uint8_t> bytes;
  ByteWriter out(bytes);
  out.Raw(AsBytes("GGUF"));
  out.U32(version);
  out.U64(tensors.size());
  out.U64(keys);
  out.Raw(raw_keys);
  uint64_t end = 0;
  for (GgufTensor& tensor : tensors) {
    TALARIA_CHECK(CheckShape(tensor).ok());
    tensor.offset = end;
    end += PadTo(tensor.bytes, alignment);
    out.U64(tensor.name.size());
    out.Raw(AsBytes(tensor.name));
    out.U32(tensor.dimensions);
    for (uint32_t i = 0; i < tensor.dimensions; ++i) out.U64(tensor.shape[i]);
    out.U32(tensor.type);
    out.U64(tensor.offset);
  }
  bytes.resize(PadTo(bytes.size(), alignment), 0);
  return bytes;
}

}  // namespace talaria::model
