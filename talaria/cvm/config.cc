#include "talaria/cvm/config.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <concepts>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

#define TOML_EXCEPTIONS 0  // errors come back as values; nothing is thrown across this file
#include <toml++/toml.h>

#include "talaria/base/bytes.h"
#include "talaria/base/file.h"
#include "talaria/tenant/token.h"
#include "talaria/wire/transport.h"

namespace talaria::cvm {
namespace {

constexpr uint64_t kMaxConfigBytes = 1 << 20;
constexpr uint64_t kMaxSize = uint64_t{1} << 50;  // no size below means more than a pebibyte

// Reads one table at a time. Every key that is asked for is marked; what remains unmarked at the
// end of a table is unknown. The first error wins and every later read does nothing.
class Reader {
 public:
  Reader(const std::string& path, const toml::table& root) : path_(path), root_(root) {}

  // Opens [name]; the keys read next are its keys. A missing table reads as an empty one.
  void Table(std::string_view name) {
    CheckUnknownKeys();
    tables_.push_back(name);
    name_ = name;
    table_ = nullptr;
    known_.clear();
    const toml::node* node = root_.get(name);
    if (!node) return;
    table_ = node->as_table();
    if (!table_) Fail(*node, std::string(name), "must be a table");
  }

  void String(std::string_view key, std::string& out) {
    const toml::node* node = Get(key);
    if (!node) return;
    const auto* value = node->as_string();
    if (!value) return Fail(*node, Name(key), "must be a string");
    if (value->get().find('\0') != std::string::npos || value->get().size() > 4096)
      return Fail(*node, Name(key), "is too long or holds a NUL");
    out = value->get();
  }

  void Bool(std::string_view key, bool& out) {
    const toml::node* node = Get(key);
    if (!node) return;
    const auto* value = node->as_boolean();
    if (!value) return Fail(*node, Name(key), "must be true or false");
    out = value->get();
  }

  template <std::integral T>
  void Integer(std::string_view key, T min, T max, T& out) {
    const toml::node* node = Get(key);
    if (!node) return;
    const auto* value = node->as_integer();
    if (!value) return Fail(*node, Name(key), "must be an integer");
    if (value->get() < 0 || static_cast<uint64_t>(value->get()) < static_cast<uint64_t>(min) ||
        static_cast<uint64_t>(value->get()) > static_cast<uint64_t>(max)) {
      return Fail(*node, Name(key),
                  "must be between " + std::to_string(min) + " and " + std::to_string(max));
    }
    out = static_cast<T>(value->get());
  }

  // A number of bytes, or a string such as "900 MiB".
  template <std::integral T>
  void Size(std::string_view key, uint64_t min, uint64_t max, T& out) {
    const toml::node* node = Get(key);
    if (!node) return;
    std::optional<uint64_t> bytes;
    if (const auto* number = node->as_integer()) {
      if (number->get() >= 0) bytes = static_cast<uint64_t>(number->get());
    } else if (const auto* text = node->as_string()) {
      bytes = ParseSize(text->get());
    }
    if (!bytes)
      return Fail(*node, Name(key), "must be a number of bytes or a string such as \"900 MiB\"");
    if (*bytes < min || *bytes > max) {
      return Fail(
          *node, Name(key),
          "must be between " + std::to_string(min) + " and " + std::to_string(max) + " bytes");
    }
    out = static_cast<T>(*bytes);
  }

  // An error at a key that has a value of the right type which is still not acceptable.
  void Reject(std::string_view key, std::string_view why) {
    const toml::node* node = table_ ? table_->get(key) : nullptr;
    if (node) {
      Fail(*node, Name(key), why);
    } else {
      FailAt(0, Name(key), why);
    }
  }

  void Require(std::string_view key) {
    if (!status_.ok() || (table_ && table_->contains(key))) return;
    FailAt(table_ ? table_->source().begin.line : 0, Name(key), "is missing");
  }

  bool ok() const { return status_.ok(); }

  Status Finish() {
    CheckUnknownKeys();
    for (const auto& [key, node] : root_) {
      if (std::find(tables_.begin(), tables_.end(), key.str()) == tables_.end())
        Fail(node, std::string(key.str()), "is not known");
    }
    return status_;
  }

 private:
  const toml::node* Get(std::string_view key) {
    known_.push_back(key);
    return status_.ok() && table_ ? table_->get(key) : nullptr;
  }
  std::string Name(std::string_view key) const { return name_ + "." + std::string(key); }
  void CheckUnknownKeys() {
    if (!table_) return;
    for (const auto& [key, node] : *table_) {
      if (std::find(known_.begin(), known_.end(), key.str()) == known_.end())
        Fail(node, Name(key.str()), "is not known");
    }
  }
  void Fail(const toml::node& node, const std::string& what, std::string_view why) {
    FailAt(node.source().begin.line, what, why);
  }
  void FailAt(uint32_t line, const std::string& what, std::string_view why) {
    if (!status_.ok()) return;
    std::string where = path_;
    if (line > 0) where += ":" + std::to_string(line);
    status_ = Status(Code::kInvalidArgument, where + ": " + what + " " + std::string(why));
  }
  static std::optional<uint64_t> ParseSize(std::string_view text) {
    uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end == text.data()) return std::nullopt;
    std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
    if (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
    static constexpr std::pair<std::string_view, int> kUnits[] = {
        {"B", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
    for (const auto& [name, shift] : kUnits) {
      if (unit != name) continue;
      if (number > (kMaxSize >> shift)) return std::nullopt;
      return number << shift;
    }
    return std::nullopt;
  }

  const std::string& path_;
  const toml::table& root_;
  const toml::table* table_ = nullptr;
  std::string name_;
  std::vector<std::string_view> known_, tables_;
  Status status_;
};

// A CVM that anybody can imitate must not be reached from, or reach, another machine.
void CheckEndpoint(Reader& reader, std::string_view key, const std::string& text,
                   bool simulated_tee) {
  if (!reader.ok()) return;
  const auto endpoint = wire::Endpoint::Parse(text);
  if (!endpoint.ok())
    return reader.Reject(key, "is not an endpoint: " + endpoint.status().message());
  if (simulated_tee && !endpoint->IsLocal()) {
    reader.Reject(key,
                  "must be a Unix socket (unix:PATH) or a loopback address with "
                  "--insecure-simulated-tee");
  }
}

void CheckPlaintext(Reader& reader, bool plaintext, bool simulated_tee) {
  if (reader.ok() && plaintext && !simulated_tee)
    reader.Reject("plaintext", "may be true only together with --insecure-simulated-tee");
}

void CheckHex(Reader& reader, std::string_view key, const std::string& text, bool mandatory) {
  Digest digest;
  if (reader.ok() && (mandatory || !text.empty()) && !FromHex(text, digest))
    reader.Reject(key, "must be 64 lower-case hexadecimal digits");
}

}  // namespace

Result<Config> ParseConfig(std::string_view text, const std::string& name, bool simulated_tee) {
  const toml::parse_result parsed = toml::parse(text, name);
  if (!parsed) {
    return Status(Code::kInvalidArgument, name + ":" +
                                              std::to_string(parsed.error().source().begin.line) +
                                              ": " + std::string(parsed.error().description()));
  }
  Config config;
  config.digest = Sha256Of(AsBytes(text));
  Reader reader(name, parsed.table());

  reader.Table("cloud");
  reader.Require("endpoint");
  reader.String("endpoint", config.cloud_endpoint);
  CheckEndpoint(reader, "endpoint", config.cloud_endpoint, simulated_tee);
  reader.Bool("plaintext", config.cloud_plaintext);
  CheckPlaintext(reader, config.cloud_plaintext, simulated_tee);
  if (!config.cloud_plaintext) reader.Require("provider_key");
  reader.String("provider_key", config.provider_key);
  CheckHex(reader, "provider_key", config.provider_key, !config.cloud_plaintext);
  reader.Integer("idle_timeout_ms", 100, 600000, config.idle_timeout_ms);
  reader.Integer("max_retries", 0, 10, config.max_retries);

  reader.Table("model");
  reader.Require("identity");
  reader.String("identity", config.identity);
  const bool any_identity = config.identity == "any";
  if (!any_identity) CheckHex(reader, "identity", config.identity, true);
  reader.Integer("check_vectors", 1, 2, config.check_vectors);

  reader.Table("server");
  reader.Require("listen");
  reader.String("listen", config.listen);
  CheckEndpoint(reader, "listen", config.listen, simulated_tee);
  reader.Bool("plaintext", config.server_plaintext);
  CheckPlaintext(reader, config.server_plaintext, simulated_tee);
  reader.Integer("context", 64u, 1u << 20, config.context);
  reader.Integer("slots", 1, 64, config.slots);
  reader.Integer("threads", 1, 256, config.threads);
  reader.Size("max_body_bytes", 1024, uint64_t{256} << 20, config.max_body_bytes);
  reader.String("prompt_cache_user", config.prompt_cache_user);
  if (reader.ok() && !config.prompt_cache_user.empty() &&
      !tenant::IsUserName(config.prompt_cache_user))
    reader.Reject("prompt_cache_user", "must be a user's name: at most 64 printable characters");
  if (reader.ok() && config.context / static_cast<uint32_t>(config.slots) < 64)
    reader.Reject("slots", "leaves less than 64 tokens of context each");

  reader.Table("tenant");
  const bool attested = !config.server_plaintext || !config.cloud_plaintext;
  if (attested) reader.Require("key");
  reader.String("key", config.tenant_key);
  CheckHex(reader, "key", config.tenant_key, attested);

  reader.Table("tee");
  reader.String("report_folder", config.report_folder);
  if (reader.ok() && !config.report_folder.starts_with('/'))
    reader.Reject("report_folder", "must be an absolute path");

  reader.Table("masks");
  reader.Size("pool_bytes", 0, kMaxSize, config.pool_bytes);
  reader.Integer("fill_threads", 1, 256, config.fill_threads);

  reader.Table("engine");
  for (auto [key, field] :
       {std::pair{"llama_server", &config.llama_server}, std::pair{"plugin", &config.plugin},
        std::pair{"run_dir", &config.run_dir}}) {
    reader.String(key, *field);
    if (reader.ok() && !field->empty() && field->front() != '/')
      reader.Reject(key, "must be an absolute path");
  }
  TALARIA_RETURN_IF_ERROR(reader.Finish());
  // What is attested must be known before the cloud says anything.
  if (any_identity && attested) {
    return Status(Code::kInvalidArgument,
                  name +
                      ": model.identity may be \"any\" only where both cloud.plaintext and "
                      "server.plaintext are true");
  }
  return config;
}

Result<Config> LoadConfig(const std::string& path, bool simulated_tee) {
  TALARIA_ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes, ReadFile(path, kMaxConfigBytes));
  return ParseConfig({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path,
                     simulated_tee);
}

}  // namespace talaria::cvm
