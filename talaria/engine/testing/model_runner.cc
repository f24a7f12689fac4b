#include "talaria/engine/testing/model_runner.h"

#include <fcntl.h>
#include <ggml-backend.h>
#include <llama.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>

namespace talaria::engine::testing {
namespace {

struct ModelDeleter {
  void operator()(llama_model* m) const { llama_model_free(m); }
};
struct ContextDeleter {
  void operator()(llama_context* c) const { llama_free(c); }
};

Result<bool> LoadBackend(const std::string& path) {
  if (ggml_backend_load(path.c_str()) == nullptr)
    return Status(Code::kInvalidArgument, "cannot load " + path);
  return true;
}

std::vector<float> Rows(const ggml_tensor* t) {
  const auto width = static_cast<size_t>(t->ne[0]);
  std::vector<float> out(width * static_cast<size_t>(ggml_nrows(t)));
  size_t row = 0;
  for (int64_t i3 = 0; i3 < t->ne[3]; ++i3) {
    for (int64_t i2 = 0; i2 < t->ne[2]; ++i2) {
      for (int64_t i1 = 0; i1 < t->ne[1]; ++i1) {
        const char* from = static_cast<const char*>(t->data) + static_cast<size_t>(i1) * t->nb[1] +
                           static_cast<size_t>(i2) * t->nb[2] + static_cast<size_t>(i3) * t->nb[3];
        std::memcpy(out.data() + row++ * width, from, width * sizeof(float));
      }
    }
  }
  return out;
}

class Runner final : public ModelRunner {
 public:
  explicit Runner(ModelRunnerOptions options)
      : options_(std::move(options)), handler_(options_.handler) {}
  ~Runner() override {
    context_.reset();
    model_.reset();
    if (server_) server_->Stop();
    if (serving_.joinable()) serving_.join();
  }

  Status Start() {
    static std::once_flag once;
    std::call_once(once, [] {
      llama_log_set(
          [](ggml_log_level level, const char* text, void*) {
            if (level >= GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
          },
          nullptr);
    });
    TALARIA_RETURN_IF_ERROR(LoadBackend(options_.llama_dir + "/bin/libggml-cpu.so").status());
    if (!options_.plugin.empty()) TALARIA_RETURN_IF_ERROR(StartChannel());
    llama_model_params model_params = llama_model_default_params();
    model_params.load_mode = LLAMA_LOAD_MODE_NONE;
    model_params.lazy_mode = LLAMA_LAZY_MODE_OFF;
    model_params.n_gpu_layers = 0;
    model_.reset(llama_model_load_from_file(options_.model_path.c_str(), model_params));
    if (!model_)
      return Status(Code::kUnsupported, "llama.cpp does not load " + options_.model_path);
    llama_context_params params = llama_context_default_params();
    params.n_ctx = options_.context;
    params.n_batch = options_.context;
    params.n_ubatch = options_.micro_batch;
    params.n_seq_max = options_.sequences;
    params.kv_unified = true;
    params.n_threads = params.n_threads_batch = options_.threads;
    params.flash_attn_type =
        options_.flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.cb_eval = [](ggml_tensor* t, bool ask, void* self) {
      return static_cast<Runner*>(self)->OnNode(t, ask);
    };
    params.cb_eval_user_data = this;
    params.abort_callback = [](void* self) { return static_cast<Runner*>(self)->stop_.load(); };
    params.abort_callback_data = this;
    context_.reset(llama_init_from_model(model_.get(), params));
    if (!context_) return Status(Code::kUnsupported, "llama.cpp makes no context");
    return OkStatus();
  }

  void Forget() override {
    llama_memory_clear(llama_get_memory(context_.get()), true);
    position_ = 0;
  }
  Result<Output> Run(std::span<const int32_t> tokens, bool all_logits) override {
    Forget();
    return Decode(tokens, all_logits);
  }
  Result<Output> RunSequences(std::span<const std::vector<int32_t>> sequences) override {
    llama_memory_clear(llama_get_memory(context_.get()), true);
    const auto count = static_cast<int32_t>(sequences.size());
    llama_batch batch = llama_batch_init(count * static_cast<int32_t>(sequences[0].size()), 0, 1);
    for (size_t position = 0; position < sequences[0].size(); ++position) {
      for (int32_t s = 0; s < count; ++s) {
        const int32_t i = batch.n_tokens++;
        batch.token[i] = sequences[static_cast<size_t>(s)][position];
        batch.pos[i] = static_cast<int32_t>(position);
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = s;
        batch.logits[i] = 1;
      }
    }
    return Evaluate(batch);
  }
  Result<Output> Continue(int32_t token) override { return Decode(std::span(&token, 1), true); }
  Status TryNext(std::span<const int32_t> tokens) override {
    const auto n = static_cast<int32_t>(tokens.size());
    if (n == 0 || static_cast<uint32_t>(n) >= options_.sequences)
      return Status(Code::kInvalidArgument, "as many tokens as sequences, or none");
    llama_memory_t memory = llama_get_memory(context_.get());
    llama_batch batch = llama_batch_init(n, 0, 1);
    batch.n_tokens = n;
    for (int32_t i = 0; i < n; ++i) {
      llama_memory_seq_cp(memory, 0, i + 1, -1, -1);
      batch.token[i] = tokens[static_cast<size_t>(i)];
      batch.pos[i] = position_;
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = i + 1;
      batch.logits[i] = i == n - 1;
    }
    const Status status = Evaluate(batch).status();
    for (int32_t i = 0; i < n; ++i) llama_memory_seq_rm(memory, i + 1, -1, -1);
    return status;
  }

  void SetHandler(ChannelServer::Handler handler) override {
    const std::lock_guard lock(mutex_);
    handler_ = std::move(handler);
  }
  void SetProductCallback(ProductCallback callback) override { callback_ = std::move(callback); }
  uint32_t vocabulary() const override {
    return static_cast<uint32_t>(llama_vocab_n_tokens(llama_model_get_vocab(model_.get())));
  }
  bool EndsAnswer(int32_t token) const override {
    return llama_vocab_is_eog(llama_model_get_vocab(model_.get()), token);
  }
  std::vector<int32_t> Tokenize(const std::string& text) const override {
    // A byte-level vocabulary spells the three bytes of its space mark.
    std::vector<int32_t> tokens(3 * text.size() + 8);
    const int n = llama_tokenize(llama_model_get_vocab(model_.get()), text.data(),
                                 static_cast<int32_t>(text.size()), tokens.data(),
                                 static_cast<int32_t>(tokens.size()), true, true);
    tokens.resize(n > 0 ? static_cast<size_t>(n) : 0);
    return tokens;
  }
  std::vector<ChildEvent> events() const override {
    const std::lock_guard lock(mutex_);
    return events_;
  }

 private:
  Status StartChannel() {
    TALARIA_ASSIGN_OR_RETURN(server_,
                             ChannelServer::Create(options_.channel, options_.channel_bytes));
    if (dup2(server_->shared_memory_fd(), kSharedMemoryFd) < 0 ||
        dup2(server_->child_socket_fd(), kSocketFd) < 0) {
      return Status(Code::kInternal, "descriptors");
    }
    server_->CloseChildSocket();
    serving_ = std::thread([this] {
      (void)server_
          ->Serve(
              [this](const CallView& call) {
                ChannelServer::Handler handler;
                {
                  const std::lock_guard lock(mutex_);
                  handler = handler_;
                }
                return handler(call);
              },
              [this](ChildEvent event) {
                const std::lock_guard lock(mutex_);
                events_.push_back(event);
              })
          .ok();  // how it ends is the test's own doing
    });
    return LoadBackend(options_.plugin).status();
  }

  bool OnNode(ggml_tensor* t, bool ask) {
    // Asked about a node before it is computed; what comes before it in other back ends is done.
    if (ask && options_.first_layer && t->op == GGML_OP_FLASH_ATTN_EXT) stop_ = true;
    const bool wanted = callback_ && t->op == GGML_OP_MUL_MAT && t->src[1]->type == GGML_TYPE_F32 &&
                        (t->flags & GGML_TENSOR_FLAG_COMPUTE) != 0;
    if (ask || !wanted) return ask ? wanted : true;
    ProductView view;
    view.weight = t->src[0]->name;
    view.d = static_cast<uint32_t>(t->src[1]->ne[0]);
    view.o = static_cast<uint32_t>(t->ne[0]);
    view.rows = static_cast<uint32_t>(ggml_nrows(t));
    view.input = Rows(t->src[1]);
    view.output = Rows(t);
    callback_(view);
    return true;
  }

  Result<Output> Decode(std::span<const int32_t> tokens, bool all_logits) {
    const auto n = static_cast<int32_t>(tokens.size());
    llama_batch batch = llama_batch_init(n, 0, 1);
    batch.n_tokens = n;
    for (int32_t i = 0; i < n; ++i) {
      batch.token[i] = tokens[static_cast<size_t>(i)];
      batch.pos[i] = position_ + i;
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = 0;
      batch.logits[i] = all_logits || i == n - 1;
    }
    TALARIA_ASSIGN_OR_RETURN(Output out, Evaluate(batch));
    position_ += n;
    return out;
  }

  // Frees the batch.
  Result<Output> Evaluate(llama_batch& batch) {
    std::vector<int32_t> wanted;
    for (int32_t i = 0; i < batch.n_tokens; ++i) {
      if (batch.logits[i] != 0) wanted.push_back(i);
    }
    stop_ = false;
    const int result = llama_decode(context_.get(), batch);
    llama_batch_free(batch);
    constexpr int kAborted = 2;
    if (result == kAborted && stop_) return Output{};
    if (result != 0) return Status(Code::kUnavailable, "llama_decode: " + std::to_string(result));
    Output out;
    for (const int32_t i : wanted) {
      const float* logits = llama_get_logits_ith(context_.get(), i);
      if (logits == nullptr) return Status(Code::kInternal, "no logits");
      out.logits.insert(out.logits.end(), logits, logits + vocabulary());
      ++out.outputs;
    }
    return out;
  }

  const ModelRunnerOptions options_;
  std::unique_ptr<ChannelServer> server_;
  std::thread serving_;
  std::unique_ptr<llama_model, ModelDeleter> model_;
  std::unique_ptr<llama_context, ContextDeleter> context_;
  ProductCallback callback_;
  int32_t position_ = 0;
  std::atomic<bool> stop_{false};  // read by llama.cpp's threads
  mutable std::mutex mutex_;       // what follows
  ChannelServer::Handler handler_;
  std::vector<ChildEvent> events_;
};

}  // namespace

void ModelRunner::ReserveDescriptors() {
  for (const int fd : {kSharedMemoryFd, kSocketFd}) {
    if (fcntl(fd, F_GETFD) >= 0) continue;
    const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null >= 0 && null != fd) {
      dup3(null, fd, O_CLOEXEC);
      close(null);
    }
  }
}

Result<std::unique_ptr<ModelRunner>> ModelRunner::Create(ModelRunnerOptions options) {
  if (!options.plugin.empty() && !options.handler)
    return Status(Code::kInvalidArgument, "no handler");
  auto runner = std::make_unique<Runner>(std::move(options));
  TALARIA_RETURN_IF_ERROR(runner->Start());
  return std::unique_ptr<ModelRunner>(std::move(runner));
}

}  // namespace talaria::engine::testing
