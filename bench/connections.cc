// Many connections at once beside one: throughput, latency, right answers, and real CVMs among
// them. The load replays masked rows that a real CVM was recorded with.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "bench/commands.h"
#include "bench/laboratory.h"
#include "bench/llama_bench.h"
#include "bench/process.h"
#include "bench/provider.h"
#include "bench/replay_load.h"

namespace talaria::bench {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;
constexpr double kStartSeconds = 300, kRunSeconds = 600;
constexpr size_t kVersions = 4;
constexpr int kGeneratedTokens = 24;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A process of talaria-cloud for one part of the measurement, or of talaria-cloud-lab.
class Cloud {
 public:
  static Result<Cloud> Start(const ConnectionsOptions& options, const std::string& name) {
    return Start(options.setting, name, "talaria-cloud",
                 {"--device", options.device, "--batch-window-us",
                  std::to_string(options.batch_window_us), "--frame-timeout-ms", "1000",
                  "--max-connections", std::to_string(options.connections + 64),
                  "--insecure-simulated-tee", "--insecure-plaintext"});
  }
  // One that keeps every masked row in `folder`.
  static Result<Cloud> StartRecording(const Setting& setting, const std::string& folder) {
    return Start(setting, "recording", "talaria-cloud-lab",
                 {"--record", folder, "--scheme", setting.scheme});
  }
  // What it says of itself when it has ended: "multiplied R rows of N requests in P products".
  Json Stop() {
    process.reset();
    const std::string text = ReadFile(log);
    unsigned long long rows = 0, requests = 0, products = 0;
    const size_t at = text.rfind("multiplied ");
    if (at == std::string::npos ||
        std::sscanf(text.c_str() + at, "multiplied %llu rows of %llu requests in %llu products",
                    &rows, &requests, &products) != 3)
      return nullptr;
    return {{"rows", rows}, {"requests", requests}, {"products", products}};
  }
  std::unique_ptr<Background> process;
  std::string endpoint, log;

 private:
  static Result<Cloud> Start(const Setting& setting, const std::string& name,
                             const std::string& program, std::vector<std::string> more) {
    const std::string socket = setting.work + "/" + name + ".sock";
    const std::string log = setting.work + "/" + name + ".log";
    std::filesystem::remove(log);  // another run's
    std::vector<std::string> arguments = {setting.bin + "/" + program,
                                          "serve",
                                          setting.store,
                                          "--listen",
                                          "unix:" + socket,
                                          "--threads",
                                          std::to_string(setting.cloud_threads)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    TALARIA_ASSIGN_OR_RETURN(std::unique_ptr<Background> process, Launch(arguments, log));
    const auto deadline = Clock::now() + std::chrono::duration<double>(kStartSeconds);
    for (std::string said; said.find(" info: serving ") == std::string::npos;
         said = ReadFile(log)) {
      if (Clock::now() > deadline || said.find(" error: ") != std::string::npos)
        return Status(Code::kUnavailable, "the cloud did not start; see " + log);
      usleep(20'000);
    }
    return Cloud{std::move(process), "unix:" + socket, log};
  }
};

// A real CVM with a prompt of its own; the answer is greedy, so it is the same at every run.
class Cvm {
 public:
  static Result<std::unique_ptr<Cvm>> Start(const ConnectionsOptions& options,
                                            const std::string& endpoint, int number) {
    auto cvm = std::make_unique<Cvm>();
    cvm->file_ = std::filesystem::absolute(options.setting.work).string() + "/cvm" +
                 std::to_string(number);  // its child has a working directory of its own
    cvm->prompt_ = "The " + std::to_string(number) + ". prompt of a CVM among others";
    TALARIA_ASSIGN_OR_RETURN(
        cvm->process_, Launch({options.setting.bin + "/talaria-cvm-lab", "batch", "--cloud",
                               endpoint, "--scheme", options.setting.scheme, "--pool-batches", "1"},
                              cvm->file_ + ".log"));
    return cvm;
  }
  Status AwaitReady() {
    const auto line = process_->ReadLine(kStartSeconds);
    if (!line.ok()) return line.status().Annotate("a CVM did not start (see " + file_ + ".log)");
    return OkStatus();
  }
  // Every token that was evaluated, the prompt's and the answer's.
  Result<std::string> Answer() {
    const std::string evaluations = file_ + ".jsonl";
    std::filesystem::remove(evaluations);
    const Json request = {{"arguments",
                           {"talaria-lab-runner", "--prompt", prompt_, "--generate",
                            std::to_string(kGeneratedTokens), "--evaluations", evaluations}},
                          {"output", file_ + ".out"}};
    TALARIA_RETURN_IF_ERROR(process_->WriteLine(request.dump()));
    TALARIA_ASSIGN_OR_RETURN(const std::string line, process_->ReadLine(kRunSeconds));
    const Json reply = Json::parse(line, nullptr, false);
    if (!reply.is_object() || reply.value("exit", -1) != 0)
      return Status(Code::kUnavailable, "a CVM failed: " + line + "; see " + file_ + ".log");
    const std::string answer = ReadFile(evaluations);
    if (answer.empty()) return Status(Code::kInternal, evaluations + " is empty");
    return answer;
  }

 private:
  std::string file_, prompt_;
  std::unique_ptr<Background> process_;
};

// What is replayed: the masked rows of a real CVM that answers a prompt, as its cloud sees them.
Result<Recording> Record(const ConnectionsOptions& options, const model::Store& store) {
  std::fprintf(stderr, "recording the masked rows of a CVM\n");
  const std::string folder = options.setting.work + "/recorded";
  std::filesystem::remove_all(folder);  // another run's
  {
    TALARIA_ASSIGN_OR_RETURN(const Cloud cloud, Cloud::StartRecording(options.setting, folder));
    TALARIA_ASSIGN_OR_RETURN(const auto cvm, Cvm::Start(options, cloud.endpoint, 0));
    TALARIA_RETURN_IF_ERROR(cvm->AwaitReady());
    TALARIA_RETURN_IF_ERROR(cvm->Answer().status());
  }  // the files are complete when both have ended
  std::fprintf(stderr, "computing the right answers with the oracle\n");
  return Recording::Read(folder, store, static_cast<uint32_t>(options.rows), kVersions);
}

struct CvmResult {
  uint64_t answers = 0, wrong = 0;
  std::vector<std::string> failed;
};

// The CVMs, each on its thread: answers until the time is over, and one at least.
std::vector<CvmResult> RunCvms(std::vector<std::unique_ptr<Cvm>>& cvms,
                               const std::vector<std::string>& right, double seconds) {
  std::vector<CvmResult> results(cvms.size());
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < cvms.size(); ++i) {
    threads.emplace_back([&, i] {
      do {
        const Result<std::string> answer = cvms[i]->Answer();
        if (!answer.ok()) {
          results[i].failed.push_back(answer.status().ToString());
          return;
        }
        ++results[i].answers;
        if (*answer != right[i]) ++results[i].wrong;
      } while (Clock::now() < end);
    });
  }
  std::this_thread::sleep_until(end);
  for (std::thread& thread : threads) thread.join();
  return results;
}

double Quantile(const std::vector<double>& sorted, double q) {
  if (sorted.empty()) return 0;
  return sorted[static_cast<size_t>(q * static_cast<double>(sorted.size() - 1))];
}

struct Part {
  const char* name;
  int replayers, cvms;
  bool misbehave;
};

Result<Json> Measure(const ConnectionsOptions& options, const Recording& recording,
                     const Part& part) {
  TALARIA_ASSIGN_OR_RETURN(Cloud cloud, Cloud::Start(options, part.name));
  std::vector<std::unique_ptr<Cvm>> cvms;
  std::vector<std::string> right;
  for (int i = 0; i < part.cvms; ++i) {
    TALARIA_ASSIGN_OR_RETURN(auto cvm, Cvm::Start(options, cloud.endpoint, i));
    cvms.push_back(std::move(cvm));
  }
  for (const auto& cvm : cvms) {
    TALARIA_RETURN_IF_ERROR(cvm->AwaitReady());
  }
  for (const auto& cvm : cvms) {  // one after the other, alone
    TALARIA_ASSIGN_OR_RETURN(std::string answer, cvm->Answer());
    right.push_back(std::move(answer));
  }
  std::unique_ptr<Misbehaviour> bad;
  if (part.misbehave) bad = std::make_unique<Misbehaviour>(cloud.endpoint, recording);
  TALARIA_ASSIGN_OR_RETURN(const auto load,
                           ReplayLoad::Start(cloud.endpoint, recording, part.replayers));
  const std::vector<CvmResult> cvm_results = RunCvms(cvms, right, options.seconds);
  LoadResult result = load->Stop();
  Json json;
  if (bad) {
    const Misbehaviour::Counts counts = bad->Stop();
    json["misbehaviour"] = {{"requests_whose_answer_was_not_read", counts.unread},
                            {"requests_flooded", counts.flooded},
                            {"pieces_of_garbage", counts.garbage}};
  }
  cvms.clear();
  json["cloud"] = cloud.Stop();
  std::ranges::sort(result.latencies_ms);
  json["connections"] = part.replayers + part.cvms;
  json["replaying"] = part.replayers;
  json["cvms"] = part.cvms;
  json["replayed"] = {{"seconds", result.seconds},
                      {"calls", result.calls},
                      {"rows_per_second", static_cast<double>(result.rows) / result.seconds},
                      {"wrong", result.wrong},
                      {"lost_connections", result.lost},
                      {"latency_ms",
                       {{"p50", Quantile(result.latencies_ms, 0.5)},
                        {"p90", Quantile(result.latencies_ms, 0.9)},
                        {"p99", Quantile(result.latencies_ms, 0.99)},
                        {"max", Quantile(result.latencies_ms, 1)}}}};
  json["cvm_answers"] = json["cvm_wrong"] = 0;
  json["cvm_failed"] = Json::array();
  for (const CvmResult& cvm : cvm_results) {
    json["cvm_answers"] = json["cvm_answers"].get<uint64_t>() + cvm.answers;
    json["cvm_wrong"] = json["cvm_wrong"].get<uint64_t>() + cvm.wrong;
    for (const std::string& why : cvm.failed) json["cvm_failed"].push_back(why);
  }
  return json;
}

// Nothing is wrong and nobody was thrown out.
bool IsRight(const Json& part) {
  return part["replayed"]["wrong"] == 0 && part["replayed"]["lost_connections"].empty() &&
         part["replayed"]["calls"] > 0 && part["cvm_wrong"] == 0 && part["cvm_failed"].empty();
}

void Print(const char* name, const Json& part, double alone) {
  const Json& replayed = part["replayed"];
  const double speed = replayed["rows_per_second"];
  const Json& latency = replayed["latency_ms"];
  double merged = 0;
  if (part["cloud"].is_object() && part["cloud"]["products"] > 0)
    merged = part["cloud"]["requests"].get<double>() / part["cloud"]["products"].get<double>();
  std::printf("%-14s %11d %5d %11.0f %6.2f %8.2f %8.2f %8.2f %8.2f %8d   %s\n", name,
              part["connections"].get<int>(), part["cvms"].get<int>(), speed, speed / alone,
              latency["p50"].get<double>(), latency["p99"].get<double>(),
              latency["max"].get<double>(), merged, part["cvm_answers"].get<int>(),
              IsRight(part) ? "all right" : "WRONG OR LOST");
}

}  // namespace

Status Connections(const ConnectionsOptions& options) {
  TALARIA_RETURN_IF_ERROR(ProvisionIfAbsent(options.setting));
  TALARIA_ASSIGN_OR_RETURN(const model::Store store, model::Store::Open(options.setting.store));
  TALARIA_ASSIGN_OR_RETURN(const Recording recording, Record(options, store));
  std::vector<Part> parts = {{"one", 1, 0, false}, {"many", options.connections, 0, false}};
  if (options.cvms > 0)
    parts.push_back({"with-cvms", options.connections - options.cvms, options.cvms, false});
  if (options.misbehave)
    parts.push_back({"misbehaviour", options.connections - options.cvms, options.cvms, true});
  Json json;
  json["machine"] = Json::parse(MachineJson());
  json["store"] = options.setting.store;
  json["device"] = options.device;
  json["cloud_threads"] = options.setting.cloud_threads;
  json["batch_window_us"] = options.batch_window_us;
  json["rows_per_call"] = options.rows;
  json["recorded_rows"] = recording.recorded_rows;
  json["channel"] = "unix, plaintext (simulated TEE)";
  std::printf("%-14s %11s %5s %11s %6s %8s %8s %8s %8s %8s\n", "", "connections", "CVMs", "rows/s",
              "/one", "p50 ms", "p99 ms", "max ms", "merged", "answers");
  double alone = 0;
  bool right = true;
  for (const Part& part : parts) {
    TALARIA_ASSIGN_OR_RETURN(const Json measured, Measure(options, recording, part));
    if (alone == 0) alone = measured["replayed"]["rows_per_second"];
    Print(part.name, measured, alone);
    right = right && IsRight(measured);
    json["parts"][part.name] = measured;
  }
  std::printf(
      "rows/s: recorded masked rows, all connections together, every answer compared with the "
      "oracle's;\nmerged: requests in a product, on average; answers: whole ones of real CVMs, "
      "compared with what they answered alone.\n");
  TALARIA_RETURN_IF_ERROR(WriteJson(json, options.json));
  return right ? OkStatus() : Status(Code::kInternal, "a wrong answer or a lost connection");
}

}  // namespace talaria::bench
