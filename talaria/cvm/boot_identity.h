// What this boot of a CVM is, towards the cloud and towards clients: a key that never leaves its
// memory, a TEE that vouches for the key, and the context that is bound into every report.
#ifndef TALARIA_CVM_BOOT_IDENTITY_H_
#define TALARIA_CVM_BOOT_IDENTITY_H_

#include <memory>

#include "talaria/attest/attester.h"
#include "talaria/attest/context.h"
#include "talaria/base/result.h"
#include "talaria/cvm/config.h"
#include "talaria/wire/tls_key.h"

namespace talaria::cvm {

struct BootIdentity {
  wire::TlsKey key;
  std::unique_ptr<attest::Attester> attester;
  attest::Context context;
};

// Once per boot, after the launcher was forked. With `simulated_tee` the evidence is the simulated
// TEE's, with the SHA-384 of this program as its measurement, and the context says so. kNotFound,
// kUnavailable, kIo (no configfs-tsm), kUnsupported (a simulated TEE in a program that was built
// without it), kResourceExhausted.
Result<std::shared_ptr<BootIdentity>> MakeBootIdentity(const Config& config, bool simulated_tee);

}  // namespace talaria::cvm

#endif  // TALARIA_CVM_BOOT_IDENTITY_H_
