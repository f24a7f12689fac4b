// Who may use this CVM, and how much: what the tenant has signed decides (talaria/tenant/). Holds
// the list of revoked tokens and, per user, what was used; in memory only, so a CVM that starts
// anew begins at nothing, and several CVMs of a tenant count apart.
//
// Limits stand in the token and count per user, over all of a user's tokens:
//   requests per minute: at most so many in a minute of the clock, and the minute before counts
//     with the share of it that lies within the last sixty seconds. Two numbers per user instead of
//     a list of times; never more than twice the limit in any sixty seconds.
//   concurrent requests: from the header of a request to the end of its answer.
//   tokens per day (UTC), of answers: a request that begins below the limit is answered to its end,
//     so that a day may exceed it by what runs at once.
// Against the tenant's own users: whoever hosts the CVM may turn its clock.
#ifndef TALARIA_CVM_USERS_H_
#define TALARIA_CVM_USERS_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "talaria/base/digest.h"
#include "talaria/base/result.h"
#include "talaria/tenant/revocations.h"
#include "talaria/tenant/token.h"

namespace talaria::cvm {

struct UsersOptions {
  tenant::PublicKey tenant;         // the one of the attested context
  std::function<int64_t()> now_ms;  // since 1970, UTC
};

// For one thread.
class Users {
 public:
  // kInvalidArgument: a tenant's key under which anybody can sign.
  static Result<std::unique_ptr<Users>> Create(UsersOptions options);
  ~Users();

  // `authorization`: the header's value, "Bearer TOKEN". `client_key`: zero for a client that has
  // shown none. kUntrusted: "token-missing", and the reasons of VerifyToken() and CheckToken(), and
  // "token-revoked"; in this order, so that what the tenant has not signed gets no further than to
  // the signature. Signatures are remembered, what changes with time is checked every time.
  Result<std::shared_ptr<const tenant::Token>> Authenticate(std::string_view authorization,
                                                            const Digest& client_key);

  // Counts as running until it dies, which it must before Users does.
  class Request {
   public:
    ~Request();
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;
    void Charge(uint64_t tokens);  // of the answer; for the day that it is now

   private:
    friend class Users;
    Request(Users& users, std::shared_ptr<const tenant::Token> token)
        : users_(users), token_(std::move(token)) {}
    Users& users_;
    const std::shared_ptr<const tenant::Token> token_;
  };
  struct Admission {
    std::unique_ptr<Request> request;  // null: too much for now
    int retry_after_s = 0;             // then: when it may be less, >= 1
  };
  // `generates`: whether the answer may have tokens; if not, the day's limit does not matter.
  Admission Begin(const std::shared_ptr<const tenant::Token>& token, bool generates);

  // Takes a list that the tenant has signed; requests that run are not cut. kUntrusted as
  // VerifyRevocations(); kInvalidArgument: not newer than the one held.
  Status TakeRevocations(Bytes list);

 private:
  struct Impl;
  explicit Users(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_USERS_H_
