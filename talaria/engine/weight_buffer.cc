#include "talaria/engine/weight_buffer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace talaria::engine {
namespace {

constexpr size_t kAlignment = 64;

PluginState* g_state = nullptr;  // set once, before any buffer exists

// ggml_backend_buffer::context of our buffers.
struct WeightBuffer {
  void* base = nullptr;  // PROT_NONE: a stray direct access faults instead of reading something
  size_t size = 0;
  std::vector<WeightRef*> landed;
};

WeightBuffer& Of(ggml_backend_buffer_t buffer) {
  return *static_cast<WeightBuffer*>(buffer->context);
}

void FreeBuffer(ggml_backend_buffer_t buffer) {
  WeightBuffer* weights = &Of(buffer);
  {
    const std::lock_guard lock(g_state->mutex);
    for (WeightRef* weight : weights->landed) g_state->weights.Unland(*weight);
    if (!weights->landed.empty()) g_state->announced = false;
  }
  munmap(weights->base, weights->size);
  delete weights;
}

void* GetBase(ggml_backend_buffer_t buffer) { return Of(buffer).base; }

// Refusing here makes llama.cpp give up loading in an orderly way: LoRA adapters and second models
// end up here.
ggml_status InitTensor(ggml_backend_buffer_t buffer, ggml_tensor* tensor) {
  const std::lock_guard lock(g_state->mutex);
  if (tensor->view_src != nullptr) return GGML_STATUS_FAILED;
  WeightRef* weight = ggml_n_dims(tensor) > 2
                          ? nullptr
                          : g_state->weights.Find(tensor->name, tensor->ne[0], tensor->ne[1]);
  if (weight == nullptr || !g_state->weights.Land(*weight)) {
    std::fprintf(stderr, "talaria: tensor %s is %s; it is refused\n", tensor->name,
                 weight == nullptr ? "not a matrix of this model" : "loaded already");
    return GGML_STATUS_FAILED;
  }
  Of(buffer).landed.push_back(weight);
  tensor->extra = weight;
  return GGML_STATUS_SUCCESS;
}

// The loader copies the hole's zeros; they are not kept.
void SetTensor(ggml_backend_buffer_t, ggml_tensor*, const void*, size_t, size_t) {}

void GetTensor(ggml_backend_buffer_t, const ggml_tensor*, void*, size_t, size_t) {
  Refuse(*g_state, "something reads a matrix that is not here");
}
void MemsetTensor(ggml_backend_buffer_t, ggml_tensor*, uint8_t, size_t, size_t) {
  Refuse(*g_state, "something overwrites a matrix that is not here");
}
bool CopyTensor(ggml_backend_buffer_t, const ggml_tensor*, ggml_tensor*) {
  Refuse(*g_state, "something copies into a matrix that is not here");
}
void Clear(ggml_backend_buffer_t buffer, uint8_t) {
  // Before anything landed, there is nothing that the caller could take for cleared.
  if (!Of(buffer).landed.empty()) Refuse(*g_state, "something clears matrices that are not here");
}

ggml_backend_buffer_i BufferInterface() {
  ggml_backend_buffer_i i{};
  i.free_buffer = FreeBuffer;
  i.get_base = GetBase;
  i.init_tensor = InitTensor;
  i.memset_tensor = MemsetTensor;
  i.set_tensor = SetTensor;
  i.get_tensor = GetTensor;
  i.cpy_tensor = CopyTensor;
  i.clear = Clear;
  return i;
}

const char* TypeName(ggml_backend_buffer_type_t) { return "Talaria"; }
size_t GetAlignment(ggml_backend_buffer_type_t) { return kAlignment; }
bool IsHost(ggml_backend_buffer_type_t) { return false; }

ggml_backend_buffer_t AllocBuffer(ggml_backend_buffer_type_t type, size_t size) {
  void* base = mmap(nullptr, std::max<size_t>(size, 1), PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return nullptr;
  auto* weights = new WeightBuffer;
  weights->base = base;
  weights->size = std::max<size_t>(size, 1);
  return ggml_backend_buffer_init(type, BufferInterface(), weights, size);
}

ggml_backend_buffer_type& Type() {
  static ggml_backend_buffer_type type{};
  return type;
}

}  // namespace

void Refuse(PluginState& state, const char* what) {
  state.channel->Notify(ChildEvent::kRefused);
  const std::string line = std::string("talaria: ") + what + "; the session has ended\n";
  [[maybe_unused]] const ssize_t n = write(STDERR_FILENO, line.data(), line.size());
  std::abort();
}

void InitWeightBufferType(ggml_backend_dev_t device, PluginState* state) {
  g_state = state;
  ggml_backend_buffer_type& type = Type();
  type.iface.get_name = TypeName;
  type.iface.alloc_buffer = AllocBuffer;
  type.iface.get_alignment = GetAlignment;
  type.iface.is_host = IsHost;
  type.device = device;
}

ggml_backend_buffer_type_t WeightBufferType() { return &Type(); }

WeightRef* WeightOf(const ggml_tensor* tensor) {
  if (tensor->buffer == nullptr || tensor->buffer->buft != WeightBufferType() ||
      tensor->view_src != nullptr)
    return nullptr;
  if (tensor->extra != nullptr) return static_cast<WeightRef*>(tensor->extra);
  if (tensor->ne[2] != 1 || tensor->ne[3] != 1) return nullptr;
  return g_state->weights.Find(tensor->name, tensor->ne[0],
                               tensor->ne[1]);  // immutable names: no lock
}

}  // namespace talaria::engine
