#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/cloud_commands.h"
#include "talaria/base/progress.h"
#include "talaria/cloud/device_survey.h"
#include "talaria/model/store.h"

namespace talaria {
namespace {

using Json = nlohmann::ordered_json;

// Of one device, if there is a store.
using Times = Result<std::vector<cloud::PassTime>>;

std::string Gibibytes(const std::optional<uint64_t>& bytes) {
  if (!bytes) return "-";
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f GiB", static_cast<double>(*bytes) / (1 << 30));
  return text;
}

void PrintJson(const cloud::DeviceList& list, const std::map<std::string, Times>& times) {
  Json out = {{"devices", Json::array()}};
  for (const cloud::FoundDevice& found : list.devices) {
    Json device = {{"device", found.argument}, {"usable", found.status.ok()}};
    if (!found.status.ok()) {
      device["reason"] = found.status.message();
    } else {
      device["name"] = found.name;
      if (found.free_bytes) device["free_bytes"] = *found.free_bytes;
    }
    if (const auto measured = times.find(found.argument); measured != times.end()) {
      if (measured->second.ok()) {
        for (const cloud::PassTime& pass : *measured->second)
          device["passes"].push_back({{"rows", pass.rows}, {"seconds", pass.seconds}});
      } else {
        device["fits"] = false;
        device["reason"] = measured->second.status().message();
      }
    }
    out["devices"].push_back(std::move(device));
  }
  if (!list.gpus.ok()) out["no_gpu"] = list.gpus.message();
  std::printf("%s\n", out.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
}

void PrintTable(const cloud::DeviceList& list, const std::map<std::string, Times>& times) {
  std::printf("%-10s %-12s %s\n", "device", "memory free", "what");
  for (const cloud::FoundDevice& found : list.devices) {
    std::printf("%-10s %-12s %s\n", found.argument.c_str(), Gibibytes(found.free_bytes).c_str(),
                found.status.ok() ? found.name.c_str()
                                  : ("cannot be used: " + found.status.message()).c_str());
  }
  if (!list.gpus.ok()) std::printf("no GPU: %s\n", list.gpus.message().c_str());
  if (times.empty()) return;
  std::printf("\nall products of a pass over the model, ms (rows/s):\n%-10s", "device");
  const auto any = std::ranges::find_if(times, [](const auto& t) { return t.second.ok(); });
  if (any != times.end()) {
    for (const cloud::PassTime& pass : *any->second)
      std::printf(" %20s",
                  (std::to_string(pass.rows) + (pass.rows == 1 ? " row" : " rows")).c_str());
  }
  std::printf("\n");
  for (const cloud::FoundDevice& found : list.devices) {
    const auto measured = times.find(found.argument);
    if (measured == times.end()) continue;
    std::printf("%-10s", found.argument.c_str());
    if (!measured->second.ok()) {
      std::printf(" %s\n", measured->second.status().message().c_str());
      continue;
    }
    for (const cloud::PassTime& pass : *measured->second) {
      char text[32];
      std::snprintf(text, sizeof(text), "%.2f (%.0f)", pass.seconds * 1e3,
                    pass.rows / pass.seconds);
      std::printf(" %20s", text);
    }
    std::printf("\n");
  }
}

}  // namespace

Status RunDevices(const std::string& store_path, int threads, bool json) {
  std::optional<model::Store> store;
  if (!store_path.empty()) {
    TALARIA_ASSIGN_OR_RETURN(store, model::Store::Open(store_path));
  }
  const cloud::DeviceList list = cloud::ListDevices(threads);
  std::map<std::string, Times> times;
  if (store) {
    Progress progress("measuring", list.devices.size());
    for (const cloud::FoundDevice& found : list.devices) {
      if (found.status.ok())
        times.emplace(found.argument, cloud::MeasurePasses(found.spec, store->manifest()));
      progress.Advance(1, found.argument);
    }
  }
  json ? PrintJson(list, times) : PrintTable(list, times);
  return OkStatus();
}

}  // namespace talaria
