#include "talaria/attest/snp/certificate_table.h"

#include <algorithm>
#include <set>
#include <string>

#include "talaria/attest/evidence.h"
#include "talaria/attest/refusal.h"

namespace talaria::attest {
namespace {

struct Entry {
  Guid guid;
  uint32_t offset;
  uint32_t size;
};

}  // namespace

Result<CertificateTable> ParseCertificateTable(Bytes table) {
  if (table.size() > kMaxCertificatesBytes) {
    return Refuse("certificate-table", std::to_string(table.size()) + " bytes",
                  "at most " + std::to_string(kMaxCertificatesBytes));
  }
  ByteReader reader(table);
  std::vector<Entry> entries;
  std::set<Guid> guids;
  while (true) {
    const Entry entry{reader.Array<16>(), reader.U32(), reader.U32()};
    if (!reader.ok()) return Refuse("certificate-table", "no last entry", "one of zeros");
    if (entry.guid == Guid{}) {
      if (entry.offset != 0 || entry.size != 0) {
        return Refuse("certificate-table", "a last entry with an offset or a length", "zeros");
      }
      break;
    }
    if (!guids.insert(entry.guid).second) {
      return Refuse("certificate-table", ToHex(entry.guid) + " twice", "once");
    }
    entries.push_back(entry);
  }
  const size_t header = table.size() - reader.remaining();
  CertificateTable out;
  for (const Entry& entry : entries) {
    if (entry.offset < header || entry.offset > table.size() || entry.size == 0 ||
        entry.size > table.size() - entry.offset) {
      return Refuse("certificate-table",
                    std::to_string(entry.size) + " bytes at " + std::to_string(entry.offset),
                    "a range of " + std::to_string(header) + " to " + std::to_string(table.size()));
    }
    const Bytes data = table.subspan(entry.offset, entry.size);
    if (entry.guid == kVcekGuid) out.vcek = data;
    if (entry.guid == kVlekGuid) out.vlek = data;
  }
  return out;
}

}  // namespace talaria::attest
