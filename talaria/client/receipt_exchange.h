// One request to a CVM that is believed, its answer, and the CVM's receipt over both, on one
// attested connection: doc/attestation.md, "Receipts".
#ifndef TALARIA_CLIENT_RECEIPT_EXCHANGE_H_
#define TALARIA_CLIENT_RECEIPT_EXCHANGE_H_

#include <string>

#include "talaria/attest/receipt_verifier.h"
#include "talaria/client/attested_peer.h"

namespace talaria::client {

inline constexpr size_t kMaxReceiptBodyBytes = 64 << 20;

struct ReceiptRequest {
  std::string path;                   // of a route with a body, for example /v1/chat/completions
  std::string body;                   // JSON
  std::string token;                  // of the user
  int answer_timeout_ms = 3'600'000;  // for the whole answer
};

// The user's copy: all that a third party needs, and the one place that has the salt.
struct ReceiptCopy {
  attest::Salt salt;
  std::string request, response;  // the bodies as they were in HTTP, chunks put together
  attest::Receipt receipt;
};

// On a new connection, and verified before it is returned. kUnsupported: the CVM answered with
// another status than 200, with what it said; kUnavailable; kUntrusted: those of VerifyReceipt,
// "receipt-answer" (not the answer of a CVM), "receipt-exchange" (of another request).
Result<ReceiptCopy> FetchReceipt(const ReceiptRequest& request, AttestedPeer& peer,
                                 TimePoint connect_deadline);

}  // namespace talaria::client

#endif  // TALARIA_CLIENT_RECEIPT_EXCHANGE_H_
