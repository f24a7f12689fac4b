#include "talaria/base/bytes.h"

#include <gtest/gtest.h>

namespace talaria {
namespace {

TEST(ByteReader, ReadsLittleEndianInOrder) {
  const uint8_t data[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  ByteReader r{Bytes(data)};
  EXPECT_EQ(r.U8(), 1);
  EXPECT_EQ(r.U16(), 0x0302);
  EXPECT_EQ(r.U32(), 0x07060504u);
  EXPECT_EQ(r.U64(), 0x0f0e0d0c0b0a0908u);
  EXPECT_TRUE(r.AtEnd());
}

TEST(ByteReader, NeverReadsPastTheEndAndStaysFailed) {
  const uint8_t data[] = {1, 2, 3};
  ByteReader r{Bytes(data)};
  EXPECT_EQ(r.U32(), 0u);
  EXPECT_FALSE(r.ok());
  EXPECT_EQ(r.U8(), 0) << "after a failure nothing more is handed out";
  EXPECT_EQ(r.remaining(), 0u);
  EXPECT_TRUE(r.Raw(1).empty());
  EXPECT_FALSE(r.AtEnd());
}

TEST(ByteReader, HugeLengthsDoNotOverflow) {
  const uint8_t data[] = {1, 2, 3};
  ByteReader r{Bytes(data)};
  r.U8();
  EXPECT_TRUE(r.Raw(SIZE_MAX).empty());
  EXPECT_FALSE(r.ok());
}

TEST(ByteReader, LeftOverBytesAreNotTheEnd) {
  const uint8_t data[] = {1, 2};
  ByteReader r{Bytes(data)};
  r.U8();
  EXPECT_TRUE(r.ok());
  EXPECT_FALSE(r.AtEnd());
}

TEST(ByteWriter, WritesWhatTheReaderReads) {
  std::vector<uint8_t> out;
  ByteWriter w(out);
  w.U8(7);
  w.U16(0x1234);
  w.U32(0xdeadbeef);
  w.U64(0x0123456789abcdef);
  w.Raw(AsBytes("xyz"));
  ByteReader r{Bytes(out)};
  EXPECT_EQ(r.U8(), 7);
  EXPECT_EQ(r.U16(), 0x1234);
  EXPECT_EQ(r.U32(), 0xdeadbeefu);
  EXPECT_EQ(r.U64(), 0x0123456789abcdefu);
  EXPECT_EQ(r.Array<3>(), (std::array<uint8_t, 3>{'x', 'y', 'z'}));
  EXPECT_TRUE(r.AtEnd());
}

TEST(Hex, RoundTripsAndRefusesOtherForms) {
  const uint8_t data[] = {0x00, 0xff, 0x1a};
  EXPECT_EQ(ToHex(Bytes(data)), "00ff1a");
  std::array<uint8_t, 3> out{};
  EXPECT_TRUE(FromHex("00ff1a", out));
  EXPECT_EQ(out, (std::array<uint8_t, 3>{0x00, 0xff, 0x1a}));
  EXPECT_FALSE(FromHex("00FF1A", out)) << "upper case is another spelling of the same bytes";
  EXPECT_FALSE(FromHex("00ff1", out));
  EXPECT_FALSE(FromHex("00ff1a00", out));
  EXPECT_FALSE(FromHex("00ff1g", out));
}

}  // namespace
}  // namespace talaria
