#include "talaria/attest/context.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "talaria/attest/refusal.h"

namespace talaria::attest {
namespace {

Digest Filled(uint8_t value) {
  Digest out;
  out.fill(value);
  return out;
}

Context Example() {
  return {.version = 1,
          .model_identity = Filled(0xa1),
          .profile = 3,
          .check_vectors = 2,
          .configuration = Filled(0xb2),
          .tenant_key = Filled(0xc3),
          .development = true};
}

void ExpectRefused(Bytes bytes, std::string_view detail) {
  const auto decoded = DecodeContext(bytes);
  EXPECT_EQ(ReasonOf(decoded.status()), "context-format");
  EXPECT_THAT(decoded.status().message(), testing::HasSubstr(detail));
}

// python3 -c 'import hashlib; c=b"\1\0"+b"\xa1"*32+b"\3\0"+b"\2"+b"\xb2"*32+b"\xc3"*32+b"\1";
// print(c.hex(),hashlib.sha256(c).hexdigest())'
TEST(Context, GoldenBytes) {
  EXPECT_EQ(ToHex(Encode(Example())),
            "0100"
            "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1"
            "0300"
            "02"
            "b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2"
            "c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3"
            "01");
  EXPECT_EQ(ToHex(DigestOf(Example())),
            "1f053f9f5a3132865b1ebebc4851e961e75707c5d60a21c54f4b66c144f86bf2");
  EXPECT_EQ(Encode(Example()).size(), kContextBytes);
}

TEST(Context, RoundTrip) {
  for (bool development : {false, true}) {
    Context context = Example();
    context.development = development;
    const auto decoded = DecodeContext(Encode(context));
    ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
    EXPECT_EQ(*decoded, context);
  }
}

TEST(Context, EveryByteChangesTheDigestAndIsCanonical) {
  const std::vector<uint8_t> bytes = Encode(Example());
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::vector<uint8_t> changed = bytes;
    changed[i] ^= 0x80;
    EXPECT_NE(Sha256Of(changed), DigestOf(Example()));
    if (const auto decoded = DecodeContext(changed); decoded.ok()) {
      EXPECT_EQ(Encode(*decoded), changed) << i;
      EXPECT_FALSE(*decoded == Example()) << i;
    } else {
      EXPECT_TRUE(i < 2 || i == kContextBytes - 1) << i;
    }
  }
}

TEST(Context, EveryTruncationAndAnyTrailingByteIsRefused) {
  std::vector<uint8_t> bytes = Encode(Example());
  for (size_t size = 0; size < bytes.size(); ++size) {
    ExpectRefused(Bytes(bytes).first(size), std::to_string(size) + " bytes");
  }
  bytes.push_back(0);
  ExpectRefused(bytes, "103 bytes, wanted 102 bytes");
}

TEST(Context, UnknownVersionsAreRefused) {
  for (int version : {0, 2, 255}) {
    std::vector<uint8_t> bytes = Encode(Example());
    bytes[0] = static_cast<uint8_t>(version);
    ExpectRefused(bytes, "version " + std::to_string(version) + ", wanted version 1");
  }
  std::vector<uint8_t> bytes = Encode(Example());
  bytes[1] = 1;
  ExpectRefused(bytes, "version 257");
}

TEST(Context, AFlagThatIsNotZeroOrOneIsRefused) {
  for (int flag : {2, 128, 255}) {
    std::vector<uint8_t> bytes = Encode(Example());
    bytes.back() = static_cast<uint8_t>(flag);
    ExpectRefused(bytes, "flag " + std::to_string(flag));
  }
}

}  // namespace
}  // namespace talaria::attest
