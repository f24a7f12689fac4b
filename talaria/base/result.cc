#include "talaria/base/result.h"

namespace talaria {

std::string_view CodeName(Code code) {
  switch (code) {
    case Code::kOk:
      return "ok";
    case Code::kInvalidArgument:
      return "invalid argument";
    case Code::kNotFound:
      return "not found";
    case Code::kCorrupt:
      return "corrupt";
    case Code::kUnsupported:
      return "unsupported";
    case Code::kResourceExhausted:
      return "not enough resources";
    case Code::kIo:
      return "input/output error";
    case Code::kUnavailable:
      return "unavailable";
    case Code::kSessionEnded:
      return "session ended";
    case Code::kUntrusted:
      return "not trusted";
    case Code::kCancelled:
      return "cancelled";
    case Code::kInternal:
      return "internal error";
  }
  return "unknown";
}

int ExitCode(Code code) {
  switch (code) {
    case Code::kOk:
      return 0;
    case Code::kInternal:
    case Code::kIo:
      return 1;
    case Code::kInvalidArgument:
    case Code::kNotFound:
      return 2;
    case Code::kCorrupt:
    case Code::kUnsupported:
      return 3;
    case Code::kResourceExhausted:
      return 4;
    case Code::kUnavailable:
      return 5;
    case Code::kSessionEnded:
      return 6;
    case Code::kUntrusted:
      return 7;
    case Code::kCancelled:
      return 130;
  }
  return 1;
}

std::string Status::ToString() const {
  std::string text(CodeName(code_));
  if (!message_.empty()) text += ": " + message_;
  return text;
}

Status Status::Annotate(std::string_view context) const {
  if (ok()) return *this;
  return Status(code_, std::string(context) + ": " + message_);
}

void CheckFailed(const char* file, int line, const char* expression) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, expression);
  std::abort();
}

}  // namespace talaria
