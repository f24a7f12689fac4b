// Who makes evidence: the TEE that this runs in, or a simulated one (attest/simulated/).
#ifndef TALARIA_ATTEST_ATTESTER_H_
#define TALARIA_ATTEST_ATTESTER_H_

#include <utility>

#include "talaria/attest/evidence.h"
#include "talaria/attest/tsm.h"
#include "talaria/base/result.h"

namespace talaria::attest {

// All threads may attest at once.
class Attester {
 public:
  virtual ~Attester() = default;
  // Evidence of type() that holds `report_data`. An error is final for this connection: nobody goes
  // on without evidence.
  virtual Result<Evidence> Attest(const ReportData& report_data, Deadline deadline) = 0;
  // Known beforehand, because it is part of what is bound (attest/binding.h).
  virtual EvidenceType type() const = 0;
};

class TsmAttester final : public Attester {
 public:
  // Asks the kernel once which TEE this is. The errors of TsmReporter::Probe.
  static Result<TsmAttester> Create(TsmReporter reporter, Deadline deadline);
  // The errors of TsmReporter::Collect; kCorrupt when the provider is another one by now.
  Result<Evidence> Attest(const ReportData& report_data, Deadline deadline) override;
  EvidenceType type() const override { return type_; }

 private:
  TsmAttester(TsmReporter reporter, EvidenceType type)
      : reporter_(std::move(reporter)), type_(type) {}
  TsmReporter reporter_;
  EvidenceType type_;
};

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_ATTESTER_H_
