#include "talaria/base/result.h"

#include <gtest/gtest.h>

#include <memory>

namespace talaria {
namespace {

Result<int> Half(int x) {
  if (x % 2 != 0) return Status(Code::kInvalidArgument, "odd");
  return x / 2;
}
Result<int> Quarter(int x) {
  TALARIA_ASSIGN_OR_RETURN(const int half, Half(x));
  TALARIA_ASSIGN_OR_RETURN(const int quarter, Half(half));
  return quarter;
}

TEST(Result, CarriesValueOrStatus) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(Quarter(6).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(Quarter(6).status().message(), "odd");
}

TEST(Result, MovesMoveOnlyValues) {
  Result<std::unique_ptr<int>> r = std::make_unique<int>(5);
  std::unique_ptr<int> p = std::move(r).value();
  EXPECT_EQ(*p, 5);
}

TEST(Status, AnnotateKeepsTheCode) {
  const Status s = Status(Code::kCorrupt, "bad digest").Annotate("hints.bin");
  EXPECT_EQ(s.code(), Code::kCorrupt);
  EXPECT_EQ(s.ToString(), "corrupt: hints.bin: bad digest");
  EXPECT_TRUE(OkStatus().Annotate("anything").ok());
}

TEST(ResultDeathTest, ReadingAMissingValueAborts) {
  Result<int> r = Status(Code::kIo, "gone");
  EXPECT_DEATH({ [[maybe_unused]] int x = *r; }, "gone");
}

TEST(ExitCode, IsAsDocumented) {
  EXPECT_EQ(ExitCode(Code::kOk), 0);
  EXPECT_EQ(ExitCode(Code::kInternal), 1);
  EXPECT_EQ(ExitCode(Code::kInvalidArgument), 2);
  EXPECT_EQ(ExitCode(Code::kCorrupt), 3);
  EXPECT_EQ(ExitCode(Code::kUnsupported), 3);
  EXPECT_EQ(ExitCode(Code::kResourceExhausted), 4);
  EXPECT_EQ(ExitCode(Code::kUnavailable), 5);
  EXPECT_EQ(ExitCode(Code::kSessionEnded), 6);
  EXPECT_EQ(ExitCode(Code::kUntrusted), 7);
  EXPECT_EQ(ExitCode(Code::kCancelled), 130);
}

}  // namespace
}  // namespace talaria
