// Answers of the gateway's own as HTTP messages. Internal to the gateway.
#ifndef TALARIA_CVM_GATEWAY_ANSWERS_H_
#define TALARIA_CVM_GATEWAY_ANSWERS_H_

#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>
#include <string>
#include <string_view>

#include "talaria/cvm/gateway_admission.h"

namespace talaria::cvm {

inline const char* ErrorType(http::status status) {
  switch (status) {
    case http::status::unauthorized:
      return "authentication_error";
    case http::status::not_found:
      return "not_found_error";
    case http::status::too_many_requests:
      return "rate_limit_error";
    default:
      return http::to_status_class(status) == http::status_class::client_error
                 ? "invalid_request_error"
                 : "unavailable_error";
  }
}

// Both OpenAI's and Anthropic's clients find their shape in it.
inline std::string ErrorJson(http::status status, std::string_view message) {
  return std::string(R"({"type":"error","error":{"code":)") +
         std::to_string(static_cast<unsigned>(status)) + R"(,"message":")" + std::string(message) +
         R"(","type":")" + ErrorType(status) + R"("}})";
}

template <class Message>
void SetCommonFields(Message& message) {
  message.set(http::field::cache_control, "no-store");
  message.set("X-Content-Type-Options", "nosniff");
}

inline http::response<http::string_body> JsonResponse(http::status status, std::string body) {
  http::response<http::string_body> response(status, 11);
  SetCommonFields(response);
  response.set(http::field::content_type, "application/json; charset=utf-8");
  if (status == http::status::service_unavailable) response.set(http::field::retry_after, "1");
  if (status == http::status::unauthorized) response.set(http::field::www_authenticate, "Bearer");
  response.body() = std::move(body);
  return response;
}

inline http::response<http::string_body> ProblemResponse(const Problem& problem) {
  auto response = JsonResponse(problem.status, ErrorJson(problem.status, problem.message));
  if (problem.allow) response.set(http::field::allow, problem.allow);
  if (problem.retry_after_s > 0)
    response.set(http::field::retry_after, std::to_string(problem.retry_after_s));
  return response;
}

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_GATEWAY_ANSWERS_H_
