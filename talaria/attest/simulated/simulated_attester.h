// A TEE for machines that have none. IT PROTECTS NOTHING: its private key stands in this source
// tree, so anybody can make evidence that says anything. Its reports have the genuine form of
// SEV-SNP, so that everything behind them runs as it does with a real one.
//
// Only a build with TALARIA_SIMULATED_TEE has this library. Evidence is of a type of its own
// (EvidenceType::kSimulated) and verifies under SimulatedRoots() alone, never under AMD's.
#ifndef TALARIA_ATTEST_SIMULATED_SIMULATED_ATTESTER_H_
#define TALARIA_ATTEST_SIMULATED_SIMULATED_ATTESTER_H_

#include <array>
#include <memory>
#include <string>

#include "talaria/attest/attester.h"
#include "talaria/attest/snp/report.h"
#include "talaria/attest/snp/roots.h"

namespace talaria::attest {

enum class SimulatedMachine {
  kCurrent,    // kSimulatedTcb, chip kSimulatedChipByte repeated
  kOlderTcb,   // the same chip with SNP firmware one version older
  kOtherChip,  // another chip with kSimulatedTcb
  kRevoked,    // as kCurrent, but with a VLEK, whose issuer SimulatedCrl() revokes
};
inline constexpr TcbVersion kSimulatedTcb = {
    .fmc = 0, .boot_loader = 10, .tee = 0, .snp = 23, .microcode = 84};
inline constexpr uint8_t kSimulatedChipByte = 0x51;
inline constexpr uint8_t kSimulatedOtherChipByte = 0x52;

using SimulatedMeasurement = std::array<uint8_t, 48>;

struct SimulatedOptions {
  SimulatedMeasurement measurement;  // what a launch would have measured
  SimulatedMachine machine;
  bool debug;  // a guest whose memory its host may read
};

class SimulatedAttester final : public Attester {
 public:
  // kInternal when the keys in this source tree are not what they should be.
  static Result<std::unique_ptr<SimulatedAttester>> Create(const SimulatedOptions& options);
  ~SimulatedAttester() override;
  // 1184 bytes, version 5, Genoa, VMPL 0, signed by the VCEK; certificates: VCEK, ASK and ARK
  // (kRevoked: VLEK, ASVK and ARK). The deadline is not looked at. kInternal.
  Result<Evidence> Attest(const ReportData& report_data, Deadline deadline) override;
  EvidenceType type() const override { return EvidenceType::kSimulated; }

 private:
  struct Impl;
  explicit SimulatedAttester(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

// What verifies simulated evidence: Genoa only.
const SnpRoots& SimulatedRoots();
// The list of what their ARK revoked, the ASVK, valid 2020 to 2049: for policies that require one.
const Crl& SimulatedCrl();
// SHA-384 of a file's bytes, for `measurement`: "/proc/self/exe" names the running program. kIo,
// kNotFound.
Result<SimulatedMeasurement> MeasureFile(const std::string& path);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_SIMULATED_SIMULATED_ATTESTER_H_
