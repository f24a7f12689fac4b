#include "apps/cloud_settings.h"

// As everywhere: two settings of it in one program are two definitions of the same functions.
#define TOML_EXCEPTIONS 0
#include <toml++/toml.h>

#include <CLI/CLI.hpp>
#include <sstream>

namespace talaria {
namespace {

Status Bad(const std::string& path, const std::string& what) {
  return Status(Code::kInvalidArgument, path + ": " + what);
}

// One value as the text that the command line would have.
bool AppendText(const toml::node& node, std::vector<std::string>& out) {
  if (const auto text = node.value_exact<std::string>()) {
    out.push_back(*text);
  } else if (const auto number = node.value_exact<int64_t>()) {
    out.push_back(std::to_string(*number));
  } else if (const auto flag = node.value_exact<bool>()) {
    out.push_back(*flag ? "true" : "false");
  } else if (const toml::array* array = node.as_array()) {
    for (const toml::node& element : *array) {
      if (element.is_array() || !AppendText(element, out)) return false;
    }
  } else {
    return false;
  }
  return true;
}

CLI::Option* FindOption(CLI::App& command, const std::string& key) {
  for (CLI::Option* option : command.get_options()) {
    if (option->check_lname(key) || (option->get_positional() && option->check_name(key)))
      return option;
  }
  return nullptr;
}

Status ApplyTable(const std::string& path, const toml::table& table, CLI::App& command,
                  const std::set<std::string>& never) {
  for (const auto& [toml_key, node] : table) {
    const std::string key(toml_key.str());
    CLI::Option* option = FindOption(command, key);
    if (key == "help" || key == "check-config" || option == nullptr)
      return Bad(path, "[" + command.get_name() + "] has no setting '" + key + "'");
    if (never.count(key) != 0)
      return Bad(path, "'" + key + "' can only be given on the command line");
    std::vector<std::string> values;
    if (!AppendText(node, values))
      return Bad(path,
                 "'" + key + "' must be text, a whole number, true or false, or a list of them");
    if (option->count() > 0 || values.empty()) continue;
    for (const std::string& value : values) option->add_result(value);
    option->run_callback();
  }
  return OkStatus();
}

}  // namespace

Status ApplySettingsFile(const std::string& path, CLI::App& program, CLI::App& command,
                         const std::set<std::string>& never) {
  try {
    const toml::parse_result parsed = toml::parse_file(path);
    if (!parsed) {
      std::ostringstream text;
      text << parsed.error().description() << " at " << parsed.error().source().begin;
      return Bad(path, text.str());
    }
    const toml::table& file = parsed.table();
    std::set<std::string> commands;
    for (const CLI::App* each : program.get_subcommands([](CLI::App*) { return true; }))
      commands.insert(each->get_name());
    for (const auto& [toml_key, node] : file) {
      const std::string name(toml_key.str());
      if (commands.count(name) == 0 || !node.is_table())
        return Bad(path, "'" + name + "' is not a command's table");
    }
    const toml::table* table = file[command.get_name()].as_table();
    return table == nullptr ? OkStatus() : ApplyTable(path, *table, command, never);
  } catch (const CLI::Error& e) {
    return Bad(path, e.what());
  } catch (const std::exception& e) {
    return Bad(path, e.what());
  }
}

std::string EffectiveSettings(const CLI::App& command) {
  std::ostringstream out;
  for (const CLI::Option* option : command.get_options()) {
    const std::string name =
        option->get_lnames().empty() ? option->get_name() : option->get_lnames()[0];
    if (name == "help" || name == "check-config") continue;
    out << name << " =";
    for (const std::string& value : option->results()) out << ' ' << value;
    if (option->results().empty())
      out << (option->get_default_str().empty() ? " (not set)" : " " + option->get_default_str());
    out << '\n';
  }
  return out.str();
}

}  // namespace talaria
