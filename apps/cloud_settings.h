// Settings from a TOML file for a CLI11 command: they fill the options that neither the command
// line nor a variable set.
#ifndef APPS_CLOUD_SETTINGS_H_
#define APPS_CLOUD_SETTINGS_H_

#include <set>
#include <string>

#include "talaria/base/result.h"

namespace CLI {
class App;
}

namespace talaria {

// The file has one table per command; its keys are the command's long options without the dashes.
// Options in `never` are for the command line only. kNotFound, kInvalidArgument: not TOML, an
// unknown table or key, or a value that the option refuses.
Status ApplySettingsFile(const std::string& path, CLI::App& program, CLI::App& command,
                         const std::set<std::string>& never);

// Every option of the command and its value in effect, one "key = value" a line.
std::string EffectiveSettings(const CLI::App& command);

}  // namespace talaria

#endif  // APPS_CLOUD_SETTINGS_H_
