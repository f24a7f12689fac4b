#include "talaria/attest/tsm.h"

#include <errno.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <mutex>
#include <thread>

#include "talaria/attest/testing/tsm_emulator.h"
#include "talaria/attest/testing/tsm_samples.h"

namespace talaria::attest {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

Deadline In(milliseconds time) { return std::chrono::steady_clock::now() + time; }
constexpr milliseconds kPlenty{20'000};  // never used up
constexpr milliseconds kShort{100};      // where the deadline is what ends it

ReportData Asked() {
  ReportData out;
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<uint8_t>(i + 1);
  return out;
}

TsmEmulator::Options Snp() {
  TsmEmulator::Options options;
  options.answer = [](const ReportData& data) {
    return TsmEmulator::Answer{SnpBlob(data), std::vector<uint8_t>{7, 8, 9}};
  };
  return options;
}
TsmEmulator::Options Tdx(uint16_t version) {
  TsmEmulator::Options options;
  options.provider = "tdx_guest\n";
  options.answer = [version](const ReportData& data) {
    return TsmEmulator::Answer{TdxBlob(version, data), std::nullopt};
  };
  return options;
}
TsmEmulator::Options Faulty(TsmFault fault, TsmEmulator::Options options = Snp()) {
  options.fault = fault;
  return options;
}

// Real system calls, the chosen ones spoilt.
class SpoiltCalls : public TsmCalls {
 public:
  // The next `times` calls of that kind fail with `error`. `what`: "mkdir", "rmdir", or "open
  // NAME", "read NAME", "write NAME" of an attribute.
  void Fail(const std::string& what, int error, int times = 1 << 30) {
    const std::lock_guard lock(mutex_);
    failures_[what] = {error, times};
  }
  int CountOf(const std::string& what) {
    const std::lock_guard lock(mutex_);
    return counts_[what];
  }
  ssize_t write_at_most = 1 << 30;
  std::function<void(const std::string& directory)> after_outblob;

  int MakeDirectory(const char* path) override {
    return Spoilt("mkdir") ? -1 : TsmCalls::MakeDirectory(path);
  }
  int RemoveDirectory(const char* path) override {
    return Spoilt("rmdir") ? -1 : TsmCalls::RemoveDirectory(path);
  }
  int Open(const char* path, int flags) override {
    const std::filesystem::path file(path);
    if (Spoilt("open " + file.filename().string())) return -1;
    const int fd = TsmCalls::Open(path, flags);
    const std::lock_guard lock(mutex_);
    if (fd >= 0) open_[fd] = file;
    return fd;
  }
  ssize_t Read(int fd, void* to, size_t size) override {
    const std::filesystem::path file = PathOf(fd);
    if (Spoilt("read " + file.filename().string())) return -1;
    const ssize_t n = TsmCalls::Read(fd, to, size);
    if (n == 0 && file.filename() == "outblob" && after_outblob) after_outblob(file.parent_path());
    return n;
  }
  ssize_t Write(int fd, const void* from, size_t size) override {
    if (Spoilt("write " + PathOf(fd).filename().string())) return -1;
    return TsmCalls::Write(fd, from, std::min<size_t>(size, static_cast<size_t>(write_at_most)));
  }

 private:
  struct Failure {
    int error;
    int times;
  };
  std::filesystem::path PathOf(int fd) {
    const std::lock_guard lock(mutex_);
    return open_[fd];
  }
  bool Spoilt(const std::string& what) {
    const std::lock_guard lock(mutex_);
    ++counts_[what];
    const auto failure = failures_.find(what);
    if (failure == failures_.end() || failure->second.times-- <= 0) return false;
    errno = failure->second.error;
    return true;
  }
  std::mutex mutex_;
  std::map<std::string, Failure> failures_;
  std::map<std::string, int> counts_;
  std::map<int, std::filesystem::path> open_;
};

class Tsm : public testing::Test {
 protected:
  void Serve(TsmEmulator::Options options) {
    auto started = TsmEmulator::Start(testing::TempDir(), std::move(options));
    ASSERT_TRUE(started.ok()) << started.status().ToString();
    emulator_ = *std::move(started);
  }
  Result<Evidence> Collect(milliseconds time = kPlenty) {
    const auto reporter = TsmReporter::Create(emulator_->root(), calls_);
    if (!reporter.ok()) return reporter.status();
    return reporter->Collect(Asked(), In(time));
  }
  void ExpectFailure(const Result<Evidence>& result, Code code, std::string_view message) {
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.status().code(), code) << result.status().ToString();
    EXPECT_THAT(result.status().message(), HasSubstr(message));
    EXPECT_TRUE(NothingIsLeft());
  }
  bool NothingIsLeft() const { return std::filesystem::is_empty(emulator_->root()); }

  std::unique_ptr<TsmEmulator> emulator_;
  std::shared_ptr<SpoiltCalls> calls_ = std::make_shared<SpoiltCalls>();
};

TEST_F(Tsm, CollectsAnSnpReportWithItsCertificates) {
  Serve(Snp());
  const auto evidence = Collect();
  ASSERT_TRUE(evidence.ok()) << evidence.status().ToString();
  EXPECT_EQ(*evidence, (Evidence{EvidenceType::kSevSnp, SnpBlob(Asked()), {7, 8, 9}}));
  EXPECT_EQ(emulator_->requests(), 1);
  EXPECT_EQ(calls_->CountOf("write inblob"), 1);
  EXPECT_TRUE(NothingIsLeft());
}

TEST_F(Tsm, CollectsTdxQuotesOfBothVersions) {
  for (const uint16_t version : {uint16_t{4}, uint16_t{5}}) {
    Serve(Tdx(version));
    const auto evidence = Collect();
    ASSERT_TRUE(evidence.ok()) << evidence.status().ToString();
    EXPECT_EQ(*evidence, (Evidence{EvidenceType::kTdx, TdxBlob(version, Asked()), {}}));
    EXPECT_EQ(calls_->CountOf("open auxblob"), 0);
    EXPECT_TRUE(NothingIsLeft());
  }
}

TEST_F(Tsm, CertificatesMayBeAbsentOrEmpty) {
  for (const bool absent : {true, false}) {
    TsmEmulator::Options options = Snp();
    options.answer = [absent](const ReportData& data) {
      return TsmEmulator::Answer{SnpBlob(data),
                                 absent ? std::nullopt : std::optional(std::vector<uint8_t>())};
    };
    Serve(options);
    const auto evidence = Collect();
    ASSERT_TRUE(evidence.ok()) << evidence.status().ToString();
    EXPECT_TRUE(evidence->certificates.empty());
  }
}

TEST_F(Tsm, WaitsForASlowProvider) {
  TsmEmulator::Options options = Tdx(4);
  options.delay = milliseconds(150);
  Serve(options);
  EXPECT_TRUE(Collect().ok());
}

TEST_F(Tsm, RequestsFromManyThreadsDoNotMeet) {
  Serve(Snp());
  const auto reporter = TsmReporter::Create(emulator_->root());
  ASSERT_TRUE(reporter.ok());
  std::atomic<int> good = 0;
  std::vector<std::thread> threads;
  for (uint8_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint8_t i = 0; i < 5; ++i) {
        ReportData asked = Asked();
        asked[0] = t;
        asked[1] = i;
        const auto evidence = reporter->Collect(asked, In(kPlenty));
        if (evidence.ok() && evidence->report == SnpBlob(asked)) ++good;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 20);
  EXPECT_EQ(emulator_->requests(), 20);
  EXPECT_TRUE(NothingIsLeft());
}

// --- Negative case 51: providers.

TEST(TsmRoot, AMissingDirectoryIsNotFound) {
  const auto reporter = TsmReporter::Create(testing::TempDir() + "/there-is-no-tsm-here");
  EXPECT_EQ(reporter.status().code(), Code::kNotFound);
  EXPECT_THAT(reporter.status().message(), HasSubstr("is not a directory: no confidential VM"));
}

TEST_F(Tsm, NoDriverIsUnavailable) {
  Serve(Snp());
  calls_->Fail("mkdir", ENXIO);
  ExpectFailure(Collect(), Code::kUnavailable, "no provider: is sev-guest or tdx-guest loaded?");
  EXPECT_EQ(calls_->CountOf("mkdir"), 1);
}

TEST_F(Tsm, AMissingProviderAttributeIsNotFound) {
  Serve(Faulty(TsmFault::kNoProvider));
  ExpectFailure(Collect(), Code::kNotFound, "provider: open: No such file");
}

TEST_F(Tsm, UnknownProvidersAreRefused) {
  for (const char* name : {"cca_guest\n", "sev_guest", "sev_guest\n\n", "tdx_guest2\n", "\n", ""}) {
    TsmEmulator::Options options = Snp();
    options.provider = name;
    Serve(options);
    ExpectFailure(Collect(), Code::kUnsupported, "unknown provider");
  }
}

TEST_F(Tsm, AProviderThatGivesTheOthersBlobIsRefused) {
  TsmEmulator::Options tdx_under_snp = Tdx(4);
  tdx_under_snp.provider = "sev_guest\n";
  Serve(tdx_under_snp);
  ExpectFailure(Collect(), Code::kCorrupt, "is 5006 bytes, an SNP report has 1184");
  TsmEmulator::Options snp_under_tdx = Snp();
  snp_under_tdx.provider = "tdx_guest\n";
  Serve(snp_under_tdx);
  ExpectFailure(Collect(), Code::kCorrupt, "is not a TDX quote of version 4 or 5");
}

// --- Negative case 52: generations.

TEST_F(Tsm, AGenerationThatMovesOtherwiseIsRefusedAfterRetries) {
  Serve(Faulty(TsmFault::kGenerationJumps));
  ExpectFailure(Collect(), Code::kUnavailable, "generation moved from 1 to 2");
  EXPECT_EQ(emulator_->requests(), 5);
  Serve(Faulty(TsmFault::kGenerationFalls));
  ExpectFailure(Collect(), Code::kUnavailable, "generation moved from 8 to 6");
  EXPECT_EQ(emulator_->requests(), 5);
}

TEST_F(Tsm, ARetryTakesANewDirectory) {
  TsmEmulator::Options options = Faulty(TsmFault::kGenerationJumps);
  options.faulty_requests = 2;
  Serve(options);
  const auto evidence = Collect();
  ASSERT_TRUE(evidence.ok()) << evidence.status().ToString();
  EXPECT_EQ(emulator_->requests(), 3);
  EXPECT_TRUE(NothingIsLeft());
}

TEST_F(Tsm, AGenerationThatIsNoNumberIsRefused) {
  Serve(Faulty(TsmFault::kGenerationNoNumber));
  ExpectFailure(Collect(), Code::kCorrupt, "generation is not a number: \"many?\"");
  EXPECT_EQ(emulator_->requests(), 1);
}

TEST_F(Tsm, ASecondWriterAfterTheReportWasReadIsSeen) {
  Serve(Snp());
  calls_->after_outblob = [](const std::string& directory) {
    const Fd fd(open((directory + "/generation").c_str(), O_WRONLY));
    ASSERT_TRUE(WriteAt(fd, 0, AsBytes("2\n")).ok());
  };
  ExpectFailure(Collect(), Code::kUnavailable, "generation moved from 1 to 2");
}

// --- Negative case 53: blobs and writes.

TEST_F(Tsm, BadReportsAreRefused) {
  Serve(Faulty(TsmFault::kEmptyOutblob));
  ExpectFailure(Collect(), Code::kCorrupt, "outblob is empty");
  Serve(Faulty(TsmFault::kShortOutblob));
  ExpectFailure(Collect(), Code::kCorrupt, "is 1183 bytes, an SNP report has 1184");
  Serve(Faulty(TsmFault::kLongOutblob));
  ExpectFailure(Collect(), Code::kCorrupt, "outblob is larger than 32768 bytes");
  Serve(Faulty(TsmFault::kLongAuxblob));
  ExpectFailure(Collect(), Code::kCorrupt, "auxblob is larger than 32768 bytes");
  Serve(Faulty(TsmFault::kStaleOutblob));
  ExpectFailure(Collect(), Code::kCorrupt, "is stale");
  for (const uint16_t version : {uint16_t{4}, uint16_t{5}}) {
    Serve(Faulty(TsmFault::kStaleOutblob, Tdx(version)));
    ExpectFailure(Collect(), Code::kCorrupt, "is stale");
    // What is wrong with a report is not tried again.
    EXPECT_EQ(emulator_->requests(), 1);
  }
}

TEST_F(Tsm, TdxQuotesThatAreNotAreRefused) {
  const auto serve = [&](std::vector<uint8_t> quote) {
    TsmEmulator::Options options = Tdx(4);
    options.answer = [quote](const ReportData&) {
      return TsmEmulator::Answer{quote, std::nullopt};
    };
    Serve(options);
  };
  for (const uint16_t version : {uint16_t{3}, uint16_t{6}}) {
    serve(TdxBlob(version, Asked()));
    ExpectFailure(Collect(), Code::kCorrupt, "is not a TDX quote of version 4 or 5");
  }
  std::vector<uint8_t> quote = TdxBlob(4, Asked());
  quote[4] = 0;  // an SGX quote
  serve(quote);
  ExpectFailure(Collect(), Code::kCorrupt, "is not a TDX quote of version 4 or 5");
  quote = TdxBlob(4, Asked());
  quote.resize(48 + 520 + 63);
  serve(quote);
  ExpectFailure(Collect(), Code::kCorrupt, "is 631 bytes, too short for a TDX quote");
  quote.resize(7);
  serve(quote);
  ExpectFailure(Collect(), Code::kCorrupt, "is not a TDX quote of version 4 or 5");
}

TEST_F(Tsm, AShortWriteIsAnError) {
  Serve(Snp());
  calls_->write_at_most = 63;
  ExpectFailure(Collect(), Code::kIo, "inblob took 63 of 64 bytes");
}

// The kernel throws the driver's answer away: nothing but the generation shows a refusal.
TEST_F(Tsm, ARefusalBehindASuccessfulWriteIsSeen) {
  Serve(Faulty(TsmFault::kRefused));
  ExpectFailure(Collect(kShort), Code::kUnavailable,
                "the deadline passed, generation stayed at 0: the driver refused");
  EXPECT_EQ(calls_->CountOf("open outblob"), 0);
}

// --- Negative case 55: errors of the system calls, and no directory left behind.

TEST_F(Tsm, TransientErrorsAreRetriedSoManyTimes) {
  for (const char* call :
       {"open generation", "read generation", "open provider", "read provider", "open inblob",
        "write inblob", "open outblob", "read outblob", "read auxblob"}) {
    SCOPED_TRACE(call);
    for (const int error : {EINTR, EBUSY, EAGAIN}) {
      calls_ = std::make_shared<SpoiltCalls>();
      Serve(Snp());
      calls_->Fail(call, error, 3);
      EXPECT_TRUE(Collect().ok()) << error;
      // An interrupted call is made again, a busy driver is asked in a new directory.
      EXPECT_EQ(emulator_->requests(), error == EINTR ? 1 : 4);
      EXPECT_TRUE(NothingIsLeft());
      calls_->Fail(call, error);
      ExpectFailure(Collect(), Code::kUnavailable, std::strerror(error));
    }
  }
}

TEST_F(Tsm, FinalErrorsAreNotTriedAgain) {
  const struct {
    int error;
    Code code;
    const char* message;
  } cases[] = {{EIO, Code::kIo, "Input/output error"},
               {EINVAL, Code::kIo, "Invalid argument"},
               {ENOTTY, Code::kIo, "the driver lost its key to the firmware: reboot"},
               {ETIMEDOUT, Code::kUnavailable, "timed out"},
               {ENXIO, Code::kUnavailable, "no provider"},
               {ENOMEM, Code::kResourceExhausted, "allocate memory"},
               {EFBIG, Code::kResourceExhausted, "File too large"}};
  for (const char* call :
       {"read generation", "read provider", "write inblob", "read outblob", "read auxblob"}) {
    for (const auto& c : cases) {
      SCOPED_TRACE(std::string(call) + " " + c.message);
      calls_ = std::make_shared<SpoiltCalls>();
      Serve(Snp());
      calls_->Fail(call, c.error);
      ExpectFailure(Collect(), c.code, c.message);
      EXPECT_EQ(emulator_->requests(), 1);
    }
  }
}

// A directory that is not filled, and a deadline that has come before.
TEST_F(Tsm, TheDeadlineEndsAllWaiting) {
  Serve(Faulty(TsmFault::kNeverFilled));
  ExpectFailure(Collect(kShort), Code::kUnavailable,
                "the deadline passed, the directory stayed without attributes");
  Serve(Snp());
  ExpectFailure(Collect(milliseconds(0)), Code::kUnavailable,
                "the deadline passed, before anything was asked");
  EXPECT_EQ(emulator_->requests(), 0);
  TsmEmulator::Options slow = Tdx(4);
  slow.delay = milliseconds(300);
  Serve(slow);
  ExpectFailure(Collect(kShort), Code::kUnavailable, "generation stayed at 0");
}

TEST_F(Tsm, MakingAndRemovingDirectoriesAreTriedAgainToo) {
  Serve(Snp());
  calls_->Fail("mkdir", EBUSY, 2);
  calls_->Fail("rmdir", EINTR, 3);
  EXPECT_TRUE(Collect().ok());
  EXPECT_TRUE(NothingIsLeft());
  calls_->Fail("rmdir", EBUSY, 3);
  EXPECT_TRUE(Collect().ok());
  EXPECT_TRUE(NothingIsLeft());
}

// Evidence whose directory stays is not given out: the leak would go unseen.
TEST_F(Tsm, ADirectoryThatCannotBeRemovedIsAnError) {
  Serve(Snp());
  calls_->Fail("rmdir", EACCES);
  const auto evidence = Collect();
  EXPECT_EQ(evidence.status().code(), Code::kIo);
  EXPECT_THAT(evidence.status().message(), HasSubstr("cannot remove"));
  // Also where a retry would make one directory more each time.
  calls_->Fail("read outblob", EBUSY);
  const int before = emulator_->requests();
  const auto busy = Collect();
  EXPECT_EQ(busy.status().code(), Code::kUnavailable);
  EXPECT_THAT(busy.status().message(), HasSubstr("outblob: read: Device or resource busy; "));
  EXPECT_THAT(busy.status().message(), HasSubstr("cannot remove"));
  EXPECT_EQ(emulator_->requests(), before + 1);
}

}  // namespace
}  // namespace talaria::attest
