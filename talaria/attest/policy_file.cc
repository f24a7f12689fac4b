#include "talaria/attest/policy_file.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>

#define TOML_EXCEPTIONS 0  // errors come back as values; nothing is thrown across this file
#include <toml++/toml.h>

#include "talaria/attest/refusal.h"
#include "talaria/base/file.h"

namespace talaria::attest {
namespace {

// The first error of a file. Reading goes on after it, with zeros that nobody sees.
class Errors {
 public:
  explicit Errors(const std::string& name) : name_(name) {}
  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }
  void Fail(uint32_t line, const std::string& what, std::string_view why) {
    if (!status_.ok()) return;
    std::string where = name_;
    if (line > 0) where += ":" + std::to_string(line);
    status_ = Status(Code::kInvalidArgument, where + ": " + what + " " + std::string(why));
  }
  void Fail(const toml::node& node, const std::string& what, std::string_view why) {
    Fail(node.source().begin.line, what, why);
  }

 private:
  const std::string& name_;
  Status status_;
};

// One table, all of whose keys are mandatory: each is read once, and Finish() refuses the rest.
class TableReader {
 public:
  TableReader(Errors& errors, const toml::table& table, std::string name)
      : errors_(errors), table_(table), name_(std::move(name)) {}

  bool Bool(std::string_view key) {
    const toml::node* node = Get(key);
    if (node == nullptr) return false;
    const auto* value = node->as_boolean();
    if (value == nullptr) return Fail(*node, key, "must be true or false"), false;
    return value->get();
  }

  template <class T>
  T Integer(std::string_view key, int64_t min, int64_t max) {
    const toml::node* node = Get(key);
    return node == nullptr ? T{} : AsInteger<T>(*node, key, min, max);
  }

  template <class T>
  std::vector<T> Integers(std::string_view key, int64_t min, int64_t max) {
    return List<T>(key, [&](const toml::node& node) { return AsInteger<T>(node, key, min, max); });
  }

  // Strings of 1 to 128 printable characters, without '"' and '\\'.
  std::vector<std::string> Words(std::string_view key) {
    return List<std::string>(key, [&](const toml::node& node) {
      const auto* text = node.as_string();
      const bool good = text != nullptr && !text->get().empty() && text->get().size() <= 128 &&
                        std::ranges::all_of(text->get(), [](char c) {
                          return c >= 0x20 && c <= 0x7e && c != '"' && c != '\\';
                        });
      if (!good) Fail(node, key, "must hold strings of 1 to 128 printable characters");
      return good ? text->get() : std::string();
    });
  }

  std::string String(std::string_view key) {
    const toml::node* node = Get(key);
    if (node == nullptr) return {};
    const auto* value = node->as_string();
    if (value == nullptr) return Fail(*node, key, "must be a string"), std::string();
    return value->get();
  }

  // "0x" and 1 to 16 lower-case digits; a TOML integer has a bit too few. Nothing outside `known`.
  uint64_t Bits(std::string_view key, uint64_t known) {
    const toml::node* node = Get(key);
    if (node == nullptr) return 0;
    const auto* text = node->as_string();
    const std::optional<uint64_t> bits = text != nullptr ? ParseBits(text->get()) : std::nullopt;
    if (!bits) {
      return Fail(*node, key, "must be a string such as \"0x20\", lower-case, up to 16 digits"), 0;
    }
    if ((*bits & ~known) != 0) return Fail(*node, key, "has bits that are not known"), 0;
    return *bits;
  }

  template <size_t N>
  std::array<uint8_t, N> Hex(std::string_view key) {
    const toml::node* node = Get(key);
    return node == nullptr ? std::array<uint8_t, N>{} : AsHex<N>(*node, key);
  }

  template <size_t N>
  std::vector<std::array<uint8_t, N>> HexList(std::string_view key) {
    return List<std::array<uint8_t, N>>(
        key, [&](const toml::node& node) { return AsHex<N>(node, key); });
  }

  // nullopt: "any".
  template <size_t N>
  std::optional<std::vector<std::array<uint8_t, N>>> HexListOrAny(std::string_view key) {
    const toml::node* node = table_.get(key);
    if (node != nullptr && node->as_string() != nullptr && node->as_string()->get() == "any") {
      Get(key);
      return std::nullopt;
    }
    return List<std::array<uint8_t, N>>(
        key, [&](const toml::node& element) { return AsHex<N>(element, key); },
        "must be a list of strings, or \"any\"");
  }
  template <size_t N>
  Accepted<std::array<uint8_t, N>> HexAccepted(std::string_view key) {
    auto values = HexListOrAny<N>(key);
    if (!values) return Accepted<std::array<uint8_t, N>>::Any();
    return *std::move(values);
  }

  const toml::table* Table(std::string_view key) {
    const toml::node* node = Get(key);
    if (node == nullptr) return nullptr;
    if (node->as_table() == nullptr) Fail(*node, key, "must be a table");
    return node->as_table();
  }

  // [[name.key]]: read(TableReader&) for each.
  template <class T, class F>
  std::vector<T> Tables(std::string_view key, F read) {
    size_t index = 0;
    return List<T>(
        key,
        [&](const toml::node& node) -> std::optional<T> {
          const std::string name = Name(key) + "[" + std::to_string(index++) + "]";
          const toml::table* table = node.as_table();
          if (table == nullptr) return errors_.Fail(node, name, "must be a table"), std::nullopt;
          TableReader reader(errors_, *table, name);
          return reader.Read(read);
        },
        "must be a list of tables");
  }

  // All of this table at once: read(*this), then nothing may be left.
  template <class F>
  auto Read(F read) {
    auto out = read(*this);
    for (const auto& [key, node] : table_) {
      if (std::ranges::find(known_, key.str()) == known_.end())
        Fail(node, key.str(), "is not known");
    }
    return out;
  }

  // An error at a value of the right type that is not acceptable all the same.
  void Reject(std::string_view key, std::string_view why) {
    const toml::node* node = table_.get(key);
    errors_.Fail(node != nullptr ? node->source().begin.line : 0, Name(key), why);
  }
  bool ok() const { return errors_.ok(); }
  const std::string& name() const { return name_; }
  Errors& errors() { return errors_; }

 private:
  const toml::node* Get(std::string_view key) {
    known_.push_back(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) errors_.Fail(table_.source().begin.line, Name(key), "is missing");
    return errors_.ok() ? node : nullptr;
  }
  std::string Name(std::string_view key) const {
    return (name_.empty() ? "" : name_ + ".") + Printable(key);
  }
  void Fail(const toml::node& node, std::string_view key, std::string_view why) {
    errors_.Fail(node, Name(key), why);
  }

  template <class T>
  T AsInteger(const toml::node& node, std::string_view key, int64_t min, int64_t max) {
    const auto* value = node.as_integer();
    if (value == nullptr) return Fail(node, key, "must be an integer"), T{};
    if (value->get() < min || value->get() > max) {
      Fail(node, key, "must be between " + std::to_string(min) + " and " + std::to_string(max));
      return T{};
    }
    return static_cast<T>(value->get());
  }

  template <size_t N>
  std::array<uint8_t, N> AsHex(const toml::node& node, std::string_view key) {
    std::array<uint8_t, N> out{};
    const auto* text = node.as_string();
    if (text == nullptr || !FromHex(text->get(), out)) {
      Fail(node, key, "must hold " + std::to_string(2 * N) + " lower-case hexadecimal digits");
    }
    return out;
  }

  // read(node) gives a T, or nullopt after an error.
  template <class T, class F>
  std::vector<T> List(std::string_view key, F read, std::string_view wanted = "must be a list") {
    const toml::node* node = Get(key);
    if (node == nullptr) return {};
    const toml::array* array = node->as_array();
    if (array == nullptr) return Fail(*node, key, wanted), std::vector<T>();
    if (array->size() > kMaxPolicyList) return Fail(*node, key, "is too long"), std::vector<T>();
    std::vector<T> out;
    for (const toml::node& element : *array) {
      std::optional<T> value = read(element);
      if (!errors_.ok()) return {};
      if constexpr (std::equality_comparable<T>) {
        if (std::ranges::find(out, *value) != out.end()) {
          return Fail(element, key, "holds a value twice"), std::vector<T>();
        }
      }
      out.push_back(*std::move(value));
    }
    return out;
  }

  static std::optional<uint64_t> ParseBits(std::string_view text) {
    if (!text.starts_with("0x")) return std::nullopt;
    text.remove_prefix(2);
    uint64_t bits = 0;
    const bool digits = text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
    if (text.empty() || text.size() > 16 || !digits) return std::nullopt;
    std::from_chars(text.data(), text.data() + text.size(), bits, 16);
    return bits;
  }

  Errors& errors_;
  const toml::table& table_;
  const std::string name_;
  std::vector<std::string_view> known_;
};

ContextPolicy ReadContext(TableReader& table) {
  return {
      .model_identities = table.HexList<32>("model_identities"),
      .configurations = table.HexAccepted<32>("configurations"),
      .tenant_keys = table.HexAccepted<32>("tenant_keys"),
      .profiles = table.Integers<uint16_t>("profiles", 0, 0xffff),
      .min_check_vectors = table.Integer<uint8_t>("min_check_vectors", 1, 255),
      .allow_development = table.Bool("allow_development"),
  };
}

TcbVersion ReadTcb(TableReader& table, SnpProduct product) {
  const auto component = [&](std::string_view key) { return table.Integer<uint8_t>(key, 0, 255); };
  TcbVersion tcb;
  // The others' firmware has no such component: to state it would be a mistake.
  if (product == SnpProduct::kTurin) tcb.fmc = component("fmc");
  tcb.boot_loader = component("boot_loader");
  tcb.tee = component("tee");
  tcb.snp = component("snp");
  tcb.microcode = component("microcode");
  return tcb;
}

SnpProduct ReadProduct(TableReader& table) {
  const std::string name = table.String("name");
  for (const SnpProduct product : {SnpProduct::kMilan, SnpProduct::kGenoa, SnpProduct::kTurin}) {
    if (name == SnpProductName(product)) return product;
  }
  table.Reject("name", "must be \"Milan\", \"Genoa\" or \"Turin\"");
  return SnpProduct::kMilan;
}

SnpProductPolicy ReadSnpProduct(TableReader& table) {
  constexpr uint64_t kAll = ~uint64_t{0};
  const SnpProduct product = ReadProduct(table);
  TcbVersion min_tcb;
  if (const toml::table* tcb = table.Table("min_tcb")) {
    TableReader reader(table.errors(), *tcb, table.name() + ".min_tcb");
    min_tcb = reader.Read([product](TableReader& all) { return ReadTcb(all, product); });
  }
  return {.product = product,
          .min_tcb = min_tcb,
          .required_platform_info = table.Bits("required_platform_info", kAll),
          .required_launch_mitigations = table.Bits("required_launch_mitigations", kAll),
          .required_current_mitigations = table.Bits("required_current_mitigations", kAll)};
}

SnpChips ReadChips(TableReader& table) {
  auto chips = table.HexListOrAny<64>("chips");
  return chips ? SnpChips::Listed(*std::move(chips)) : SnpChips::Any();
}

SnpPolicy ReadSnp(TableReader& table) {
  auto products = table.Tables<SnpProductPolicy>("product", ReadSnpProduct);
  for (const SnpProductPolicy& one : products) {
    const auto same = std::ranges::count(products, one.product, &SnpProductPolicy::product);
    if (same > 1) table.Reject("product", "has a name twice");
  }
  // What bit 17 and DEBUG must be is not for a policy to say.
  constexpr uint64_t kGuestPolicy =
      ~snp_guest_policy::kReserved & ~snp_guest_policy::kDebug & ~snp_guest_policy::kMigrateMa;
  constexpr int64_t kMaxU32 = std::numeric_limits<uint32_t>::max();
  return {.products = std::move(products),
          .measurements = table.HexList<48>("measurements"),
          .host_data = table.HexList<32>("host_data"),
          .id_key_digests = table.HexList<48>("id_key_digests"),
          .author_key_digests = table.HexList<48>("author_key_digests"),
          .family_ids = table.HexList<16>("family_ids"),
          .image_ids = table.HexList<16>("image_ids"),
          .chips = ReadChips(table),
          .vmpl = table.Integer<uint32_t>("vmpl", 0, 3),
          .min_guest_svn = table.Integer<uint32_t>("min_guest_svn", 0, kMaxU32),
          .required_guest_policy = table.Bits("required_guest_policy", kGuestPolicy),
          .allow_smt = table.Bool("allow_smt"),
          .allow_cxl = table.Bool("allow_cxl"),
          .vlek_csp_ids = table.Words("vlek_csp_ids"),
          .allow_provisional_firmware = table.Bool("allow_provisional_firmware")};
}

TdxSection ReadTdx(TableReader& table) {
  TdxPolicy policy = {
      .mrtd = table.HexList<48>("mrtd"),
      .rtmr0 = table.HexList<48>("rtmr0"),
      .rtmr1 = table.HexList<48>("rtmr1"),
      .rtmr2 = table.HexList<48>("rtmr2"),
      .rtmr3 = table.HexList<48>("rtmr3"),
      .mrconfigid = table.HexAccepted<48>("mrconfigid"),
      .mrowner = table.HexAccepted<48>("mrowner"),
      .mrownerconfig = table.HexAccepted<48>("mrownerconfig"),
      // May change the guest: as good as a measurement.
      .mrservicetd = table.HexList<48>("mrservicetd"),
      .allowed_xfam = table.Bits("allowed_xfam", kXfamDefined),
      .accept_septve_enabled = table.Bool("accept_septve_enabled"),
      .accept_key_locker = table.Bool("accept_key_locker"),
      .accept_perfmon = table.Bool("accept_perfmon"),
      .accept_sw_hardening_needed = table.Bool("accept_sw_hardening_needed"),
      .min_tee_tcb_svn = table.Hex<16>("min_tee_tcb_svn"),
      .min_tee_tcb_svn2 = table.Hex<16>("min_tee_tcb_svn2"),
      .fmspc = table.HexAccepted<6>("fmspc"),
      .ppid = table.HexAccepted<16>("ppid"),
  };
  if (table.ok() && (*policy.allowed_xfam & kXfamX87AndSse) != kXfamX87AndSse) {
    table.Reject("allowed_xfam", "must have the bits 0x3, which every TD has");
  }
  constexpr int64_t kMaxU32 = std::numeric_limits<uint32_t>::max();
  return {std::move(policy), table.Integer<uint32_t>("min_tcb_evaluation_data_number", 0, kMaxU32)};
}

CrlHandling ReadCrls(TableReader& table) {
  const std::string word = table.String("crls");
  if (word == "accept-missing") return CrlHandling::kAcceptMissing;
  if (word != "required") table.Reject("crls", "must be \"required\" or \"accept-missing\"");
  return CrlHandling::kRequired;
}

// A file's tables; each is read at most once.
class FileReader {
 public:
  FileReader(Errors& errors, const toml::table& root) : errors_(errors), root_(root) {}

  // read(TableReader&) of [name]; nullopt when there is none.
  template <class F>
  auto Section(std::string_view name, bool mandatory, F read)
      -> std::optional<decltype(read(std::declval<TableReader&>()))> {
    known_.push_back(name);
    const toml::node* node = root_.get(name);
    if (node == nullptr) {
      if (mandatory) errors_.Fail(0, "[" + std::string(name) + "]", "is missing");
      return std::nullopt;
    }
    if (node->as_table() == nullptr) {
      errors_.Fail(*node, std::string(name), "must be a table");
      return std::nullopt;
    }
    TableReader table(errors_, *node->as_table(), std::string(name));
    return table.Read(read);
  }

  void CheckUnknown() {
    for (const auto& [key, node] : root_) {
      if (std::ranges::find(known_, key.str()) == known_.end() && key.str() != "unconfirmed") {
        errors_.Fail(node, Printable(key.str()), "is not known");
      }
    }
  }

  // Last, so that whoever confirms a field has no other error to mend.
  void CheckConfirmed() {
    const toml::node* node = root_.get("unconfirmed");
    if (node == nullptr) return;
    const toml::array* list = node->as_array();
    if (list == nullptr) return errors_.Fail(*node, "unconfirmed", "must be a list of fields");
    std::string fields;
    for (const toml::node& element : *list) {
      const auto* field = element.as_string();
      if (field == nullptr) return errors_.Fail(element, "unconfirmed", "must hold strings");
      fields += (fields.empty() ? "" : ", ") + Printable(field->get());
    }
    if (list->empty()) return;
    errors_.Fail(*node, "unconfirmed",
                 "names " + fields +
                     ": compare what the file says of them with what you built, then take them "
                     "off the list");
  }

 private:
  Errors& errors_;
  const toml::table& root_;
  std::vector<std::string_view> known_;
};

struct General {
  int max_age_s;
  bool require_post_quantum;
  CrlHandling crls;
};

}  // namespace

Result<Policy> ParsePolicy(std::string_view text, const std::string& name) {
  if (text.size() > kMaxPolicyBytes) {
    return Status(Code::kInvalidArgument, name + ": is too long for a policy");
  }
  const toml::parse_result parsed = toml::parse(text, name);
  if (!parsed) {
    return Status(Code::kInvalidArgument, name + ":" +
                                              std::to_string(parsed.error().source().begin.line) +
                                              ": " + std::string(parsed.error().description()));
  }
  Errors errors(name);
  FileReader file(errors, parsed.table());
  const auto general = file.Section("policy", true, [](TableReader& table) -> General {
    return {.max_age_s = table.Integer<int>("max_age_s", 1, kMaxAgeS),
            .require_post_quantum = table.Bool("require_post_quantum"),
            .crls = ReadCrls(table)};
  });
  auto context = file.Section("context", true, ReadContext);
  auto sev_snp = file.Section("sev_snp", false, ReadSnp);
  auto tdx = file.Section("tdx", false, ReadTdx);
  auto simulated = file.Section("simulated", false, [](TableReader& table) {
    return SimulatedPolicy{.measurements = table.HexList<48>("measurements")};
  });
  file.CheckUnknown();
  if (!sev_snp && !tdx && !simulated) {
    errors.Fail(0, "one of [sev_snp], [tdx] and [simulated]", "is missing: it would accept nobody");
  }
  file.CheckConfirmed();
  TALARIA_RETURN_IF_ERROR(errors.status());
  return Policy{.context = *std::move(context),
                .max_age_s = general->max_age_s,
                .require_post_quantum = general->require_post_quantum,
                .crls = general->crls,
                .sev_snp = std::move(sev_snp),
                .tdx = std::move(tdx),
                .simulated = std::move(simulated),
                .digest = Sha256Of(AsBytes(text))};
}

Result<Policy> LoadPolicy(const std::string& path) {
  TALARIA_ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes, ReadFile(path, kMaxPolicyBytes));
  return ParsePolicy({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

}  // namespace talaria::attest
