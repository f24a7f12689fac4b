#include "talaria/base/limited_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "talaria/base/log.h"

namespace talaria {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(LimitedLog, SoManyLinesAMinuteAndThenTheirNumber) {
  LimitedLog log(5, "connections refused");
  const LimitedLog::Time start = std::chrono::steady_clock::now();
  for (int i = 0; i < 5; ++i)
    EXPECT_THAT(log.Lines("a", start + seconds(i)), ElementsAre("a")) << i;
  for (int i = 0; i < 1000; ++i) EXPECT_THAT(log.Lines("b", start + seconds(59)), IsEmpty());
  // A new minute begins with its first line.
  EXPECT_THAT(log.Lines("c", start + seconds(60)),
              ElementsAre("1000 more connections refused within a minute", "c"));
  for (int i = 0; i < 4; ++i) EXPECT_THAT(log.Lines("d", start + seconds(61)), ElementsAre("d"));
  EXPECT_THAT(log.Lines("e", start + seconds(119)), IsEmpty());
  EXPECT_THAT(log.Lines("f", start + seconds(500)),
              ElementsAre("1 more connections refused within a minute", "f"));
  // Nothing was left out.
  EXPECT_THAT(log.Lines("g", start + seconds(600)), ElementsAre("g"));
}

TEST(LimitedLog, TheLastNumberIsTold) {
  SetLog("test", LogLevel::kWarning);
  ::testing::internal::CaptureStderr();
  {
    LimitedLog log(5, "knocks");
    for (int i = 0; i < 8; ++i) log.Warn("who is there");
  }
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("warning: 3 more knocks within a minute\n"));
  size_t lines = 0;
  for (const char c : said) lines += c == '\n';
  EXPECT_EQ(lines, 6u) << said;
}

}  // namespace
}  // namespace talaria
