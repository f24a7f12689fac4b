// The one certificate that TDX quotes and their collateral are trusted under.
#ifndef TALARIA_ATTEST_TDX_INTEL_ROOT_H_
#define TALARIA_ATTEST_TDX_INTEL_ROOT_H_

#include "talaria/attest/x509.h"

namespace talaria::attest {

// A type of its own, so that a certificate of a peer is not taken for a root by mistake. There is
// no way to make one from a configuration or an environment variable; tests make their own.
struct IntelRoot {
  Certificate certificate;
};

// "Intel SGX Root CA", compiled in; certificate SHA-256
// 44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3. Thread-safe.
const IntelRoot& PinnedIntelRoot();

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_TDX_INTEL_ROOT_H_
