// The plug-in's devices and buffers through ggml's own interface, without llama.cpp. Each case is a
// child process, because most of what is tested ends the process.
#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "talaria/engine/channel.h"

namespace talaria::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int kD = 8, kQ = 6, kK = 4;

ChannelModel Model() {
  return {{{kD, {{"blk.0.attn_q.weight", 0, kQ}, {"blk.0.attn_k.weight", 0, kK}}},
           {kD, {{"token_embd.weight", 1, 12}}}}};
}

// y[j] = sum(x) + j + 100 m.
CallStatus Products(const CallView& call) {
  const ChannelModel model = Model();
  const ChannelGroup& group = model.groups[call.group];
  float* out = call.output;
  for (size_t m = 0; m < group.members.size(); ++m) {
    for (uint32_t r = 0; r < call.rows; ++r) {
      for (uint32_t j = 0; j < group.members[m].o; ++j) {
        float sum = static_cast<float>(j + 100 * m);
        for (uint32_t i = 0; i < group.d; ++i) sum += call.input[r * group.d + i];
        *out++ = sum;
      }
    }
  }
  return CallStatus::kOk;
}

struct Outcome {
  int status = 0;  // of waitpid
  std::vector<ChildEvent> events;
  uint32_t calls = 0;
};

// In the child.
void Require(bool condition, int line) {
  if (condition) return;
  std::fprintf(stderr, "line %d failed in the child\n", line);
  _exit(50);
}
#define REQUIRE(condition) Require(condition, __LINE__)

struct Device {
  ggml_backend_dev_t dev;
  ggml_backend_buffer_type_t buft;
};

class Tensors {
 public:
  Tensors() : context_(ggml_init({size_t{1} << 20, nullptr, true})) {}
  ~Tensors() { ggml_free(context_); }
  ggml_context* get() { return context_; }
  ggml_tensor* Matrix(const char* name, int64_t d, int64_t o, ggml_type type = GGML_TYPE_I8) {
    ggml_tensor* t = ggml_new_tensor_2d(context_, type, d, o);
    ggml_set_name(t, name);
    return t;
  }
  ggml_backend_buffer_t AllocateIn(ggml_backend_buffer_type_t type) {
    return ggml_backend_alloc_ctx_tensors_from_buft(context_, type);
  }

 private:
  ggml_context* context_;
};

Outcome InChild(const std::function<void(const Device&)>& body,
                const ChannelServer::Handler& handler = Products) {
  auto server = ChannelServer::Create(Model(), 1 << 20);
  EXPECT_TRUE(server.ok());
  const pid_t pid = fork();
  if (pid == 0) {
    dup2((*server)->shared_memory_fd(), 200);
    dup2((*server)->child_socket_fd(), 201);
    dup2(200, kSharedMemoryFd);
    dup2(201, kSocketFd);
    close_range(5, ~0u, 0);
    ggml_backend_reg_t reg = ggml_backend_load(TALARIA_PLUGIN);
    REQUIRE(reg != nullptr);
    REQUIRE(ggml_backend_load(TALARIA_PLUGIN) == reg);  // idempotent
    const ggml_backend_dev_t dev = ggml_backend_reg_dev_get(reg, 0);
    body({dev, ggml_backend_dev_buffer_type(dev)});
    _exit(0);
  }
  (*server)->CloseChildSocket();
  Outcome outcome;
  const Status status = (*server)->Serve(
      [&](const CallView& call) {
        ++outcome.calls;
        return handler(call);
      },
      [&](ChildEvent event) { outcome.events.push_back(event); });
  EXPECT_EQ(status.code(), Code::kUnavailable);
  waitpid(pid, &outcome.status, 0);
  return outcome;
}

void ExpectFine(const Outcome& outcome) {
  EXPECT_TRUE(WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == 0) << outcome.status;
}
void ExpectRefused(const Outcome& outcome) {
  EXPECT_TRUE(WIFSIGNALED(outcome.status) && WTERMSIG(outcome.status) == SIGABRT) << outcome.status;
  EXPECT_THAT(outcome.events, ::testing::Contains(ChildEvent::kRefused));
}

TEST(BufferTest, TakesTheModelsMatricesOnceAndNothingElse) {
  ExpectFine(InChild([](const Device& device) {
    REQUIRE(!ggml_backend_buft_is_host(device.buft));
    Tensors q, again, k, unknown, shape, scale;
    q.Matrix("blk.0.attn_q.weight", kD, kQ);
    again.Matrix("blk.0.attn_q.weight", kD, kQ);
    k.Matrix("blk.0.attn_k.weight", kD, kK, GGML_TYPE_F32);
    unknown.Matrix("blk.0.attn_v.weight", kD, kK);
    shape.Matrix("blk.0.attn_k.weight", kK, kD);
    ggml_set_name(ggml_new_tensor_1d(scale.get(), GGML_TYPE_F32, 1), "blk.0.attn_q.scale");
    ggml_backend_buffer_t buffer = q.AllocateIn(device.buft);
    REQUIRE(buffer != nullptr);
    REQUIRE(again.AllocateIn(device.buft) == nullptr);
    REQUIRE(unknown.AllocateIn(device.buft) == nullptr);
    REQUIRE(shape.AllocateIn(device.buft) == nullptr);
    REQUIRE(scale.AllocateIn(device.buft) == nullptr);
    ggml_backend_buffer_t other = k.AllocateIn(device.buft);
    REQUIRE(other != nullptr);
    ggml_backend_buffer_free(buffer);
    Tensors reloaded;
    reloaded.Matrix("blk.0.attn_q.weight", kD, kQ);
    REQUIRE(reloaded.AllocateIn(device.buft) != nullptr);
  }));
}

TEST(BufferTest, WhatIsSetIsDropped) {
  ExpectFine(InChild([](const Device& device) {
    Tensors tensors;
    ggml_tensor* q = tensors.Matrix("blk.0.attn_q.weight", kD, kQ);
    REQUIRE(tensors.AllocateIn(device.buft) != nullptr);
    const std::vector<uint8_t> zeros(ggml_nbytes(q));
    ggml_backend_tensor_set(q, zeros.data(), 0, zeros.size());
  }));
}

TEST(BufferTest, EveryWayToReadOrChangeAHoleIsFatal) {
  const std::vector<std::function<void(ggml_backend_buffer_t, ggml_tensor*)>> ways = {
      [](ggml_backend_buffer_t, ggml_tensor* t) {
        std::vector<uint8_t> bytes(ggml_nbytes(t));
        ggml_backend_tensor_get(t, bytes.data(), 0, bytes.size());
      },
      [](ggml_backend_buffer_t, ggml_tensor* t) {
        ggml_backend_tensor_memset(t, 0, 0, ggml_nbytes(t));
      },
      [](ggml_backend_buffer_t buffer, ggml_tensor*) { ggml_backend_buffer_clear(buffer, 0); },
      [](ggml_backend_buffer_t, ggml_tensor* t) {  // as the scheduler copies an input to the CPU
        Tensors host;
        ggml_tensor* copy = host.Matrix("copy", t->ne[0], t->ne[1]);
        host.AllocateIn(ggml_backend_cpu_buffer_type());
        ggml_backend_tensor_copy(t, copy);
      },
  };
  for (size_t way = 0; way < ways.size(); ++way) {
    SCOPED_TRACE(way);
    ExpectRefused(InChild([&](const Device& device) {
      Tensors tensors;
      ggml_tensor* q = tensors.Matrix("blk.0.attn_q.weight", kD, kQ);
      ggml_backend_buffer_t buffer = tensors.AllocateIn(device.buft);
      REQUIRE(buffer != nullptr);
      ways[way](buffer, q);
    }));
  }
}

#if !defined(__SANITIZE_ADDRESS__)
TEST(BufferTest, ThereIsNoMemoryBehindIt) {
  const Outcome outcome = InChild([](const Device& device) {
    Tensors tensors;
    ggml_tensor* q = tensors.Matrix("blk.0.attn_q.weight", kD, kQ);
    REQUIRE(tensors.AllocateIn(device.buft) != nullptr);
    signal(SIGSEGV, SIG_DFL);
    REQUIRE(*static_cast<volatile uint8_t*>(q->data) == 0);
  });
  EXPECT_TRUE(WIFSIGNALED(outcome.status) && WTERMSIG(outcome.status) == SIGSEGV);
}
#endif

TEST(SupportsOpTest, ProductsWithTheModelsMatricesOnly) {
  ExpectFine(InChild([](const Device& device) {
    Tensors weights;
    ggml_tensor* q = weights.Matrix("blk.0.attn_q.weight", kD, kQ);
    ggml_tensor* head = weights.Matrix("token_embd.weight", kD, 12);
    REQUIRE(weights.AllocateIn(device.buft) != nullptr);
    Tensors graph;
    ggml_context* c = graph.get();
    const auto supports = [&](ggml_tensor* op) {
      return ggml_backend_dev_supports_op(device.dev, op);
    };
    ggml_tensor* x = ggml_new_tensor_2d(c, GGML_TYPE_F32, kD, 3);
    REQUIRE(supports(ggml_mul_mat(c, q, x)));
    REQUIRE(supports(ggml_mul_mat(c, head, x)));
    REQUIRE(supports(ggml_mul_mat(c, q, ggml_new_tensor_4d(c, GGML_TYPE_F32, kD, 3, 2, 2))));
    REQUIRE(!supports(ggml_mul_mat(c, q, ggml_new_tensor_2d(c, GGML_TYPE_F16, kD, 3))));
    REQUIRE(!supports(ggml_mul_mat(c, ggml_view_2d(c, q, kD, 2, q->nb[1], 0), x)));
    REQUIRE(!supports(ggml_mul_mat(c, ggml_new_tensor_2d(c, GGML_TYPE_F32, kD, kQ), x)));
    REQUIRE(!supports(ggml_get_rows(c, head, ggml_new_tensor_1d(c, GGML_TYPE_I32, 2))));
    REQUIRE(!supports(ggml_mul(c, x, ggml_new_tensor_1d(c, GGML_TYPE_F32, kD))));
    REQUIRE(!supports(ggml_add(c, x, x)));
    REQUIRE(supports(q));  // a weight by itself: the scheduler asks
  }));
}

// As llama.cpp's loader asks: a tensor in an empty buffer of our type, by name and shape.
TEST(SupportsOpTest, TheLoadersProbe) {
  ExpectFine(InChild([](const Device& device) {
    const auto probe = [&](const char* name, int64_t d, int64_t o, bool rows) {
      Tensors tensors;
      ggml_context* c = tensors.get();
      ggml_tensor* w = tensors.Matrix(name, d, o);
      ggml_tensor* op = rows ? ggml_get_rows(c, w, ggml_new_tensor_1d(c, GGML_TYPE_I32, 512))
                             : ggml_mul_mat(c, w, ggml_new_tensor_2d(c, GGML_TYPE_F32, d, 512));
      w->buffer = ggml_backend_buft_alloc_buffer(device.buft, 0);
      const bool supported = ggml_backend_dev_supports_op(device.dev, op);
      ggml_backend_buffer_free(w->buffer);
      return supported;
    };
    REQUIRE(probe("blk.0.attn_q.weight", kD, kQ, false));
    REQUIRE(!probe("blk.0.attn_q.weight", kD, kQ + 1, false));
    REQUIRE(!probe("blk.0.attn_q.scale", 1, 1, false));
    REQUIRE(!probe("blk.1.attn_q.weight", kD, kQ, false));
    REQUIRE(probe("token_embd.weight", kD, 12, false));
    REQUIRE(!probe("token_embd.weight", kD, 12, true));
  }));
}

// --- Evaluation, without a scheduler

struct Graph {
  Tensors weights, tensors;
  ggml_tensor *q, *k, *head;
  ggml_backend_t backend;
  explicit Graph(const Device& device, bool all = true) {
    q = weights.Matrix("blk.0.attn_q.weight", kD, kQ);
    k = weights.Matrix("blk.0.attn_k.weight", kD, kK);
    head = all ? weights.Matrix("token_embd.weight", kD, 12) : nullptr;
    REQUIRE(weights.AllocateIn(device.buft) != nullptr);
    backend = ggml_backend_dev_init(device.dev, nullptr);
    REQUIRE(ggml_backend_get_default_buffer_type(backend) == ggml_backend_cpu_buffer_type());
  }
  ggml_tensor* Input(int64_t n1, int64_t n2 = 1) {
    return ggml_new_tensor_3d(tensors.get(), GGML_TYPE_F32, kD, n1, n2);
  }
  ggml_status Compute(std::initializer_list<ggml_tensor*> results) {
    ggml_cgraph* graph = ggml_new_graph(tensors.get());
    for (ggml_tensor* t : results) ggml_build_forward_expand(graph, t);
    REQUIRE(tensors.AllocateIn(ggml_backend_cpu_buffer_type()) != nullptr);
    for (ggml_tensor* t = ggml_get_first_tensor(tensors.get()); t != nullptr;
         t = ggml_get_next_tensor(tensors.get(), t)) {
      if (t->op != GGML_OP_NONE || t->type != GGML_TYPE_F32) continue;
      for (int64_t i = 0; i < ggml_nelements(t); ++i)
        static_cast<float*>(t->data)[i] = static_cast<float>(i % 13);
    }
    return ggml_backend_graph_compute(backend, graph);
  }
};

float RowSum(const ggml_tensor* x, int64_t i1, int64_t i2) {
  float sum = 0;
  const char* row = static_cast<const char*>(x->data) + static_cast<size_t>(i1) * x->nb[1] +
                    static_cast<size_t>(i2) * x->nb[2];
  for (int i = 0; i < kD; ++i) sum += reinterpret_cast<const float*>(row)[i];
  return sum;
}
void RequireProducts(const ggml_tensor* y, const ggml_tensor* x, int member) {
  for (int64_t i2 = 0; i2 < y->ne[2]; ++i2) {
    for (int64_t i1 = 0; i1 < y->ne[1]; ++i1) {
      const char* row = static_cast<const char*>(y->data) + static_cast<size_t>(i1) * y->nb[1] +
                        static_cast<size_t>(i2) * y->nb[2];
      for (int64_t j = 0; j < y->ne[0]; ++j) {
        REQUIRE(reinterpret_cast<const float*>(row)[j] ==
                RowSum(x, i1, i2) + static_cast<float>(j + 100 * member));
      }
    }
  }
}

TEST(ComputeTest, MultipliesAGroupWithOneCall) {
  const Outcome outcome = InChild([](const Device& device) {
    Graph graph(device);
    ggml_tensor* x = graph.Input(3);
    ggml_tensor* yq = ggml_mul_mat(graph.tensors.get(), graph.q, x);
    ggml_tensor* yk = ggml_mul_mat(graph.tensors.get(), graph.k, x);
    REQUIRE(graph.Compute({yq, yk}) == GGML_STATUS_SUCCESS);
    RequireProducts(yq, x, 0);
    RequireProducts(yk, x, 1);
  });
  ExpectFine(outcome);
  EXPECT_EQ(outcome.calls, 1u);
  EXPECT_THAT(outcome.events, ElementsAre(ChildEvent::kAllMatricesLanded));
}

TEST(ComputeTest, ThreeDimensionsAndStrides) {
  ExpectFine(InChild([](const Device& device) {
    Graph graph(device);
    ggml_context* c = graph.tensors.get();
    ggml_tensor* x = graph.Input(3, 4);
    ggml_tensor* part =
        ggml_view_3d(c, x, kD, 2, 3, x->nb[1], x->nb[2], x->nb[1]);  // rows 1.. of planes 0..2
    ggml_tensor* turned = ggml_permute(c, x, 0, 2, 1, 3);            // planes and rows exchanged
    ggml_tensor* y1 = ggml_mul_mat(c, graph.q, part);
    ggml_tensor* y2 = ggml_mul_mat(c, graph.head, turned);
    REQUIRE(graph.Compute({y1, y2}) == GGML_STATUS_SUCCESS);
    RequireProducts(y1, part, 0);
    RequireProducts(y2, turned, 0);
  }));
}

TEST(ComputeTest, NoRowsAndUnselectedBranchesMakeNoCall) {
  const Outcome outcome = InChild([](const Device& device) {
    Graph graph(device);
    ggml_tensor* none = ggml_mul_mat(graph.tensors.get(), graph.head, graph.Input(0));
    ggml_tensor* unselected = ggml_mul_mat(graph.tensors.get(), graph.q, graph.Input(2));
    ggml_cgraph* g = ggml_new_graph(graph.tensors.get());
    ggml_build_forward_expand(g, none);
    ggml_build_forward_expand(g, unselected);
    unselected->flags &= ~GGML_TENSOR_FLAG_COMPUTE;
    REQUIRE(graph.tensors.AllocateIn(ggml_backend_cpu_buffer_type()) != nullptr);
    REQUIRE(ggml_backend_graph_compute(graph.backend, g) == GGML_STATUS_SUCCESS);
  });
  ExpectFine(outcome);
  EXPECT_EQ(outcome.calls, 0u);
}

TEST(ComputeTest, NothingBeforeEveryMatrixLanded) {
  const Outcome outcome = InChild([](const Device& device) {
    Graph graph(device, /*all=*/false);
    REQUIRE(graph.Compute({ggml_mul_mat(graph.tensors.get(), graph.q, graph.Input(1))}) ==
            GGML_STATUS_FAILED);
  });
  ExpectFine(outcome);
  EXPECT_EQ(outcome.calls, 0u);
  EXPECT_THAT(outcome.events, IsEmpty());
}

TEST(ComputeTest, DifferentInputsWithinAGroupAreFatal) {
  ExpectRefused(InChild([](const Device& device) {
    Graph graph(device);
    ggml_tensor* x = graph.Input(4);
    ggml_context* c = graph.tensors.get();
    ggml_tensor* first = ggml_view_2d(c, x, kD, 2, x->nb[1], 0);
    ggml_tensor* second = ggml_view_2d(c, x, kD, 2, x->nb[1], 2 * x->nb[1]);
    (void)graph.Compute({ggml_mul_mat(c, graph.q, first), ggml_mul_mat(c, graph.k, second)});
  }));
}

// With a scheduler, an evaluation is a graph of several splits, and a row that is not finite fails
// it at the last product of the last one, whichever matrix that is: here the head comes first and q
// last, with work for the CPU in between.
TEST(ComputeTest, NotFiniteFailsAtTheLastProductOfTheScheduledGraph) {
  const auto run = [](bool bad_head, ggml_status expected) {
    const Outcome outcome = InChild(
        [expected](const Device& device) {
          REQUIRE(ggml_backend_load(
                      (std::string(std::getenv("TALARIA_LLAMA_DIR")) + "/bin/libggml-cpu.so")
                          .c_str()) != nullptr);
          ggml_backend_t cpu = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
          REQUIRE(cpu != nullptr);
          Graph graph(device);
          ggml_context* c = graph.tensors.get();
          ggml_backend_t backends[] = {graph.backend, cpu};
          ggml_backend_sched_t scheduler =
              ggml_backend_sched_new(backends, nullptr, 2, 64, false, false);
          ggml_tensor* x = graph.Input(2);
          ggml_set_input(x);
          ggml_tensor* first = ggml_mul_mat(c, graph.head, x);
          ggml_tensor* between = ggml_sqr(c, ggml_view_2d(c, first, kD, 2, first->nb[1], 0));
          ggml_tensor* last = ggml_mul_mat(c, graph.q, ggml_cont(c, between));
          ggml_tensor* after = ggml_sqr(c, last);
          ggml_set_output(after);
          ggml_cgraph* g = ggml_new_graph(c);
          ggml_build_forward_expand(g, after);
          REQUIRE(ggml_backend_sched_alloc_graph(scheduler, g));
          for (int evaluation = 0; evaluation < 2; ++evaluation) {
            const std::vector<float> ones(2 * kD, 1.0f);
            ggml_backend_tensor_set(x, ones.data(), 0, ones.size() * sizeof(float));
            REQUIRE(ggml_backend_sched_graph_compute(scheduler, g) == expected);
          }
        },
        [bad_head](const CallView& call) {
          const CallStatus status = Products(call);
          return bad_head && call.group == 1 ? CallStatus::kNotFinite : status;
        });
    ExpectFine(outcome);
    EXPECT_EQ(outcome.calls, 4u) << "both products of both evaluations";
  };
  run(false, GGML_STATUS_SUCCESS);
  run(true, GGML_STATUS_FAILED);
}

TEST(ComputeTest, AnOperationThatWasNeverOfferedIsFatal) {
  ExpectRefused(InChild([](const Device& device) {
    Graph graph(device);
    ggml_tensor* x = graph.Input(4);
    (void)graph.Compute({ggml_add(graph.tensors.get(), x, x)});
  }));
}

}  // namespace
}  // namespace talaria::engine
