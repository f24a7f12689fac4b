#include "talaria/attest/attester.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "talaria/attest/testing/tsm_emulator.h"
#include "talaria/attest/testing/tsm_samples.h"

namespace talaria::attest {
namespace {

Deadline Soon() { return std::chrono::steady_clock::now() + std::chrono::seconds(20); }

std::unique_ptr<TsmEmulator> Serve(const std::string& provider, bool tdx) {
  TsmEmulator::Options options;
  options.provider = provider;
  options.answer = [tdx](const ReportData& data) {
    return TsmEmulator::Answer{tdx ? TdxBlob(4, data) : SnpBlob(data), std::nullopt};
  };
  auto started = TsmEmulator::Start(testing::TempDir(), std::move(options));
  return started.ok() ? *std::move(started) : nullptr;
}

TEST(TsmAttester, KnowsItsTypeBeforeItAttests) {
  for (const bool tdx : {false, true}) {
    const auto emulator = Serve(tdx ? "tdx_guest\n" : "sev_guest\n", tdx);
    ASSERT_NE(emulator, nullptr);
    auto attester = TsmAttester::Create(*TsmReporter::Create(emulator->root()), Soon());
    ASSERT_TRUE(attester.ok()) << attester.status().ToString();
    Attester& any = *attester;
    EXPECT_EQ(any.type(), tdx ? EvidenceType::kTdx : EvidenceType::kSevSnp);
    const auto evidence = any.Attest(ReportData{5}, Soon());
    ASSERT_TRUE(evidence.ok()) << evidence.status().ToString();
    EXPECT_EQ(evidence->type, any.type());
    EXPECT_EQ(evidence->report, tdx ? TdxBlob(4, ReportData{5}) : SnpBlob(ReportData{5}));
    EXPECT_TRUE(std::filesystem::is_empty(emulator->root()));
  }
}

TEST(TsmAttester, AnUnknownProviderMakesNone) {
  const auto emulator = Serve("cca_guest\n", false);
  ASSERT_NE(emulator, nullptr);
  const auto attester = TsmAttester::Create(*TsmReporter::Create(emulator->root()), Soon());
  EXPECT_EQ(attester.status().code(), Code::kUnsupported);
  EXPECT_THAT(attester.status().message(), testing::HasSubstr("unknown provider \"cca_guest?\""));
  EXPECT_TRUE(std::filesystem::is_empty(emulator->root()));
}

// The type is bound before evidence is asked for, so it may not change in between.
TEST(TsmAttester, AProviderThatChangesIsRefused) {
  auto emulator = Serve("sev_guest\n", false);
  ASSERT_NE(emulator, nullptr);
  const std::string root = testing::TempDir() + "/tsm-attester-root";
  std::filesystem::remove(root);
  std::filesystem::create_directory_symlink(emulator->root(), root);
  auto attester = TsmAttester::Create(*TsmReporter::Create(root), Soon());
  ASSERT_TRUE(attester.ok()) << attester.status().ToString();
  emulator = Serve("tdx_guest\n", true);
  ASSERT_NE(emulator, nullptr);
  std::filesystem::remove(root);
  std::filesystem::create_directory_symlink(emulator->root(), root);
  const auto evidence = attester->Attest(ReportData{}, Soon());
  EXPECT_EQ(evidence.status().code(), Code::kCorrupt);
  EXPECT_THAT(evidence.status().message(), testing::HasSubstr("was sev-snp at start and is tdx"));
  std::filesystem::remove(root);
}

}  // namespace
}  // namespace talaria::attest
