// Models for tests: a tiny llama with random weights and a byte-level tokenizer, and the hollow
// twin of any GGUF of llama's family together with the float weights that were taken out of it.
#ifndef TALARIA_ENGINE_TESTING_TINY_MODEL_H_
#define TALARIA_ENGINE_TESTING_TINY_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "talaria/base/result.h"
#include "talaria/engine/channel.h"

namespace talaria::engine::testing {

struct TinyModelOptions {
  uint64_t seed = 1;
  uint32_t layers = 2;
  uint32_t embedding = 64, feed_forward = 96, heads = 4, kv_heads = 2, context = 256;
  bool tied_head = true;
};
inline constexpr uint32_t kTinyVocabulary = 3 + 256;  // <unk>, <s>, </s>, the bytes

// Architecture "llama", all weights F32. kIo.
Status WriteTinyModel(const std::string& path, const TinyModelOptions& options);

// A model without its matrices, and the matrices.
struct HollowModel {
  ChannelModel channel;  // groups {q,k,v} {o} {gate,up} {down} per layer, then the head
  std::vector<std::vector<std::vector<float>>>
      weights;  // [group][member][o * d], row j is output j
};

// Writes `whole` again with the matrices of llama's family as holes of type I8. The head may be
// tied. kNotFound, kIo, kUnsupported (no layer with these names).
Result<HollowModel> MakeHollow(const std::string& whole, const std::string& hollow);

// A handler for ChannelServer::Serve: plain float products, summed in double. Rows that are not
// finite become zeros and kNotFinite. Thread: the serving one; `model` must outlive it.
ChannelServer::Handler FloatProducts(const HollowModel& model);

}  // namespace talaria::engine::testing

#endif  // TALARIA_ENGINE_TESTING_TINY_MODEL_H_
