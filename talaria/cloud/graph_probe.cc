#include "talaria/cloud/graph_probe.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <mutex>
#include <utility>

#include "ggml-backend.h"
#include "ggml.h"
#include "llama.h"

namespace talaria::cloud {
namespace {

// Collects llama.cpp's error lines and keeps everything else quiet.
class LogCapture {
 public:
  LogCapture() {
    llama_log_set(&LogCapture::OnLine, this);
    ggml_log_set(&LogCapture::OnLine, this);
  }
  ~LogCapture() {
    llama_log_set(&LogCapture::Drop, nullptr);
    ggml_log_set(&LogCapture::Drop, nullptr);
  }
  LogCapture(const LogCapture&) = delete;
  LogCapture& operator=(const LogCapture&) = delete;
  // llama.cpp reports the cause first and its callers' complaints after it.
  std::string FirstError() const {
    std::string line = errors_.substr(0, errors_.find('\n'));
    for (const std::string_view prefix : {"error loading model: ", "llama_model_load: "}) {
      if (const size_t at = line.find(prefix); at != std::string::npos)
        line.erase(0, at + prefix.size());
    }
    for (char& c : line) {
      if (c < 0x20 || c > 0x7e) c = '?';
    }
    return line.empty() ? "no reason given" : line;
  }

 private:
  static void Drop(ggml_log_level, const char*, void*) {}
  static void OnLine(ggml_log_level level, const char* text, void* self) {
    auto& capture = *static_cast<LogCapture*>(self);
    const std::lock_guard lock(capture.mutex_);
    const bool error =
        level == GGML_LOG_LEVEL_ERROR || (level == GGML_LOG_LEVEL_CONT && capture.last_was_error_);
    if (error && capture.errors_.size() < 4096) capture.errors_ += text;
    capture.last_was_error_ = error;
  }
  std::mutex mutex_;
  std::string errors_;
  bool last_was_error_ = false;
};

// One evaluation.
struct Recorder {
  GraphUses uses;
  std::map<const ggml_tensor*, uint32_t> inputs;  // source 1 of products -> number
  uint32_t order = 0;
};

// The weight that `tensor` is or looks at, or null. Weights are leaves in a buffer that llama.cpp
// marked as weights.
const ggml_tensor* WeightOf(const ggml_tensor* tensor) {
  const ggml_tensor* root = tensor;
  while (root->view_src != nullptr) root = root->view_src;
  const bool weight =
      root->op == GGML_OP_NONE && root->buffer != nullptr &&
      ggml_backend_buffer_get_usage(root->buffer) == GGML_BACKEND_BUFFER_USAGE_WEIGHTS;
  return weight ? root : nullptr;
}

// Called for each node before it is computed; asks for no data, so that the evaluation runs on as
// if nobody watched.
bool OnNode(ggml_tensor* node, bool ask, void* user_data) {
  if (!ask) return true;
  auto& recorder = *static_cast<Recorder*>(user_data);
  ++recorder.order;
  if (node->op == GGML_OP_MUL_MAT_ID) recorder.uses.chooses_experts = true;
  for (uint32_t i = 0; i < GGML_MAX_SRC; ++i) {
    const ggml_tensor* source = node->src[i];
    const ggml_tensor* weight = source == nullptr ? nullptr : WeightOf(source);
    if (weight == nullptr) continue;
    WeightUse use;
    use.operation = ggml_op_name(node->op);
    use.source = i;
    use.view = weight != source;
    use.order = recorder.order;
    if (node->op == GGML_OP_MUL_MAT && i == 0) {
      use.f32_input = node->src[1]->type == GGML_TYPE_F32;
      use.input =
          recorder.inputs.emplace(node->src[1], static_cast<uint32_t>(recorder.inputs.size()))
              .first->second;
    }
    recorder.uses.weights[ggml_get_name(weight)].push_back(std::move(use));
  }
  return false;
}

// One backend only: others would move weights and cut the graph.
Status LoadCpuBackend(const std::string& directory) {
  if (ggml_backend_reg_by_name("CPU") != nullptr) return OkStatus();
  // The second is the baseline of a build with one library per processor generation.
  for (const char* file : {"libggml-cpu.so", "libggml-cpu-x64.so"}) {
    const std::string path = directory + "/" + file;
    if (std::filesystem::exists(path) && ggml_backend_load(path.c_str()) != nullptr)
      return OkStatus();
  }
  return Status(Code::kNotFound, "no usable libggml-cpu.so in '" + directory +
                                     "'; name its folder with --llama-backend-dir");
}

bool Cancelled(const void* flag) {
  return flag != nullptr && static_cast<const std::atomic<bool>*>(flag)->load();
}
bool OnLoadProgress(float, void* flag) { return !Cancelled(flag); }
bool OnAbortQuestion(void* flag) { return Cancelled(flag); }

struct ModelFree {
  void operator()(llama_model* model) const { llama_model_free(model); }
};
struct ContextFree {
  void operator()(llama_context* context) const { llama_free(context); }
};

Status Refused(const LogCapture& log, const std::string& what) {
  const std::string reason = log.FirstError();
  // llama.cpp checks the data of every tensor while it loads (check_tensors).
  const bool data = reason.find("invalid data") != std::string::npos ||
                    reason.find("corrupted") != std::string::npos;
  return Status(data ? Code::kCorrupt : Code::kUnsupported, what + ": " + reason);
}

// Appends the uses of an evaluation of another kind, with numbers of their own.
void Append(GraphUses&& from, GraphUses& to) {
  uint32_t inputs = 0, order = 0;
  for (const auto& [name, list] : to.weights) {
    for (const WeightUse& use : list) {
      inputs = std::max(inputs, use.input + 1);
      order = std::max(order, use.order + 1);
    }
  }
  to.chooses_experts |= from.chooses_experts;
  for (auto& [name, list] : from.weights) {
    for (WeightUse& use : list) {
      use.input += inputs;
      use.order += order;
      to.weights[name].push_back(std::move(use));
    }
  }
}

Status Evaluate(const ProbeOptions& options, GraphUses& uses) {
  LogCapture log;
  TALARIA_RETURN_IF_ERROR(LoadCpuBackend(options.llama_backend_dir));
  llama_backend_init();
  void* cancel = const_cast<std::atomic<bool>*>(options.cancel);
  ggml_backend_dev_t no_devices[] = {nullptr};
  llama_model_params model_params = llama_model_default_params();
  model_params.devices = no_devices;
  model_params.n_gpu_layers = 0;
  model_params.check_tensors = true;
  model_params.use_extra_bufts = false;  // no repacked copies
  model_params.progress_callback = OnLoadProgress;
  model_params.progress_callback_user_data = cancel;
  const std::unique_ptr<llama_model, ModelFree> model(
      llama_model_load_from_file(options.gguf.c_str(), model_params));
  if (Cancelled(cancel)) return Status(Code::kCancelled, "stopped");
  if (model == nullptr) return Refused(log, "llama.cpp does not load the model");

  const bool encodes = llama_model_has_encoder(model.get()),
             decodes = llama_model_has_decoder(model.get());
  llama_context_params params = llama_context_default_params();
  params.n_ctx = 256;  // llama.cpp pads to this anyway
  params.n_batch = params.n_ubatch = 32;
  params.n_threads = params.n_threads_batch = options.threads;
  params.embeddings = encodes && !decodes;
  params.cb_eval = OnNode;
  Recorder recorder;  // of the evaluation that runs
  params.cb_eval_user_data = &recorder;
  params.abort_callback = OnAbortQuestion;
  params.abort_callback_data = cancel;
  params.offload_kqv = params.op_offload = false;
  const std::unique_ptr<llama_context, ContextFree> context(
      llama_init_from_model(model.get(), params));
  if (context == nullptr) return Refused(log, "llama.cpp makes no context for the model");

  const int32_t vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model.get()));
  if (vocabulary < 2) return Status(Code::kUnsupported, "the model has no vocabulary");
  llama_token tokens[] = {0, 1};
  for (const bool encode : {true, false}) {
    if (encode ? !encodes : !decodes) continue;
    GraphUses of_kind;
    // Of two tokens only the last is an output: so the last layer drops a row and its groups come
    // apart where they must.
    for (const int32_t count : {2, 1}) {
      recorder = {};
      const llama_batch batch = llama_batch_get_one(tokens, count);
      const int32_t rc =
          encode ? llama_encode(context.get(), batch) : llama_decode(context.get(), batch);
      if (Cancelled(cancel)) return Status(Code::kCancelled, "stopped");
      if (rc != 0)
        return Refused(log, "llama.cpp does not evaluate the model (" + std::to_string(rc) + ")");
      of_kind = count == 2 ? std::move(recorder.uses) : CombineEvaluations(of_kind, recorder.uses);
    }
    Append(std::move(of_kind), uses);
  }
  return OkStatus();
}

}  // namespace

GraphUses CombineEvaluations(const GraphUses& prompt, const GraphUses& decoding) {
  GraphUses out;
  out.chooses_experts = prompt.chooses_experts || decoding.chooses_experts;
  std::map<std::pair<uint32_t, uint32_t>, uint32_t>
      inputs;  // (number in one, number in the other) -> number
  constexpr uint32_t kNone = UINT32_MAX;
  const auto same = [](const WeightUse& a, const WeightUse& b) {
    return a.operation == b.operation && a.source == b.source && a.view == b.view &&
           a.f32_input == b.f32_input;
  };
  const auto add = [&](const std::string& name, WeightUse use, uint32_t other_input) {
    use.input =
        inputs.emplace(std::pair(use.input, other_input), static_cast<uint32_t>(inputs.size()))
            .first->second;
    out.weights[name].push_back(std::move(use));
  };
  for (const auto& [name, list] : prompt.weights) {
    const auto found = decoding.weights.find(name);
    std::vector<WeightUse> rest =
        found == decoding.weights.end() ? std::vector<WeightUse>() : found->second;
    for (const WeightUse& use : list) {
      const auto twin = std::find_if(rest.begin(), rest.end(),
                                     [&](const WeightUse& other) { return same(use, other); });
      add(name, use, twin == rest.end() ? kNone : twin->input);
      if (twin != rest.end()) rest.erase(twin);
    }
    for (const WeightUse& use : rest) add(name, use, kNone);
  }
  for (const auto& [name, list] : decoding.weights) {
    if (prompt.weights.count(name) != 0) continue;
    for (const WeightUse& use : list) add(name, use, kNone);
  }
  return out;
}

Result<GraphUses> ProbeGraphHere(const ProbeOptions& options) {
  GraphUses uses;
  TALARIA_RETURN_IF_ERROR(Evaluate(options, uses));
  return uses;
}

}  // namespace talaria::cloud
