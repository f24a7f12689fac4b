#include "talaria/cloud/provision_plan.h"

#include <regex.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>

#include "talaria/cloud/provision_source.h"
#include "talaria/gemm/product.h"

namespace talaria::cloud {
namespace {

// Architectures whose graph multiplies by the embedding tensor itself instead of by the copy that
// llama.cpp loads as output head: there is no second tensor that a plug-in could take.
constexpr std::string_view kHeadIsEmbedding[] = {"bitnet"};

bool IsProduct(const WeightUse& use) { return use.operation == "MUL_MAT" && use.source == 0; }

// One --keep-local expression. POSIX extended syntax: no exceptions, no backtracking surprises.
class KeepRule {
 public:
  explicit KeepRule(const std::string& text) : text_(text) {
    error_ = regcomp(&regex_, text.c_str(), REG_EXTENDED | REG_NOSUB);
  }
  ~KeepRule() {
    if (error_ == 0) regfree(&regex_);
  }
  KeepRule(const KeepRule&) = delete;
  KeepRule& operator=(const KeepRule&) = delete;
  Status status() const {
    if (error_ == 0) return OkStatus();
    char reason[128];
    regerror(error_, &regex_, reason, sizeof(reason));
    return Status(Code::kInvalidArgument,
                  "keep-local '" + text_ + "' is not a regular expression: " + reason);
  }
  bool Matches(const std::string& name) {
    const bool match = regexec(&regex_, name.c_str(), 0, nullptr, 0) == 0;
    used_ |= match;
    return match;
  }
  const std::string& text() const { return text_; }
  bool used() const { return used_; }

 private:
  std::string text_;
  regex_t regex_;
  int error_;
  bool used_ = false;
};

class KeepLocal {
 public:
  static Result<KeepLocal> Create(const std::vector<std::string>& expressions) {
    KeepLocal keep;
    for (const std::string& text : expressions) {
      keep.rules_.push_back(std::make_unique<KeepRule>(text));
      TALARIA_RETURN_IF_ERROR(keep.rules_.back()->status());
    }
    return keep;
  }
  const std::string* Match(const std::string& name) {
    const std::string* found = nullptr;
    for (const auto& rule : rules_) {
      if (rule->Matches(name)) found = &rule->text();
    }
    return found;
  }
  // A rule without effect is a slip of the pen that would send a matrix away.
  Status CheckUsed() const {
    for (const auto& rule : rules_) {
      if (!rule->used()) {
        return Status(Code::kInvalidArgument,
                      "keep-local '" + rule->text() + "' fits no tensor of the model");
      }
    }
    return OkStatus();
  }

 private:
  std::vector<std::unique_ptr<KeepRule>> rules_;
};

struct Candidate {
  size_t source = 0;
  model::Role role = model::Role::kLinear;
  WeightUse use;
};

// The use by which `tensor` is offloaded, or the reason why it is not.
struct Verdict {
  std::optional<Candidate> candidate;
  std::string reason;
};

Verdict Judge(const model::GgufTensor& tensor, const std::string& architecture,
              const GraphUses& uses, uint32_t min_dimension) {
  const auto keep = [](std::string reason) { return Verdict{std::nullopt, std::move(reason)}; };
  if (tensor.dimensions == 1 || (tensor.dimensions == 2 && tensor.shape[1] == 1))
    return keep("a vector");
  if (tensor.dimensions > 2)
    return keep("has " + std::to_string(tensor.dimensions) + " dimensions");
  if (!tensor.name.ends_with(".weight")) return keep("not a weight by its name");
  const auto found = uses.weights.find(tensor.name);
  if (found == uses.weights.end()) return keep("not used by the graph");
  std::vector<const WeightUse*> products;
  bool looked_up = false;
  for (const WeightUse& use : found->second) {
    if (IsProduct(use)) {
      products.push_back(&use);
    } else if (tensor.name == model::kTiedHeadName && use.operation == "GET_ROWS" && !use.view) {
      // The look-up of a tied head's embedding is no obstacle: llama.cpp loads that tensor twice.
      looked_up = true;
    } else {
      return keep("used by " + use.operation + (use.view ? " through a view" : ""));
    }
  }
  if (products.empty()) return keep("only looked up");
  // Its group would be asked for twice, with different inputs.
  if (products.size() > 1)
    return keep("used by " + std::to_string(products.size()) + " products of one evaluation");
  const WeightUse& use = *products[0];
  if (use.view) return keep("multiplied by through a view");
  if (!use.f32_input) return keep("its input is not F32");
  if (looked_up && std::find(std::begin(kHeadIsEmbedding), std::end(kHeadIsEmbedding),
                             architecture) != std::end(kHeadIsEmbedding)) {
    return keep("the embedding itself is the head in this architecture");
  }
  if (!CanDequantise(tensor.type)) return keep("its type cannot be dequantised");
  const uint64_t d = tensor.shape[0], o = tensor.shape[1];
  if (d > model::kMaxInputs || o > model::kMaxOutputs)
    return keep("too large for the exact product");
  if (std::min(d, o) < min_dimension) return keep("smaller than " + std::to_string(min_dimension));
  return {Candidate{0, looked_up ? model::Role::kTiedHead : model::Role::kLinear, use}, {}};
}

std::string PrintableName(const model::GgufHeader& header) {
  std::string name = (header.model_name.empty() ? header.architecture : header.model_name)
                         .substr(0, model::kMaxNameBytes);
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c < 0x20 || c > 0x7e; }, '?');
  return name;
}

// The source's keys byte for byte, its tensors with holes retyped to I8, and the holes' extents.
void PlanSkeleton(const model::GgufHeader& header, Bytes head, const std::vector<bool>& hole,
                  Plan& plan) {
  std::vector<model::GgufTensor> tensors = header.tensors;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (hole[i]) tensors[i].type = model::kGgufTypeI8;
  }
  const Bytes keys =
      head.subspan(model::kGgufKeysOffset, header.tensors_offset - model::kGgufKeysOffset);
  plan.skeleton_head =
      model::EncodeGgufHeader(header.version, header.keys, keys, header.alignment, tensors);
  uint64_t end = plan.skeleton_head.size();
  std::vector<model::Hole>& holes = plan.manifest.holes;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint64_t start = plan.skeleton_head.size() + tensors[i].offset;
    plan.skeleton.push_back({i, start, static_cast<bool>(hole[i])});
    end = start + (tensors[i].bytes + header.alignment - 1) / header.alignment * header.alignment;
    if (!hole[i]) continue;
    // The padding belongs to the hole, so neighbours merge.
    if (!holes.empty() && holes.back().offset + holes.back().bytes == start) {
      holes.back().bytes = end - holes.back().offset;
    } else {
      holes.push_back({start, end - start});
    }
  }
  plan.manifest.skeleton_bytes = end;
}

}  // namespace

Result<Plan> MakePlan(const model::GgufHeader& header, Bytes head, const GraphUses& uses,
                      const PlanOptions& options) {
  if (uses.chooses_experts) {
    return Status(Code::kUnsupported,
                  "the model is a mixture of experts: which experts it chooses would tell the "
                  "cloud the tokens");
  }
  TALARIA_ASSIGN_OR_RETURN(KeepLocal keep, KeepLocal::Create(options.keep_local));
  Plan plan;
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < header.tensors.size(); ++i) {
    const model::GgufTensor& tensor = header.tensors[i];
    const std::string* rule = keep.Match(tensor.name);
    Verdict verdict = Judge(tensor, header.architecture, uses, options.min_dimension);
    if (rule != nullptr) verdict = {std::nullopt, "kept by '" + *rule + "'"};
    if (!verdict.candidate) {
      plan.kept.push_back(tensor.name + ": " + verdict.reason);
      continue;
    }
    verdict.candidate->source = i;
    candidates.push_back(*verdict.candidate);
  }
  TALARIA_RETURN_IF_ERROR(keep.CheckUsed());
  if (candidates.empty())
    return Status(Code::kUnsupported, "no matrix of the model can be offloaded");

  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.use.order < b.use.order; });
  std::vector<bool> hole(header.tensors.size(), false);
  std::vector<std::vector<Candidate>> groups;
  std::map<uint32_t, size_t> group_of_input;
  for (const Candidate& c : candidates) {
    const size_t g = group_of_input.emplace(c.use.input, groups.size()).first->second;
    if (g == groups.size()) groups.emplace_back();
    groups[g].push_back(c);
    hole[c.source] = c.role == model::Role::kLinear;
  }
  plan.manifest.model_name = PrintableName(header);
  plan.manifest.tool_version = TALARIA_VERSION;
  plan.manifest.profile = options.profile;
  for (const std::vector<Candidate>& members : groups) {
    model::Group group;
    group.d = static_cast<uint32_t>(header.tensors[members[0].source].shape[0]);
    for (const Candidate& c : members) {
      const model::GgufTensor& tensor = header.tensors[c.source];
      TALARIA_CHECK(tensor.shape[0] == group.d);  // one input has one width
      model::Matrix matrix;
      matrix.name = tensor.name;
      matrix.role = c.role;
      matrix.o = static_cast<uint32_t>(tensor.shape[1]);
      group.matrices.push_back(std::move(matrix));
      plan.sources.push_back(c.source);
    }
    plan.manifest.groups.push_back(std::move(group));
  }
  PlanSkeleton(header, head, hole, plan);
  if (Status s = model::ValidateManifest(plan.manifest); !s.ok())
    return Status(Code::kUnsupported, s.message());
  return plan;
}

}  // namespace talaria::cloud
