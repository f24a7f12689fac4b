// libggml-talaria.so: the ggml backend through which stock llama.cpp programs hand their matrix
// products to Talaria. It holds no key and no weight; it packs rows into the channel and unpacks
// products (group_multiplier.h).
//
// Two devices. The registered one is an accelerator whose buffer type takes the offloaded matrices
// (weight_buffer.h). The backend object belongs to a second one, whose buffer type is the CPU's,
// because the scheduler allocates our results there: so no activation is ever copied between
// backends.
#include <ggml-backend-impl.h>
#include <ggml-cpu.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "talaria/engine/channel.h"
#include "talaria/engine/group_multiplier.h"
#include "talaria/engine/hardening.h"
#include "talaria/engine/weight_buffer.h"

namespace talaria::engine {
namespace {

PluginState* g_state = nullptr;
ggml_backend_device g_weight_device{}, g_compute_device{};
ggml_backend_reg g_reg{};

const char* const kName = "Talaria";

// --- Evaluation

// ggml_backend::context; one per llama.cpp context.
struct Evaluator {
  explicit Evaluator(ChannelClient& channel) : multiplier(channel) {}
  GroupMultiplier multiplier;
  // The last product of the graph that the scheduler split last, which is the graph that it
  // evaluates next: it shows every split of ours to GraphOptimize, in order, before it evaluates
  // anything, and splits again before it evaluates another graph. This is the output head for text
  // generation, and whatever comes last when there is no head (embeddings, an encoder).
  const ggml_tensor* last_product = nullptr;
};

Evaluator& Of(ggml_backend_t backend) { return *static_cast<Evaluator*>(backend->context); }

bool IsNoOperation(const ggml_tensor* node) {
  switch (node->op) {
    case GGML_OP_NONE:
    case GGML_OP_RESHAPE:
    case GGML_OP_VIEW:
    case GGML_OP_PERMUTE:
    case GGML_OP_TRANSPOSE:
      return true;
    default:
      return false;
  }
}

bool IsProduct(const ggml_tensor* node) {
  return node->op == GGML_OP_MUL_MAT && (node->flags & GGML_TENSOR_FLAG_COMPUTE) != 0;
}

// Shapes and types of a product that this backend can carry out with `weight`: [d] x [d, o] for
// every row of source 1.
bool Fits(const ggml_tensor* node, const WeightRef& weight) {
  const ggml_tensor* a = node->src[0];
  const ggml_tensor* b = node->src[1];
  return a->ne[0] == weight.d && a->ne[1] == weight.o && a->ne[2] == 1 && a->ne[3] == 1 &&
         b->type == GGML_TYPE_F32 && b->ne[0] == weight.d && b->nb[0] == sizeof(float) &&
         node->type == GGML_TYPE_F32 && node->ne[0] == weight.o && node->nb[0] == sizeof(float);
}

MultiplyOutcome Multiply(GroupMultiplier& multiplier, ggml_tensor* node) {
  const WeightRef* weight = WeightOf(node->src[0]);
  if (weight == nullptr || !Fits(node, *weight))
    Refuse(*g_state, "a product of another shape than was asked about");
  const ggml_tensor* x = node->src[1];
  const InputRows in{static_cast<const char*>(x->data),
                     x->ne[1],
                     x->ne[2],
                     x->ne[3],
                     x->nb[1],
                     x->nb[2],
                     x->nb[3]};
  const OutputRows out{static_cast<char*>(node->data),
                       node->ne[1],
                       node->ne[2],
                       node->ne[3],
                       node->nb[1],
                       node->nb[2],
                       node->nb[3]};
  return multiplier.Multiply(weight->group, weight->member, in, out);
}

// Never GGML_STATUS_ABORTED, which llama.cpp's server answers with the same rows in smaller
// batches.
ggml_status GraphCompute(ggml_backend_t backend, ggml_cgraph* graph) {
  const std::lock_guard lock(g_state->mutex);
  Evaluator& evaluator = Of(backend);
  if (!g_state->weights.AllLanded()) {
    std::fprintf(stderr, "talaria: only %zu of %zu matrices were loaded; nothing is evaluated\n",
                 g_state->weights.landed(), g_state->weights.size());
    return GGML_STATUS_FAILED;
  }
  if (!g_state->announced) {
    g_state->announced = true;
    g_state->channel->Notify(ChildEvent::kAllMatricesLanded);
  }
  const int nodes = ggml_graph_n_nodes(graph);
  for (int i = 0; i < nodes; ++i) {
    ggml_tensor* node = ggml_graph_node(graph, i);
    // A node without the flag is a branch that was not selected.
    if ((node->flags & GGML_TENSOR_FLAG_COMPUTE) == 0 || IsNoOperation(node)) continue;
    if (!IsProduct(node)) Refuse(*g_state, "an operation that was never offered");
    switch (Multiply(evaluator.multiplier, node)) {
      case MultiplyOutcome::kOk:
        break;
      case MultiplyOutcome::kFailed:
        return GGML_STATUS_FAILED;  // the scheduler evaluates nothing more of this graph
      case MultiplyOutcome::kRefused:
        Refuse(*g_state, "two matrices of a group were given different inputs");
    }
    if (node == evaluator.last_product && !evaluator.multiplier.EndEvaluation())
      return GGML_STATUS_FAILED;
  }
  // Without a scheduler every graph is an evaluation of its own.
  if (evaluator.last_product == nullptr && !evaluator.multiplier.EndEvaluation())
    return GGML_STATUS_FAILED;
  return GGML_STATUS_SUCCESS;
}

// Nothing is reordered; see Evaluator::last_product.
void GraphOptimize(ggml_backend_t backend, ggml_cgraph* graph,
                   ggml_backend_graph_optimize_params*) {
  const std::lock_guard lock(g_state->mutex);
  Evaluator& evaluator = Of(backend);
  evaluator.multiplier.DropReplies();
  const int nodes = ggml_graph_n_nodes(graph);
  for (int i = 0; i < nodes; ++i) {
    if (const ggml_tensor* node = ggml_graph_node(graph, i); IsProduct(node))
      evaluator.last_product = node;
  }
}

const char* BackendName(ggml_backend_t) { return kName; }
void FreeBackend(ggml_backend_t backend) {
  delete &Of(backend);
  delete backend;
}

// --- Devices

bool SupportsOp(ggml_backend_dev_t, const ggml_tensor* op) {
  if (IsNoOperation(op)) return true;
  if (op->op != GGML_OP_MUL_MAT) return false;
  const WeightRef* weight = WeightOf(op->src[0]);
  return weight != nullptr && Fits(op, *weight);
}

bool SupportsBufferType(ggml_backend_dev_t, ggml_backend_buffer_type_t type) {
  return type == WeightBufferType() || ggml_backend_buft_is_host(type);
}

ggml_backend_t InitBackend(ggml_backend_dev_t, const char*) {
  static ggml_guid guid = {0x74, 0x61, 0x6c, 0x61, 0x72, 0x69, 0x61, 0x2d,
                           0x65, 0x6e, 0x67, 0x69, 0x6e, 0x65, 0x2d, 0x31};
  ggml_backend_i i{};
  i.get_name = BackendName;
  i.free = FreeBackend;
  i.graph_compute = GraphCompute;
  i.graph_optimize = GraphOptimize;
  return new ggml_backend{&guid, i, &g_compute_device, new Evaluator(*g_state->channel)};
}

const char* DeviceName(ggml_backend_dev_t) { return kName; }
const char* DeviceDescription(ggml_backend_dev_t) { return "masked matrix products"; }
void DeviceMemory(ggml_backend_dev_t, size_t* free, size_t* total) { *free = *total = 0; }
enum ggml_backend_dev_type DeviceType(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_ACCEL; }
void DeviceProperties(ggml_backend_dev_t device, ggml_backend_dev_props* properties) {
  *properties = {};
  properties->name = DeviceName(device);
  properties->description = DeviceDescription(device);
  properties->type = DeviceType(device);
}
ggml_backend_buffer_type_t WeightDeviceBufferType(ggml_backend_dev_t) { return WeightBufferType(); }
ggml_backend_buffer_type_t ComputeDeviceBufferType(ggml_backend_dev_t) {
  return ggml_backend_cpu_buffer_type();
}

void InitDevice(ggml_backend_device* device,
                ggml_backend_buffer_type_t (*buffer_type)(ggml_backend_dev_t)) {
  device->iface.get_name = DeviceName;
  device->iface.get_description = DeviceDescription;
  device->iface.get_memory = DeviceMemory;
  device->iface.get_type = DeviceType;
  device->iface.get_props = DeviceProperties;
  device->iface.init_backend = InitBackend;
  device->iface.get_buffer_type = buffer_type;
  device->iface.supports_op = SupportsOp;
  device->iface.supports_buft = SupportsBufferType;
  device->reg = &g_reg;
}

// --- Registration

const char* RegName(ggml_backend_reg_t) { return kName; }
size_t RegDeviceCount(ggml_backend_reg_t) { return 1; }
ggml_backend_dev_t RegDevice(ggml_backend_reg_t, size_t) { return &g_weight_device; }
void* RegProcAddress(ggml_backend_reg_t, const char*) { return nullptr; }

// llama.cpp goes on without a plug-in that cannot be loaded, and then multiplies by zeros. So there
// is no way back from here.
[[noreturn]] void Exit(const std::string& why) {
  const std::string line = "talaria: " + why + "\n";
  [[maybe_unused]] const ssize_t n = write(STDERR_FILENO, line.data(), line.size());
  _exit(1);
}

void Init() {
  if (std::strcmp(ggml_version(), TALARIA_GGML_VERSION) != 0) {
    Exit(std::string("this plug-in is for ggml " TALARIA_GGML_VERSION ", not ") + ggml_version());
  }
  Result<std::unique_ptr<ChannelClient>> channel =
      ChannelClient::Connect(kSharedMemoryFd, kSocketFd);
  if (!channel.ok()) Exit(channel.status().message());
  close(kSharedMemoryFd);
  close(kSocketFd);
  if ((*channel)->harden()) {
    if (Status hardened = HardenProcess(); !hardened.ok()) Exit(hardened.message());
  }
  g_state = new PluginState(std::move(*channel));
  g_reg.api_version = GGML_BACKEND_API_VERSION;
  g_reg.iface.get_name = RegName;
  g_reg.iface.get_device_count = RegDeviceCount;
  g_reg.iface.get_device = RegDevice;
  g_reg.iface.get_proc_address = RegProcAddress;
  InitDevice(&g_weight_device, WeightDeviceBufferType);
  InitDevice(&g_compute_device, ComputeDeviceBufferType);
  InitWeightBufferType(&g_weight_device, g_state);
}

}  // namespace
}  // namespace talaria::engine

// Called by every ggml_backend_load_all(); the same answer each time.
extern "C" __attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init(void) {
  using namespace talaria::engine;
  if (g_state == nullptr) Init();
  return &g_reg;
}
