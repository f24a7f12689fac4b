#include "talaria/client/sse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace talaria::client {
namespace {

using ::testing::ElementsAre;
using Texts = std::vector<std::string>;

TEST(SseParserTest, EventsComeHoweverTheyAreCut) {
  const std::string stream =
      "data: {\"a\":1}\n\n: comment\nevent: x\ndata:two\ndata: lines\n\n"
      "database: no\n\ndata: crlf\r\n\r\ndata\n\n";
  for (size_t piece = 1; piece <= stream.size(); ++piece) {
    SseParser parser;
    Texts all;
    for (size_t at = 0; at < stream.size(); at += piece) {
      const auto texts = parser.Feed(std::string_view(stream).substr(at, piece));
      ASSERT_TRUE(texts.ok());
      all.insert(all.end(), texts->begin(), texts->end());
    }
    EXPECT_THAT(all, ElementsAre("{\"a\":1}", "two\nlines", "crlf", "")) << piece;
    EXPECT_FALSE(parser.inside());
  }
}

TEST(SseParserTest, AnEventWithoutItsEndIsNone) {
  SseParser parser;
  EXPECT_TRUE(parser.Feed("data: half\n")->empty());
  EXPECT_TRUE(parser.inside());
  EXPECT_EQ(*parser.Feed("\n"), Texts{"half"});
}

TEST(SseParserTest, EventsAreBounded) {
  SseParser parser;
  const std::string line = "data: " + std::string(1000, 'x') + "\n";
  Status status;
  for (int i = 0; i < 2000 && status.ok(); ++i) status = parser.Feed(line).status();
  EXPECT_EQ(status.code(), Code::kCorrupt);
}

}  // namespace
}  // namespace talaria::client
