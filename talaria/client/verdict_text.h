// A verdict for people and for programs.
#ifndef TALARIA_CLIENT_VERDICT_TEXT_H_
#define TALARIA_CLIENT_VERDICT_TEXT_H_

#include <string>

#include "talaria/attest/receipt.h"
#include "talaria/base/result.h"
#include "talaria/client/secure_connection.h"

namespace talaria::client {

// The TEE is simulated, or the CVM was built or started for development: nothing is protected.
bool IsDevelopment(const Attested& attested);
// What every user of such a CVM is told, in one line.
extern const char kDevelopmentWarning[];

// Several lines, with an end of line behind the last. `server` as the user wrote it.
std::string VerdictText(const Attested& attested, const std::string& server);
// One object. `trusted` is true.
std::string VerdictJson(const Attested& attested, const std::string& server);
// A receipt that was accepted, with what its CVM was found to be; `name` of its file or folder.
std::string ReceiptText(const attest::Receipt& receipt, const attest::Verdict& verdict,
                        const std::string& name);
std::string ReceiptJson(const attest::Receipt& receipt, const attest::Verdict& verdict,
                        const std::string& name);
// The same for a CVM that is not believed, or not there: `trusted` false, `reason`, `message`.
std::string RefusalText(const Status& status, const std::string& server);
std::string RefusalJson(const Status& status, const std::string& server);

}  // namespace talaria::client

#endif  // TALARIA_CLIENT_VERDICT_TEXT_H_
