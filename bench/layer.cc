#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "bench/measurements.h"

namespace talaria::bench {
namespace {

using Json = nlohmann::json;

Result<LayerShape> FindShape(const std::string& name) {
  for (const LayerShape& shape : LayerShapes()) {
    if (shape.name == name) return shape;
  }
  return Status(Code::kInvalidArgument, "no shape is called " + name);
}

// In the work folder, and kept there for the next run with the same one.
Result<std::string> ModelFile(const LayerShape& shape, const std::string& type,
                              const std::string& work) {
  const std::string path = work + "/layer-" + shape.name + "-" + type + ".gguf";
  if (!std::filesystem::exists(path)) {
    std::fprintf(stderr, "Writing %s\n", path.c_str());
    TALARIA_RETURN_IF_ERROR(WriteLayerModel(shape, type, path));
  }
  return path;
}

// Two model files, and a store of weights, scales and hints (12,288 bytes a column).
Status CheckDisk(const LayerShape& shape, const std::string& work) {
  const uint64_t needed = 3 * Weights(shape) + Columns(shape) * 12288;
  std::error_code error;
  const auto space = std::filesystem::space(work, error);
  if (error || std::filesystem::exists(work + "/layer-" + shape.name + ".store/manifest.json") ||
      space.available >= needed) {
    return OkStatus();
  }
  return Status(Code::kResourceExhausted,
                "too little disk: a layer of " + std::string(shape.name) + " needs " +
                    std::to_string(needed / 1'000'000'000 + 1) + " GB in " + work +
                    " (--work DIR chooses another folder)");
}

}  // namespace

Result<LayerRun> MeasureLayer(const LayerOptions& options, const Wanted& wanted) {
  LayerRun run;
  TALARIA_ASSIGN_OR_RETURN(run.shape, FindShape(options.shape));
  const LayerShape& shape = run.shape;
  Setting& s = run.setting;
  s = options.setting;
  TALARIA_RETURN_IF_ERROR(CheckDisk(shape, s.work));
  // Talaria's products are of integers, and cost the same whatever the file's type is: one store is
  // enough.
  TALARIA_ASSIGN_OR_RETURN(s.model, ModelFile(shape, "q8_0", s.work));
  s.store = s.work + "/layer-" + shape.name + ".store";
  TALARIA_RETURN_IF_ERROR(ProvisionIfAbsent(s));
  TALARIA_ASSIGN_OR_RETURN(run.lab, Laboratory::Start(s));
  std::fprintf(stderr, "Set up in %.1f s; %s\n", run.lab->setup_seconds(),
               DescribeChannel(s).c_str());

  std::vector<Subject> subjects;
  for (const std::string type : {"q8_0", "q4_k"}) {
    const auto add = [&](const Workload& work, const Workload& probe) -> Status {
      const std::string name = work.name + ", " + type;
      if (!wanted(name)) return OkStatus();
      TALARIA_ASSIGN_OR_RETURN(const std::string model, ModelFile(shape, type, s.work));
      TALARIA_ASSIGN_OR_RETURN(const int threads, BetterThreads([&](int t) {
                                 return MeasurePlain(s, model, probe, t);
                               }));
      subjects.push_back(LlamaBenchSubject(s, model, *run.lab, work, threads));
      subjects.back().name = name;
      return OkStatus();
    };
    TALARIA_RETURN_IF_ERROR(add(SustainedDecode(s.pool_batches), BurstDecode()));
    TALARIA_RETURN_IF_ERROR(add(SustainedPrompt(s.pool_batches, options.prompt),
                                BurstPrompt(s.pool_batches, options.prompt)));
  }
  TALARIA_ASSIGN_OR_RETURN(run.rows, MeasurePairs(subjects, options.pairs));
  return run;
}

Status Layer(const LayerOptions& options) {
  TALARIA_ASSIGN_OR_RETURN(const LayerRun run,
                           MeasureLayer(options, [](const std::string&) { return true; }));
  const LayerShape& shape = run.shape;
  const Setting& s = run.setting;
  Json json = Circumstances(s);
  json["shape"] = shape.name;
  json["shape_of"] = shape.model;
  json["columns"] = Columns(shape);
  json["weights"] = Weights(shape);
  json["pairs"] = options.pairs;
  json["prompt_tokens"] = options.prompt;
  json["setup_seconds"] = run.lab->setup_seconds();
  std::printf("one layer of %s: %llu weights in 7 matrices of %llu columns\n", shape.model,
              static_cast<unsigned long long>(Weights(shape)),
              static_cast<unsigned long long>(Columns(shape)));
  PrintTable(run.rows, json);
  const Usage cvm = run.lab->cvm();
  json["cvm_resident_mib"] = cvm.resident_mib;
  std::printf("set-up %.1f s; resident memory of the CVM %.0f MiB: %s\n", run.lab->setup_seconds(),
              cvm.resident_mib, run.lab->memory_json().c_str());
  std::printf(
      "A model of this one layer, random weights: beside its 7 matrices, norms and attention there "
      "are an embedding\nand an output head of %u tokens (a whole model has over 100,000) and each "
      "program's own work per token.\n",
      kLayerVocabulary);
  PrintLegend(s);
  return WriteJson(json, options.json);
}

}  // namespace talaria::bench
