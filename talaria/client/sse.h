// Server-sent events, as OpenAI's servers stream answers: lines "data: TEXT", an empty line behind
// each event. Other fields are skipped.
#ifndef TALARIA_CLIENT_SSE_H_
#define TALARIA_CLIENT_SSE_H_

#include <string>
#include <string_view>
#include <vector>

#include "talaria/base/result.h"

namespace talaria::client {

class SseParser {
 public:
  static constexpr size_t kMaxEventBytes = 1 << 20;
  // The data of the events that are complete with `bytes`. kCorrupt: an event over kMaxEventBytes.
  Result<std::vector<std::string>> Feed(std::string_view bytes);
  // An event has begun and not ended.
  bool inside() const { return !line_.empty() || has_data_; }

 private:
  void EndLine(std::vector<std::string>& out);
  std::string line_, data_;
  bool has_data_ = false, after_cr_ = false;
};

}  // namespace talaria::client

#endif  // TALARIA_CLIENT_SSE_H_
