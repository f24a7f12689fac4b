// Why evidence was not accepted. A refusal is a Status of code kUntrusted whose message is
//
//   REASON: found FOUND, wanted WANTED
//
// REASON is a stable word of a-z, 0-9 and '-', the same in tests, in `talaria verify --json` and in
// doc/attestation.md. Nothing here is secret: evidence, collateral and policies are public.
#ifndef TALARIA_ATTEST_REFUSAL_H_
#define TALARIA_ATTEST_REFUSAL_H_

#include <string_view>

#include "talaria/base/result.h"

namespace talaria::attest {

// FOUND and WANTED are left out of the message where empty. Bytes of a peer come here as hex or as
// numbers, or through Printable().
Status Refuse(std::string_view reason, std::string_view found = {}, std::string_view wanted = {});
// The reason of a refusal; empty for any other status.
std::string_view ReasonOf(const Status& status);
// At most 64 characters of a peer's text, what is not printable ASCII replaced by '?'.
std::string Printable(std::string_view text);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_REFUSAL_H_
