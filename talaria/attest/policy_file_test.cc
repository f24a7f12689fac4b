#include "talaria/attest/policy_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "talaria/attest/testing/policy_sample.h"

namespace talaria::attest {
namespace {

using namespace policy_sample;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  if (at != std::string::npos) text.replace(at, from.size(), to);
  return text;
}
// The line of `key` within `section` (its header line), replaced by `line`.
std::string WithLine(const std::string& section, const std::string& key, const std::string& line) {
  std::string text = Full();
  const size_t table = text.find(section + "\n");
  const size_t at = text.find("\n" + key + " = ", table);
  EXPECT_NE(table, std::string::npos) << section;
  EXPECT_NE(at, std::string::npos) << key;
  const size_t end = text.find('\n', at + 1);
  return text.replace(at, end - at, line.empty() ? "" : "\n" + line);
}

// "" when it parses.
std::string ErrorOf(const std::string& text) {
  const Result<Policy> policy = ParsePolicy(text, "p.toml");
  if (policy.ok()) return "";
  EXPECT_EQ(policy.status().code(), Code::kInvalidArgument);
  return policy.status().message();
}

template <size_t N>
std::array<uint8_t, N> Filled(uint8_t value) {
  std::array<uint8_t, N> out;
  out.fill(value);
  return out;
}

TEST(PolicyFile, EveryFieldArrivesWhereItBelongs) {
  const Result<Policy> parsed = ParsePolicy(Full(), "p.toml");
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  const Policy& policy = *parsed;
  EXPECT_EQ(*policy.max_age_s, 3600);
  EXPECT_TRUE(*policy.require_post_quantum);
  EXPECT_EQ(*policy.crls, CrlHandling::kRequired);
  EXPECT_EQ(policy.digest, Sha256Of(AsBytes(Full())));
  const ContextPolicy& context = *policy.context;
  EXPECT_EQ(context.model_identities.values(), std::vector{Filled<32>(1)});
  EXPECT_FALSE(context.model_identities.any());
  EXPECT_EQ(context.configurations.values(), std::vector{Filled<32>(2)});
  EXPECT_TRUE(context.tenant_keys.any());
  EXPECT_EQ(*context.profiles, (std::vector<uint16_t>{1, 2}));
  EXPECT_EQ(*context.min_check_vectors, 2);
  EXPECT_FALSE(*context.allow_development);

  ASSERT_TRUE(policy.sev_snp);
  const SnpPolicy& snp = *policy.sev_snp;
  EXPECT_EQ(*snp.measurements, (std::vector{Filled<48>(3), Filled<48>(4)}));
  EXPECT_EQ(*snp.host_data, std::vector{Filled<32>(5)});
  EXPECT_EQ(*snp.id_key_digests, std::vector{Filled<48>(6)});
  EXPECT_EQ(*snp.author_key_digests, std::vector{Filled<48>(7)});
  EXPECT_EQ(*snp.family_ids, std::vector{Filled<16>(8)});
  EXPECT_EQ(*snp.image_ids, std::vector{Filled<16>(9)});
  EXPECT_FALSE(snp.chips.any());
  EXPECT_EQ(snp.chips.listed(), std::vector{Filled<64>(10)});
  EXPECT_EQ(*snp.vmpl, 0u);
  EXPECT_EQ(*snp.min_guest_svn, 0xffffffffu);
  EXPECT_EQ(*snp.required_guest_policy, snp_guest_policy::kCiphertextHidingDram);
  EXPECT_TRUE(*snp.allow_smt);
  EXPECT_FALSE(*snp.allow_cxl);
  EXPECT_EQ(*snp.vlek_csp_ids, std::vector<std::string>{"CN=cloud.test"});
  EXPECT_FALSE(*snp.allow_provisional_firmware);
  ASSERT_EQ(snp.products->size(), 2u);
  const SnpProductPolicy& genoa = (*snp.products)[0];
  EXPECT_EQ(genoa.product, SnpProduct::kGenoa);
  EXPECT_EQ(*genoa.min_tcb, (TcbVersion{0, 10, 1, 23, 255}));
  EXPECT_EQ(*genoa.required_platform_info, 0x20u);
  EXPECT_EQ(*genoa.required_launch_mitigations, 3u);
  EXPECT_EQ(*genoa.required_current_mitigations, ~uint64_t{0});
  const SnpProductPolicy& turin = (*snp.products)[1];
  EXPECT_EQ(turin.product, SnpProduct::kTurin);
  EXPECT_EQ(*turin.min_tcb, (TcbVersion{2, 3, 4, 5, 6}));
  EXPECT_EQ(*turin.required_platform_info, 0x30u);
  EXPECT_EQ(*turin.required_launch_mitigations, 0u);
  EXPECT_EQ(*turin.required_current_mitigations, 1u);

  ASSERT_TRUE(policy.tdx);
  const TdxPolicy& tdx = policy.tdx->policy;
  EXPECT_EQ(tdx.mrtd.values(), std::vector{Filled<48>(0x10)});
  EXPECT_EQ(tdx.rtmr0.values(), std::vector{Filled<48>(0x11)});
  EXPECT_EQ(tdx.rtmr1.values(), std::vector{Filled<48>(0x12)});
  EXPECT_EQ(tdx.rtmr2.values(), std::vector{Filled<48>(0x13)});
  EXPECT_EQ(tdx.rtmr3.values(), std::vector{Filled<48>(0x14)});
  EXPECT_TRUE(tdx.mrconfigid.any());
  EXPECT_EQ(tdx.mrowner.values(), std::vector{Filled<48>(0x16)});
  EXPECT_EQ(tdx.mrownerconfig.values(), std::vector{Filled<48>(0x17)});
  EXPECT_EQ(tdx.mrservicetd.values(), std::vector{Filled<48>(0)});
  EXPECT_EQ(*tdx.allowed_xfam, 0x602e7u);
  EXPECT_FALSE(*tdx.accept_septve_enabled);
  EXPECT_TRUE(*tdx.accept_key_locker);
  EXPECT_FALSE(*tdx.accept_perfmon);
  EXPECT_TRUE(*tdx.accept_sw_hardening_needed);
  EXPECT_EQ(*tdx.min_tee_tcb_svn, Filled<16>(0x18));
  EXPECT_EQ(*tdx.min_tee_tcb_svn2, Filled<16>(0x19));
  EXPECT_EQ(tdx.fmspc.values(), std::vector{Filled<6>(0x1a)});
  EXPECT_TRUE(tdx.ppid.any());
  EXPECT_EQ(*policy.tdx->min_tcb_evaluation_data_number, 17u);
  ASSERT_TRUE(policy.simulated);
  EXPECT_EQ(*policy.simulated->measurements, std::vector{Filled<48>(0x1b)});
}

std::string WithLineNumber(int number, const std::string& replacement) {
  std::string out;
  std::istringstream in(Full());
  int at = 0;
  for (std::string line; std::getline(in, line);) {
    out += (++at == number ? replacement : line) + "\n";
  }
  return out;
}

TEST(PolicyFile, NoKeyMayBeMissing) {
  ASSERT_EQ(LinesOfFull().size(), 53u);
  for (const Line& line : LinesOfFull()) {
    const std::string error = ErrorOf(WithLineNumber(line.number, ""));
    EXPECT_THAT(error, EndsWith(": " + line.table + "." + line.key + " is missing"));
    EXPECT_THAT(error, StartsWith("p.toml:"));
  }
}

TEST(PolicyFile, NoKeyTakesAValueOfAnotherType) {
  for (const Line& line : LinesOfFull()) {
    for (const std::string value : {"1.5", "[[1]]"}) {
      const std::string error = ErrorOf(WithLineNumber(line.number, line.key + " = " + value));
      EXPECT_THAT(error, StartsWith("p.toml:" + std::to_string(line.number) + ": " + line.table +
                                    "." + line.key + " "))
          << value;
    }
  }
}

TEST(PolicyFile, UnknownKeysAreErrorsInEveryTable) {
  for (const Line& line : LinesOfFull()) {
    const std::string error = ErrorOf(WithLineNumber(line.number, line.text + "\nextra = 1"));
    EXPECT_EQ(error, "p.toml:" + std::to_string(line.number + 1) + ": " + line.table +
                         ".extra is not known");
  }
  EXPECT_EQ(ErrorOf("extra = 1\n" + Full()), "p.toml:1: extra is not known");
  EXPECT_EQ(ErrorOf(Replaced(Full(), "microcode = 255 }", "microcode = 255, fmc = 1 }")),
            "p.toml:29: sev_snp.product[0].min_tcb.fmc is not known");
}

TEST(PolicyFile, ATcbHasAllItsComponents) {
  EXPECT_EQ(ErrorOf(Replaced(Full(), "{ fmc = 2, ", "{ ")),
            "p.toml:35: sev_snp.product[1].min_tcb.fmc is missing");
  EXPECT_EQ(ErrorOf(Replaced(Full(), ", tee = 1", "")),
            "p.toml:29: sev_snp.product[0].min_tcb.tee is missing");
  EXPECT_EQ(ErrorOf(Replaced(Full(), "tee = 1,", "tee = 256,")),
            "p.toml:29: sev_snp.product[0].min_tcb.tee must be between 0 and 255");
}

TEST(PolicyFile, AnyIsRefusedWhereAMeasurementStands) {
  const std::pair<const char*, const char*> never[] = {{"[context]", "model_identities"},
                                                       {"[sev_snp]", "measurements"},
                                                       {"[sev_snp]", "host_data"},
                                                       {"[sev_snp]", "id_key_digests"},
                                                       {"[tdx]", "mrtd"},
                                                       {"[tdx]", "rtmr0"},
                                                       {"[tdx]", "rtmr1"},
                                                       {"[tdx]", "rtmr2"},
                                                       {"[tdx]", "rtmr3"},
                                                       {"[tdx]", "mrservicetd"},
                                                       {"[simulated]", "measurements"}};
  for (const auto& [section, key] : never) {
    EXPECT_THAT(ErrorOf(WithLine(section, key, std::string(key) + " = \"any\"")),
                EndsWith(std::string(key) + " must be a list"))
        << section;
    EXPECT_THAT(ErrorOf(WithLine(section, key, std::string(key) + " = [\"any\"]")),
                HasSubstr("lower-case hexadecimal digits"))
        << section;
  }
}

TEST(PolicyFile, AnyIsAWordOfItsOwnWhereItIsAllowed) {
  const std::pair<const char*, const char*> allowed[] = {{"[context]", "configurations"},
                                                         {"[context]", "tenant_keys"},
                                                         {"[sev_snp]", "chips"},
                                                         {"[tdx]", "mrconfigid"},
                                                         {"[tdx]", "mrowner"},
                                                         {"[tdx]", "mrownerconfig"},
                                                         {"[tdx]", "fmspc"},
                                                         {"[tdx]", "ppid"}};
  for (const auto& [section, key] : allowed) {
    const std::string assign = std::string(key) + " = ";
    EXPECT_EQ(ErrorOf(WithLine(section, key, assign + "\"any\"")), "") << key;
    EXPECT_EQ(ErrorOf(WithLine(section, key, assign + "[]")), "") << key;
    for (const char* other : {"\"Any\"", "\"\"", "\"*\"", "true"}) {
      EXPECT_THAT(ErrorOf(WithLine(section, key, assign + other)),
                  EndsWith("must be a list of strings, or \"any\""))
          << key;
    }
    EXPECT_THAT(ErrorOf(WithLine(section, key, assign + "[\"any\"]")),
                HasSubstr("lower-case hexadecimal digits"))
        << key;
  }
}

TEST(PolicyFile, HexIsLowerCaseAndOfItsLength) {
  for (const std::string& value : {Hex("0A", 48), Hex("0a", 47), Hex("0a", 49), Hex("0a", 47) + "0",
                                   Hex("0x", 48), std::string()}) {
    EXPECT_THAT(
        ErrorOf(WithLine("[sev_snp]", "measurements", "measurements = [\"" + value + "\"]")),
        EndsWith("sev_snp.measurements must hold 96 lower-case hexadecimal digits"));
  }
}

TEST(PolicyFile, BitsAreLowerCaseHexWithAPrefix) {
  for (const char* value :
       {"20", "0X20", "0x", "0xG", "0xA0", "0x00000000000000001", "-0x1", " 0x1"}) {
    EXPECT_THAT(ErrorOf(WithLine("[[sev_snp.product]]", "required_platform_info",
                                 "required_platform_info = \"" + std::string(value) + "\"")),
                HasSubstr("must be a string such as"))
        << value;
  }
  // DEBUG, and what is not defined.
  for (const char* value : {"0x80000", "0x40000", "0x4000000"}) {
    EXPECT_THAT(ErrorOf(WithLine("[sev_snp]", "required_guest_policy",
                                 "required_guest_policy = \"" + std::string(value) + "\"")),
                EndsWith("required_guest_policy has bits that are not known"))
        << value;
  }
  EXPECT_THAT(ErrorOf(WithLine("[tdx]", "allowed_xfam", "allowed_xfam = \"0x100003\"")),
              EndsWith("tdx.allowed_xfam has bits that are not known"));
  EXPECT_THAT(ErrorOf(WithLine("[tdx]", "allowed_xfam", "allowed_xfam = \"0x2e4\"")),
              EndsWith("tdx.allowed_xfam must have the bits 0x3, which every TD has"));
}

TEST(PolicyFile, IntegersAreBounded) {
  struct Case {
    const char *section, *key, *value, *range;
  };
  const Case cases[] = {{"[policy]", "max_age_s", "0", "1 and 86400"},
                        {"[policy]", "max_age_s", "86401", "1 and 86400"},
                        {"[policy]", "max_age_s", "-5", "1 and 86400"},
                        {"[context]", "min_check_vectors", "0", "1 and 255"},
                        {"[context]", "min_check_vectors", "256", "1 and 255"},
                        {"[context]", "profiles", "[65536]", "0 and 65535"},
                        {"[context]", "profiles", "[-1]", "0 and 65535"},
                        {"[sev_snp]", "vmpl", "4", "0 and 3"},
                        {"[sev_snp]", "min_guest_svn", "4294967296", "0 and 4294967295"},
                        {"[tdx]", "min_tcb_evaluation_data_number", "-1", "0 and 4294967295"}};
  for (const Case& c : cases) {
    EXPECT_THAT(ErrorOf(WithLine(c.section, c.key, std::string(c.key) + " = " + c.value)),
                EndsWith(std::string(c.key) + " must be between " + c.range))
        << c.value;
  }
}

TEST(PolicyFile, WordsAreThoseThatAreKnown) {
  EXPECT_EQ(ErrorOf(WithLine("[policy]", "crls", "crls = \"accept-missing\"")), "");
  for (const char* word : {"optional", "Required", ""}) {
    EXPECT_EQ(ErrorOf(WithLine("[policy]", "crls", "crls = \"" + std::string(word) + "\"")),
              "p.toml:4: policy.crls must be \"required\" or \"accept-missing\"");
    EXPECT_EQ(ErrorOf(Replaced(Full(), "\"Genoa\"", "\"" + std::string(word) + "\"")),
              "p.toml:28: sev_snp.product[0].name must be \"Milan\", \"Genoa\" or \"Turin\"");
  }
}

TEST(PolicyFile, CloudsOfVleksAreNamedOrNone) {
  EXPECT_EQ(ErrorOf(WithLine("[sev_snp]", "vlek_csp_ids", "vlek_csp_ids = []")), "");
  for (const char* value : {"true", "\"any\"", "\"CN=cloud.test\""}) {
    EXPECT_THAT(
        ErrorOf(WithLine("[sev_snp]", "vlek_csp_ids", "vlek_csp_ids = " + std::string(value))),
        EndsWith("sev_snp.vlek_csp_ids must be a list"))
        << value;
  }
  for (const std::string& value :
       {std::string("1"), std::string("\"\""), std::string("'a\"b'"), std::string("'a\\b'"),
        std::string("\"a\\u0007\""), "\"" + std::string(129, 'a') + "\""}) {
    EXPECT_THAT(ErrorOf(WithLine("[sev_snp]", "vlek_csp_ids", "vlek_csp_ids = [" + value + "]")),
                EndsWith("vlek_csp_ids must hold strings of 1 to 128 printable characters"))
        << value;
  }
  EXPECT_THAT(ErrorOf(WithLine("[sev_snp]", "vlek_csp_ids", "vlek_csp_ids = [\"a\", \"a\"]")),
              EndsWith("vlek_csp_ids holds a value twice"));
}

TEST(PolicyFile, NothingIsListedTwice) {
  EXPECT_THAT(ErrorOf(WithLine("[context]", "profiles", "profiles = [1, 2, 1]")),
              EndsWith("context.profiles holds a value twice"));
  EXPECT_THAT(ErrorOf(Replaced(Full(), Hex("04", 48), Hex("03", 48))),
              EndsWith("sev_snp.measurements holds a value twice"));
  EXPECT_THAT(ErrorOf(Replaced(Replaced(Full(), "\"Turin\"", "\"Genoa\""), "fmc = 2, ", "")),
              EndsWith("sev_snp.product has a name twice"));
}

TEST(PolicyFile, ListsHaveABound) {
  std::string list;
  for (int i = 0; i < 4097; ++i) list += std::to_string(i) + ",";
  EXPECT_THAT(ErrorOf(WithLine("[context]", "profiles", "profiles = [" + list + "]")),
              EndsWith("context.profiles is too long"));
  EXPECT_THAT(ErrorOf(Full() + "#" + std::string(kMaxPolicyBytes, 'x')), HasSubstr("too long"));
}

TEST(PolicyFile, SectionsOfTeesMayBeMissingButNotAll) {
  std::string text = Full();
  const std::string no_simulated = text.substr(0, text.find("[simulated]"));
  const std::string no_tdx = no_simulated.substr(0, text.find("[tdx]"));
  const std::string none = no_tdx.substr(0, text.find("[sev_snp]"));
  for (const std::string& some : {no_simulated, no_tdx}) {
    const auto policy = ParsePolicy(some, "p.toml");
    ASSERT_TRUE(policy.ok()) << policy.status().ToString();
    EXPECT_FALSE(policy->simulated);
    EXPECT_TRUE(policy->sev_snp);
  }
  EXPECT_FALSE(ParsePolicy(no_tdx, "p.toml")->tdx);
  EXPECT_THAT(ErrorOf(none), HasSubstr("one of [sev_snp], [tdx] and [simulated] is missing"));
  EXPECT_THAT(ErrorOf(Replaced(Full(), "[context]", "[context2]")),
              EndsWith("[context] is missing"));
  EXPECT_THAT(ErrorOf(text.substr(text.find("[context]"))), EndsWith("[policy] is missing"));
  EXPECT_THAT(ErrorOf(""), EndsWith("[policy] is missing"));
  EXPECT_THAT(ErrorOf("tdx = 1\n" + no_tdx), EndsWith("tdx must be a table"));
}

TEST(PolicyFile, WhatIsNotTomlIsAnErrorWithItsLine) {
  EXPECT_THAT(ErrorOf("[policy]\nmax_age_s = \n"), StartsWith("p.toml:2: "));
  EXPECT_THAT(ErrorOf(Full() + "[policy]\nx = 1\n"), HasSubstr("redefine"));
  EXPECT_NE(ErrorOf(std::string("[policy]\n\0\n", 11)), "");
  EXPECT_NE(ErrorOf("x = " + std::string(100000, '[')), "");
}

TEST(PolicyFile, UnconfirmedFieldsAreRefusedByName) {
  EXPECT_EQ(ErrorOf("unconfirmed = []\n" + Full()), "");
  const std::string error =
      ErrorOf("unconfirmed = [\"sev_snp.measurements\", \"tdx.mrtd\"]\n" + Full());
  EXPECT_THAT(error, StartsWith("p.toml:1: unconfirmed names sev_snp.measurements, tdx.mrtd: "));
  EXPECT_THAT(ErrorOf("unconfirmed = true\n" + Full()), EndsWith("must be a list of fields"));
  EXPECT_THAT(ErrorOf("unconfirmed = [1]\n" + Full()), EndsWith("must hold strings"));
  // Another error comes first: a person who confirms has a good file.
  EXPECT_THAT(ErrorOf("unconfirmed = [\"x\"]\n" + WithLine("[policy]", "crls", "")),
              EndsWith("policy.crls is missing"));
}

TEST(PolicyFile, IsLoadedFromAPath) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) /
                                       ("policy_file_test." + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const std::string path = folder / "policy.toml";
  std::ofstream(path) << Full();
  const auto policy = LoadPolicy(path);
  ASSERT_TRUE(policy.ok()) << policy.status().ToString();
  EXPECT_EQ(policy->digest, Sha256Of(AsBytes(Full())));
  std::ofstream(path) << "x = 1";
  EXPECT_THAT(LoadPolicy(path).status().message(), StartsWith(path + ": "));
  std::filesystem::remove_all(folder);
  EXPECT_EQ(LoadPolicy(path).status().code(), Code::kNotFound);
}

}  // namespace
}  // namespace talaria::attest
