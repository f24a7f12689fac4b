#include "talaria/client/sse.h"

#include <utility>

namespace talaria::client {

void SseParser::EndLine(std::vector<std::string>& out) {
  const std::string line = std::exchange(line_, {});
  if (line.empty()) {
    if (has_data_) out.push_back(std::exchange(data_, {}));
    has_data_ = false;
    return;
  }
  std::string_view rest = line;
  constexpr std::string_view kField = "data";
  if (!rest.starts_with(kField)) return;
  rest.remove_prefix(kField.size());
  if (!rest.empty() && rest[0] != ':') return;
  if (!rest.empty()) rest.remove_prefix(1);
  if (rest.starts_with(' ')) rest.remove_prefix(1);
  if (has_data_) data_ += '\n';
  data_ += rest;
  has_data_ = true;
}

Result<std::vector<std::string>> SseParser::Feed(std::string_view bytes) {
  std::vector<std::string> out;
  for (const char c : bytes) {
    // A line ends with CR, LF or both.
    const bool second_half = c == '\n' && after_cr_;
    after_cr_ = c == '\r';
    if (second_half) continue;
    if (c == '\r' || c == '\n') {
      EndLine(out);
      continue;
    }
    if (line_.size() + data_.size() >= kMaxEventBytes)
      return Status(Code::kCorrupt, "an event of the answer is too large");
    line_ += c;
  }
  return out;
}

}  // namespace talaria::client
