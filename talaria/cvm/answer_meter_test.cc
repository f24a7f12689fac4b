#include "talaria/cvm/answer_meter.h"

#include <gtest/gtest.h>

namespace talaria::cvm {
namespace {

// The same whatever pieces the answer comes in.
uint64_t TokensOf(const std::string& answer, uint64_t answers = 1) {
  uint64_t result = 0;
  for (size_t size = 1; size <= answer.size(); ++size) {
    AnswerMeter meter(answers);
    for (size_t i = 0; i < answer.size(); i += size)
      meter.Add(std::string_view(answer).substr(i, size));
    if (size > 1) {
      EXPECT_EQ(meter.tokens(), result) << "in pieces of " << size;
    }
    result = meter.tokens();
  }
  return result;
}

TEST(AnswerMeterTest, ReadsWhatTheServerSays) {
  EXPECT_EQ(TokensOf(R"({"choices":[],"usage":{"completion_tokens":123,"prompt_tokens":4}})"),
            123u);
  EXPECT_EQ(TokensOf(R"({"usage":{"input_tokens":9,"output_tokens": 17}})"), 17u);
  EXPECT_EQ(TokensOf(R"({"timings":{"prompt_n":5,"predicted_n":8}})"), 8u);
  EXPECT_EQ(
      TokensOf("data: {\"a\":1}\n\ndata: {\"timings\":{\"predicted_n\":12}}\n\ndata: [DONE]\n\n"),
      12u);
}

TEST(AnswerMeterTest, CountsTheEventsOfAStreamThatSaysNothing) {
  std::string stream = "data: {\"usage\":{\"output_tokens\":0}}\n\n";
  for (int i = 0; i < 6; ++i) stream += "event: x\ndata: {\"delta\":\"a\"}\n\n";
  EXPECT_EQ(TokensOf(stream), 7u);
}

TEST(AnswerMeterTest, TextOfTheAnswerCannotPretend) {
  EXPECT_EQ(
      TokensOf(R"({"content":"\"completion_tokens\":99999","usage":{"completion_tokens":3}})"), 3u);
  EXPECT_EQ(TokensOf(R"({"content":"\\\"predicted_n\":99999"})"), 0u);
}

TEST(AnswerMeterTest, SeveralAnswersCountAsTheLongestEach) {
  EXPECT_EQ(TokensOf(R"([{"timings":{"predicted_n":8}},{"timings":{"predicted_n":5}}])", 2), 16u);
}

TEST(AnswerMeterTest, ErrorsAndOtherAnswersCostNothing) {
  EXPECT_EQ(TokensOf(R"({"error":{"code":500,"message":"Compute error."}})"), 0u);
  EXPECT_EQ(TokensOf(R"({"usage":{"completion_tokens":null}})"), 0u);
  EXPECT_EQ(TokensOf(R"({"usage":{"completion_tokens":)"), 0u);
}

TEST(AnswerMeterTest, AbsurdNumbersDoNotWrapAround) {
  EXPECT_EQ(TokensOf(R"({"completion_tokens":123456789012345678901234567890})"), 123456789u);
}

}  // namespace
}  // namespace talaria::cvm
