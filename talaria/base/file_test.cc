#include "talaria/base/file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "talaria/base/digest.h"
#include "talaria/base/testing/temp_folder.h"

namespace talaria {
namespace {

class FileTest : public testing::Test {
 protected:
  const TempFolder temp_;
  const std::string& directory_ = temp_.path();
};

TEST_F(FileTest, WritesAndReadsBack) {
  const std::string path = directory_ + "/a";
  {
    auto fd = CreateFile(path);
    ASSERT_TRUE(fd.ok());
    ASSERT_TRUE(WriteAt(*fd, 0, AsBytes("hello")).ok());
    ASSERT_TRUE(WriteAt(*fd, 5, AsBytes(" world")).ok());
    ASSERT_TRUE(Sync(*fd).ok());
  }
  auto data = ReadFile(path, 100);
  ASSERT_TRUE(data.ok());
  EXPECT_EQ(std::string(data->begin(), data->end()), "hello world");
  EXPECT_EQ(ReadFile(path, 5).status().code(), Code::kResourceExhausted);
}

TEST_F(FileTest, NamesItsFailures) {
  EXPECT_EQ(OpenForReading(directory_ + "/none").status().code(), Code::kNotFound);
  EXPECT_EQ(OpenForReading(directory_).status().code(), Code::kInvalidArgument);
  auto fd = CreateFile(directory_ + "/b");
  ASSERT_TRUE(fd.ok());
  EXPECT_EQ(CreateFile(directory_ + "/b").status().code(), Code::kIo)
      << "an existing file is never overwritten";
  uint8_t one[1];
  EXPECT_EQ(ReadAt(*fd, 0, one).code(), Code::kCorrupt);
}

TEST(Digest, MatchesFips180) {
  EXPECT_EQ(ToHex(Sha256Of(AsBytes("abc"))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Sha256 pieces;
  pieces.Update(AsBytes("a"));
  pieces.Update(AsBytes("bc"));
  EXPECT_EQ(pieces.Finish(), Sha256Of(AsBytes("abc")));
}

}  // namespace
}  // namespace talaria
