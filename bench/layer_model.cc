#include "bench/layer_model.h"

#include <ggml.h>
#include <gguf.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>

namespace talaria::bench {
namespace {

// Few: quantising is slow. Rows of any length would do.
constexpr int64_t kBankWeights = 1 << 17, kBankRow = 4096;
constexpr uint64_t kSeed = 1;

struct GgufDeleter {
  void operator()(gguf_context* g) const { gguf_free(g); }
};
struct GgmlDeleter {
  void operator()(ggml_context* c) const { ggml_free(c); }
};
struct FileDeleter {
  void operator()(std::FILE* f) const { std::fclose(f); }
};

struct Matrix {
  const char* name;
  uint32_t d, o;  // inputs, outputs
};

std::array<Matrix, 7> Matrices(const LayerShape& s) {
  const uint32_t kv = s.width / s.heads * s.kv_heads;
  return {Matrix{"blk.0.attn_q.weight", s.width, s.width},
          {"blk.0.attn_k.weight", s.width, kv},
          {"blk.0.attn_v.weight", s.width, kv},
          {"blk.0.attn_output.weight", s.width, s.width},
          {"blk.0.ffn_gate.weight", s.width, s.feed_forward},
          {"blk.0.ffn_up.weight", s.width, s.feed_forward},
          {"blk.0.ffn_down.weight", s.feed_forward, s.width}};
}

void AddTokenizer(gguf_context* g) {
  std::vector<std::string> tokens{"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types{2, 3, 3};  // unknown, control, control
  for (int b = 0; b < 256; ++b) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", static_cast<unsigned>(b));
    tokens.emplace_back(text);
    types.push_back(6);  // byte
  }
  while (tokens.size() < kLayerVocabulary) {
    tokens.push_back("filler" + std::to_string(tokens.size()));
    types.push_back(1);
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
}

void AddKeys(const LayerShape& s, gguf_context* g) {
  gguf_set_val_str(g, "general.architecture", "llama");
  gguf_set_val_str(g, "general.name", (std::string("one layer, ") + s.name).c_str());
  gguf_set_val_u32(g, "llama.block_count", 1);
  gguf_set_val_u32(g, "llama.context_length", 8192);
  gguf_set_val_u32(g, "llama.embedding_length", s.width);
  gguf_set_val_u32(g, "llama.feed_forward_length", s.feed_forward);
  gguf_set_val_u32(g, "llama.attention.head_count", s.heads);
  gguf_set_val_u32(g, "llama.attention.head_count_kv", s.kv_heads);
  gguf_set_val_f32(g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
  gguf_set_val_f32(g, "llama.rope.freq_base", 500000.0f);
  gguf_set_val_u32(g, "llama.rope.dimension_count", s.width / s.heads);
  gguf_set_val_u32(g, "llama.vocab_size", kLayerVocabulary);
  AddTokenizer(g);
}

// Quantised blocks of normally distributed weights of variance 1 / d.
class Bank {
 public:
  Bank(ggml_type type, uint32_t d, std::mt19937_64& random)
      : block_bytes_(ggml_type_size(type)),
        block_weights_(ggml_blck_size(type)),
        count_(static_cast<size_t>(kBankWeights / block_weights_)),
        random_(random) {
    std::vector<float> weights(static_cast<size_t>(kBankWeights));
    std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(d)));
    for (float& w : weights) w = normal(random_);
    blocks_.resize(count_ * block_bytes_);
    ggml_quantize_chunk(type, weights.data(), blocks_.data(), 0, kBankWeights / kBankRow, kBankRow,
                        nullptr);
  }
  std::vector<uint8_t> Row(uint32_t d) {
    std::vector<uint8_t> row(static_cast<size_t>(d / block_weights_) * block_bytes_);
    for (size_t at = 0; at < row.size(); at += block_bytes_) {
      const size_t block = static_cast<size_t>(random_() % count_);
      std::memcpy(&row[at], &blocks_[block * block_bytes_], block_bytes_);
    }
    return row;
  }

 private:
  const size_t block_bytes_;
  const int64_t block_weights_;
  const size_t count_;  // of blocks
  std::mt19937_64& random_;
  std::vector<uint8_t> blocks_;
};

// The tensors' data, in their order, each padded as the format wants it.
Status AppendData(const ggml_context* tensors, std::FILE* file) {
  std::mt19937_64 random(kSeed);
  const auto write = [file](const void* data, size_t bytes) {
    return bytes == 0 || std::fwrite(data, 1, bytes, file) == bytes;  // nothing may have no address
  };
  for (ggml_tensor* t = ggml_get_first_tensor(tensors); t != nullptr;
       t = ggml_get_next_tensor(tensors, t)) {
    bool written = true;
    if (t->type == GGML_TYPE_F32) {  // a norm
      const std::vector<float> ones(static_cast<size_t>(t->ne[0]), 1.0f);
      written = write(ones.data(), ones.size() * sizeof(float));
    } else {
      Bank bank(t->type, static_cast<uint32_t>(t->ne[0]), random);
      for (int64_t row = 0; row < t->ne[1] && written; ++row) {
        const std::vector<uint8_t> data = bank.Row(static_cast<uint32_t>(t->ne[0]));
        written = write(data.data(), data.size());
      }
    }
    const size_t bytes = ggml_nbytes(t);
    const std::vector<uint8_t> padding(GGML_PAD(bytes, GGUF_DEFAULT_ALIGNMENT) - bytes);
    if (!written || !write(padding.data(), padding.size()))
      return Status(Code::kIo, "a layer's model could not be written");
  }
  return OkStatus();
}

}  // namespace

const std::vector<LayerShape>& LayerShapes() {
  static const std::vector<LayerShape> shapes = {{"1b", "Llama 3.2 1B", 2048, 8192, 32, 8},
                                                 {"8b", "Llama 3.1 8B", 4096, 14336, 32, 8},
                                                 {"70b", "Llama 3.1 70B", 8192, 28672, 64, 8}};
  return shapes;
}

uint64_t Columns(const LayerShape& shape) {
  uint64_t columns = 0;
  for (const Matrix& m : Matrices(shape)) columns += m.o;
  return columns;
}

uint64_t Weights(const LayerShape& shape) {
  uint64_t weights = 0;
  for (const Matrix& m : Matrices(shape)) weights += uint64_t{m.d} * m.o;
  return weights;
}

Status WriteLayerModel(const LayerShape& shape, const std::string& type_name,
                       const std::string& path) {
  const ggml_type type = type_name == "q8_0"   ? GGML_TYPE_Q8_0
                         : type_name == "q4_k" ? GGML_TYPE_Q4_K
                                               : GGML_TYPE_COUNT;
  if (type == GGML_TYPE_COUNT)
    return Status(Code::kInvalidArgument, type_name + " is neither q8_0 nor q4_k");
  const std::unique_ptr<gguf_context, GgufDeleter> gguf(gguf_init_empty());
  const std::unique_ptr<ggml_context, GgmlDeleter> tensors(
      ggml_init({32 * ggml_tensor_overhead(), nullptr, true}));
  AddKeys(shape, gguf.get());
  const auto add = [&](const char* name, ggml_type of, int64_t d, int64_t o) {
    ggml_tensor* t = o == 0 ? ggml_new_tensor_1d(tensors.get(), of, d)
                            : ggml_new_tensor_2d(tensors.get(), of, d, o);
    ggml_set_name(t, name);
    gguf_add_tensor(gguf.get(), t);
  };
  add("token_embd.weight", type, shape.width, kLayerVocabulary);
  add("output_norm.weight", GGML_TYPE_F32, shape.width, 0);
  add("output.weight", type, shape.width, kLayerVocabulary);
  add("blk.0.attn_norm.weight", GGML_TYPE_F32, shape.width, 0);
  add("blk.0.ffn_norm.weight", GGML_TYPE_F32, shape.width, 0);
  for (const Matrix& m : Matrices(shape)) add(m.name, type, m.d, m.o);
  const std::string part = path + ".part";
  if (!gguf_write_to_file(gguf.get(), part.c_str(), true))
    return Status(Code::kIo, part + " could not be written");
  std::unique_ptr<std::FILE, FileDeleter> file(std::fopen(part.c_str(), "ab"));
  if (!file) return Status(Code::kIo, part + " could not be opened");
  if (const Status status = AppendData(tensors.get(), file.get()); !status.ok())
    return status.Annotate(part);
  if (std::fclose(file.release()) != 0 || std::rename(part.c_str(), path.c_str()) != 0)
    return Status(Code::kIo, path + " could not be written");
  return OkStatus();
}

}  // namespace talaria::bench
