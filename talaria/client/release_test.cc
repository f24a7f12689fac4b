#include "talaria/client/release.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "talaria/attest/refusal.h"

namespace talaria::client {
namespace {

using attest::ReasonOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::array<uint8_t, 48> Value(uint8_t fill) {
  std::array<uint8_t, 48> out;
  out.fill(fill);
  return out;
}

Release Sample() {
  return {.name = "talaria-cvm",
          .version = "1.2.0-rc+1",
          .date = "2026-11-29",
          .sev_snp = ReleaseMeasurements{Value(1), Value(2)},
          .tdx = ReleaseTdx{.mrtd = {Value(3)},
                            .rtmr = {{{Value(4)}, {Value(5)}, {Value(6)}, {Value(0)}}}},
          .simulated = ReleaseMeasurements{Value(7)}};
}

const tenant::TenantKey& Builder() {
  static const tenant::TenantKey key = tenant::TenantKey::Generate().value();
  return key;
}
std::string Signed() { return SignRelease(Sample(), Builder()).value(); }

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

TEST(ReleaseTest, WhatTheBuilderSignedIsReadBack) {
  const auto release = VerifyRelease(Signed(), Builder().public_key());
  ASSERT_TRUE(release.ok()) << release.status().ToString();
  EXPECT_EQ(*release, Sample());
  const std::string text = EncodeRelease(Sample()).value();
  EXPECT_EQ(EncodeRelease(ParseRelease(text).value()).value(), text);
  EXPECT_EQ(text.substr(0, text.find('[')),
            "format = 1\nname = \"talaria-cvm\"\nversion = \"1.2.0-rc+1\"\ndate = "
            "\"2026-11-29\"\n\n");
}

TEST(ReleaseTest, AnotherKeyAndEveryChangedByteAreRefused) {
  const std::string good = Signed();
  const auto other = tenant::TenantKey::Generate().value();
  const auto foreign = VerifyRelease(good, other.public_key());
  EXPECT_EQ(ReasonOf(foreign.status()), "release-signature");
  EXPECT_THAT(foreign.status().message(), HasSubstr(ToHex(other.public_key())));
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] ^= 1;
    const Status status = VerifyRelease(bad, Builder().public_key()).status();
    EXPECT_TRUE(ReasonOf(status) == "release-signature" || ReasonOf(status) == "release-format")
        << at << ": " << status.ToString();
  }
  EXPECT_EQ(ReasonOf(VerifyRelease(good + "\n", Builder().public_key()).status()),
            "release-signature");
  EXPECT_EQ(
      ReasonOf(VerifyRelease(good.substr(0, good.size() - 1), Builder().public_key()).status()),
      "release-signature");
  // A signature of the same key over the same text for another use.
  const std::string text = EncodeRelease(Sample()).value();
  const auto elsewhere = Builder().Sign("talaria-token-v1", AsBytes(text)).value();
  EXPECT_EQ(ReasonOf(VerifyRelease("signature = \"" + ToHex(elsewhere) + "\"\n" + text,
                                   Builder().public_key())
                         .status()),
            "release-signature");
  EXPECT_EQ(ReasonOf(VerifyRelease(good, tenant::PublicKey{}).status()), "release-signature");
}

TEST(ReleaseTest, OneFormOnly) {
  const std::string good = EncodeRelease(Sample()).value();
  const auto refused = [](const std::string& text, const std::string& words) {
    const Status status = ParseRelease(text).status();
    EXPECT_EQ(ReasonOf(status), "release-format") << text.substr(0, 200);
    EXPECT_THAT(status.message(), HasSubstr(words));
  };
  refused("", "format = 1");
  refused(Replaced(good, "format = 1", "format = 2"), "line 2");
  refused(Replaced(good, "name", "nam"), "line 3");
  refused(Replaced(good, "version = ", "extra = \"x\"\nversion = "), "version");
  refused(Replaced(good, "\n[sev_snp]", "more = 1\n\n[sev_snp]"), "an empty line or the end");
  refused(good + "\n[more]\nx = 1\n", "an empty line or the end");
  refused(good + good, "an empty line or the end");
  refused(Replaced(good, " = [", "= ["), "measurements = [");
  refused(Replaced(good, "0202", "020G"), "96 lower-case");
  refused(Replaced(good, "[tdx]", "[TDX]"), "an empty line or the end");
  refused(Replaced(good, "rtmr2", "rtmr4"), "rtmr2");
  refused(Replaced(good, "\"]", "\", ]"), "\"");
  refused(Replaced(good, "2026-11-29", "2026-13-29"), "date");
  refused(Replaced(good, "2026-11-29", "yesterday"), "date");
  refused(Replaced(good, "talaria-cvm", "talaria cvm"), "name");
  refused(Replaced(good, "talaria-cvm", ""), "name");
  refused(Replaced(good, "talaria-cvm", std::string(65, 'a')), "name");
  refused(Replaced(good, ToHex(Value(2)), ToHex(Value(1))), "none twice");
  refused(good.substr(0, good.find("\n[sev_snp]")), "one platform at least");
  refused(Replaced(good, "\n", "\r\n"), "line 2");
  refused(std::string(kMaxReleaseBytes + 1, 'x'), "at most");
  Release many = Sample();
  many.sev_snp->clear();
  for (int i = 0; i <= 256; ++i) {
    many.sev_snp->push_back(Value(9));
    many.sev_snp->back()[0] = static_cast<uint8_t>(i);
    many.sev_snp->back()[1] = static_cast<uint8_t>(i >> 8);
  }
  EXPECT_EQ(EncodeRelease(many).status().code(), Code::kInvalidArgument);
}

TEST(ReleaseTest, WhatAFileCannotStateIsNotSigned) {
  const auto refused = [](auto change) {
    Release release = Sample();
    change(release);
    EXPECT_EQ(SignRelease(release, Builder()).status().code(), Code::kInvalidArgument);
  };
  refused([](Release& r) { r.name = "a\"b"; });
  refused([](Release& r) { r.version.clear(); });
  refused([](Release& r) { r.date = "2026-11-9"; });
  refused([](Release& r) { r.sev_snp->clear(); });
  refused([](Release& r) { r.tdx->rtmr[3].clear(); });
  refused([](Release& r) { r.simulated->push_back(r.simulated->front()); });
  refused([](Release& r) {
    r.sev_snp.reset();
    r.tdx.reset();
    r.simulated.reset();
  });
}

TEST(ReleaseTest, FilesAreBounded) {
  const std::string path =
      ::testing::TempDir() + "/talaria_release." + std::to_string(getpid()) + ".toml";
  std::ofstream(path) << Signed();
  EXPECT_EQ(LoadRelease(path, Builder().public_key()).value(), Sample());
  std::ofstream(path) << std::string(kMaxReleaseBytes + 1, 'x');
  EXPECT_EQ(LoadRelease(path, Builder().public_key()).status().code(), Code::kResourceExhausted);
  std::ofstream(path) << "hello";
  EXPECT_EQ(ReasonOf(LoadRelease(path, Builder().public_key()).status()), "release-format");
  std::filesystem::remove(path);
  EXPECT_EQ(LoadRelease(path, Builder().public_key()).status().code(), Code::kNotFound);
}

TEST(ReleaseTest, ItsMeasurementsTakeThePlaceOfADrafts) {
  KnownValues known{.type = attest::EvidenceType::kTdx,
                    .measurement = Value(0xee),
                    .model_identity = {1},
                    .configuration = {2},
                    .tenant_key = {3}};
  PolicyDraft tdx = DraftFromValues(known);
  ASSERT_TRUE(ApplyRelease(Sample(), Builder().public_key(), tdx).ok());
  EXPECT_EQ(tdx.policy.tdx->policy.mrtd.values(), Sample().tdx->mrtd);
  EXPECT_EQ(tdx.policy.tdx->policy.rtmr2.values(), Sample().tdx->rtmr[2]);
  EXPECT_THAT(tdx.remarks.unconfirmed, Not(::testing::Contains("tdx.rtmr0")));
  EXPECT_THAT(tdx.remarks.unconfirmed, ::testing::Contains("tdx.mrconfigid"));
  EXPECT_THAT(tdx.Text(), HasSubstr("of talaria-cvm 1.2.0-rc+1 of 2026-11-29, signed by"));
  EXPECT_THAT(tdx.Text(), Not(HasSubstr(ToHex(known.measurement))));
  known.type = attest::EvidenceType::kSevSnp;
  PolicyDraft snp = DraftFromValues(known);
  ASSERT_TRUE(ApplyRelease(Sample(), Builder().public_key(), snp).ok());
  EXPECT_EQ(*snp.policy.sev_snp->measurements, *Sample().sev_snp);
  known.type = attest::EvidenceType::kSimulated;
  PolicyDraft simulated = DraftFromValues(known);
  Release without = Sample();
  without.simulated.reset();
  const Status missing = ApplyRelease(without, Builder().public_key(), simulated);
  EXPECT_EQ(missing.code(), Code::kInvalidArgument);
  EXPECT_THAT(missing.message(), HasSubstr("no measurements of the simulated TEE"));
}

}  // namespace
}  // namespace talaria::client
