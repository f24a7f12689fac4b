#include "talaria/attest/facts.h"

#include <gtest/gtest.h>

namespace talaria::attest {
namespace {

TEST(Facts, TimesAreReadable) {
  EXPECT_EQ(FormatUtc(0), "1970-01-01 00:00:00 UTC");
  EXPECT_EQ(FormatUtc(1772845473), "2026-03-07 01:04:33 UTC");
  EXPECT_EQ(FormatUtc(253402300799), "9999-12-31 23:59:59 UTC");
  EXPECT_EQ(FormatUtc(253402300800), "253402300800");
  EXPECT_EQ(FormatUtc(-1), "-1");
}

TEST(Facts, ATcbNamesItsComponents) {
  const TcbVersion tcb{.fmc = 1, .boot_loader = 2, .tee = 3, .snp = 4, .microcode = 5};
  EXPECT_EQ(DescribeTcb(SnpProduct::kGenoa, tcb), "boot loader 2, TEE 3, SNP 4, microcode 5");
  EXPECT_EQ(DescribeTcb(SnpProduct::kTurin, tcb),
            "FMC 1, boot loader 2, TEE 3, SNP 4, microcode 5");
}

TEST(Facts, OfAContext) {
  Context context{.version = kAttestationVersion,
                  .model_identity = {},
                  .profile = 3,
                  .check_vectors = 2,
                  .configuration = {},
                  .tenant_key = {},
                  .development = true};
  context.model_identity.fill(0xab);
  const Facts facts = ContextFacts(context);
  ASSERT_EQ(facts.size(), 6u);
  std::string hex;
  for (int i = 0; i < 32; ++i) hex += "ab";
  EXPECT_EQ(facts[0], (std::pair<std::string, std::string>("model identity", hex)));
  EXPECT_EQ(facts[5], (std::pair<std::string, std::string>("build", "development")));
}

}  // namespace
}  // namespace talaria::attest
