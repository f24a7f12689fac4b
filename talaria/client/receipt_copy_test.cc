#include "talaria/client/receipt_copy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "talaria/base/testing/temp_folder.h"

namespace talaria::client {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ReceiptCopyTest : public ::testing::Test {
 protected:
  static ReceiptCopy Copy() {
    ReceiptCopy copy{};
    copy.salt.fill(0x5a);
    copy.request = "{\"q\":1}";
    copy.response = std::string("a\0b\r\n", 5) + std::string(20'000, 'x');
    copy.receipt.exchange = {"/v1/completions", 200, {1}, {2}};
    copy.receipt.claim.context = {.version = attest::kAttestationVersion,
                                  .model_identity = {},
                                  .profile = 1,
                                  .check_vectors = 1,
                                  .configuration = {},
                                  .tenant_key = {},
                                  .development = true};
    copy.receipt.claim.evidence = {
        .type = attest::EvidenceType::kSimulated, .report = {1, 2}, .certificates = {}};
    return copy;
  }
  std::vector<std::string> Entries() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(root_))
      names.push_back(entry.path().filename());
    return names;
  }
  static unsigned Mode(const std::string& path) {
    struct stat info {};
    EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
    return info.st_mode & 0777;
  }

  const TempFolder temp_;
  const std::string& root_ = temp_.path();
};

TEST_F(ReceiptCopyTest, WhatIsSavedIsLoaded) {
  const mode_t before = umask(0);  // whatever the user's is
  const Status saved = SaveCopy(Copy(), root_ + "/one");
  umask(before);
  ASSERT_TRUE(saved.ok()) << saved.ToString();
  EXPECT_EQ(Mode(root_ + "/one"), 0700u);
  for (const char* name : {"request", "response", "salt", "receipt"})
    EXPECT_EQ(Mode(root_ + "/one/" + name), 0600u) << name;
  EXPECT_THAT(Entries(), ::testing::ElementsAre("one"));
  const auto loaded = LoadCopy(root_ + "/one");
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  const ReceiptCopy copy = Copy();
  EXPECT_EQ(loaded->salt, copy.salt);
  EXPECT_EQ(loaded->request, copy.request);
  EXPECT_EQ(loaded->response, copy.response);
  EXPECT_EQ(attest::Encode(loaded->receipt), attest::Encode(copy.receipt));
}

TEST_F(ReceiptCopyTest, TakesAnEmptyFolderAndOverwritesNothing) {
  ASSERT_EQ(mkdir((root_ + "/empty").c_str(), 0700), 0);
  EXPECT_TRUE(SaveCopy(Copy(), root_ + "/empty").ok());
  // Now it is full.
  const Status again = SaveCopy(Copy(), root_ + "/empty");
  EXPECT_EQ(again.code(), Code::kIo) << again.ToString();
  EXPECT_THAT(again.message(), HasSubstr("empty: "));
  EXPECT_TRUE(LoadCopy(root_ + "/empty").ok());
  EXPECT_THAT(Entries(), ::testing::ElementsAre("empty"));
  EXPECT_EQ(SaveCopy(Copy(), root_ + "/no/such").code(), Code::kIo);
}

TEST_F(ReceiptCopyTest, AFullDiskLeavesNothing) {
  signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit small{.rlim_cur = 10'000, .rlim_max = limit.rlim_max};  // the answer is larger
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status full = SaveCopy(Copy(), root_ + "/full");
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  EXPECT_EQ(full.code(), Code::kResourceExhausted) << full.ToString();
  EXPECT_THAT(full.message(), HasSubstr("full.part/response"));
  EXPECT_THAT(Entries(), IsEmpty());
  EXPECT_TRUE(SaveCopy(Copy(), root_ + "/full").ok());
}

TEST_F(ReceiptCopyTest, DamagedCopiesAreRefused) {
  EXPECT_EQ(LoadCopy(root_ + "/nothing").status().code(), Code::kNotFound);
  ASSERT_TRUE(SaveCopy(Copy(), root_ + "/one").ok());
  const std::string salt(64, 'a');
  for (const std::string& text :
       {std::string(), salt.substr(1), salt + "a", salt + "\n\n", std::string(64, 'A')}) {
    std::ofstream(root_ + "/one/salt") << text;
    const Status status = LoadCopy(root_ + "/one").status();
    EXPECT_TRUE(status.code() == Code::kInvalidArgument ||
                status.code() == Code::kResourceExhausted)
        << text << ": " << status.ToString();
  }
  std::ofstream(root_ + "/one/salt") << salt;
  EXPECT_TRUE(LoadCopy(root_ + "/one").ok());
  std::ofstream(root_ + "/one/receipt", std::ios::app) << 'x';
  const Status status = LoadCopy(root_ + "/one").status();
  EXPECT_EQ(status.code(), Code::kUntrusted);
  EXPECT_THAT(status.message(), HasSubstr("-format"));
}

TEST_F(ReceiptCopyTest, TheFolderOfCopies) {
  const std::string folder = root_ + "/copies";
  EXPECT_TRUE(MakeCopiesFolder(folder).ok());
  EXPECT_EQ(Mode(folder), 0700u);
  EXPECT_TRUE(MakeCopiesFolder(folder).ok());
  std::ofstream(root_ + "/file") << "x";
  EXPECT_THAT(MakeCopiesFolder(root_ + "/file").ToString(), HasSubstr("this is not a folder"));
  EXPECT_EQ(MakeCopiesFolder(root_ + "/no/such").code(), Code::kIo);
  const std::string one = NewCopyName().value(), other = NewCopyName().value();
  EXPECT_NE(one, other);
  EXPECT_THAT(one, ::testing::MatchesRegex("[0-9]{8}T[0-9]{6}Z-[0-9a-f]{16}"));
}

}  // namespace
}  // namespace talaria::client
