#include "apps/cloud_commands.h"

#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "talaria/base/log.h"
#include "talaria/base/progress.h"
#include "talaria/model/store.h"
#include "talaria/model/store_layout.h"
#include "talaria/ring/layout.h"

namespace talaria {
namespace {

using Json = nlohmann::ordered_json;

std::atomic<bool> stop_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free, "set by a signal handler");

void OnSignal(int) { stop_requested.store(true); }

void StopOnSignals() {
  struct sigaction action {};
  action.sa_handler = OnSignal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

std::string Size(uint64_t bytes) {
  char text[32];
  const double x = static_cast<double>(bytes);
  if (x < 1e6) {
    std::snprintf(text, sizeof(text), "%.1f kB", x / 1e3);
  } else if (x < 1e9) {
    std::snprintf(text, sizeof(text), "%.1f MB", x / 1e6);
  } else {
    std::snprintf(text, sizeof(text), "%.2f GB", x / 1e9);
  }
  return text;
}

void Print(const Json& json) {
  std::printf("%s\n", json.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
}

// One bar per stage.
class StageProgress {
 public:
  void Report(std::string_view stage, uint64_t done, uint64_t total) {
    if (stage != stage_) {
      bar_.reset();
      stage_ = stage;
      bar_ = std::make_unique<Progress>(stage, total);
      done_ = 0;
    }
    bar_->Advance(done - done_);
    done_ = done;
  }

 private:
  std::string stage_;
  uint64_t done_ = 0;
  std::unique_ptr<Progress> bar_;
};

Json ToJson(const cloud::ProvisionSummary& s, bool dry_run) {
  Json out;
  out["model"] = s.model_name;
  out["dry_run"] = dry_run;
  if (!dry_run) out["identity"] = ToHex(s.identity);
  out["seconds"] = s.seconds;
  out["bytes"] = {{"weights", s.weights_bytes},
                  {"scales", s.scales_bytes},
                  {"hints", s.hints_bytes},
                  {"skeleton", s.skeleton_bytes},
                  {"skeleton_data", s.skeleton_data_bytes},
                  {"disk_needed", s.disk_needed},
                  {"disk_free", s.disk_free},
                  {"cvm_hints", s.cvm_hints_bytes},
                  {"cvm_pool_row", s.cvm_pool_row_bytes}};
  out["matrices"] = Json::array();
  for (const cloud::MatrixSummary& m : s.matrices) {
    Json matrix = {{"name", m.name},   {"role", model::RoleName(m.role)},
                   {"group", m.group}, {"d", m.d},
                   {"o", m.o},         {"source_type", m.source_type}};
    if (!dry_run) matrix["relative_error"] = m.relative_error;
    out["matrices"].push_back(std::move(matrix));
  }
  out["kept"] = s.kept;
  return out;
}

void PrintMatrices(const cloud::ProvisionSummary& s, bool dry_run) {
  std::printf("%-6s %-40s %-9s %7s %7s  %-8s%s\n", "group", "matrix", "role", "d", "o", "source",
              dry_run ? "" : " error");
  for (const cloud::MatrixSummary& m : s.matrices) {
    std::printf("%-6u %-40s %-9s %7u %7u  %-8s", m.group, m.name.c_str(),
                std::string(model::RoleName(m.role)).c_str(), m.d, m.o, m.source_type.c_str());
    if (!dry_run) std::printf(" %.3f %%", m.relative_error * 100);
    std::printf("\n");
  }
}

// Vectors always stay; they are counted, the rest is named.
void PrintKept(const std::vector<std::string>& kept) {
  const std::string vector_reason = ": a vector";
  size_t vectors = 0;
  for (const std::string& line : kept) {
    if (line.ends_with(vector_reason)) {
      ++vectors;
    } else {
      std::printf("stays in the CVM: %s\n", line.c_str());
    }
  }
  if (vectors > 0) std::printf("stays in the CVM: %zu vectors (norms, biases)\n", vectors);
}

void PrintSummary(const cloud::ProvisionSummary& s, const cloud::ProvisionOptions& options) {
  PrintMatrices(s, options.dry_run);
  PrintKept(s.kept);
  double worst = 0;
  for (const cloud::MatrixSummary& m : s.matrices) worst = std::max(worst, m.relative_error);
  std::printf("\nmodel      %s: %zu matrices in %u groups\n", s.model_name.c_str(),
              s.matrices.size(), s.matrices.back().group + 1);
  std::printf("cloud      %s of weights, %s of scales\n", Size(s.weights_bytes).c_str(),
              Size(s.scales_bytes).c_str());
  std::printf("CVM        %s of hints, %s of skeleton, and %s per 256 rows of masks\n",
              Size(s.cvm_hints_bytes).c_str(), Size(s.skeleton_data_bytes).c_str(),
              Size(256 * s.cvm_pool_row_bytes).c_str());
  std::printf("disk       %s needed, %s free\n", Size(s.disk_needed).c_str(),
              Size(s.disk_free).c_str());
  if (options.dry_run) {
    std::printf("dry run    nothing was written\n");
    return;
  }
  std::printf(
      "fidelity   the integers differ from the source by at most %.3f %% of a matrix's norm\n",
      worst * 100);
  std::printf("time       %.1f s\n", s.seconds);
  std::printf("store      %s\nidentity   %s\n", options.store.c_str(), ToHex(s.identity).c_str());
}

}  // namespace

Status RunProvision(cloud::ProvisionOptions options, bool json) {
  StopOnSignals();
  // A limit on file sizes is an error of a write, not the end of the process: half a store must not
  // stay.
  signal(SIGXFSZ, SIG_IGN);
  options.cancel = &stop_requested;
  auto progress = std::make_unique<StageProgress>();
  options.on_progress = [&](std::string_view stage, uint64_t done, uint64_t total) {
    progress->Report(stage, done, total);
  };
  const auto summary = cloud::Provision(options);
  progress.reset();
  if (!summary.ok()) return summary.status();
  for (const std::string& path : summary->removed)
    LogWarning("removed what an interrupted run had left: " + path);
  if (json) {
    Print(ToJson(*summary, options.dry_run));
  } else {
    PrintSummary(*summary, options);
  }
  return OkStatus();
}

Status RunInspect(const std::string& path, bool json) {
  TALARIA_ASSIGN_OR_RETURN(const model::Store store, model::Store::Open(path));
  const model::Manifest& m = store.manifest();
  const model::StoreLayout layout = model::LayoutOf(m);
  uint64_t pool_row = 0;
  for (const model::Group& group : m.groups)
    pool_row += (ring::RoundUp(group.d, ring::kPanelColumns) + model::GroupOutputs(group)) *
                ring::kResidueBytes;
  if (json) {
    Json out = {{"identity", ToHex(store.identity())},
                {"core", ToHex(model::CoreDigest(m))},
                {"bytes",
                 {{"weights", layout.weights_bytes},
                  {"scales", layout.scales_bytes},
                  {"hints", layout.hints_bytes},
                  {"skeleton", m.skeleton_bytes},
                  {"skeleton_data", layout.skeleton_data_bytes},
                  {"cvm_pool_row", pool_row}}}};
    out["manifest"] = Json::parse(store.manifest_text(), nullptr, false);
    Print(out);
    return OkStatus();
  }
  std::printf("%-6s %-40s %-9s %7s %7s\n", "group", "matrix", "role", "d", "o");
  for (const model::MatrixRef& ref : model::AllMatrices(m)) {
    std::printf("%-6u %-40s %-9s %7u %7u\n", ref.group_index, ref.matrix->name.c_str(),
                std::string(model::RoleName(ref.matrix->role)).c_str(), ref.group->d,
                ref.matrix->o);
  }
  std::printf("\nmodel      %s, provisioned by version %s, mask profile %u\n", m.model_name.c_str(),
              m.tool_version.c_str(), m.profile);
  std::printf("source     SHA-256 %s\n", ToHex(m.source).c_str());
  std::printf("cloud      %s of weights, %s of scales\n", Size(layout.weights_bytes).c_str(),
              Size(layout.scales_bytes).c_str());
  std::printf("CVM        %s of hints, %s of skeleton, and %s per 256 rows of masks\n",
              Size(layout.hints_bytes).c_str(), Size(layout.skeleton_data_bytes).c_str(),
              Size(256 * pool_row).c_str());
  std::printf("identity   %s\n", ToHex(store.identity()).c_str());
  return OkStatus();
}

Status RunVerify(const std::string& path, bool json) {
  TALARIA_ASSIGN_OR_RETURN(const model::Store store, model::Store::Open(path));
  {
    Progress progress("verifying", store.TotalBytes());
    TALARIA_RETURN_IF_ERROR(store.VerifyDigests([&](uint64_t bytes) { progress.Advance(bytes); }));
  }
  if (json) {
    Print({{"identity", ToHex(store.identity())}, {"bytes", store.TotalBytes()}, {"ok", true}});
  } else {
    std::printf("every byte fits the manifest\nidentity   %s\n", ToHex(store.identity()).c_str());
  }
  return OkStatus();
}

}  // namespace talaria
