// The ggml buffer type in which the offloaded matrices "are": address space without memory behind
// it. A tensor that lands in it is a matrix of the model and carries its WeightRef in
// tensor->extra; its contents are dropped when they are set and can never be read. Whoever reads
// anyway ends the session and the process: an answer computed from a hole would be silent nonsense.
#ifndef TALARIA_ENGINE_WEIGHT_BUFFER_H_
#define TALARIA_ENGINE_WEIGHT_BUFFER_H_

#include <ggml-backend-impl.h>

#include <memory>
#include <mutex>
#include <utility>

#include "talaria/engine/channel.h"
#include "talaria/engine/weight_table.h"

namespace talaria::engine {

// One per process, made when the plug-in is loaded and never freed.
struct PluginState {
  explicit PluginState(std::unique_ptr<ChannelClient> c)
      : channel(std::move(c)), weights(channel->model()) {}
  std::unique_ptr<ChannelClient> channel;
  std::mutex mutex;  // covers everything here: contexts of several threads may evaluate or load
  WeightTable weights;
  bool announced = false;  // the parent was told that every matrix landed
};

// Tells the parent that something happened that must never happen, says so on standard error, and
// aborts. `what` is fixed text.
[[noreturn]] void Refuse(PluginState& state, const char* what);

// The buffer type; `device` and `state` outlive it.
void InitWeightBufferType(ggml_backend_dev_t device, PluginState* state);
ggml_backend_buffer_type_t WeightBufferType();

// The matrix that `tensor` is as source 0 of a product: a whole tensor in a buffer of ours, by name
// and shape, or by its WeightRef once it has landed. llama.cpp's loader asks about tensors in an
// empty buffer of this type. Null otherwise.
WeightRef* WeightOf(const ggml_tensor* tensor);

}  // namespace talaria::engine

#endif  // TALARIA_ENGINE_WEIGHT_BUFFER_H_
