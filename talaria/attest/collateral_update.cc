#include "talaria/attest/collateral_update.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "talaria/attest/facts.h"
#include "talaria/attest/refusal.h"
#include "talaria/attest/tdx/signatures.h"

namespace talaria::attest {
namespace {

namespace fs = std::filesystem;

Status Older(const std::string& file, const std::string& found, const std::string& held) {
  return Refuse(
      "collateral-older", file + " of " + found,
      "nothing before what the folder holds, of " + held + " (remove that first, if you mean it)");
}

std::string Describe(const Crl& crl) {
  const auto number = crl.number();
  return FormatUtc(crl.this_update()) +
         (number ? ", number 0x" + (number->empty() ? "0" : ToHex(*number)) : ", without a number");
}

// Intel's lists all have the number 1, so the date counts as well.
Status CheckNotOlder(const std::string& file, const Crl& fresh, const Crl& held) {
  const auto by_size = [](const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
    return a.size() != b.size() ? a.size() < b.size() : a < b;
  };
  const auto now = fresh.number(), before = held.number();
  const bool lower = before && (!now || by_size(*now, *before));
  if (!lower && fresh.this_update() >= held.this_update()) return OkStatus();
  return Older(file, Describe(fresh), Describe(held));
}

// Of bytes that have been parsed before.
Status CheckNotOlder(const std::string& file, Bytes fresh, Bytes held) {
  if (held.empty()) return OkStatus();
  constexpr std::string_view kReason = "collateral";
  TALARIA_ASSIGN_OR_RETURN(const Crl fresh_list, Crl::FromDer(fresh, kReason));
  TALARIA_ASSIGN_OR_RETURN(const Crl held_list, Crl::FromDer(held, kReason));
  return CheckNotOlder(file, fresh_list, held_list);
}

Status CheckNotOlder(const std::string& file, const CollateralWindow& fresh,
                     const CollateralWindow& held) {
  if (fresh.issue_date >= held.issue_date &&
      fresh.tcb_evaluation_data_number >= held.tcb_evaluation_data_number) {
    return OkStatus();
  }
  const auto words = [](const CollateralWindow& window) {
    return FormatUtc(window.issue_date) + ", evaluation " +
           std::to_string(window.tcb_evaluation_data_number);
  };
  return Older(file, words(fresh), words(held));
}

Status FromError(const std::string& path, const std::error_code& error) {
  const int e = error.value();
  const bool full = e == ENOSPC || e == EDQUOT || e == EFBIG;
  return Status(full ? Code::kResourceExhausted : Code::kIo, path + ": " + error.message());
}

Status MakeFolder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  return error ? FromError(path, error) : OkStatus();
}

// The new file or folder at `from` takes the place of `to`; what was there is at `from` then.
Status Exchange(const std::string& from, const std::string& to) {
  const bool there = fs::exists(fs::symlink_status(to));
  const unsigned flags = there ? RENAME_EXCHANGE : RENAME_NOREPLACE;
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) == 0) return OkStatus();
  return FromError(to, std::error_code(errno, std::generic_category()));
}

std::string Staging(const std::string& folder) {
  return folder + "/" + std::string(kCollateralStaging);
}

Result<bool> HoldsNoFile(const std::string& folder) {
  std::error_code error;
  fs::recursive_directory_iterator at(folder, error);
  for (; !error && at != fs::recursive_directory_iterator(); at.increment(error)) {
    if (!at->is_directory(error)) return false;
  }
  if (error) return FromError(folder, error);
  return true;
}

Status WriteWhole(const std::string& path, Bytes bytes) {
  TALARIA_ASSIGN_OR_RETURN(const Fd file, CreateFile(path));
  Status status = WriteAt(file, 0, bytes);
  if (status.ok()) status = Sync(file);
  return status.ok() ? status : status.Annotate(path);
}

}  // namespace

Result<CollateralUpdate> CollateralUpdate::Open(CollateralUpdateOptions options) {
  const std::string& folder = options.folder;
  TALARIA_RETURN_IF_ERROR(MakeFolder(folder));
  Fd lock(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock.valid()) return Status(Code::kIo, folder + ": " + std::strerror(errno));
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
    return Status(Code::kUnavailable, folder + " is being updated by another process");
  std::error_code error;
  fs::remove_all(Staging(folder), error);  // of a process that was killed
  TALARIA_ASSIGN_OR_RETURN(const bool empty, HoldsNoFile(folder));
  Collateral held;
  if (!empty) {
    TALARIA_ASSIGN_OR_RETURN(held, LoadCollateral(folder));
  }
  return CollateralUpdate(std::move(options), std::move(lock), std::move(held));
}

Status CollateralUpdate::Install(const std::string& path,
                                 const std::vector<CollateralFile>& files) const {
  const std::string staging = Staging(options_.folder);
  const std::string aside = staging + "/" + fs::path(path).filename().string();
  const std::string place = options_.folder + "/" + path;
  const auto replace = [&]() -> Status {
    const bool single = files.size() == 1 && files.front().name.empty();
    TALARIA_RETURN_IF_ERROR(MakeFolder(single ? staging : aside));
    for (const CollateralFile& file : files) {
      TALARIA_RETURN_IF_ERROR(
          WriteWhole(single ? aside : aside + "/" + std::string(file.name), file.bytes));
    }
    if (!single) TALARIA_RETURN_IF_ERROR(SyncDirectory(aside));
    const std::string parent = fs::path(place).parent_path().string();
    TALARIA_RETURN_IF_ERROR(MakeFolder(parent));
    TALARIA_RETURN_IF_ERROR(Exchange(aside, place));
    return SyncDirectory(parent);
  };
  Status status = replace();
  std::error_code ignored;
  fs::remove_all(staging, ignored);
  return status;
}

Result<CollateralChange> CollateralUpdate::ReplaceAmdCrl(SnpProduct product,
                                                         const std::vector<uint8_t>& der) {
  const std::string path = AmdCrlPath(product);
  const auto roots = std::ranges::find(options_.amd.products, product, &SnpProductRoots::product);
  if (roots == options_.amd.products.end())
    return Refuse("snp-roots", SnpProductName(product), "a product with a root");
  TALARIA_ASSIGN_OR_RETURN(const Crl fresh, Crl::FromDer(der, "crl-invalid"));
  TALARIA_RETURN_IF_ERROR(fresh.Verify(roots->ark, *options_.now, "crl-invalid", "crl-expired"));
  const auto held = std::ranges::find(held_.amd, product, &AmdCrl::product);
  const bool there = held != held_.amd.end();
  if (there) {
    TALARIA_RETURN_IF_ERROR(CheckNotOlder(path, fresh, held->crl));
    const auto bytes = ReadFile(options_.folder + "/" + path, kMaxCollateralFileBytes);
    if (bytes.ok() && *bytes == der) return CollateralChange::kUnchanged;
  }
  TALARIA_RETURN_IF_ERROR(Install(path, {{{}, der}}));
  return there ? CollateralChange::kRenewed : CollateralChange::kNew;
}

Status CollateralUpdate::JudgeTdx(const Fmspc& fmspc, const TdxCollateral& files,
                                  std::string_view pck_ca_chain_pem) const {
  const UnixTime now = *options_.now;
  const IntelRoot& root = options_.intel;
  TALARIA_ASSIGN_OR_RETURN(const Certificate ca, VerifyPckCa(pck_ca_chain_pem, root, now));
  TALARIA_ASSIGN_OR_RETURN(const RevocationLists lists,
                           VerifyRevocationLists(files, ca, root, now, TdxCrlPolicy::kRequired));
  // No floor: what is too old for a policy is the policy's to say.
  TALARIA_ASSIGN_OR_RETURN(const TcbInfo info, VerifyTcbInfo(files, lists, root, now, 0));
  TALARIA_ASSIGN_OR_RETURN(const QeIdentity identity, VerifyQeIdentity(files, lists, root, now, 0));
  if (info.fmspc != fmspc)
    return Refuse("tdx-tcb-info-platform", "FMSPC " + ToHex(info.fmspc), ToHex(fmspc));
  const auto held = std::ranges::find(held_.tdx, fmspc, &TdxPlatformCollateral::fmspc);
  if (held == held_.tdx.end()) return OkStatus();
  // Both parse: LoadCollateral has done it.
  TALARIA_ASSIGN_OR_RETURN(const TcbInfo held_info, ParseTcbInfo(held->files.tcb_info));
  TALARIA_ASSIGN_OR_RETURN(const QeIdentity held_identity,
                           ParseQeIdentity(held->files.qe_identity));
  const std::string path = TdxPlatformPath(fmspc) + "/";
  TALARIA_RETURN_IF_ERROR(CheckNotOlder(path + "tcb_info.json", info.window, held_info.window));
  TALARIA_RETURN_IF_ERROR(
      CheckNotOlder(path + "qe_identity.json", identity.window, held_identity.window));
  TALARIA_RETURN_IF_ERROR(
      CheckNotOlder(path + "root_ca_crl.der", files.root_crl, held->files.root_crl));
  return CheckNotOlder(path + "pck_crl.der", files.pck_crl, held->files.pck_crl);
}

Result<CollateralChange> CollateralUpdate::ReplaceTdx(const Fmspc& fmspc,
                                                      const TdxCollateral& files,
                                                      std::string_view pck_ca_chain_pem) {
  TALARIA_RETURN_IF_ERROR(JudgeTdx(fmspc, files, pck_ca_chain_pem));
  const auto held = std::ranges::find(held_.tdx, fmspc, &TdxPlatformCollateral::fmspc);
  const bool there = held != held_.tdx.end();
  if (there && held->files == files) return CollateralChange::kUnchanged;
  TALARIA_RETURN_IF_ERROR(Install(TdxPlatformPath(fmspc), FilesOf(files)));
  return there ? CollateralChange::kRenewed : CollateralChange::kNew;
}

}  // namespace talaria::attest
