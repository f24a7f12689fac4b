#include "talaria/model/gguf_header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace talaria::model {
namespace {

using ::testing::HasSubstr;

void PutText(ByteWriter& out, std::string_view text) {
  out.U64(text.size());
  out.Raw(AsBytes(text));
}

struct KeyList {
  uint64_t count = 0;
  std::vector<uint8_t> bytes;
  void String(std::string_view key, std::string_view value) {
    ByteWriter out(bytes);
    PutText(out, key);
    out.U32(8);
    PutText(out, value);
    ++count;
  }
  void U32(std::string_view key, uint32_t value) {
    ByteWriter out(bytes);
    PutText(out, key);
    out.U32(4);
    out.U32(value);
    ++count;
  }
  // Arrays of strings and of bytes.
  void Arrays() {
    ByteWriter out(bytes);
    PutText(out, "tokens");
    out.U32(9);
    out.U32(8);
    out.U64(2);
    PutText(out, "a");
    PutText(out, "");
    PutText(out, "types");
    out.U32(9);
    out.U32(0);
    out.U64(3);
    out.Raw(AsBytes("xyz"));
    count += 2;
  }
};

GgufTensor Tensor(std::string name, uint32_t type, std::vector<uint64_t> shape) {
  GgufTensor t;
  t.name = std::move(name);
  t.type = type;
  t.dimensions = static_cast<uint32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), t.shape);
  return t;
}

KeyList SomeKeys() {
  KeyList keys;
  keys.String("general.architecture", "llama");
  keys.String("general.name", "A Model");
  keys.Arrays();
  return keys;
}

// A head and the size of the file it belongs to.
struct Sample {
  std::vector<uint8_t> head;
  uint64_t file_bytes = 0;
};

Sample Make(const KeyList& keys, std::vector<GgufTensor> tensors, uint64_t alignment = 32) {
  Sample sample;
  sample.head = EncodeGgufHeader(3, keys.count, keys.bytes, alignment, tensors);
  sample.file_bytes = sample.head.size() + tensors.back().offset + tensors.back().bytes;
  return sample;
}

std::vector<GgufTensor> SomeTensors() {
  return {Tensor("a.weight", 2, {64, 3}), Tensor("b.bias", 0, {5}),
          Tensor("c.weight", kGgufTypeI8, {33, 2, 4})};
}

TEST(GgufHeaderTest, ReadsWhatItWrites) {
  const Sample sample = Make(SomeKeys(), SomeTensors());
  const auto header = ParseGgufHeader(sample.head, sample.file_bytes);
  ASSERT_TRUE(header.ok()) << header.status().ToString();
  EXPECT_EQ(header->architecture, "llama");
  EXPECT_EQ(header->model_name, "A Model");
  EXPECT_EQ(header->keys, 4u);
  EXPECT_EQ(header->data_offset, sample.head.size());
  ASSERT_EQ(header->tensors.size(), 3u);
  EXPECT_EQ(header->tensors[0].bytes, 64u / 32 * 18 * 3);
  EXPECT_EQ(header->tensors[1].offset, 128u);  // 108 padded to 32
  EXPECT_EQ(header->tensors[1].bytes, 20u);
  EXPECT_EQ(header->tensors[2].bytes, 33u * 2 * 4);
  EXPECT_EQ(header->tensors[2].shape[3], 1u);
  // The keys can be copied as they are.
  std::vector<GgufTensor> again = header->tensors;
  const Bytes keys =
      Bytes(sample.head).subspan(kGgufKeysOffset, header->tensors_offset - kGgufKeysOffset);
  EXPECT_EQ(EncodeGgufHeader(3, header->keys, keys, header->alignment, again), sample.head);
}

TEST(GgufHeaderTest, HonoursTheAlignmentKey) {
  KeyList keys = SomeKeys();
  keys.U32("general.alignment", 256);
  const Sample sample = Make(keys, SomeTensors(), 256);
  const auto header = ParseGgufHeader(sample.head, sample.file_bytes);
  ASSERT_TRUE(header.ok()) << header.status().ToString();
  EXPECT_EQ(header->alignment, 256u);
  EXPECT_EQ(header->tensors[1].offset, 256u);
}

TEST(GgufHeaderTest, ShortPrefixesAskForMoreAndShortFilesAreCorrupt) {
  const Sample sample = Make(SomeKeys(), SomeTensors());
  const auto full = ParseGgufHeader(sample.head, sample.file_bytes);
  ASSERT_TRUE(full.ok());
  for (size_t size = 0; size < sample.head.size(); ++size) {
    const Bytes prefix = Bytes(sample.head).first(size);
    const auto more = ParseGgufHeader(prefix, sample.file_bytes);
    // Where it is not an error only padding is missing.
    if (!more.ok()) {
      EXPECT_EQ(more.status().code(), Code::kResourceExhausted) << size;
    }
    const auto truncated = ParseGgufHeader(prefix, size);
    ASSERT_FALSE(truncated.ok()) << size;
    EXPECT_EQ(truncated.status().code(), Code::kCorrupt) << size;
  }
  const auto truncated = ParseGgufHeader(sample.head, sample.file_bytes - 1);
  ASSERT_FALSE(truncated.ok());
  EXPECT_THAT(truncated.status().message(), HasSubstr("truncated"));
}

TEST(GgufHeaderTest, RefusesInconsistentFiles) {
  const auto code = [](const Sample& sample) {
    const auto header = ParseGgufHeader(sample.head, sample.file_bytes);
    return header.ok() ? Code::kOk : header.status().code();
  };
  KeyList twice = SomeKeys();
  twice.String("general.name", "again");
  EXPECT_EQ(code(Make(twice, SomeTensors())), Code::kCorrupt);
  KeyList odd = SomeKeys();
  odd.U32("general.alignment", 48);
  EXPECT_EQ(code(Make(odd, SomeTensors(), 48)), Code::kCorrupt);
  EXPECT_EQ(code(Make(SomeKeys(), {Tensor("a", 0, {4}), Tensor("a", 0, {4})})), Code::kCorrupt);
  EXPECT_EQ(code(Make(SomeKeys(), {Tensor(std::string(64, 'n'), 0, {4})})), Code::kCorrupt);
  Sample gap = Make(SomeKeys(), {Tensor("a", 0, {4}), Tensor("b", 0, {4})});
  gap.head[gap.head.size() - 1] = 0;
  // The last 8 bytes before the padding are the second tensor's offset.
  const auto header = ParseGgufHeader(gap.head, gap.file_bytes);
  ASSERT_TRUE(header.ok());
  for (size_t i = gap.head.size() - 48; i < gap.head.size(); ++i) {
    if (LoadLe<uint64_t>(gap.head.data() + i - 8) == 32) gap.head[i - 8] = 64;
  }
  EXPECT_EQ(code(gap), Code::kCorrupt);
}

TEST(GgufHeaderTest, RefusesOtherFiles) {
  const std::vector<uint8_t> text(100, 'x');
  EXPECT_EQ(ParseGgufHeader(text, 100).status().code(), Code::kCorrupt);
  EXPECT_EQ(ParseGgufHeader({}, 0).status().code(), Code::kCorrupt);
  Sample other = Make(SomeKeys(), SomeTensors());
  other.head[4] = 4;
  EXPECT_EQ(ParseGgufHeader(other.head, other.file_bytes).status().code(), Code::kUnsupported);
  other.head[4] = 0;
  other.head[7] = 3;  // big-endian version 3
  EXPECT_EQ(ParseGgufHeader(other.head, other.file_bytes).status().code(), Code::kUnsupported);
}

TEST(GgufHeaderTest, SurvivesDamage) {
  const Sample sample = Make(SomeKeys(), SomeTensors());
  std::mt19937_64 random(7);
  int refused = 0;
  for (int i = 0; i < 50000; ++i) {
    std::vector<uint8_t> head = sample.head;
    for (int edits = 0; edits < 2; ++edits)
      head[random() % head.size()] = static_cast<uint8_t>(random() % 4 == 0 ? 0xff : random());
    const auto header = ParseGgufHeader(head, sample.file_bytes);
    if (!header.ok()) {
      ++refused;
      continue;
    }
    for (const GgufTensor& t : header->tensors)
      ASSERT_LE(header->data_offset + t.offset + t.bytes, sample.file_bytes);
  }
  EXPECT_GT(refused, 10000);
}

}  // namespace
}  // namespace talaria::model
