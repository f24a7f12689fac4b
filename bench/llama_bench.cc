#include "bench/llama_bench.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace talaria::bench {
namespace {

using Json = nlohmann::json;

std::string CpuName() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

}  // namespace

std::vector<std::string> LlamaBench(std::vector<std::string> head,
                                    const std::vector<std::string>& test, int threads) {
  for (const char* a : {"-o", "json", "--no-warmup"}) head.emplace_back(a);
  head.emplace_back("-t");
  head.push_back(std::to_string(threads));
  head.insert(head.end(), test.begin(), test.end());
  return head;
}

Result<Timed> ParseLlamaBench(const std::string& output) {
  const Json tests = Json::parse(output, nullptr, false);
  if (!tests.is_array() || tests.size() != 1)
    return Status(Code::kInternal, "llama-bench printed no JSON: " + output.substr(0, 200));
  const Json& test = tests[0];
  Timed t;
  for (const Json& ns : test.at("samples_ns")) {
    t.seconds += ns.get<double>() * 1e-9;
    t.tokens += test.at("n_prompt").get<double>() + test.at("n_gen").get<double>();
  }
  return t;
}

std::string MachineJson() {
  utsname system{};
  uname(&system);
  return Json{
      {"cpu", CpuName()}, {"cores", sysconf(_SC_NPROCESSORS_ONLN)}, {"kernel", system.release}}
      .dump();
}

Status WriteJson(const Json& json, const std::string& path) {
  if (path.empty()) return OkStatus();
  std::ofstream file(path);
  file << json.dump(2) << "\n";
  file.close();
  return file ? OkStatus() : Status(Code::kIo, path + " could not be written");
}

}  // namespace talaria::bench
