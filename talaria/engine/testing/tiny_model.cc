#include "talaria/engine/testing/tiny_model.h"

#include <ggml.h>
#include <gguf.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>

namespace talaria::engine::testing {
namespace {

struct GgufDeleter {
  void operator()(gguf_context* g) const { gguf_free(g); }
};
struct GgmlDeleter {
  void operator()(ggml_context* c) const { ggml_free(c); }
};
using Gguf = std::unique_ptr<gguf_context, GgufDeleter>;
using Ggml = std::unique_ptr<ggml_context, GgmlDeleter>;

class Writer {
 public:
  Writer(const TinyModelOptions& o) : random_(o.seed) {
    const size_t floats = size_t{kTinyVocabulary} * o.embedding * 2 +
                          size_t{o.layers} * (4 * o.embedding * o.embedding +
                                              3 * o.embedding * o.feed_forward + 2 * o.embedding) +
                          o.embedding;
    context_.reset(ggml_init({floats * sizeof(float) + (1 << 20), nullptr, false}));
    gguf_.reset(gguf_init_empty());
  }
  gguf_context* gguf() { return gguf_.get(); }

  void Matrix(const std::string& name, int64_t d, int64_t o) {
    ggml_tensor* t = ggml_new_tensor_2d(context_.get(), GGML_TYPE_F32, d, o);
    const float scale = 1.0f / std::sqrt(static_cast<float>(d));
    for (int64_t i = 0; i < d * o; ++i) static_cast<float*>(t->data)[i] = Uniform() * scale * 2;
    Add(t, name);
  }
  void Norm(const std::string& name, int64_t d) {
    ggml_tensor* t = ggml_new_tensor_1d(context_.get(), GGML_TYPE_F32, d);
    for (int64_t i = 0; i < d; ++i) static_cast<float*>(t->data)[i] = 1 + Uniform() / 4;
    Add(t, name);
  }

 private:
  // In [-1, 1), the same on every platform.
  float Uniform() {
    return static_cast<float>(static_cast<double>(random_() >> 11) / 4503599627370496.0 - 1.0);
  }
  void Add(ggml_tensor* t, const std::string& name) {
    ggml_set_name(t, name.c_str());
    gguf_add_tensor(gguf_.get(), t);
  }
  std::mt19937_64 random_;
  Ggml context_;
  Gguf gguf_;
};

void AddTokenizer(gguf_context* g) {
  std::vector<std::string> tokens{"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types{2, 3, 3};  // unknown, control, control
  for (int b = 0; b < 256; ++b) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", b);
    tokens.emplace_back(text);
    types.push_back(6);  // byte
  }
  std::vector<const char*> pointers;
  for (const std::string& token : tokens) pointers.push_back(token.c_str());
  const std::vector<float> scores(tokens.size(), 0.0f);
  gguf_set_val_str(g, "tokenizer.ggml.model", "llama");
  gguf_set_arr_str(g, "tokenizer.ggml.tokens", pointers.data(), pointers.size());
  gguf_set_arr_data(g, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores.data(), scores.size());
  gguf_set_arr_data(g, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types.data(), types.size());
  gguf_set_val_u32(g, "tokenizer.ggml.bos_token_id", 1);
  gguf_set_val_u32(g, "tokenizer.ggml.eos_token_id", 2);
  gguf_set_val_u32(g, "tokenizer.ggml.unknown_token_id", 0);
}

const char* const kGroupsOfALayer[][3] = {{"attn_q", "attn_k", "attn_v"},
                                          {"attn_output", nullptr, nullptr},
                                          {"ffn_gate", "ffn_up", nullptr},
                                          {"ffn_down", nullptr, nullptr}};

std::vector<float> ToFloats(const ggml_tensor* t) {
  const int64_t rows = ggml_nrows(t);
  std::vector<float> out(static_cast<size_t>(ggml_nelements(t)));
  const ggml_type_traits* traits = ggml_get_type_traits(t->type);
  for (int64_t r = 0; r < rows; ++r) {
    const char* row = static_cast<const char*>(t->data) + static_cast<size_t>(r) * t->nb[1];
    float* to = out.data() + r * t->ne[0];
    if (t->type == GGML_TYPE_F32) {
      std::memcpy(to, row, static_cast<size_t>(t->ne[0]) * sizeof(float));
    } else {
      traits->to_float(row, to, t->ne[0]);
    }
  }
  return out;
}

}  // namespace

Status WriteTinyModel(const std::string& path, const TinyModelOptions& o) {
  Writer writer(o);
  gguf_context* g = writer.gguf();
  const uint32_t head = o.embedding / o.heads;
  gguf_set_val_str(g, "general.architecture", "llama");
  gguf_set_val_str(g, "general.name", "tiny");
  gguf_set_val_u32(g, "llama.vocab_size", kTinyVocabulary);
  gguf_set_val_u32(g, "llama.context_length", o.context);
  gguf_set_val_u32(g, "llama.embedding_length", o.embedding);
  gguf_set_val_u32(g, "llama.block_count", o.layers);
  gguf_set_val_u32(g, "llama.feed_forward_length", o.feed_forward);
  gguf_set_val_u32(g, "llama.attention.head_count", o.heads);
  gguf_set_val_u32(g, "llama.attention.head_count_kv", o.kv_heads);
  gguf_set_val_u32(g, "llama.rope.dimension_count", head);
  gguf_set_val_f32(g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
  AddTokenizer(g);
  writer.Matrix("token_embd.weight", o.embedding, kTinyVocabulary);
  writer.Norm("output_norm.weight", o.embedding);
  if (!o.tied_head) writer.Matrix("output.weight", o.embedding, kTinyVocabulary);
  for (uint32_t layer = 0; layer < o.layers; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    writer.Norm(prefix + "attn_norm.weight", o.embedding);
    writer.Matrix(prefix + "attn_q.weight", o.embedding, o.embedding);
    writer.Matrix(prefix + "attn_k.weight", o.embedding, head * o.kv_heads);
    writer.Matrix(prefix + "attn_v.weight", o.embedding, head * o.kv_heads);
    writer.Matrix(prefix + "attn_output.weight", o.embedding, o.embedding);
    writer.Norm(prefix + "ffn_norm.weight", o.embedding);
    writer.Matrix(prefix + "ffn_gate.weight", o.embedding, o.feed_forward);
    writer.Matrix(prefix + "ffn_up.weight", o.embedding, o.feed_forward);
    writer.Matrix(prefix + "ffn_down.weight", o.feed_forward, o.embedding);
  }
  if (!gguf_write_to_file(g, path.c_str(), false)) return Status(Code::kIo, "cannot write " + path);
  return OkStatus();
}

Result<HollowModel> MakeHollow(const std::string& whole, const std::string& hollow) {
  ggml_context* loaded = nullptr;
  const Gguf source(gguf_init_from_file(whole.c_str(), {false, &loaded}));
  const Ggml tensors(loaded);
  if (!source) return Status(Code::kNotFound, "cannot read " + whole);

  HollowModel model;
  std::vector<std::string> holes;
  const auto add_group = [&](const std::vector<std::string>& names, uint8_t role) {
    ChannelGroup group;
    std::vector<std::vector<float>> weights;
    for (const std::string& name : names) {
      const ggml_tensor* t = ggml_get_tensor(loaded, name.c_str());
      if (t == nullptr) return false;
      group.d = static_cast<uint32_t>(t->ne[0]);
      group.members.push_back({name, role, static_cast<uint32_t>(t->ne[1])});
      weights.push_back(ToFloats(t));
      if (role == 0) holes.push_back(name);
    }
    model.channel.groups.push_back(std::move(group));
    model.weights.push_back(std::move(weights));
    return true;
  };
  for (int layer = 0;; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    if (ggml_get_tensor(loaded, (prefix + "attn_q.weight").c_str()) == nullptr) break;
    for (const auto& names : kGroupsOfALayer) {
      std::vector<std::string> group;
      for (const char* name : names) {
        if (name != nullptr) group.push_back(prefix + name + ".weight");
      }
      if (!add_group(group, 0))
        return Status(Code::kUnsupported, "not a model of llama's family: " + whole);
    }
  }
  if (model.channel.groups.empty())
    return Status(Code::kUnsupported, "not a model of llama's family: " + whole);
  if (!add_group({"output.weight"}, 0) && !add_group({"token_embd.weight"}, 1))
    return Status(Code::kUnsupported, "no head");

  const Gguf out(gguf_init_empty());
  gguf_set_kv(out.get(), source.get());
  std::vector<std::vector<uint8_t>> zeros;
  for (int64_t i = 0; i < gguf_get_n_tensors(source.get()); ++i) {
    const std::string name = gguf_get_tensor_name(source.get(), i);
    const ggml_tensor* t = ggml_get_tensor(loaded, name.c_str());
    gguf_add_tensor(out.get(), t);
    if (std::find(holes.begin(), holes.end(), name) == holes.end()) continue;
    zeros.emplace_back(static_cast<size_t>(ggml_nelements(t)), 0);
    gguf_set_tensor_type(out.get(), name.c_str(), GGML_TYPE_I8);
    gguf_set_tensor_data(out.get(), name.c_str(), zeros.back().data());
  }
  if (!gguf_write_to_file(out.get(), hollow.c_str(), false))
    return Status(Code::kIo, "cannot write " + hollow);
  return model;
}

ChannelServer::Handler FloatProducts(const HollowModel& model) {
  return [&model](const CallView& call) {
    const ChannelGroup& group = model.channel.groups[call.group];
    const size_t d = group.d;
    bool finite = true;
    std::vector<bool> bad(call.rows);
    for (size_t r = 0; r < call.rows; ++r) {
      for (size_t i = 0; i < d; ++i) bad[r] = bad[r] || !std::isfinite(call.input[r * d + i]);
      finite = finite && !bad[r];
    }
    float* out = call.output;
    for (size_t m = 0; m < group.members.size(); ++m) {
      const float* w = model.weights[call.group][m].data();
      for (size_t r = 0; r < call.rows; ++r) {
        const float* x = call.input + r * d;
        for (size_t j = 0; j < group.members[m].o; ++j) {
          double lanes[4] = {0, 0, 0, 0};
          for (size_t i = 0; i < d; ++i)
            lanes[i % 4] += static_cast<double>(x[i]) * static_cast<double>(w[j * d + i]);
          *out++ =
              bad[r] ? 0.0f : static_cast<float>((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]));
        }
      }
    }
    return finite ? CallStatus::kOk : CallStatus::kNotFinite;
  };
}

}  // namespace talaria::engine::testing
