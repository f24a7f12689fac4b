// Errors as values. A function that can fail returns Status or Result<T>; exceptions of other
// libraries stop at the adapter that calls them. TALARIA_CHECK is for our own bugs only, never for
// bytes of a peer or of a file.
#ifndef TALARIA_BASE_RESULT_H_
#define TALARIA_BASE_RESULT_H_

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace talaria {

// The one error vocabulary. Programs map it to exit codes with ExitCode().
enum class Code {
  kOk = 0,
  kInvalidArgument,    // the caller's or the configuration's words are off
  kNotFound,           // a file, matrix or key is not there
  kCorrupt,            // bytes of a file or store that are not what their format or digest says
  kUnsupported,        // well-formed, and refused: the message says why
  kResourceExhausted,  // memory, locked memory, disk, or a limit
  kIo,                 // the operating system failed a call
  kUnavailable,        // the peer cannot be reached or was lost; trying again may help
  kSessionEnded,       // the only code for everything that a cloud may cause by misbehaving; final
  kUntrusted,          // attestation evidence, or what belongs to it, that does not convince
  kCancelled,          // asked to stop
  kInternal,           // our own bug
};

std::string_view CodeName(Code code);
// 0 ok, 1 internal, 2 usage or configuration, 3 input refused, 4 resources, 5 unavailable, 6
// session ended, 7 untrusted, 130 cancelled.
int ExitCode(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  // "corrupt: manifest.json: ..." for people.
  std::string ToString() const;
  // The same error with "context: " before its message.
  Status Annotate(std::string_view context) const;

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

inline Status OkStatus() { return {}; }

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT: implicit by design
  Result(Status status) : status_(std::move(status)) {  // NOLINT: implicit by design
    if (status_.ok()) std::abort();
  }
  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& value() & { return Checked(); }
  const T& value() const& { return const_cast<Result*>(this)->Checked(); }
  T&& value() && { return std::move(Checked()); }
  T* operator->() { return &Checked(); }
  const T* operator->() const { return &const_cast<Result*>(this)->Checked(); }
  T& operator*() & { return Checked(); }
  const T& operator*() const& { return const_cast<Result*>(this)->Checked(); }
  T&& operator*() && { return std::move(Checked()); }

 private:
  T& Checked() {
    if (!value_) {
      std::fprintf(stderr, "Result without a value: %s\n", status_.ToString().c_str());
      std::abort();
    }
    return *value_;
  }
  std::optional<T> value_;
  Status status_;
};

[[noreturn]] void CheckFailed(const char* file, int line, const char* expression);

}  // namespace talaria

#define TALARIA_CONCAT_(a, b) a##b
#define TALARIA_CONCAT(a, b) TALARIA_CONCAT_(a, b)
#define TALARIA_RETURN_IF_ERROR(expr)                                      \
  do {                                                                     \
    if (::talaria::Status status_ = (expr); !status_.ok()) return status_; \
  } while (0)
// TALARIA_ASSIGN_OR_RETURN(auto x, MakeX());
#define TALARIA_ASSIGN_OR_RETURN(lhs, expr) \
  TALARIA_ASSIGN_OR_RETURN_(TALARIA_CONCAT(result_, __LINE__), lhs, expr)
#define TALARIA_ASSIGN_OR_RETURN_(tmp, lhs, expr) \
  auto tmp = (expr);                              \
  if (!tmp.ok()) return tmp.status();             \
  lhs = std::move(tmp).value()
#define TALARIA_CHECK(expr) \
  (static_cast<bool>(expr) ? void() : ::talaria::CheckFailed(__FILE__, __LINE__, #expr))

#endif  // TALARIA_BASE_RESULT_H_
