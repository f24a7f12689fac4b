// Our own host around the plug-in: libllama in this process, with the channel served by a thread of
// it. Gives raw float32 logits and every product's input and output, which the stock programs do
// not, and lets sanitizers see the plug-in.
//
// One model file per process: the plug-in connects once, and libggml keeps it for the life of the
// process. Products can be answered by another handler from run to run (SetHandler), which is how
// two paths are compared.
#ifndef TALARIA_ENGINE_TESTING_MODEL_RUNNER_H_
#define TALARIA_ENGINE_TESTING_MODEL_RUNNER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "talaria/base/result.h"
#include "talaria/engine/channel.h"

namespace talaria::engine::testing {

// A MUL_MAT that was evaluated, by whichever backend, with F32 input.
struct ProductView {
  std::string weight;               // tensor name
  uint32_t d = 0, o = 0, rows = 0;  // input [rows][d], output [rows][o]
  std::vector<float> input, output;
};

struct ModelRunnerOptions {
  std::string model_path;  // the hollow model or a store's skeleton
  std::string llama_dir;  // scripts/setup --print-llama-dir; libggml-cpu.so is loaded from its bin/
  std::string
      plugin;  // libggml-talaria.so; empty: plain llama.cpp on a whole model, without a channel
  ChannelModel channel;
  ChannelServer::Handler handler;
  size_t channel_bytes = size_t{256} << 20;
  uint32_t context = 512, micro_batch = 512;
  uint32_t sequences = 1;  // that RunSequences may be given
  int threads = 1;
  bool flash_attention = true;
  // Ends each evaluation at the first layer's attention, successfully and without logits: its
  // inputs are all that is wanted. Needs flash attention.
  bool first_layer = false;
};

class ModelRunner {
 public:
  // Occupies the descriptors that the plug-in inherits, so that nothing else gets their numbers
  // before. Call first thing in main().
  static void ReserveDescriptors();

  // kUnsupported when llama.cpp will not load the model, kInvalidArgument, and the channel's
  // errors.
  static Result<std::unique_ptr<ModelRunner>> Create(ModelRunnerOptions options);
  virtual ~ModelRunner() = default;

  struct Output {
    std::vector<float> logits;  // [outputs][vocabulary]
    uint32_t outputs = 0;
  };
  // Evaluates `tokens` as positions 0.. of a fresh sequence, in one batch; logits of every token,
  // or of the last only. kUnavailable when the evaluation failed; the next may work.
  virtual Result<Output> Run(std::span<const int32_t> tokens, bool all_logits) = 0;
  // The same for several fresh sequences of equal length in one batch, interleaved token by token;
  // logits in batch order.
  virtual Result<Output> RunSequences(std::span<const std::vector<int32_t>> sequences) = 0;
  // Continues the sequence by one token. As Run().
  virtual Result<Output> Continue(int32_t token) = 0;
  // Evaluates each of the tokens as the sequence's next one, each in a copy of the sequence that is
  // forgotten afterwards, in one batch. Fewer than `sequences` of them; the context has room for
  // them all beside the sequence. As Run().
  virtual Status TryNext(std::span<const int32_t> tokens) = 0;
  // An empty sequence, for TryNext() and Continue().
  virtual void Forget() = 0;

  // From the next Run() on. Called from the serving thread.
  virtual void SetHandler(ChannelServer::Handler handler) = 0;
  // Every product of the next runs, in graph order, from the evaluating thread. Makes the scheduler
  // evaluate node by node.
  using ProductCallback = std::function<void(const ProductView&)>;
  virtual void SetProductCallback(ProductCallback callback) = 0;

  virtual uint32_t vocabulary() const = 0;
  virtual bool EndsAnswer(int32_t token) const = 0;  // a token that ends a generation
  virtual std::vector<int32_t> Tokenize(const std::string& text) const = 0;
  virtual std::vector<ChildEvent> events() const = 0;  // so far
};

}  // namespace talaria::engine::testing

#endif  // TALARIA_ENGINE_TESTING_MODEL_RUNNER_H_
