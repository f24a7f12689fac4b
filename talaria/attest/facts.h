// What was found out about verified evidence, in words: for people, and as the members of a JSON
// object. A fact's name is stable: "product", "tcb", "debug", "measurement", ...
#ifndef TALARIA_ATTEST_FACTS_H_
#define TALARIA_ATTEST_FACTS_H_

#include <string>
#include <utility>
#include <vector>

#include "talaria/attest/context.h"
#include "talaria/attest/snp/verify.h"
#include "talaria/attest/tdx/verify.h"
#include "talaria/attest/x509.h"

namespace talaria::attest {

using Facts = std::vector<std::pair<std::string, std::string>>;  // name, value; in order

Facts SnpFacts(const VerifiedSnpReport& verified);
Facts TdxFacts(const VerifiedTdxQuote& verified);
Facts ContextFacts(const Context& context);

// "boot loader 10, TEE 0, SNP 23, microcode 84"; Turin's begins with "FMC 2, ".
std::string DescribeTcb(SnpProduct product, const TcbVersion& tcb);
// "2026-03-07 01:04:33 UTC"; the bare number where the calendar ends.
std::string FormatUtc(UnixTime time);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_FACTS_H_
