#include "tests/model_check_matrices.h"

#include <ggml.h>
#include <gguf.h>

#include <algorithm>
#include <cstring>
#include <memory>

namespace talaria::tests {
namespace {

struct GgufDeleter {
  void operator()(gguf_context* c) const { gguf_free(c); }
};
struct GgmlDeleter {
  void operator()(ggml_context* c) const { ggml_free(c); }
};

struct Source {
  std::unique_ptr<gguf_context, GgufDeleter> head;
  std::unique_ptr<ggml_context, GgmlDeleter> tensors;
};

Result<Source> OpenSource(const std::string& path) {
  Source source;
  ggml_context* tensors = nullptr;
  source.head.reset(gguf_init_from_file(path.c_str(), {.no_alloc = false, .ctx = &tensors}));
  source.tensors.reset(tensors);
  if (!source.head || !source.tensors) return Status(Code::kNotFound, path + " is not a GGUF file");
  return source;
}

Status ReadSource(const Source& source, CheckedMatrix& matrix) {
  const ggml_tensor* tensor = ggml_get_tensor(source.tensors.get(), matrix.name.c_str());
  if (tensor == nullptr || tensor->ne[0] != matrix.d || tensor->ne[1] != matrix.o ||
      tensor->ne[2] != 1 || tensor->ne[3] != 1) {
    return Status(Code::kCorrupt, matrix.name + ": the source has no such matrix of this shape");
  }
  matrix.source_type = ggml_type_name(tensor->type);
  matrix.source.resize(size_t{matrix.d} * matrix.o);
  if (tensor->type == GGML_TYPE_F32) {
    std::memcpy(matrix.source.data(), tensor->data, matrix.source.size() * sizeof(float));
    return OkStatus();
  }
  const ggml_to_float_t to_float = ggml_get_type_traits(tensor->type)->to_float;
  if (to_float == nullptr)
    return Status(Code::kUnsupported, matrix.name + ": its type has no values");
  to_float(tensor->data, matrix.source.data(), static_cast<int64_t>(matrix.source.size()));
  return OkStatus();
}

Status ReadStored(const model::Store& store, uint32_t index, CheckedMatrix& matrix) {
  matrix.weights.resize(size_t{matrix.d} * matrix.o);
  matrix.scales.resize(matrix.o);
  TALARIA_RETURN_IF_ERROR(
      store.ReadStream({model::StreamKind::kWeights, index}, 0,
                       {reinterpret_cast<uint8_t*>(matrix.weights.data()), matrix.weights.size()}));
  return store.ReadStream(
      {model::StreamKind::kScales, index}, 0,
      {reinterpret_cast<uint8_t*>(matrix.scales.data()), matrix.scales.size() * sizeof(float)});
}

}  // namespace

const CheckedMatrix* CheckedModel::Find(const std::string& name) const {
  const auto found = std::find_if(matrices.begin(), matrices.end(),
                                  [&](const CheckedMatrix& m) { return m.name == name; });
  return found == matrices.end() ? nullptr : &*found;
}

Result<CheckedModel> ReadCheckedModel(const model::Store& store, const std::string& source_path) {
  TALARIA_ASSIGN_OR_RETURN(const Source source, OpenSource(source_path));
  CheckedModel out;
  const int64_t key = gguf_find_key(source.head.get(), "general.architecture");
  if (key < 0) return Status(Code::kCorrupt, source_path + " names no architecture");
  out.architecture = gguf_get_val_str(source.head.get(), key);
  std::vector<cvm::WeightNorms> norms(store.manifest().groups.size());
  for (const model::MatrixRef& ref : model::AllMatrices(store.manifest())) {
    CheckedMatrix matrix;
    matrix.name = ref.matrix->name;
    matrix.group = ref.group_index;
    matrix.d = ref.group->d;
    matrix.o = ref.matrix->o;
    TALARIA_RETURN_IF_ERROR(ReadStored(store, static_cast<uint32_t>(out.matrices.size()), matrix));
    TALARIA_RETURN_IF_ERROR(ReadSource(source, matrix));
    TALARIA_RETURN_IF_ERROR(norms[matrix.group].Add(matrix.weights, matrix.d));
    out.matrices.push_back(std::move(matrix));
  }
  for (size_t g = 0; g < norms.size(); ++g) {
    TALARIA_ASSIGN_OR_RETURN(cvm::Certificate certificate,
                             cvm::Certificate::Compute(norms[g], store.manifest().groups[g].d));
    out.certificates.push_back(certificate);
  }
  return out;
}

std::vector<Mutation> MutationsOf(const CheckedModel& model, size_t index) {
  const CheckedMatrix& matrix = model.matrices[index];
  std::vector<Mutation> out;
  out.push_back({"zeroed", std::vector<int8_t>(matrix.weights.size(), 0), matrix.scales});

  Mutation& rescaled = out.emplace_back(Mutation{"rescaled by 1.5", matrix.weights, matrix.scales});
  for (float& scale : rescaled.scales) scale *= 1.5f;

  for (size_t step = 1; step < model.matrices.size(); ++step) {
    const CheckedMatrix& other = model.matrices[(index + step) % model.matrices.size()];
    if (other.d != matrix.d || other.o != matrix.o) continue;
    out.push_back({"swapped with " + other.name, other.weights, other.scales});
    return out;
  }
  Mutation& rotated = out.emplace_back(Mutation{"rows rotated", matrix.weights, matrix.scales});
  std::rotate(rotated.weights.begin(), rotated.weights.begin() + matrix.d, rotated.weights.end());
  std::rotate(rotated.scales.begin(), rotated.scales.begin() + 1, rotated.scales.end());
  return out;
}

}  // namespace talaria::tests
