#include "bench/goals.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "bench/statistics.h"

namespace talaria::bench {
namespace {

using Json = nlohmann::json;
using enum Better;

constexpr double kNoisy = 0.1;  // a spread beyond this is marked, as in the other tables

// Of both layers' rows, and of the products', the first part is the same.
#define TALARIA_LAYER "CVM's CPU seconds a token over plain llama.cpp's, one layer of "
#define TALARIA_ONE_ROW "product of one row over reading its int8 weights once from memory"
#define TALARIA_MANY_ROWS "product of 256 rows over six plain int8 products of oneDNN"
constexpr Goal kGoals[] = {
    {"decode/same-host",
     "decoding, tokens/s over plain llama.cpp's; best channel on one host: the Unix socket (a "
     "shared-memory ring is not built)",
     "ratio", kHigher, 0.6, 1.0},
    {"decode/unix", "decoding, tokens/s over plain llama.cpp's; Unix socket", "ratio", kHigher, 0.5,
     0.9},
    {"decode/tcp", "decoding, tokens/s over plain llama.cpp's; TCP on loopback", "ratio", kHigher,
     0.4, 0.6},
    {"prompt", "prompt of 512 tokens, tokens/s over plain llama.cpp's; Unix socket", "ratio",
     kHigher, 0.8, 1.3},
    {"streams", "4 parallel streams, tokens/s together over plain llama.cpp's; Unix socket",
     "ratio", kHigher, 0.6, 1.0},
    {"cpu/decode", "CVM's CPU seconds a token over plain llama.cpp's, decoding", "cvm_cpu_ratio",
     kLower, 0.35, 0.2},
    {"cpu/prompt", "CVM's CPU seconds a token over plain llama.cpp's, prompt of 512 tokens",
     "cvm_cpu_ratio", kLower, 0.35, 0.2},
    {"layer-8b/decode/q8_0", TALARIA_LAYER "8B shapes; decoding, llama.cpp with Q8_0",
     "cvm_cpu_ratio", kLower, 0.08, 0.03},
    {"layer-8b/decode/q4_k", TALARIA_LAYER "8B shapes; decoding, llama.cpp with Q4_K",
     "cvm_cpu_ratio", kLower, 0.08, 0.03},
    {"layer-8b/prompt/q8_0", TALARIA_LAYER "8B shapes; prompt, llama.cpp with Q8_0",
     "cvm_cpu_ratio", kLower, 0.08, 0.03},
    {"layer-8b/prompt/q4_k", TALARIA_LAYER "8B shapes; prompt, llama.cpp with Q4_K",
     "cvm_cpu_ratio", kLower, 0.08, 0.03},
    {"layer-70b/decode/q8_0", TALARIA_LAYER "70B shapes; decoding, llama.cpp with Q8_0",
     "cvm_cpu_ratio", kLower, 0.05, 0.02},
    {"layer-70b/decode/q4_k", TALARIA_LAYER "70B shapes; decoding, llama.cpp with Q4_K",
     "cvm_cpu_ratio", kLower, 0.05, 0.02},
    {"layer-70b/prompt/q8_0", TALARIA_LAYER "70B shapes; prompt, llama.cpp with Q8_0",
     "cvm_cpu_ratio", kLower, 0.05, 0.02},
    {"layer-70b/prompt/q4_k", TALARIA_LAYER "70B shapes; prompt, llama.cpp with Q4_K",
     "cvm_cpu_ratio", kLower, 0.05, 0.02},
    {"generate/avx512",
     "making masks with AVX-512, self-test included, hints in memory, four batches a pass, one "
     "core, ns an element",
     "generate_ns", kLower, 2, 1.3},
    {"generate/avx2",
     "making masks with AVX2, self-test included, hints in memory, four batches a pass, one core, "
     "ns an element",
     "generate_ns", kLower, 5, 4},
    {"online", "mask, check and unmask inside the running engine, decoding, ns an element",
     "online_ns", kLower, 2.5, 1.2},
    {"product-1/576x3072", TALARIA_ONE_ROW, "cost_ratio", kLower, 1.2, 1.05},
    {"product-1/1536x576", TALARIA_ONE_ROW, "cost_ratio", kLower, 1.2, 1.05},
    {"product-1/4096x6144", TALARIA_ONE_ROW, "cost_ratio", kLower, 1.2, 1.05},
    {"product-256/576x3072", TALARIA_MANY_ROWS, "cost_ratio", kLower, 1.05, 0.95},
    {"product-256/1536x576", TALARIA_MANY_ROWS, "cost_ratio", kLower, 1.05, 0.95},
    {"product-256/4096x6144", TALARIA_MANY_ROWS, "cost_ratio", kLower, 1.05, 0.95},
    {"provision", "provisioning, seconds", "provision_seconds", kLower, 60, 15},
    {"setup", "set-up of the CVM after provisioning until its pools are full, seconds",
     "setup_seconds", kLower, 30, 8},
    {"memory", "resident memory of the CVM's processes, llama-server with 4 slots, GB",
     "cvm_resident_gb", kLower, 3.8, 3.2},
};
#undef TALARIA_LAYER
#undef TALARIA_ONE_ROW
#undef TALARIA_MANY_ROWS

bool AtLeast(const Goal& goal, double value, double bound) {
  return goal.better == kHigher ? value >= bound : value <= bound;
}

bool Measured(Verdict verdict) {
  return verdict != Verdict::kNotMeasured && verdict != Verdict::kFailed;
}

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

}  // namespace

std::span<const Goal> Goals() { return kGoals; }

bool IsNamed(std::string_view name, std::string_view words) {
  return name == words || (name.starts_with(words) && !words.empty() && name[words.size()] == '/');
}

Result<std::vector<const Goal*>> ChooseGoals(const std::vector<std::string>& only,
                                             const std::vector<std::string>& without) {
  for (const auto* list : {&only, &without}) {
    for (const std::string& words : *list) {
      if (std::none_of(std::begin(kGoals), std::end(kGoals),
                       [&](const Goal& goal) { return IsNamed(goal.name, words); })) {
        std::string rows;
        for (const Goal& goal : kGoals) rows += std::string(" ") + goal.name;
        return Status(Code::kInvalidArgument,
                      "--only, --without: no row is called " + words + "; there are" + rows);
      }
    }
  }
  const auto in = [](const Goal& goal, const std::vector<std::string>& list) {
    return std::any_of(list.begin(), list.end(),
                       [&](const std::string& words) { return IsNamed(goal.name, words); });
  };
  std::vector<const Goal*> chosen;
  for (const Goal& goal : kGoals)
    if ((only.empty() || in(goal, only)) && !in(goal, without)) chosen.push_back(&goal);
  if (chosen.empty()) return Status(Code::kInvalidArgument, "--without leaves no row");
  return chosen;
}

Verdict Judge(const GoalResult& result) {
  if (!result.status.ok() || result.samples.empty()) {
    const Code code = result.status.code();
    return code == Code::kUnsupported || code == Code::kResourceExhausted ? Verdict::kNotMeasured
                                                                          : Verdict::kFailed;
  }
  const double median = Summarise(result.samples).median;
  if (AtLeast(*result.goal, median, result.goal->dream)) return Verdict::kDream;
  return AtLeast(*result.goal, median, result.goal->reach) ? Verdict::kReached : Verdict::kMissed;
}

std::string_view VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kDream:
      return "dream reached";
    case Verdict::kReached:
      return "reached";
    case Verdict::kMissed:
      return "NOT REACHED";
    case Verdict::kNotMeasured:
      return "not measured";
    case Verdict::kFailed:
      break;
  }
  return "FAILED";
}

int GoalsExitCode(std::span<const GoalResult> results) {
  bool measured = false, missed = false;
  for (const GoalResult& result : results) {
    const Verdict verdict = Judge(result);
    if (verdict == Verdict::kFailed) return kFailedExit;
    measured |= Measured(verdict);
    missed |= verdict == Verdict::kMissed;
  }
  if (!measured) return kFailedExit;
  return missed ? kMissedExit : 0;
}

void PrintGoals(std::span<const GoalResult> results) {
  std::printf("%-22s %8s %9s %5s %8s %6s\n", "row", "median", "spread", "runs", "reach", "dream");
  std::array<int, 5> count{};
  for (const GoalResult& result : results) {
    const Goal& goal = *result.goal;
    const Verdict verdict = Judge(result);
    ++count[static_cast<size_t>(verdict)];
    const std::string reach = (goal.better == kHigher ? ">= " : "<= ") + Number(goal.reach);
    if (Measured(verdict)) {
      const Summary s = Summarise(result.samples);
      std::printf("%-22s %8s", goal.name, Number(s.median).c_str());
      if (result.samples.size() > 1) {
        std::printf(" %6.1f %%%s", s.spread * 100, s.spread > kNoisy ? "!" : " ");
      } else {
        std::printf(" %9s", "-");
      }
      std::printf(" %5zu", result.samples.size());
    } else {
      std::printf("%-22s %8s %9s %5s", goal.name, "-", "-", "-");
    }
    std::printf(" %8s %6s  %s", reach.c_str(), Number(goal.dream).c_str(),
                std::string(VerdictName(verdict)).c_str());
    if (!Measured(verdict)) {
      std::printf(": %s", verdict == Verdict::kFailed ? result.status.ToString().c_str()
                                                      : result.status.message().c_str());
    }
    std::printf("\n%24s%s\n", "", goal.what);
    if (!result.detail.empty()) std::printf("%24s(%s)\n", "", result.detail.c_str());
  }
  const auto of = [&](Verdict verdict) { return count[static_cast<size_t>(verdict)]; };
  std::printf(
      "%d goals reached, %d of them the dream; %d not reached, %d not measured here, %d failed.\n"
      "Judged is the median. Spread: range without the lowest and highest fifth, over the median; "
      "! "
      "marks more than %.0f %%.\n",
      of(Verdict::kDream) + of(Verdict::kReached), of(Verdict::kDream), of(Verdict::kMissed),
      of(Verdict::kNotMeasured), of(Verdict::kFailed), kNoisy * 100);
}

Json GoalsJson(std::span<const GoalResult> results) {
  Json json = Json::object();
  for (const GoalResult& result : results) {
    const Goal& goal = *result.goal;
    const Verdict verdict = Judge(result);
    Json& row = json[goal.name];
    row = {{"what", goal.what},
           {"better", goal.better == kHigher ? "higher" : "lower"},
           {"reach", goal.reach},
           {"dream", goal.dream},
           {"verdict", VerdictName(verdict)}};
    if (!result.detail.empty()) row["detail"] = result.detail;
    if (!Measured(verdict)) {
      row["not_measured"] = result.status.ToString();
      continue;
    }
    const Summary s = Summarise(result.samples);
    row[goal.metric] = {{"median", s.median},
                        {"min", s.min},
                        {"max", s.max},
                        {"spread", s.spread},
                        {"samples", result.samples},
                        {"runs", result.samples.size()}};
  }
  return json;
}

}  // namespace talaria::bench
