#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "bench/measurements.h"
#include "bench/streams.h"

namespace talaria::bench {
namespace {

using Json = nlohmann::json;

void PrintCpu(const std::vector<Row>& rows) {
  std::printf("\n%-20s %9s %9s %9s %9s   CPU ms per token (refilling included)\n", "", "llama.cpp",
              "engine", "CVM", "cloud");
  for (const Row& row : rows) {
    const Json cpu = row.ToJson()["cpu_ms_per_token"];
    const auto ms = [&cpu](const char* name) { return cpu[name].get<double>(); };
    std::printf("%-20s %9.3f %9.3f %9.3f %9.3f\n", row.name.c_str(), ms("plain"), ms("llama_child"),
                ms("cvm"), ms("cloud"));
  }
}

// The total of all streams, which batches their decoding: the case of a server with several users.
Status AddStreams(const EndToEndOptions& options, Laboratory& lab, const Wanted& wanted,
                  std::vector<Subject>& subjects) {
  const Setting& s = options.setting;
  for (const auto kind : {StreamWork::Kind::kDecode, StreamWork::Kind::kPrompt}) {
    const bool decode = kind == StreamWork::Kind::kDecode;
    const std::string name =
        std::to_string(options.streams) + (decode ? " parallel streams" : " streams' prompts");
    if (!wanted(name)) continue;
    const StreamWork work = SustainedStreams(kind, options.streams, s.pool_batches, options.prompt);
    const StreamWork probe{kind, work.streams, 1, std::min(work.tokens, 64)};
    TALARIA_ASSIGN_OR_RETURN(const int plain_threads, BetterThreads([&](int threads) {
                               return MeasurePlainStreams(s, probe, threads);
                             }));
    subjects.push_back(
        {name, plain_threads,
         [s, work](int threads) { return MeasurePlainStreams(s, work, threads); },
         [s, work, &lab](Sample& sample) { return MeasureMaskedStreams(s, lab, work, sample); }});
  }
  return OkStatus();
}

}  // namespace

Result<std::vector<Subject>> EndToEndSubjects(const EndToEndOptions& options, Laboratory& lab,
                                              const Wanted& wanted) {
  const Setting& s = options.setting;
  const Workload decode = BurstDecode(), prompt = BurstPrompt(s.pool_batches, options.prompt);
  // What is short decides plain llama.cpp's threads.
  const std::vector<std::pair<Workload, const Workload*>> works = {
      {SustainedDecode(s.pool_batches), &decode},
      {SustainedPrompt(s.pool_batches, options.prompt), &prompt},
      {decode, &decode},
      {prompt, &prompt},
      {{"first token", {"-p", "0", "-n", "0", "-pg", "128,1", "-r", "1"}}, &prompt},
  };
  std::map<const Workload*, int> threads;
  std::vector<Subject> subjects;
  for (const auto& [work, probe] : works) {
    if (!wanted(work.name)) continue;
    if (!threads.contains(probe)) {
      TALARIA_ASSIGN_OR_RETURN(threads[probe], BetterThreads([&s, &probe = *probe](int t) {
                                 return MeasurePlain(s, s.model, probe, t);
                               }));
    }
    subjects.push_back(LlamaBenchSubject(s, s.model, lab, work, threads[probe]));
  }
  if (options.streams > 0) TALARIA_RETURN_IF_ERROR(AddStreams(options, lab, wanted, subjects));
  return subjects;
}

Status EndToEnd(const EndToEndOptions& options) {
  const Setting& s = options.setting;
  TALARIA_RETURN_IF_ERROR(ProvisionIfAbsent(s));
  TALARIA_ASSIGN_OR_RETURN(const auto lab, Laboratory::Start(s));
  std::fprintf(stderr, "Set up in %.1f s; %s\n", lab->setup_seconds(), DescribeChannel(s).c_str());
  TALARIA_ASSIGN_OR_RETURN(
      const std::vector<Subject> subjects,
      EndToEndSubjects(options, *lab, [](const std::string&) { return true; }));
  TALARIA_ASSIGN_OR_RETURN(const std::vector<Row> rows, MeasurePairs(subjects, options.pairs));

  Json json = Circumstances(s);
  PrintTable(rows, json);
  const auto first = [&](auto value) { return rows[4].Over(value).median; };
  std::printf("%-20s %6.0f ms %6.0f ms   (prompt of 128 tokens)\n", "first token",
              129e3 / first([](const Sample& x) { return x.plain.tokens_per_second; }),
              129e3 / first([](const Sample& x) { return x.talaria_speed; }));
  PrintCpu({rows[0], rows[1]});
  const Json& d = json["workloads"]["decode"];
  std::printf("\nper token of decoding: %.1f round trips, %.0f bytes up, %.0f down\n",
              d["round_trips_per_token"].get<double>(), d["bytes_sent_per_token"].get<double>(),
              d["bytes_received_per_token"].get<double>());
  const Usage cvm = lab->cvm(), cloud = lab->cloud();
  std::printf("set-up %.1f s; resident memory: CVM %.0f MiB (peak %.0f), cloud %.0f MiB\n",
              lab->setup_seconds(), cvm.resident_mib, cvm.resident_peak_mib, cloud.resident_mib);
  std::printf("CVM memory: %s\n", lab->memory_json().c_str());
  PrintLegend(s);

  json["decode_ratio"] = json["workloads"]["decode"]["ratio"]["median"];
  json["prompt_ratio"] = json["workloads"]["prompt"]["ratio"]["median"];
  json["cvm_cpu_ratio"] = json["workloads"]["decode"]["cvm_cpu_ratio"]["median"];
  json["cvm_cpu_ratio_prompt"] = json["workloads"]["prompt"]["cvm_cpu_ratio"]["median"];
  json["setup_seconds"] = lab->setup_seconds();
  json["cvm_resident_mib"] = cvm.resident_mib;
  json["cvm_resident_peak_mib"] = cvm.resident_peak_mib;
  json["cloud_resident_mib"] = cloud.resident_mib;
  json["pairs"] = options.pairs;
  json["prompt_tokens"] = options.prompt;
  json["streams"] = options.streams;
  return WriteJson(json, options.json);
}

}  // namespace talaria::bench
