// Evidence from the kernel this runs on, through configfs-tsm (Linux 6.7 and later;
// Documentation/ABI/testing/configfs-tsm-report), for SEV-SNP and TDX guests alike:
//
//   mkdir ROOT/<random>     the kernel fills it with attributes
//   generation -> g, provider -> "sev_guest" or "tdx_guest"
//   inblob <- 64 bytes      handed to the driver on close, whose answer the kernel throws away:
//   generation -> g + 1     is how one sees that it was taken
//   outblob -> report or quote; auxblob -> certificates (SNP only); generation -> still g + 1
//   rmdir ROOT/<random>
//
// Every request has a directory of its own, so no lock is needed, and no path leaves one behind.
#ifndef TALARIA_ATTEST_TSM_H_
#define TALARIA_ATTEST_TSM_H_

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "talaria/attest/evidence.h"
#include "talaria/base/result.h"

namespace talaria::attest {

using Deadline = std::chrono::steady_clock::time_point;

inline constexpr std::string_view kTsmRoot = "/sys/kernel/config/tsm/report";

// The system calls that a request makes, results and errno as theirs. Tests fail each of them; must
// be callable from every thread that collects.
class TsmCalls {
 public:
  virtual ~TsmCalls() = default;
  virtual int MakeDirectory(const char* path);
  virtual int RemoveDirectory(const char* path);
  virtual int Open(const char* path, int flags);
  virtual ssize_t Read(int fd, void* to, size_t size);
  virtual ssize_t Write(int fd, const void* from, size_t size);
};

// Immutable; all threads may collect at once.
class TsmReporter {
 public:
  // `root`: kTsmRoot, or a folder that testing/tsm_emulator.h serves. kNotFound: no such directory
  // (no confidential VM, an older kernel, or configfs is not mounted).
  static Result<TsmReporter> Create(std::string root);
  static Result<TsmReporter> Create(std::string root, std::shared_ptr<TsmCalls> calls);

  // What this machine's provider makes: kSevSnp or kTdx. The errors of Collect.
  Result<EvidenceType> Probe(Deadline deadline) const;

  // Evidence that holds exactly `report_data`; this is checked here, signatures are not.
  // kNotFound: an attribute is missing, as on a kernel before 6.7.
  // kUnsupported: a provider that we do not know.
  // kUnavailable: no provider (the driver is not loaded); busy, interrupted or disturbed by another
  //   writer, again and again; or the deadline. The deadline ends all waiting here, but not a read
  //   inside the kernel, which has limits of its own (a TDX quote may take seconds).
  // kCorrupt: what came back is malformed, empty, too large or for other report data.
  // kResourceExhausted, kIo: the kernel failed a call; trying again at once does not help.
  Result<Evidence> Collect(const ReportData& report_data, Deadline deadline) const;

 private:
  TsmReporter(std::string root, std::shared_ptr<TsmCalls> calls)
      : root_(std::move(root)), calls_(std::move(calls)) {}
  std::string root_;
  std::shared_ptr<TsmCalls> calls_;
};

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_TSM_H_
