#include "bench/plan_shape.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <string_view>

#include "talaria/gemm/product.h"

namespace talaria::bench {
namespace {

// Which matrices of a layer have the same input.
int GroupInLayer(std::string_view part) {
  if (part == "attn_qkv" || part == "attn_q" || part == "attn_k" || part == "attn_v") return 0;
  if (part == "attn_output") return 1;
  if (part == "ffn_gate" || part == "ffn_up") return 2;
  if (part == "ffn_down") return 3;
  return -1;
}

struct LayerTensor {
  uint32_t layer = 0;
  std::string_view part;  // "attn_q"
};

// "blk.12.attn_q.weight"; false for anything else.
bool ParseName(std::string_view name, LayerTensor& out) {
  if (!name.starts_with("blk.") || !name.ends_with(".weight")) return false;
  name.remove_prefix(4);
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), out.layer);
  if (error != std::errc() || end == name.data() + name.size() || *end != '.') return false;
  name.remove_prefix(static_cast<size_t>(end - name.data()) + 1);
  out.part = name.substr(0, name.size() - std::string_view(".weight").size());
  return true;
}

bool SameShape(const GroupShape& a, const GroupShape& b) {
  return a.d == b.d && a.outputs == b.outputs && a.head == b.head;
}

void Add(GroupShape group, std::vector<GroupShape>& groups) {
  const auto same = std::find_if(groups.begin(), groups.end(),
                                 [&](const GroupShape& g) { return SameShape(g, group); });
  if (same != groups.end()) {
    same->count += group.count;
  } else {
    groups.push_back(std::move(group));
  }
}

}  // namespace

double Padded(uint32_t outputs) { return static_cast<double>(gemm::PadOutputs(outputs)); }

double PaddedOutputs(const GroupShape& group) {
  double sum = 0;
  for (const uint32_t o : group.outputs) sum += Padded(o);
  return sum;
}

double Weights(const GroupShape& group) {
  double sum = 0;
  for (const uint32_t o : group.outputs) sum += static_cast<double>(group.d) * o;
  return sum;
}

uint32_t RoundTrips(const ModelShape& shape) {
  uint32_t sum = 0;
  for (const GroupShape& group : shape.groups) sum += group.count;
  return sum;
}

Result<ModelShape> ShapeOfGguf(const model::GgufHeader& header) {
  ModelShape shape;
  shape.name = header.model_name.empty() ? header.architecture : header.model_name;
  std::map<std::pair<uint32_t, int>, GroupShape> found;  // by layer and place
  const model::GgufTensor *embedding = nullptr, *head = nullptr;
  std::set<std::string> alone;
  int others = 4;
  for (const model::GgufTensor& tensor : header.tensors) {
    if (tensor.name.find("_exps.") != std::string::npos) {
      return Status(Code::kUnsupported,
                    "a mixture of experts: Talaria refuses it, because which experts are chosen "
                    "would tell the cloud the tokens");
    }
    if (tensor.name == "token_embd.weight") embedding = &tensor;
    if (tensor.name == "output.weight") head = &tensor;
    LayerTensor at;
    if (tensor.dimensions != 2 || std::min(tensor.shape[0], tensor.shape[1]) < 128 ||
        !ParseName(tensor.name, at)) {
      if (&tensor != head) shape.kept_bytes += static_cast<double>(tensor.bytes);
      continue;
    }
    shape.layers = std::max(shape.layers, at.layer + 1);
    int place = GroupInLayer(at.part);
    if (place < 0) {
      place = others++;
      alone.insert(std::string(at.part));
    }
    GroupShape& group = found[{at.layer, place}];
    group.d = static_cast<uint32_t>(tensor.shape[0]);
    group.outputs.push_back(static_cast<uint32_t>(tensor.shape[1]));
    shape.product_bytes += static_cast<double>(tensor.bytes);
    if (at.part == "attn_k") shape.kv_width = static_cast<uint32_t>(tensor.shape[1]);
  }
  if (found.empty() || (head == nullptr && embedding == nullptr))
    return Status(Code::kUnsupported, "no layers of matrices that Talaria would offload");
  for (auto& [key, group] : found) {
    std::sort(group.outputs.begin(), group.outputs.end());
    Add(group, shape.groups);
  }
  const model::GgufTensor& last = head != nullptr ? *head : *embedding;
  shape.width = static_cast<uint32_t>(last.shape[0]);
  shape.product_bytes += static_cast<double>(last.bytes);
  shape.groups.push_back({shape.width, {static_cast<uint32_t>(last.shape[1])}, 1, true});
  if (shape.kv_width == 0) {
    shape.kv_width = shape.width;
    shape.notes.emplace_back("width of keys and values not in the names: taken as the model's");
  }
  for (const std::string& part : alone)
    shape.notes.push_back(part + ": taken as a group of its own");
  return shape;
}

Result<ModelShape> ShapeOf(const std::string& name, double bits) {
  struct Known {
    const char *name, *full;
    uint32_t layers, width, kv, ffn, vocabulary;
    bool tied;
  };
  // From the models' config.json.
  constexpr Known kKnown[] = {
      {"smollm2", "SmolLM2-135M", 30, 576, 192, 1536, 49152, true},
      {"8b", "Llama-3.1-8B", 32, 4096, 1024, 14336, 128256, false},
      {"70b", "Llama-3.1-70B", 80, 8192, 1024, 28672, 128256, false},
  };
  for (const Known& k : kKnown) {
    if (name != k.name) continue;
    ModelShape shape;
    shape.name = k.full;
    shape.layers = k.layers;
    shape.width = k.width;
    shape.kv_width = k.kv;
    shape.groups = {{k.width, {k.kv, k.kv, k.width}, k.layers},
                    {k.width, {k.width}, k.layers},
                    {k.width, {k.ffn, k.ffn}, k.layers},
                    {k.ffn, {k.width}, k.layers},
                    {k.width, {k.vocabulary}, 1, true}};
    for (const GroupShape& group : shape.groups)
      shape.product_bytes += Weights(group) * group.count * bits / 8;
    shape.kept_bytes = static_cast<double>(k.width) * k.vocabulary * bits / 8;
    return shape;
  }
  return Status(Code::kInvalidArgument, "--shape " + name + ": known are smollm2, 8b and 70b");
}

}  // namespace talaria::bench
