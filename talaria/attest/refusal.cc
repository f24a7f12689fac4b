#include "talaria/attest/refusal.h"

#include <string>

namespace talaria::attest {

Status Refuse(std::string_view reason, std::string_view found, std::string_view wanted) {
  std::string message(reason);
  if (!found.empty()) message.append(": found ").append(found);
  if (!wanted.empty()) message.append(found.empty() ? ": wanted " : ", wanted ").append(wanted);
  return {Code::kUntrusted, std::move(message)};
}

std::string_view ReasonOf(const Status& status) {
  if (status.code() != Code::kUntrusted) return {};
  const std::string_view message = status.message();
  return message.substr(0, message.find(':'));
}

std::string Printable(std::string_view text) {
  std::string out(text.substr(0, 64));
  for (char& c : out) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  return out;
}

}  // namespace talaria::attest
