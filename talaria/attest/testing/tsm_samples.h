// Reports that only look like reports: enough for what collecting checks, no more.
#ifndef TALARIA_ATTEST_TESTING_TSM_SAMPLES_H_
#define TALARIA_ATTEST_TESTING_TSM_SAMPLES_H_

#include <algorithm>
#include <vector>

#include "talaria/attest/evidence.h"

namespace talaria::attest {

inline std::vector<uint8_t> Blob(size_t size, size_t at, const ReportData& report_data) {
  std::vector<uint8_t> out(size, 0xee);
  std::ranges::copy(report_data, out.begin() + static_cast<ptrdiff_t>(at));
  return out;
}
inline std::vector<uint8_t> SnpBlob(const ReportData& report_data) {
  return Blob(1184, 0x50, report_data);
}
// Zero-padded, as genuine quotes are.
inline std::vector<uint8_t> TdxBlob(uint16_t version, const ReportData& report_data) {
  std::vector<uint8_t> out = Blob(4936, (version == 5 ? 54u : 48u) + 520, report_data);
  const uint8_t header[] = {static_cast<uint8_t>(version), 0, 2, 0, 0x81, 0, 0, 0};
  std::ranges::copy(header, out.begin());
  out.resize(5006);
  return out;
}

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_TESTING_TSM_SAMPLES_H_
