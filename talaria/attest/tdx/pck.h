// What Intel says of a platform in its PCK certificate: the extension 1.2.840.113741.1.13.1, a
// sequence of {OID, value}; the last arc of each OID is given below.
#ifndef TALARIA_ATTEST_TDX_PCK_H_
#define TALARIA_ATTEST_TDX_PCK_H_

#include <array>
#include <cstdint>
#include <string_view>

#include "talaria/base/bytes.h"
#include "talaria/base/result.h"

namespace talaria::attest {

inline constexpr std::string_view kPckExtensionOid = "1.2.840.113741.1.13.1";

using Fmspc = std::array<uint8_t, 6>;  // family, model, stepping, platform, custom SKU
using Ppid = std::array<uint8_t, 16>;  // names one platform

struct PckExtension {
  Ppid ppid{};                         // .1
  std::array<uint8_t, 16> tcb_svns{};  // .2.1 to .2.16, SVN of each component
  uint16_t pcesvn = 0;                 // .2.17
  std::array<uint8_t, 16> cpusvn{};    // .2.18
  std::array<uint8_t, 2> pceid{};      // .3
  Fmspc fmspc{};                       // .4
  uint8_t sgx_type = 0;                // .5: 0 standard, 1 scalable, 2 scalable with integrity
  // .6 (platform instance) and .7 (configuration) may follow; their form is checked, no more.
  bool operator==(const PckExtension&) const = default;
};

// `der`: the extension's value. DER with minimal lengths and integers, every OID at most once, none
// unknown, all of .1 to .5 there, nothing behind. Refusal: "tdx-pck-extension".
Result<PckExtension> ParsePckExtension(Bytes der);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_TDX_PCK_H_
