#include "talaria/cvm/answer_meter.h"

#include <algorithm>

namespace talaria::cvm {
namespace {

// OpenAI's chat and completions; Anthropic's messages and OpenAI's responses; llama.cpp's timings.
constexpr std::string_view kFields[] = {
    "\"completion_tokens\":", "\"output_tokens\":", "\"predicted_n\":"};
constexpr std::string_view kEvent = "data: {";
constexpr size_t kMaxDigits = 9;
// Longer than any field with a space, its digits and what ends them; a field that lies wholly in
// the tail is found a second time, which changes nothing about the largest number.
constexpr size_t kTailBytes = 40;

}  // namespace

void AnswerMeter::Add(std::string_view piece) {
  const size_t old = tail_.size();
  tail_ += piece;
  const std::string_view text = tail_;
  for (const std::string_view field : kFields) {
    for (size_t at = text.find(field); at != std::string_view::npos;
         at = text.find(field, at + 1)) {
      size_t i = at + field.size();
      while (i < text.size() && text[i] == ' ') ++i;
      uint64_t number = 0;
      for (size_t digits = 0; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i, ++digits) {
        if (digits < kMaxDigits) number = number * 10 + static_cast<uint64_t>(text[i] - '0');
      }
      // A number that the end of the piece may have cut is read with the next one, or is smaller.
      said_ = std::max(said_, number);
    }
  }
  // Only those that the tail did not have whole.
  const size_t from = old >= kEvent.size() - 1 ? old - (kEvent.size() - 1) : 0;
  for (size_t at = text.find(kEvent, from); at != std::string_view::npos;
       at = text.find(kEvent, at + 1)) {
    ++events_;
  }
  if (tail_.size() > kTailBytes) tail_.erase(0, tail_.size() - kTailBytes);
}

}  // namespace talaria::cvm
