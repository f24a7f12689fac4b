#include "talaria/attest/tsm.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <thread>

#include "talaria/attest/refusal.h"
#include "talaria/base/file.h"

namespace talaria::attest {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr int kMaxAttempts = 5;     // each in a new directory
constexpr int kMaxInterrupts = 16;  // of one system call
constexpr int kMaxRemovals = 50;    // a millisecond apart
constexpr milliseconds kFirstPause{1};
constexpr milliseconds kLongestPollPause{20};
constexpr milliseconds kLongestRetryPause{200};
constexpr size_t kMaxTextBytes = 64;  // provider, generation

// Where the report data lie. SNP ABI specification, table "ATTESTATION_REPORT"; Intel's DCAP quote
// format, versions 4 and 5.
constexpr size_t kSnpReportBytes = 1184;
constexpr size_t kSnpReportData = 0x50;
constexpr size_t kTdxHeaderBytes = 48;
constexpr size_t kTdxBodyDescriptorBytes = 6;  // version 5 only: u16 type, u32 size
constexpr size_t kTdxReportData = 520;         // within the body
constexpr uint32_t kTdxTeeType = 0x81;

std::string Quoted(Bytes text) {
  return '"' + Printable({reinterpret_cast<const char*>(text.data()), text.size()}) + '"';
}

template <class Call>
auto Interruptible(Call call) {
  auto result = call();
  for (int i = 1; i < kMaxInterrupts && result < 0 && errno == EINTR; ++i) result = call();
  return result;
}

// One directory below the root, removed when it dies.
class Request {
 public:
  Request(TsmCalls& calls, const std::string& root, Deadline deadline)
      : calls_(calls), root_(root), deadline_(deadline) {}
  ~Request() { (void)Remove(); }
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;

  // Makes the directory and reads the first generation.
  Status Begin();
  Result<EvidenceType> Provider();
  Status WriteReportData(const ReportData& report_data);
  // To EOF, between `min` and `max` bytes.
  Result<std::vector<uint8_t>> ReadBlob(const char* name, size_t min, size_t max);
  Status Remove();
  // Whether a failure may be gone in a new directory.
  bool may_retry() const { return may_retry_; }

 private:
  Status Failed(std::string_view what, int error);
  Status Retry(std::string message) {
    may_retry_ = true;
    return {Code::kUnavailable, std::move(message)};
  }
  Status PastDeadline(std::string_view what) const {
    return {Code::kUnavailable, "configfs-tsm: the deadline passed, " + std::string(what)};
  }
  // False, without sleeping, when the deadline has come.
  bool Pause(milliseconds& pause) const;
  std::string PathOf(std::string_view name) const { return path_ + "/" + std::string(name); }
  Result<std::vector<uint8_t>> Read(const char* name, size_t max);
  Result<uint64_t> Generation();
  Status CheckGeneration();

  TsmCalls& calls_;
  const std::string& root_;
  const Deadline deadline_;
  std::string path_;  // empty: nothing to remove
  uint64_t generation_ = 0;
  bool may_retry_ = false;
};

Status Request::Failed(std::string_view what, int error) {
  std::string message = "configfs-tsm: " + std::string(what) + ": " + std::strerror(error);
  switch (error) {
    case EBUSY:
    case EAGAIN:  // the cached report is of another generation
    case EINTR:
      return Retry(std::move(message));
    case ETIMEDOUT:  // it took its time already: not at once again
      return {Code::kUnavailable, std::move(message)};
    case ENOENT:
      return {Code::kNotFound, std::move(message)};
    case ENXIO:
      return {Code::kUnavailable, message + " (no provider: is sev-guest or tdx-guest loaded?)"};
    case ENOTTY:
      return {Code::kIo, message + " (the driver lost its key to the firmware: reboot)"};
    case ENOMEM:
    case ENOSPC:
    case EFBIG:
      return {Code::kResourceExhausted, std::move(message)};
    default:
      return {Code::kIo, std::move(message)};
  }
}

bool Request::Pause(milliseconds& pause) const {
  const auto now = Clock::now();
  if (now >= deadline_) return false;
  std::this_thread::sleep_for(std::min<Clock::duration>(pause, deadline_ - now));
  pause = std::min(pause * 2, kLongestPollPause);
  return true;
}

Status Request::Begin() {
  if (Clock::now() >= deadline_) return PastDeadline("before anything was asked");
  std::array<uint8_t, 16> random;
  if (Interruptible([&] { return getrandom(random.data(), random.size(), 0); }) !=
      static_cast<ssize_t>(random.size())) {
    return Failed("getrandom", errno);
  }
  const std::string path = root_ + "/talaria-" + ToHex(random);
  if (Interruptible([&] { return calls_.MakeDirectory(path.c_str()); }) != 0) {
    return Failed("mkdir", errno);
  }
  path_ = path;
  // The kernel has filled it by now; an emulator may need a moment.
  milliseconds pause = kFirstPause;
  for (;;) {
    const Result<uint64_t> first = Generation();
    if (first.ok()) {
      generation_ = *first;
      return OkStatus();
    }
    if (first.status().code() != Code::kNotFound) return first.status();
    if (!Pause(pause)) return PastDeadline("the directory stayed without attributes");
  }
}

Result<std::vector<uint8_t>> Request::Read(const char* name, size_t max) {
  const std::string path = PathOf(name);
  const Fd fd(Interruptible([&] { return calls_.Open(path.c_str(), O_RDONLY | O_CLOEXEC); }));
  if (!fd.valid()) return Failed(std::string(name) + ": open", errno);
  std::vector<uint8_t> out;
  size_t size = 0;
  for (;;) {
    out.resize(size + 4096);
    const ssize_t n =
        Interruptible([&] { return calls_.Read(fd.get(), out.data() + size, out.size() - size); });
    if (n < 0) return Failed(std::string(name) + ": read", errno);
    if (n == 0) break;
    size += static_cast<size_t>(n);
    if (size > max) {
      return Status(Code::kCorrupt, "configfs-tsm: " + std::string(name) + " is larger than " +
                                        std::to_string(max) + " bytes");
    }
  }
  out.resize(size);
  return out;
}

Result<uint64_t> Request::Generation() {
  TALARIA_ASSIGN_OR_RETURN(const std::vector<uint8_t> text, Read("generation", kMaxTextBytes));
  // 19 digits cannot overflow.
  bool number = text.size() >= 2 && text.size() <= 20 && text.back() == '\n';
  uint64_t value = 0;
  for (size_t i = 0; number && i + 1 < text.size(); ++i) {
    number = text[i] >= '0' && text[i] <= '9';
    value = value * 10 + (text[i] - '0');
  }
  if (!number) {
    return Status(Code::kCorrupt, "configfs-tsm: generation is not a number: " + Quoted(text));
  }
  return value;
}

Status Request::CheckGeneration() {
  TALARIA_ASSIGN_OR_RETURN(const uint64_t now, Generation());
  if (now == generation_) return OkStatus();
  return Retry("configfs-tsm: generation moved from " + std::to_string(generation_) + " to " +
               std::to_string(now) + ": somebody else writes to our request");
}

Result<EvidenceType> Request::Provider() {
  TALARIA_ASSIGN_OR_RETURN(const std::vector<uint8_t> text, Read("provider", kMaxTextBytes));
  TALARIA_RETURN_IF_ERROR(CheckGeneration());
  const std::string_view name(reinterpret_cast<const char*>(text.data()), text.size());
  if (name == "sev_guest\n") return EvidenceType::kSevSnp;
  if (name == "tdx_guest\n") return EvidenceType::kTdx;
  return Status(Code::kUnsupported, "configfs-tsm: unknown provider " + Quoted(text));
}

Status Request::WriteReportData(const ReportData& report_data) {
  {
    const std::string path = PathOf("inblob");
    const Fd fd(Interruptible([&] { return calls_.Open(path.c_str(), O_WRONLY | O_CLOEXEC); }));
    if (!fd.valid()) return Failed("inblob: open", errno);
    // One write: a second one would be another request to some drivers.
    const ssize_t n = Interruptible(
        [&] { return calls_.Write(fd.get(), report_data.data(), report_data.size()); });
    if (n < 0) return Failed("inblob: write", errno);
    if (n != static_cast<ssize_t>(report_data.size())) {
      return {Code::kIo, "configfs-tsm: inblob took " + std::to_string(n) + " of 64 bytes"};
    }
  }
  const uint64_t before = generation_;
  milliseconds pause = kFirstPause;
  for (;;) {
    TALARIA_ASSIGN_OR_RETURN(const uint64_t now, Generation());
    if (now != before) {
      generation_ = before + 1;
      return CheckGeneration();
    }
    if (!Pause(pause)) {
      return PastDeadline("generation stayed at " + std::to_string(before) +
                          ": the driver refused the report data, or is slow");
    }
  }
}

Result<std::vector<uint8_t>> Request::ReadBlob(const char* name, size_t min, size_t max) {
  TALARIA_ASSIGN_OR_RETURN(std::vector<uint8_t> blob, Read(name, max));
  // Before the size: a second writer's request may be the reason.
  TALARIA_RETURN_IF_ERROR(CheckGeneration());
  if (blob.size() < min) {
    return Status(Code::kCorrupt, "configfs-tsm: " + std::string(name) + " is empty");
  }
  return blob;
}

Status Request::Remove() {
  if (path_.empty()) return OkStatus();
  const std::string path = std::exchange(path_, {});
  int error = 0;
  for (int i = 0; i < kMaxRemovals; ++i) {
    if (calls_.RemoveDirectory(path.c_str()) == 0) return OkStatus();
    error = errno;
    if (error == ENOENT) return OkStatus();
    if (error == ENOTEMPTY || error == EEXIST) {
      // Never in configfs, whose attributes go with their directory: an emulator's plain files.
      for (const char* name : {"inblob", "outblob", "auxblob", "provider", "generation"}) {
        (void)unlink((path + "/" + name).c_str());
      }
    } else if (error != EINTR && error != EBUSY) {
      break;
    }
    if (i > 0) std::this_thread::sleep_for(kFirstPause);
  }
  // Final, also for EBUSY: more attempts would leave more directories behind.
  return {Code::kIo, "configfs-tsm: cannot remove " + path + ": " + std::strerror(error)};
}

Status CheckReport(EvidenceType type, Bytes report, const ReportData& report_data) {
  const auto corrupt = [](std::string what) {
    return Status(Code::kCorrupt, "configfs-tsm: outblob " + std::move(what));
  };
  size_t at = kSnpReportData;
  if (type == EvidenceType::kSevSnp) {
    if (report.size() != kSnpReportBytes) {
      return corrupt("is " + std::to_string(report.size()) + " bytes, an SNP report has 1184");
    }
  } else {
    ByteReader reader(report);
    const uint16_t version = reader.U16();
    reader.U16();  // kind of the attestation key: the verifier's business
    const uint32_t tee = reader.U32();
    if (!reader.ok() || (version != 4 && version != 5) || tee != kTdxTeeType) {
      return corrupt("is not a TDX quote of version 4 or 5");
    }
    at = kTdxHeaderBytes + (version == 5 ? kTdxBodyDescriptorBytes : 0) + kTdxReportData;
    if (report.size() < at + report_data.size()) {
      return corrupt("is " + std::to_string(report.size()) + " bytes, too short for a TDX quote");
    }
  }
  if (!std::ranges::equal(report.subspan(at, report_data.size()), report_data)) {
    return corrupt("is stale: it holds other report data than was asked for");
  }
  return OkStatus();
}

Result<Evidence> CollectOnce(Request& request, const ReportData& report_data) {
  TALARIA_RETURN_IF_ERROR(request.Begin());
  Evidence evidence;
  TALARIA_ASSIGN_OR_RETURN(evidence.type, request.Provider());
  TALARIA_RETURN_IF_ERROR(request.WriteReportData(report_data));
  TALARIA_ASSIGN_OR_RETURN(evidence.report, request.ReadBlob("outblob", 1, kMaxReportBytes));
  if (evidence.type == EvidenceType::kSevSnp) {
    Result<std::vector<uint8_t>> table = request.ReadBlob("auxblob", 0, kMaxCertificatesBytes);
    // A host need not give certificates; the verifier then gets them elsewhere.
    if (!table.ok() && table.status().code() != Code::kNotFound) return table.status();
    if (table.ok()) evidence.certificates = std::move(*table);
  }
  TALARIA_RETURN_IF_ERROR(CheckReport(evidence.type, evidence.report, report_data));
  TALARIA_RETURN_IF_ERROR(request.Remove());
  return evidence;
}

Result<EvidenceType> ProbeOnce(Request& request) {
  TALARIA_RETURN_IF_ERROR(request.Begin());
  TALARIA_ASSIGN_OR_RETURN(const EvidenceType type, request.Provider());
  TALARIA_RETURN_IF_ERROR(request.Remove());
  return type;
}

// `once` in new directories until it succeeds, fails for good, or attempts or time are used up.
template <class T>
Result<T> Attempts(TsmCalls& calls, const std::string& root, Deadline deadline,
                   const std::function<Result<T>(Request&)>& once) {
  milliseconds pause = kFirstPause;
  for (int attempt = 1;; ++attempt) {
    Request request(calls, root, deadline);
    Result<T> result = once(request);
    if (result.ok()) return result;
    if (const Status removed = request.Remove(); !removed.ok()) {
      return Status(result.status().code(), result.status().message() + "; " + removed.message());
    }
    if (!request.may_retry() || attempt == kMaxAttempts || Clock::now() + pause >= deadline) {
      return result;
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 4, kLongestRetryPause);
  }
}

}  // namespace

int TsmCalls::MakeDirectory(const char* path) { return mkdir(path, 0700); }
int TsmCalls::RemoveDirectory(const char* path) { return rmdir(path); }
int TsmCalls::Open(const char* path, int flags) { return open(path, flags); }
ssize_t TsmCalls::Read(int fd, void* to, size_t size) { return read(fd, to, size); }
ssize_t TsmCalls::Write(int fd, const void* from, size_t size) { return write(fd, from, size); }

Result<TsmReporter> TsmReporter::Create(std::string root) {
  return Create(std::move(root), std::make_shared<TsmCalls>());
}

Result<TsmReporter> TsmReporter::Create(std::string root, std::shared_ptr<TsmCalls> calls) {
  struct stat info {};
  if (stat(root.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return Status(Code::kNotFound,
                  root +
                      " is not a directory: no confidential VM, a kernel before 6.7, or "
                      "configfs is not mounted");
  }
  return TsmReporter(std::move(root), std::move(calls));
}

Result<EvidenceType> TsmReporter::Probe(Deadline deadline) const {
  return Attempts<EvidenceType>(*calls_, root_, deadline, ProbeOnce);
}

Result<Evidence> TsmReporter::Collect(const ReportData& report_data, Deadline deadline) const {
  return Attempts<Evidence>(*calls_, root_, deadline, [&report_data](Request& request) {
    return CollectOnce(request, report_data);
  });
}

}  // namespace talaria::attest
