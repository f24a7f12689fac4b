// How many tokens an answer of llama-server has, for the users' daily limits, from its bytes as
// they pass. llama-server says so itself, in one of three fields at the end of each answer or with
// every token; where it was cut off before, events of the stream are counted instead.
//
// Text of an answer cannot pretend: a quotation mark inside a JSON string has a backslash before
// it, so `"completion_tokens":` stands nowhere but where it is a field.
#ifndef TALARIA_CVM_ANSWER_METER_H_
#define TALARIA_CVM_ANSWER_METER_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace talaria::cvm {

class AnswerMeter {
 public:
  // `answers`: how many the request asked for, >= 1. llama-server does not always add them up, so
  // each counts as the longest.
  explicit AnswerMeter(uint64_t answers = 1) : answers_(answers) {}
  void Add(std::string_view piece);  // of the body, in order
  uint64_t tokens() const { return said_ > 0 ? said_ * answers_ : events_; }

 private:
  uint64_t answers_;
  uint64_t said_ = 0;    // the largest number in one of the fields
  uint64_t events_ = 0;  // about one per token
  std::string tail_;     // the end of what was added, where a field may be cut in two
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_ANSWER_METER_H_
