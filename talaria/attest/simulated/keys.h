// The simulated TEE's fixed keys and certificates. They are PUBLIC and protect nothing: anybody can
// sign any evidence under them. scripts/make-simulated-root made them, once.
#ifndef TALARIA_ATTEST_SIMULATED_KEYS_H_
#define TALARIA_ATTEST_SIMULATED_KEYS_H_

namespace talaria::attest::simulated {

// Shaped as AMD's for Genoa, valid 2020 to 2049: ARK-Genoa signs SEV-Genoa and SEV-VLEK-Genoa;
// SEV-Genoa signs three certificates SEV-VCEK of one key, SEV-VLEK-Genoa one SEV-VLEK of the same.
extern const char kArkPem[];
extern const char kAskPem[];
extern const char kAsvkPem[];
extern const char kVcekPem[];           // SNP SVN 23, chip 51...51
extern const char kOlderTcbVcekPem[];   // SNP SVN 22, chip 51...51
extern const char kOtherChipVcekPem[];  // SNP SVN 23, chip 52...52
extern const char kRevokedVlekPem[];    // SNP SVN 23
extern const char kVcekPrivateKeyPem[];
extern const char kCrlPem[];  // of the ARK: SEV-VLEK-Genoa is revoked

}  // namespace talaria::attest::simulated

#endif  // TALARIA_ATTEST_SIMULATED_KEYS_H_
