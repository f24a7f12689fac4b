#include "talaria/attest/tdx/collateral_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "talaria/attest/refusal.h"

namespace talaria::attest {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 16;     // Intel's objects are 6 deep
constexpr size_t kMaxLevels = 1024;  // of any list; Intel's have about 20
constexpr size_t kMaxAdvisories = 256;

struct StatusWord {
  TcbStatus status;
  std::string_view name;
};
constexpr StatusWord kStatusWords[] = {
    {TcbStatus::kUpToDate, "UpToDate"},
    {TcbStatus::kSwHardeningNeeded, "SWHardeningNeeded"},
    {TcbStatus::kConfigurationNeeded, "ConfigurationNeeded"},
    {TcbStatus::kConfigurationAndSwHardeningNeeded, "ConfigurationAndSWHardeningNeeded"},
    {TcbStatus::kOutOfDate, "OutOfDate"},
    {TcbStatus::kOutOfDateConfigurationNeeded, "OutOfDateConfigurationNeeded"},
    {TcbStatus::kRevoked, "Revoked"},
};

struct Words {
  std::string_view format;  // the reason words of one kind of object
  std::string_view kind;
};
constexpr Words kTcbInfoWords = {"tdx-tcb-info-format", "tdx-tcb-info-kind"};
constexpr Words kQeIdentityWords = {"tdx-qe-identity-format", "tdx-qe-identity-kind"};

bool HexInto(std::string_view text, MutableBytes out) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
  }
  return FromHex(lower, out);
}

// Days from 1970-01-01 to a date of the Gregorian calendar, by counting from 1 March of year 0, so
// that the leap day is a year's last.
int64_t DaysSinceEpoch(int64_t year, int64_t month, int64_t day) {
  if (month <= 2) --year;
  const int64_t month_from_march = (month + 9) % 12;
  const int64_t day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
  return 365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719468;
}

std::optional<UnixTime> ParseTime(std::string_view text) {
  constexpr std::string_view kForm = "dddd-dd-ddTdd:dd:ddZ";
  if (text.size() != kForm.size()) return std::nullopt;
  for (size_t i = 0; i < kForm.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    if (kForm[i] == 'd' ? !digit : text[i] != kForm[i]) return std::nullopt;
  }
  const auto number = [text](size_t at, size_t size) {
    int64_t value = 0;
    for (const char c : text.substr(at, size)) value = value * 10 + (c - '0');
    return value;
  };
  const int64_t year = number(0, 4), month = number(5, 2), day = number(8, 2);
  const int64_t hour = number(11, 2), minute = number(14, 2), second = number(17, 2);
  constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  if (year < 1970 || month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59) {
    return std::nullopt;
  }
  const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
  if (day < 1 || day > kDays[month - 1] + (month == 2 && leap ? 1 : 0)) return std::nullopt;
  return ((DaysSinceEpoch(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
}

// A place in the document. Reads of a missing or wrong field note the first failure and its path,
// and return zeros; the parser checks once, at its end.
class Node {
 public:
  Node(const json* value, std::string path, Words words, Status* status)
      : value_(value), path_(std::move(path)), words_(words), status_(status) {}

  Node Field(std::string_view key) const {
    const std::string path = path_.empty() ? std::string(key) : path_ + "." + std::string(key);
    if (value_ != nullptr && value_->is_object()) {
      const auto found = value_->find(std::string(key));
      if (found != value_->end()) return At(&*found, path);
    }
    Fail(path, "nothing");
    return At(nullptr, path);
  }
  bool Has(std::string_view key) const {
    return value_ != nullptr && value_->is_object() && value_->contains(std::string(key));
  }
  std::vector<Node> List(size_t min, size_t max) const {
    std::vector<Node> out;
    if (value_ == nullptr || !value_->is_array() || value_->size() < min || value_->size() > max) {
      Fail(path_, "no list of " + std::to_string(min) + " to " + std::to_string(max) + " elements");
      return out;
    }
    for (size_t i = 0; i < value_->size(); ++i) {
      out.push_back(At(&(*value_)[i], path_ + "[" + std::to_string(i) + "]"));
    }
    return out;
  }
  uint32_t Number(uint32_t max) const {
    if (value_ == nullptr || !value_->is_number_unsigned() || value_->get<uint64_t>() > max) {
      Fail(path_, "no integer of 0 to " + std::to_string(max));
      return 0;
    }
    return static_cast<uint32_t>(value_->get<uint64_t>());
  }
  uint16_t U16() const { return static_cast<uint16_t>(Number(0xffff)); }
  uint8_t U8() const { return static_cast<uint8_t>(Number(0xff)); }
  std::string Text() const {
    if (value_ == nullptr || !value_->is_string()) return Fail(path_, "no string"), std::string();
    return value_->get<std::string>();
  }
  template <size_t N>
  std::array<uint8_t, N> Hex() const {
    std::array<uint8_t, N> out{};
    if (!HexInto(Text(), out)) Fail(path_, "no hex of " + std::to_string(N) + " bytes");
    return out;
  }
  UnixTime Time() const {
    const std::optional<UnixTime> time = ParseTime(Text());
    if (!time) Fail(path_, "no time");
    return time.value_or(0);
  }
  TcbStatus Status() const {
    const std::string text = Text();
    for (const StatusWord& word : kStatusWords) {
      if (text == word.name) return word.status;
    }
    Note(Refuse("tdx-tcb-status-unknown", path_ + " " + Printable(text)));
    return TcbStatus::kRevoked;
  }
  // The object is of another kind than the caller asked for.
  void Kind(std::string_view key, std::string_view found, std::string_view wanted) const {
    if (found != wanted) {
      Note(Refuse(words_.kind, std::string(key) + " " + Printable(found), wanted));
    }
  }
  void Fail(std::string_view path, std::string_view what) const {
    Note(Refuse(words_.format, std::string(what) + " at " + Printable(path)));
  }
  void Fail(std::string_view what) const { Fail(path_, what); }

 private:
  Node At(const json* value, std::string path) const {
    return {value, std::move(path), words_, status_};
  }
  void Note(talaria::Status status) const {
    if (status_->ok()) *status_ = std::move(status);
  }
  const json* value_;
  std::string path_;
  Words words_;
  talaria::Status* status_;
};

// The document, with every object's keys checked to be different.
Result<json> ParseStrictly(std::string_view text, Words words) {
  if (text.size() > kMaxCollateralJsonBytes) {
    return Refuse(words.format, std::to_string(text.size()) + " bytes",
                  "at most " + std::to_string(kMaxCollateralJsonBytes));
  }
  if (!text.starts_with('{') || !text.ends_with('}')) {
    return Refuse(words.format, "what is not one object");
  }
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  std::string duplicate;
  bool found_duplicate = false, too_deep = false;
  const json::parser_callback_t check = [&](int depth, json::parse_event_t event, json& parsed) {
    if (static_cast<size_t>(depth) > kMaxDepth) too_deep = true;
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key &&
        !keys.back().insert(parsed.get<std::string>()).second) {
      if (!found_duplicate) duplicate = parsed.get<std::string>();
      found_duplicate = true;
    }
    return true;
  };
  json document = json::parse(text, check, /*allow_exceptions=*/false);
  if (document.is_discarded()) return Refuse(words.format, "what is not JSON");
  if (too_deep) return Refuse(words.format, "nesting too deep");
  if (found_duplicate) return Refuse("tdx-collateral-duplicate-key", Printable(duplicate));
  return document;
}

CollateralWindow ReadWindow(const Node& node) {
  CollateralWindow window;
  window.issue_date = node.Field("issueDate").Time();
  window.next_update = node.Field("nextUpdate").Time();
  window.tcb_evaluation_data_number = node.Field("tcbEvaluationDataNumber").Number(UINT32_MAX);
  return window;
}

std::vector<IsvLevel> ReadIsvLevels(const Node& list) {
  std::vector<IsvLevel> levels;
  for (const Node& node : list.List(1, kMaxLevels)) {
    IsvLevel level;
    level.isvsvn = node.Field("tcb").Field("isvsvn").U16();
    level.status = node.Field("tcbStatus").Status();
    // Enclaves and modules have no configuration: another word here is one we cannot converge.
    if (level.status != TcbStatus::kUpToDate && level.status != TcbStatus::kOutOfDate &&
        level.status != TcbStatus::kRevoked) {
      node.Fail("a status of platforms");
    }
    levels.push_back(level);
  }
  return levels;
}

std::array<uint8_t, 16> ReadComponents(const Node& list) {
  std::array<uint8_t, 16> svns{};
  const std::vector<Node> nodes = list.List(svns.size(), svns.size());
  for (size_t i = 0; i < nodes.size(); ++i) svns[i] = nodes[i].Field("svn").U8();
  return svns;
}

PlatformLevel ReadPlatformLevel(const Node& node) {
  PlatformLevel level;
  const Node tcb = node.Field("tcb");
  level.sgx_svns = ReadComponents(tcb.Field("sgxtcbcomponents"));
  level.tdx_svns = ReadComponents(tcb.Field("tdxtcbcomponents"));
  level.pcesvn = tcb.Field("pcesvn").U16();
  level.status = node.Field("tcbStatus").Status();
  if (node.Has("advisoryIDs")) {
    for (const Node& id : node.Field("advisoryIDs").List(0, kMaxAdvisories)) {
      level.advisories.push_back(Printable(id.Text()));
    }
  }
  return level;
}

TdxModule ReadModule(const Node& node) {
  TdxModule module;
  module.mrsigner = node.Field("mrsigner").Hex<48>();
  module.attributes = node.Field("attributes").Hex<8>();
  module.attributes_mask = node.Field("attributesMask").Hex<8>();
  return module;
}

TdxModuleIdentity ReadModuleIdentity(const Node& node) {
  TdxModuleIdentity identity;
  const std::string id = node.Field("id").Text();
  std::array<uint8_t, 1> major{};
  if (!id.starts_with("TDX_") || !HexInto(std::string_view(id).substr(4), major)) {
    node.Field("id").Fail("no TDX_xx");
  }
  identity.major = major[0];
  identity.module = ReadModule(node);
  identity.levels = ReadIsvLevels(node.Field("tcbLevels"));
  return identity;
}

}  // namespace

std::string_view TcbStatusName(TcbStatus status) {
  for (const StatusWord& word : kStatusWords) {
    if (word.status == status) return word.name;
  }
  return "unknown";
}

Result<TcbInfo> ParseTcbInfo(std::string_view text) {
  TALARIA_ASSIGN_OR_RETURN(const json document, ParseStrictly(text, kTcbInfoWords));
  Status status;
  const Node node(&document, "", kTcbInfoWords, &status);
  TcbInfo info;
  node.Kind("id", node.Field("id").Text(), "TDX");
  node.Kind("version", std::to_string(node.Field("version").Number(UINT32_MAX)), "3");
  node.Kind("tcbType", std::to_string(node.Field("tcbType").Number(UINT32_MAX)), "0");
  TALARIA_RETURN_IF_ERROR(status);
  info.window = ReadWindow(node);
  info.fmspc = node.Field("fmspc").Hex<6>();
  info.pceid = node.Field("pceId").Hex<2>();
  info.module = ReadModule(node.Field("tdxModule"));
  // Collateral from before TDX 1.5 has no identities.
  if (node.Has("tdxModuleIdentities")) {
    std::set<uint8_t> majors;
    for (const Node& one : node.Field("tdxModuleIdentities").List(0, 256)) {
      info.module_identities.push_back(ReadModuleIdentity(one));
      if (!majors.insert(info.module_identities.back().major).second) one.Fail("an id twice");
    }
  }
  for (const Node& one : node.Field("tcbLevels").List(1, kMaxLevels)) {
    info.levels.push_back(ReadPlatformLevel(one));
  }
  TALARIA_RETURN_IF_ERROR(status);
  return info;
}

Result<QeIdentity> ParseQeIdentity(std::string_view text) {
  TALARIA_ASSIGN_OR_RETURN(const json document, ParseStrictly(text, kQeIdentityWords));
  Status status;
  const Node node(&document, "", kQeIdentityWords, &status);
  QeIdentity identity;
  node.Kind("id", node.Field("id").Text(), "TD_QE");
  node.Kind("version", std::to_string(node.Field("version").Number(UINT32_MAX)), "2");
  TALARIA_RETURN_IF_ERROR(status);
  identity.window = ReadWindow(node);
  identity.miscselect = node.Field("miscselect").Hex<4>();
  identity.miscselect_mask = node.Field("miscselectMask").Hex<4>();
  identity.attributes = node.Field("attributes").Hex<16>();
  identity.attributes_mask = node.Field("attributesMask").Hex<16>();
  identity.mrsigner = node.Field("mrsigner").Hex<32>();
  identity.isvprodid = node.Field("isvprodid").U16();
  identity.levels = ReadIsvLevels(node.Field("tcbLevels"));
  TALARIA_RETURN_IF_ERROR(status);
  return identity;
}

Result<SignedJson> SliceSignedJson(std::string_view response, std::string_view name) {
  const std::string head = "{\"" + std::string(name) + "\":";
  constexpr std::string_view kMiddle = ",\"signature\":\"";
  constexpr size_t kSignatureDigits = 128;
  constexpr std::string_view kTail = "\"}";
  const size_t around = head.size() + kMiddle.size() + kSignatureDigits + kTail.size();
  if (response.size() <= around || response.size() > kMaxCollateralJsonBytes + around ||
      !response.starts_with(head) || !response.ends_with(kTail)) {
    return Refuse("tdx-collateral-response", std::to_string(response.size()) + " bytes",
                  "{\"" + std::string(name) + "\":...,\"signature\":\"...\"}");
  }
  response.remove_prefix(head.size());
  response.remove_suffix(kTail.size());
  const size_t object_bytes = response.size() - kSignatureDigits - kMiddle.size();
  if (response.substr(object_bytes, kMiddle.size()) != kMiddle) {
    return Refuse("tdx-collateral-response", "no signature of 128 digits at its end");
  }
  return SignedJson{std::string(response.substr(0, object_bytes)),
                    std::string(response.substr(object_bytes + kMiddle.size()))};
}

}  // namespace talaria::attest
