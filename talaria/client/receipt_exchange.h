// One request to a CVM that is believed, its answer, and the CVM's receipt over both, on one
// attested connection: doc/attestation.md, "Receipts".
#ifndef TALARIA_CLIENT_RECEIPT_EXCHANGE_H_
#define TALARIA_CLIENT_RECEIPT_EXCHANGE_H_

#include <string>
#include <string_view>

#include "talaria/client/attested_peer.h"
#include "talaria/client/receipt_copy.h"

namespace talaria::client {

// Asks for a receipt, in the header of a request; its value is the salt in hex.
inline constexpr std::string_view kReceiptSaltHeader = "Talaria-Receipt-Salt";
// kInternal: the system gave no random bytes.
Result<attest::Salt> FreshSalt();

// For a request with `copy.salt` to `path`, when its answer has come to its end with status 200 and
// nothing else is unread: asks for the receipt on the same connection, verifies it and puts it into
// `copy`. The connection must have been attested itself (PeerOptions::attest_every_connection).
// kUntrusted: those of VerifyReceipt, "receipt-answer" (not the answer of a CVM),
// "receipt-exchange" (of another request or CVM); kUnavailable. Says nothing of the CVM's text.
Status TakeReceipt(SecureConnection& connection, const std::string& path, const std::string& token,
                   const AttestedPeer& peer, ReceiptCopy& copy);

struct ReceiptRequest {
  std::string path;                   // of a route with a body, for example /v1/chat/completions
  std::string body;                   // JSON
  std::string token;                  // of the user
  int answer_timeout_ms = 3'600'000;  // for the whole answer
};

// On a new connection, and verified before it is returned. kUnsupported: the CVM answered with
// another status than 200, with what it said; and those of TakeReceipt.
Result<ReceiptCopy> FetchReceipt(const ReceiptRequest& request, AttestedPeer& peer,
                                 TimePoint connect_deadline);

}  // namespace talaria::client

#endif  // TALARIA_CLIENT_RECEIPT_EXCHANGE_H_
