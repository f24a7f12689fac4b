// The form of the collateral. Where the other negative cases are: testing.h.
#include "talaria/attest/tdx/collateral_json.h"

#include <gtest/gtest.h>

#include "talaria/attest/tdx/testing.h"

namespace talaria::attest {
namespace {

std::string ReasonOfInfo(const std::string& text) {
  const Result<TcbInfo> parsed = ParseTcbInfo(text);
  return parsed.ok() ? "accepted" : std::string(ReasonOf(parsed.status()));
}
std::string ReasonOfIdentity(const std::string& text) {
  const Result<QeIdentity> parsed = ParseQeIdentity(text);
  return parsed.ok() ? "accepted" : std::string(ReasonOf(parsed.status()));
}

class TdxCollateralJsonTest : public testing::Test {
 protected:
  std::string InfoWith(std::string_view from, std::string_view to) const {
    return ReasonOfInfo(Replaced(info_, from, to));
  }
  std::string IdentityWith(std::string_view from, std::string_view to) const {
    return ReasonOfIdentity(Replaced(identity_, from, to));
  }
  const TdxPlan plan_ = DefaultTdxPlan();
  const std::string info_ = TcbInfoJson(plan_.tcb_info);
  const std::string identity_ = QeIdentityJson(plan_.qe_identity);
};

TEST_F(TdxCollateralJsonTest, ReadsWhatIsThere) {
  const Result<TcbInfo> info = ParseTcbInfo(info_);
  ASSERT_TRUE(info.ok()) << info.status().ToString();
  EXPECT_EQ(TcbInfoJson(*info), info_);
  const Result<QeIdentity> identity = ParseQeIdentity(identity_);
  ASSERT_TRUE(identity.ok()) << identity.status().ToString();
  EXPECT_EQ(QeIdentityJson(*identity), identity_);
  EXPECT_EQ(info->window.issue_date, kTdxPlanNow - 3600);
}

TEST_F(TdxCollateralJsonTest, EveryStatusOfAPlatformIsKnown) {
  for (const char* status :
       {"SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded",
        "OutOfDate", "OutOfDateConfigurationNeeded", "Revoked"}) {
    const size_t at = info_.rfind("\"OutOfDate\"");
    std::string text = info_;
    text.replace(at, 11, "\"" + std::string(status) + "\"");
    const Result<TcbInfo> info = ParseTcbInfo(text);
    ASSERT_TRUE(info.ok()) << info.status().ToString();
    EXPECT_EQ(TcbStatusName(info->levels.back().status), status);
  }
}

TEST_F(TdxCollateralJsonTest, Case44_UnknownStatus) {
  EXPECT_EQ(InfoWith("\"UpToDate\"", "\"Fine\""), "tdx-tcb-status-unknown");
  EXPECT_EQ(InfoWith("\"UpToDate\"", "\"uptodate\""), "tdx-tcb-status-unknown");
  EXPECT_EQ(InfoWith("\"UpToDate\"", "\"\""), "tdx-tcb-status-unknown");
  EXPECT_EQ(IdentityWith("\"UpToDate\"", "\"UpToDate \""), "tdx-tcb-status-unknown");
  // Known, but not of an enclave or a module.
  EXPECT_EQ(IdentityWith("\"UpToDate\"", "\"SWHardeningNeeded\""), "tdx-qe-identity-format");
  EXPECT_EQ(InfoWith("\"UpToDate\"", "\"ConfigurationNeeded\""), "tdx-tcb-info-format");
}

TEST_F(TdxCollateralJsonTest, Case45_SixteenComponents) {
  const std::string first = "\"sgxtcbcomponents\":[{\"svn\":3},";
  EXPECT_EQ(InfoWith(first, "\"sgxtcbcomponents\":["), "tdx-tcb-info-format");
  EXPECT_EQ(InfoWith(first, first + "{\"svn\":0},"), "tdx-tcb-info-format");
  const std::string tdx = "\"tdxtcbcomponents\":[{\"svn\":5},";
  EXPECT_EQ(InfoWith(tdx, "\"tdxtcbcomponents\":["), "tdx-tcb-info-format");
  EXPECT_EQ(InfoWith(tdx, tdx + "{\"svn\":0},"), "tdx-tcb-info-format");
  EXPECT_EQ(InfoWith("\"tdxtcbcomponents\"", "\"other\""), "tdx-tcb-info-format");
}

TEST_F(TdxCollateralJsonTest, Case45_ComponentValues) {
  for (const char* bad : {"{}", "{\"svn\":-1}", "{\"svn\":256}", "{\"svn\":\"5\"}", "{\"svn\":5.0}",
                          "{\"svn\":5e0}", "{\"svn\":null}", "{\"svn\":true}", "{\"svn\":[5]}",
                          "{\"svn\":18446744073709551621}", "5", "{\"SVN\":5}"}) {
    EXPECT_EQ(InfoWith("{\"svn\":5}", bad), "tdx-tcb-info-format") << bad;
  }
  // What Intel says about a component for people is passed over.
  EXPECT_EQ(InfoWith("{\"svn\":5}", "{\"svn\":5,\"category\":\"BIOS\"}"), "accepted");
}

TEST_F(TdxCollateralJsonTest, Case45_DuplicateKeys) {
  const std::string_view reason = "tdx-collateral-duplicate-key";
  EXPECT_EQ(InfoWith("{\"svn\":5}", "{\"svn\":5,\"svn\":5}"), reason);
  EXPECT_EQ(InfoWith("\"version\":3", "\"version\":3,\"version\":3"), reason);
  EXPECT_EQ(InfoWith("\"version\":3", "\"version\":3,\"vers\\u0069on\":3"), reason);
  EXPECT_EQ(InfoWith("\"version\":3", "\"version\":3,\"other\":{\"a\":1,\"a\":2}"), reason);
  EXPECT_EQ(InfoWith("\"version\":3", "\"version\":3,\"other\":{\"version\":2}"), "accepted");
  EXPECT_EQ(IdentityWith("\"isvprodid\":2", "\"isvprodid\":2,\"isvprodid\":3"), reason);
}

TEST_F(TdxCollateralJsonTest, Case45_Fields) {
  for (const char* key : {"id", "version", "issueDate", "nextUpdate", "fmspc", "pceId", "tcbType",
                          "tcbEvaluationDataNumber", "tdxModule", "mrsigner", "attributes",
                          "attributesMask", "tcbLevels", "tcb", "isvsvn", "tcbStatus", "pcesvn"}) {
    EXPECT_EQ(InfoWith("\"" + std::string(key) + "\":", "\"x\":"), "tdx-tcb-info-format") << key;
  }
  for (const char* key :
       {"id", "version", "issueDate", "nextUpdate", "tcbEvaluationDataNumber", "miscselect",
        "miscselectMask", "attributes", "attributesMask", "mrsigner", "isvprodid", "tcbLevels"}) {
    EXPECT_EQ(IdentityWith("\"" + std::string(key) + "\":", "\"x\":"), "tdx-qe-identity-format")
        << key;
  }
  EXPECT_EQ(InfoWith("\"fmspc\":\"b0", "\"fmspc\":\"B0"), "accepted");
  EXPECT_EQ(InfoWith("\"fmspc\":\"b0", "\"fmspc\":\"b"), "tdx-tcb-info-format");
  EXPECT_EQ(InfoWith("\"fmspc\":\"b0", "\"fmspc\":\"b000"), "tdx-tcb-info-format");
  EXPECT_EQ(InfoWith("\"fmspc\":\"b0", "\"fmspc\":\"g0"), "tdx-tcb-info-format");
  EXPECT_EQ(InfoWith("\"TDX_01\"", "\"TDX_1\""), "tdx-tcb-info-format");
  EXPECT_EQ(InfoWith("\"TDX_01\"", "\"TDX_03\""), "tdx-tcb-info-format");  // twice
  EXPECT_EQ(InfoWith("\"isvsvn\":6", "\"isvsvn\":65536"), "tdx-tcb-info-format");
  EXPECT_EQ(InfoWith("\"pcesvn\":300", "\"pcesvn\":65536"), "tdx-tcb-info-format");
  EXPECT_EQ(InfoWith("\"tcbEvaluationDataNumber\":17", "\"tcbEvaluationDataNumber\":4294967296"),
            "tdx-tcb-info-format");
}

TEST_F(TdxCollateralJsonTest, Case45_Text) {
  for (const std::string& text : std::vector<std::string>{
           "", std::string("{}"), std::string("[]"), std::string("null"), info_ + "{}", info_ + " ",
           " " + info_, "\xef\xbb\xbf" + info_, info_.substr(0, info_.size() - 1),
           info_ + std::string(1, '\0'), "{\"a\":\"\xff\"}", "{/**/" + info_.substr(1),
           "{\"a\":NaN," + info_.substr(1)}) {
    EXPECT_EQ(ReasonOfInfo(text), "tdx-tcb-info-format") << text.substr(0, 20);
    EXPECT_EQ(ReasonOfIdentity(text), "tdx-qe-identity-format") << text.substr(0, 20);
  }
  const size_t deep = 100000;
  EXPECT_EQ(ReasonOfInfo("{\"a\":" + std::string(deep, '[') + std::string(deep, ']') + "}"),
            "tdx-tcb-info-format");
  EXPECT_EQ(
      InfoWith("{\"id\"", "{\"pad\":\"" + std::string(kMaxCollateralJsonBytes, 'x') + "\",\"id\""),
      "tdx-tcb-info-format");
  for (size_t size = 0; size < info_.size(); size += 3) {
    ASSERT_EQ(ReasonOfInfo(info_.substr(0, size)), "tdx-tcb-info-format") << size;
  }
}

TEST_F(TdxCollateralJsonTest, Times) {
  const auto with_time = [this](std::string_view text) -> UnixTime {
    const std::string from = "\"issueDate\":\"";
    std::string json = identity_;
    json.replace(json.find(from) + from.size(), 20, text);
    const Result<QeIdentity> identity = ParseQeIdentity(json);
    if (!identity.ok()) {
      EXPECT_EQ(ReasonOf(identity.status()), "tdx-qe-identity-format") << text;
      return -1;
    }
    return identity->window.issue_date;
  };
  EXPECT_EQ(with_time("1970-01-01T00:00:00Z"), 0);
  EXPECT_EQ(with_time("2000-02-29T23:59:59Z"), 951868799);
  EXPECT_EQ(with_time("2025-06-19T10:16:03Z"), 1750328163);
  EXPECT_EQ(with_time("2100-03-01T00:00:00Z"), 4107542400);
  for (const char* bad : {"2025-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2025-13-01T00:00:00Z",
                          "2025-00-01T00:00:00Z", "2025-01-00T00:00:00Z", "2025-04-31T00:00:00Z",
                          "2025-01-01T24:00:00Z", "2025-01-01T00:60:00Z", "2025-01-01T00:00:60Z",
                          "2025-01-01 00:00:00Z", "2025-01-01T00:00:00z", "2025-01-01T00:00:00+",
                          "+025-01-01T00:00:00Z", "2025-1-001T00:00:00Z", "2025-01-01T00:00:00",
                          "1969-12-31T23:59:59Z", ""}) {
    EXPECT_EQ(with_time(bad), -1) << bad;
  }
}

TEST_F(TdxCollateralJsonTest, SlicesAResponse) {
  const std::string signature(128, 'a');
  const std::string response = "{\"tcbInfo\":" + info_ + ",\"signature\":\"" + signature + "\"}";
  const Result<SignedJson> sliced = SliceSignedJson(response, "tcbInfo");
  ASSERT_TRUE(sliced.ok()) << sliced.status().ToString();
  EXPECT_EQ(sliced->object, info_);
  EXPECT_EQ(sliced->signature_hex, signature);
  const auto reason = [](const std::string& text, std::string_view name) {
    const Result<SignedJson> bad = SliceSignedJson(text, name);
    return bad.ok() ? "accepted" : std::string(ReasonOf(bad.status()));
  };
  EXPECT_EQ(reason(response, "enclaveIdentity"), "tdx-collateral-response");
  EXPECT_EQ(reason(response + "\n", "tcbInfo"), "tdx-collateral-response");
  EXPECT_EQ(reason(" " + response, "tcbInfo"), "tdx-collateral-response");
  EXPECT_EQ(reason("{\"tcbInfo\":{},\"signature\":\"aa\"}", "tcbInfo"), "tdx-collateral-response");
  EXPECT_EQ(reason(Replaced(response, "\"signature\"", "\"signatura\""), "tcbInfo"),
            "tdx-collateral-response");
  for (size_t size = 0; size < response.size(); ++size) {
    ASSERT_EQ(reason(response.substr(0, size), "tcbInfo"), "tdx-collateral-response");
  }
}

}  // namespace
}  // namespace talaria::attest
