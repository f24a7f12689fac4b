// A log for operators: one line per event on standard error. Text of a prompt or an answer has no
// way in: callers pass fixed text and numbers, never bytes of a request.
#ifndef TALARIA_BASE_LOG_H_
#define TALARIA_BASE_LOG_H_

#include <string>
#include <string_view>

namespace talaria {

enum class LogLevel { kError, kWarning, kInfo };

// `program` stands at the head of each line. Call once, before threads.
void SetLog(std::string_view program, LogLevel level);
void LogError(std::string_view text);
void LogWarning(std::string_view text);
void LogInfo(std::string_view text);

}  // namespace talaria

#endif  // TALARIA_BASE_LOG_H_
