#include "talaria/attest/attester.h"

#include <string>

namespace talaria::attest {

Result<TsmAttester> TsmAttester::Create(TsmReporter reporter, Deadline deadline) {
  TALARIA_ASSIGN_OR_RETURN(const EvidenceType type, reporter.Probe(deadline));
  return TsmAttester(std::move(reporter), type);
}

Result<Evidence> TsmAttester::Attest(const ReportData& report_data, Deadline deadline) {
  TALARIA_ASSIGN_OR_RETURN(Evidence evidence, reporter_.Collect(report_data, deadline));
  if (evidence.type != type_) {
    return Status(Code::kCorrupt, "configfs-tsm: the provider was " +
                                      std::string(EvidenceTypeName(type_)) + " at start and is " +
                                      std::string(EvidenceTypeName(evidence.type)) + " now");
  }
  return evidence;
}

}  // namespace talaria::attest
