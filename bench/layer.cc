#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "bench/commands.h"
#include "bench/layer_model.h"
#include "bench/pairs.h"

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

}  // namespace

Status Layer(const LayerOptions& options) {
  TALARIA_ASSIGN_OR_RETURN(const LayerShape shape, FindShape(options.shape));
  Setting s = options.setting;
  // Talaria's products are of integers, and cost the same whatever the file's type is: one store is
  // enough.
  TALARIA_ASSIGN_OR_RETURN(s.model, ModelFile(shape, "q8_0", s.work));
  s.store = s.work + "/layer-" + shape.name + ".store";
  TALARIA_RETURN_IF_ERROR(ProvisionIfAbsent(s));
  TALARIA_ASSIGN_OR_RETURN(const auto lab, Laboratory::Start(s));
  std::fprintf(stderr, "Set up in %.1f s; %s\n", lab->setup_seconds(), DescribeChannel(s).c_str());

  std::vector<Subject> subjects;
  for (const std::string type : {"q8_0", "q4_k"}) {
    TALARIA_ASSIGN_OR_RETURN(const std::string model, ModelFile(shape, type, s.work));
    const auto add = [&](const Workload& work, const Workload& probe) -> Status {
      TALARIA_ASSIGN_OR_RETURN(const int threads, BetterThreads([&](int t) {
                                 return MeasurePlain(s, model, probe, t);
                               }));
      Subject subject = LlamaBenchSubject(s, model, *lab, work, threads);
      subject.name = work.name + ", " + type;
      subjects.push_back(std::move(subject));
      return OkStatus();
    };
    TALARIA_RETURN_IF_ERROR(add(SustainedDecode(s.pool_batches), BurstDecode()));
    TALARIA_RETURN_IF_ERROR(add(SustainedPrompt(s.pool_batches, options.prompt),
                                BurstPrompt(s.pool_batches, options.prompt)));
  }
  TALARIA_ASSIGN_OR_RETURN(const std::vector<Row> rows, MeasurePairs(subjects, options.pairs));

  Json json = Circumstances(s);
  json["shape"] = shape.name;
  json["shape_of"] = shape.model;
  json["columns"] = Columns(shape);
  json["weights"] = Weights(shape);
  json["pairs"] = options.pairs;
  json["prompt_tokens"] = options.prompt;
  json["setup_seconds"] = lab->setup_seconds();
  std::printf("one layer of %s: %llu weights in 7 matrices of %llu columns\n", shape.model,
              static_cast<unsigned long long>(Weights(shape)),
              static_cast<unsigned long long>(Columns(shape)));
  PrintTable(rows, json);
  const Usage cvm = lab->cvm();
  json["cvm_resident_mib"] = cvm.resident_mib;
  std::printf("set-up %.1f s; resident memory of the CVM %.0f MiB: %s\n", lab->setup_seconds(),
              cvm.resident_mib, lab->memory_json().c_str());
  std::printf(
      "A model of this one layer, random weights: beside its 7 matrices, norms and attention there "
      "are an embedding\nand an output head of %u tokens (a whole model has over 100,000) and each "
      "program's own work per token.\n",
      kLayerVocabulary);
  PrintLegend(s);
  return WriteJson(json, options.json);
}

}  // namespace talaria::bench
