#include "bench/compare.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <span>

namespace talaria::bench {
namespace {

using Json = nlohmann::json;

constexpr double kHighestChance = 0.01;  // of calling an unchanged metric worse

// A file of each sub-command has this at its top, and no other file has.
struct Kind {
  const char *name, *key;
};
constexpr Kind kKinds[] = {
    {"end-to-end", "workloads"}, {"layer", "shape_of"},  // and "workloads"
    {"schemes", "schemes"},      {"attest", "handshake"}, {"fidelity", "perplexity_ratio"},
    {"scaling", "scaling"},      {"goals", "goals"}};
// At the top of a file: what was measured, which has to be the same in both.
constexpr const char* kSettings[] = {
    "model",  "channel", "plaintext",   "tee",         "group",        "cloud_threads",
    "m",      "shape",   "streams",     "quick",       "pool_batches", "prompt_tokens",
    "chunks", "isa",     "product_isa", "usable_cores"};
constexpr const char* kRuns[] = {"pairs", "runs", "rounds"};
// Medians of "workloads" again, for people.
constexpr const char* kCopies[] = {"decode_ratio", "prompt_ratio", "cvm_cpu_ratio",
                                   "cvm_cpu_ratio_prompt"};

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

std::string_view Last(std::string_view name) { return name.substr(name.rfind('/') + 1); }

// Measured on something that a change of Talaria cannot touch.
bool IsControl(std::string_view name) {
  const std::string_view last = Last(name);
  return last == "tls" || last == "direct" || last.starts_with("plain") ||
         last.starts_with("control_") || last == "perplexity_plain";
}

// Both of its parts come from one session, or it is a count: a busy machine cancels.
bool IsPaired(std::string_view name) {
  const std::string_view last = Last(name);
  for (const char* part : {"ratio", "bytes", "round_trips"})
    if (Contains(last, part)) return true;
  return last == "beyond_tls" || last.ends_with("_cost") || last.starts_with("added_");
}

// +1: more is better, -1: less is, 0: unknown.
int BetterSign(std::string_view name) {
  const std::string_view last = Last(name);
  if (Contains(last, "per_second") || last == "ratio") return 1;
  for (const char* part : {"cpu", "bytes", "round_trips", "seconds", "_mib", "_gb", "_ms", "_us",
                           "_ns", "cost_ratio", "perplexity"})
    if (Contains(last, part)) return -1;
  // attest: milliseconds all of them.
  if (name.starts_with("handshake/") || name.starts_with("requests/")) return -1;
  // end-to-end: "cpu_ms_per_token/cvm".
  return Contains(name, "cpu_ms") ? -1 : 0;
}

std::string Text(const Json& value) {
  if (!value.is_string()) return value.dump();
  const auto& text = value.get_ref<const std::string&>();
  return text;
}

// Any object with a median is one metric; any other number is one too, without an interval.
void Collect(const Json& json, const std::string& name, std::vector<Metric>& out) {
  if (json.is_number()) {
    out.push_back({name, json.get<double>(), false, 0, 0});
    return;
  }
  if (!json.is_object()) return;
  const auto number = [&json](const char* key) {
    return json.contains(key) && json[key].is_number();
  };
  if (number("median") && number("min") && number("max")) {
    out.push_back({name, json["median"], true, json["min"], json["max"],
                   number("runs") ? json["runs"].get<int>() : 0});
  } else if (number("median_ms")) {
    const Json interval = json.value("median_interval_ms", Json());
    const bool has = interval.is_array() && interval.size() == 2 && interval[0].is_number() &&
                     interval[1].is_number();
    out.push_back({name, json["median_ms"], has, has ? interval[0].get<double>() : 0,
                   has ? interval[1].get<double>() : 0});
  } else {
    for (const auto& [key, value] : json.items()) {
      if (key == "goal_ms" || key == "plain_threads" || key == "reach" || key == "dream") continue;
      Collect(value, name.empty() ? key : name + "/" + key, out);
    }
  }
}

bool EnoughRuns(int before, int after) {
  return before >= 1 && after >= 1 && ChanceOfSeparation(before, after) <= kHighestChance;
}

Change Judge(const Metric& before, const Metric& after, bool enough_runs) {
  Change change{.name = before.name, .before = before.median, .after = after.median};
  if (before.median != 0)
    change.percent = (after.median - before.median) / std::abs(before.median) * 100;
  if (!before.has_interval || !after.has_interval || !enough_runs) return change;
  change.beyond_noise = before.high < after.low || after.high < before.low;
  if (IsControl(before.name)) {
    change.finding = Finding::kControl;
  } else if (const int sign = BetterSign(before.name); sign != 0) {
    change.finding = !change.beyond_noise                        ? Finding::kSame
                     : (after.median - before.median) * sign > 0 ? Finding::kBetter
                                                                 : Finding::kWorse;
  }
  return change;
}

Status CheckComparable(const Results& before, const Results& after, bool any_machine,
                       std::vector<std::string>& notes) {
  if (before.kind != after.kind) {
    return Status(Code::kInvalidArgument,
                  "one file is of " + before.kind + " and the other of " + after.kind);
  }
  std::string differences;
  for (const auto& [key, value] : before.setting) {
    const auto other = after.setting.find(key);
    if (other == after.setting.end() || other->second == value) continue;
    const std::string text = key + ": " + value + " and " + other->second;
    if (key == "machine.kernel" || (any_machine && key.starts_with("machine."))) {
      notes.push_back(text);
    } else {
      differences += "\n  " + text;
    }
  }
  if (!differences.empty()) {
    return Status(Code::kInvalidArgument,
                  "not the same measurement:" + differences +
                      "\nMeasure again where and how the baseline was" +
                      (any_machine ? "" : ", or name --any-machine if only the machine differs"));
  }
  for (const char* key : {"machine.cpu", "model"}) {
    if (!before.setting.contains(key) || !after.setting.contains(key))
      notes.push_back(std::string("not both files name their ") + key + ": not checked");
  }
  return OkStatus();
}

}  // namespace

std::string_view FindingName(Finding finding) {
  switch (finding) {
    case Finding::kSame:
      return "same";
    case Finding::kBetter:
      return "better";
    case Finding::kWorse:
      return "WORSE";
    case Finding::kMachine:
      return "machine";
    case Finding::kControl:
      return "control";
    case Finding::kNotJudged:
      break;
  }
  return "not judged";
}

double ChanceOfSeparation(int n, int m) {
  double chance = 1;
  for (int i = 1; i <= n; ++i) chance *= static_cast<double>(i) / (m + i);
  return chance;
}

Result<Results> ParseResults(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return Status(Code::kCorrupt, "not a JSON object");
  Results results;
  for (const Kind& kind : kKinds) {
    if (json.contains(kind.key)) results.kind = kind.name;
  }
  if (results.kind.empty()) {
    return Status(
        Code::kCorrupt,
        "not a result of talaria-bench end-to-end, layer, schemes, attest, fidelity, scaling "
        "or goals");
  }
  for (const char* key : kRuns) {
    if (json.contains(key) && json[key].is_number_integer()) results.runs = json[key];
  }
  results.exact = results.kind == "fidelity";
  if (results.runs < 1) return Status(Code::kCorrupt, "fewer than one run");
  for (const char* key : kSettings) {
    if (json.contains(key)) results.setting[key] = Text(json[key]);
  }
  if (const auto model = results.setting.find("model"); model != results.setting.end()) {
    results.model_path = model->second;  // folders differ from user to user
    model->second = model->second.substr(model->second.rfind('/') + 1);
  }
  if (json.contains("machine") && json["machine"].is_object()) {
    for (const auto& [key, value] : json["machine"].items())
      results.setting["machine." + key] = Text(value);
  }
  Json rest = json;
  for (const auto& names :
       {std::span<const char* const>(kRuns), std::span<const char* const>(kSettings),
        std::span<const char* const>(kCopies)})
    for (const char* name : names) rest.erase(name);
  rest.erase("machine");
  Collect(rest, "", results.metrics);
  for (Metric& metric : results.metrics) {
    if (results.exact) metric = {metric.name, metric.median, true, metric.median, metric.median};
  }
  if (results.metrics.empty()) return Status(Code::kCorrupt, "no metric in it");
  return results;
}

Result<Comparison> CompareResults(const Results& before, const Results& after, bool any_machine) {
  Comparison out;
  TALARIA_RETURN_IF_ERROR(CheckComparable(before, after, any_machine, out.notes));
  out.judged = before.exact || EnoughRuns(before.runs, after.runs);
  if (!out.judged) {
    out.notes.push_back("nothing is judged: with " + std::to_string(before.runs) + " and " +
                        std::to_string(after.runs) +
                        " runs noise alone separates a metric too often; 5 and 5 are enough");
  }
  std::map<std::string, const Metric*> now;
  for (const Metric& metric : after.metrics) now[metric.name] = &metric;
  for (const Metric& metric : before.metrics) {
    const auto found = now.find(metric.name);
    if (found == now.end()) {
      out.missing.push_back(metric.name);
      continue;
    }
    const bool own = metric.runs != 0 && found->second->runs != 0;
    out.changes.push_back(
        Judge(metric, *found->second,
              out.judged && (!own || EnoughRuns(metric.runs, found->second->runs))));
    now.erase(found);
  }
  for (const auto& [name, metric] : now) out.added.push_back(name);
  if (out.changes.empty()) return Status(Code::kInvalidArgument, "the files share no metric");
  for (const Change& change : out.changes)
    out.machine_changed |= change.finding == Finding::kControl && change.beyond_noise;
  for (Change& change : out.changes) {
    const bool moved = change.finding == Finding::kBetter || change.finding == Finding::kWorse;
    if (out.machine_changed && moved && !IsPaired(change.name)) change.finding = Finding::kMachine;
    if (change.finding == Finding::kWorse) ++out.regressions;
  }
  return out;
}

Result<std::vector<std::string>> MeasureAgain(const Results& results) {
  struct Option {
    const char *name, *setting;
  };
  const std::vector<Option> common = {{"--pool-batches", "pool_batches"},
                                      {"--cloud-threads", "cloud_threads"},
                                      {"--channel", "channel"}};
  const std::map<std::string, std::pair<const char*, std::vector<Option>>> kinds = {
      {"end-to-end", {"--pairs", {{"--prompt", "prompt_tokens"}, {"--streams", "streams"}}}},
      {"layer", {"--pairs", {{"--prompt", "prompt_tokens"}, {"--shape", "shape"}}}},
      {"schemes", {"--runs", {{"--m", "m"}}}},
      {"attest", {"--rounds", {}}},
      {"scaling", {"--runs", {}}}};
  const auto kind = kinds.find(results.kind);
  if (kind == kinds.end()) {
    return Status(Code::kUnsupported,
                  "name the second file: " + results.kind + " is not measured again by compare");
  }
  std::vector<std::string> arguments = {results.kind, kind->second.first,
                                        std::to_string(results.runs)};
  const auto add = [&](const Option& option) {
    const auto at = results.setting.find(option.setting);
    if (at == results.setting.end()) return;
    arguments.emplace_back(option.name);
    arguments.push_back(at->second);
  };
  const auto is_true = [&](const char* name) {
    const auto at = results.setting.find(name);
    return at != results.setting.end() && at->second == "true";
  };
  for (const Option& option : kind->second.second) add(option);
  if (results.kind != "attest" && results.kind != "scaling")
    for (const Option& option : common) add(option);
  if (is_true("plaintext")) arguments.emplace_back("--plaintext");
  if (is_true("quick")) arguments.emplace_back("--quick");
  if (!results.model_path.empty() && results.kind != "layer")
    arguments.insert(arguments.end(), {"--model", results.model_path});
  return arguments;
}

void Print(const Comparison& comparison) {
  size_t width = 6;
  for (const Change& c : comparison.changes) width = std::max(width, c.name.size());
  const int w = static_cast<int>(width);
  std::printf("%-*s %12s %12s %9s\n", w, "metric", "old", "new", "change");
  for (const Change& c : comparison.changes) {
    std::printf("%-*s %12.5g %12.5g %+8.1f%% %s%s\n", w, c.name.c_str(), c.before, c.after,
                c.percent, std::string(FindingName(c.finding)).c_str(),
                c.finding == Finding::kControl && c.beyond_noise ? ", changed" : "");
  }
  for (const std::string& name : comparison.missing)
    std::printf("only in the old file: %s\n", name.c_str());
  for (const std::string& name : comparison.added)
    std::printf("only in the new file: %s\n", name.c_str());
  for (const std::string& note : comparison.notes) std::printf("note: %s\n", note.c_str());
  if (comparison.machine_changed) {
    std::printf(
        "A control changed: the machine is not as it was. Absolute figures (\"machine\") are not "
        "held against the code; ratios, differences and counts are.\n");
  }
  std::printf("%s\n", !comparison.judged ? "Not judged."
                      : comparison.regressions == 0
                          ? "No regression."
                          : (std::to_string(comparison.regressions) + " worse.").c_str());
}

std::string ToJson(const Comparison& comparison) {
  Json json;
  json["regressions"] = comparison.regressions;
  json["judged"] = comparison.judged;
  json["machine_changed"] = comparison.machine_changed;
  json["notes"] = comparison.notes;
  json["missing"] = comparison.missing;
  json["added"] = comparison.added;
  json["changes"] = Json::array();
  for (const Change& c : comparison.changes) {
    json["changes"].push_back({{"metric", c.name},
                               {"old", c.before},
                               {"new", c.after},
                               {"change_percent", c.percent},
                               {"beyond_noise", c.beyond_noise},
                               {"finding", FindingName(c.finding)}});
  }
  return json.dump(2);
}

}  // namespace talaria::bench
