// Replaces files of a folder of collateral (collateral_files.h) with newer ones, after they were
// verified under the roots: a folder never gets worse. Fetches nothing.
//
//   open, lock    .new/FMSPC/*  or  .new/milan.crl      written and on disk, aside
//                 tdx/FMSPC     or  amd/milan.crl       exchanged with it, in one step
#ifndef TALARIA_ATTEST_COLLATERAL_UPDATE_H_
#define TALARIA_ATTEST_COLLATERAL_UPDATE_H_

#include <string>
#include <string_view>
#include <vector>

#include "talaria/attest/collateral_files.h"
#include "talaria/attest/mandatory.h"
#include "talaria/attest/snp/roots.h"
#include "talaria/attest/tdx/intel_root.h"
#include "talaria/base/file.h"

namespace talaria::attest {

struct CollateralUpdateOptions {
  std::string folder;  // made if it is not there
  Mandatory<UnixTime> now;
  SnpRoots amd = PinnedAmdRoots();
  IntelRoot intel = PinnedIntelRoot();
};

enum class CollateralChange { kNew, kRenewed, kUnchanged };

// Holds a lock on the folder while it lives. Not thread-safe.
class CollateralUpdate {
 public:
  // kUnavailable: another process updates the folder; kIo, kResourceExhausted; and those of
  // LoadCollateral for a folder that is not in order, except that it may hold nothing.
  static Result<CollateralUpdate> Open(CollateralUpdateOptions options);
  // As it was found.
  const Collateral& held() const { return held_; }

  // Nothing of the folder has changed when these fail. Refusals: "crl-invalid" and "crl-expired",
  // "snp-roots" (no root of the product), "collateral-older" (than what the folder holds, by date
  // or number: whoever means it removes the file first); kIo, kResourceExhausted (disk full).
  Result<CollateralChange> ReplaceAmdCrl(SnpProduct product, const std::vector<uint8_t>& der);
  // All files of a platform together; both lists are wanted. `pck_ca_chain_pem`: the CA of PCK
  // certificates and the root, as they come with the list. Refusals: those of VerifyPckCa,
  // VerifyRevocationLists, VerifyTcbInfo and VerifyQeIdentity, "tdx-tcb-info-platform" (of another
  // FMSPC), "collateral-older".
  Result<CollateralChange> ReplaceTdx(const Fmspc& fmspc, const TdxCollateral& files,
                                      std::string_view pck_ca_chain_pem);

 private:
  CollateralUpdate(CollateralUpdateOptions options, Fd lock, Collateral held)
      : options_(std::move(options)), lock_(std::move(lock)), held_(std::move(held)) {}
  Status JudgeTdx(const Fmspc& fmspc, const TdxCollateral& files,
                  std::string_view pck_ca_chain_pem) const;
  Status Install(const std::string& path, const std::vector<CollateralFile>& files) const;

  CollateralUpdateOptions options_;
  Fd lock_;
  Collateral held_;
};

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_COLLATERAL_UPDATE_H_
