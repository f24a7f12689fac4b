#include "talaria/base/openssl.h"

namespace talaria {

std::string TakeOpenSslError() {
  const char* reason = ERR_reason_error_string(ERR_peek_error());
  ERR_clear_error();
  return reason != nullptr ? reason : "no cause given";
}

Status OpenSslFailed(std::string_view what) {
  return Status(Code::kResourceExhausted, std::string(what) + ": " + TakeOpenSslError());
}

}  // namespace talaria
