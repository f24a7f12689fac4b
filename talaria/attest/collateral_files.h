// What the makers of processors publish about them (revocation lists, TCB levels), as a folder that
// somebody downloaded: doc/attestation.md. None of it is trusted before VerifySnpReport or
// VerifyTdxQuote has checked its signature and its age. Nothing is fetched here.
//
//   amd/milan.crl  amd/genoa.crl  amd/turin.crl                       DER, each optional
//   tdx/FMSPC/tcb_info.json            tdx/FMSPC/qe_identity.json     the signed object, exactly
//   tdx/FMSPC/tcb_info.sig.hex         tdx/FMSPC/qe_identity.sig.hex  r || s
//   tdx/FMSPC/tcb_info_issuer_chain.pem  tdx/FMSPC/qe_identity_issuer_chain.pem
//   tdx/FMSPC/root_ca_crl.der          tdx/FMSPC/pck_crl.der          optional
//
// FMSPC: 12 lower-case hexadecimal digits. Any other file or folder is an error, except .new, where
// collateral_update.h prepares what is to replace the above.
#ifndef TALARIA_ATTEST_COLLATERAL_FILES_H_
#define TALARIA_ATTEST_COLLATERAL_FILES_H_

#include <string>
#include <string_view>
#include <vector>

#include "talaria/attest/snp/report.h"
#include "talaria/attest/tdx/collateral.h"
#include "talaria/attest/tdx/pck.h"
#include "talaria/attest/x509.h"
#include "talaria/base/result.h"

namespace talaria::attest {

inline constexpr size_t kMaxCollateralFileBytes = 1 << 20;
inline constexpr size_t kMaxCollateralPlatforms = 256;  // folders under tdx/
inline constexpr std::string_view kCollateralStaging = ".new";

struct AmdCrl {
  SnpProduct product;
  Crl crl;
};
struct TdxPlatformCollateral {
  Fmspc fmspc;
  TdxCollateral files;
};
// For every machine that is served; Collateral{} is none at all. At most one of each product and
// FMSPC.
struct Collateral {
  std::vector<AmdCrl> amd;
  std::vector<TdxPlatformCollateral> tdx;
};

// Their names in the folder, for whoever writes them: "amd/milan.crl", "tdx/FMSPC".
std::string AmdCrlPath(SnpProduct product);
std::string TdxPlatformPath(const Fmspc& fmspc);
struct CollateralFile {
  std::string_view name;  // below TdxPlatformPath
  Bytes bytes;            // of the argument of FilesOf
};
// All that there are, without the lists that are not there.
std::vector<CollateralFile> FilesOf(const TdxCollateral& files);

// Every message names the file. kNotFound: no such folder, or a file of a platform is missing;
// kInvalidArgument: a file or folder that does not belong there, nothing at all, or too many
// platforms; kResourceExhausted: a file over kMaxCollateralFileBytes; kCorrupt: what is not of its
// format, or is of another FMSPC than its folder; kIo.
Result<Collateral> LoadCollateral(const std::string& folder);

struct CollateralExpiry {
  std::string file;  // as above: "amd/genoa.crl"
  std::string what;  // "revocation list of ARK-Genoa"
  UnixTime next_update;
};
// What a person must renew, and when; the soonest first. Nothing is verified. kCorrupt, for
// collateral that LoadCollateral did not make.
Result<std::vector<CollateralExpiry>> ExpiryOf(const Collateral& collateral);

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_COLLATERAL_FILES_H_
