// The leaf of an SNP chain: VCEK (one chip at one TCB) or VLEK (one cloud at one TCB). AMD's
// "Versioned Chip Endorsement Key Certificate and KDS Interface Specification" has the extensions.
#ifndef TALARIA_ATTEST_SNP_VEK_H_
#define TALARIA_ATTEST_SNP_VEK_H_

#include <string>
#include <vector>

#include "talaria/attest/snp/report.h"
#include "talaria/attest/x509.h"

namespace talaria::attest {

struct Vek {
  Certificate certificate;
  SnpSigningKey kind = SnpSigningKey::kVcek;
  SnpProduct product = SnpProduct::kMilan;
  TcbVersion tcb;
  std::vector<uint8_t> hardware_id;  // VCEK: 64 bytes, of Turin 8; VLEK: empty
  std::string csp_id;                // VLEK only
};

// Its form only: who signed it is not looked at.
// Refusals: vek-format (not one DER certificate), vek-name (common name), vek-key (not P-384),
// vek-extension (missing, twice, not canonical, out of range, or one too many).
Result<Vek> ParseVek(Bytes der);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_SNP_VEK_H_
