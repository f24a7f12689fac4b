// The table of certificates that a host hands its guest beside a report (GHCB specification,
// section 4.1.8.1; `auxblob` of configfs-tsm): entries {GUID, u32 offset, u32 length}, an entry of
// zeros, then the certificates. All of it is the host's word.
#ifndef TALARIA_ATTEST_SNP_CERTIFICATE_TABLE_H_
#define TALARIA_ATTEST_SNP_CERTIFICATE_TABLE_H_

#include <array>

#include "talaria/base/bytes.h"
#include "talaria/base/result.h"

namespace talaria::attest {

using Guid = std::array<uint8_t, 16>;  // in the order of its text
// 63da758d-e664-4564-adc5-f4b93be8accd
inline constexpr Guid kVcekGuid = {0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64,
                                   0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd};
// a8074bc2-a25a-483e-aae6-39c045a0b8a1
inline constexpr Guid kVlekGuid = {0xa8, 0x07, 0x4b, 0xc2, 0xa2, 0x5a, 0x48, 0x3e,
                                   0xaa, 0xe6, 0x39, 0xc0, 0x45, 0xa0, 0xb8, 0xa1};
// 4ab7b379-bbac-4fe4-a02f-05aef327c782, of ASVK as well
inline constexpr Guid kAskGuid = {0x4a, 0xb7, 0xb3, 0x79, 0xbb, 0xac, 0x4f, 0xe4,
                                  0xa0, 0x2f, 0x05, 0xae, 0xf3, 0x27, 0xc7, 0x82};
// c0b406a4-a803-4952-9743-3fb6014cd0ae
inline constexpr Guid kArkGuid = {0xc0, 0xb4, 0x06, 0xa4, 0xa8, 0x03, 0x49, 0x52,
                                  0x97, 0x43, 0x3f, 0xb6, 0x01, 0x4c, 0xd0, 0xae};

// Views into the table; empty where it has none. Roots and intermediates are never read from it:
// ours are compiled in.
struct CertificateTable {
  Bytes vcek;
  Bytes vlek;
};

// Entries of other GUIDs are skipped, their bounds are checked. Refusal: certificate-table.
Result<CertificateTable> ParseCertificateTable(Bytes table);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_SNP_CERTIFICATE_TABLE_H_
