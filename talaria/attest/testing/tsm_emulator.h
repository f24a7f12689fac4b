// The kernel's side of configfs-tsm in a plain folder, for tests and for machines without a TEE: a
// thread watches the folder with inotify, fills each new directory with attributes and answers
// what is written to its inblob. As in the kernel, generation changes last, so who sees it sees the
// answer. It misbehaves on request.
#ifndef TALARIA_ATTEST_TESTING_TSM_EMULATOR_H_
#define TALARIA_ATTEST_TESTING_TSM_EMULATOR_H_

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "talaria/attest/evidence.h"
#include "talaria/base/file.h"

namespace talaria::attest {

enum class TsmFault {
  kNone,
  kNoProvider,          // the attribute is missing
  kRefused,             // as a driver's EINVAL: generation stays, nothing is answered
  kGenerationJumps,     // by 2
  kGenerationFalls,     // it starts at 7 and goes to 6
  kGenerationNoNumber,  // "many\n" from the start
  kEmptyOutblob,        // as old kernels after a failed GetQuote
  kShortOutblob,        // its last byte is missing
  kLongOutblob,         // one byte more than kMaxReportBytes
  kStaleOutblob,        // the answer to other report data
  kLongAuxblob,         // one byte more than kMaxCertificatesBytes
  kNeverFilled,         // the directory stays empty
};

class TsmEmulator {
 public:
  struct Answer {
    std::vector<uint8_t> outblob;
    std::optional<std::vector<uint8_t>> auxblob;  // nullopt: no such attribute
  };
  struct Options {
    std::string provider = "sev_guest\n";
    std::function<Answer(const ReportData&)> answer;  // called on the emulator's thread
    TsmFault fault = TsmFault::kNone;
    int faulty_requests = 1 << 30;       // the first ones only; then it behaves
    std::chrono::milliseconds delay{0};  // before each answer
  };
  // Makes a fresh root below `parent`, an existing folder; inotify must work there. kIo.
  static Result<std::unique_ptr<TsmEmulator>> Start(const std::string& parent, Options options);
  ~TsmEmulator();  // stops the thread and removes the folder
  TsmEmulator(const TsmEmulator&) = delete;
  TsmEmulator& operator=(const TsmEmulator&) = delete;

  const std::string& root() const { return root_; }
  int requests() const { return requests_; }  // directories that were made so far

 private:
  struct Entry {
    std::string path;
    TsmFault fault;
    uint64_t generation;
  };
  explicit TsmEmulator(Options options) : options_(std::move(options)) {}
  void Run();
  void Fill(const std::string& name);
  void Serve(Entry& entry);
  bool Publish(const Entry& entry, const char* name, Bytes content);
  bool Publish(const Entry& entry, const char* name, std::string_view content) {
    return Publish(entry, name, AsBytes(content));
  }

  const Options options_;
  std::string folder_, root_, staging_;  // root and staging area lie in the folder
  Fd inotify_, stop_;
  int root_watch_ = -1;
  std::map<int, Entry> entries_;  // by inotify watch; the thread's
  std::atomic<int> requests_{0};
  std::thread thread_;
};

}  // namespace talaria::attest

#endif  // TALARIA_ATTEST_TESTING_TSM_EMULATOR_H_
