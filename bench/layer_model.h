// A llama of one layer with the shapes of a published model and random weights, as a GGUF file.
#ifndef TALARIA_BENCH_LAYER_MODEL_H_
#define TALARIA_BENCH_LAYER_MODEL_H_

#include <string>
#include <string_view>
#include <vector>

#include "talaria/base/result.h"

namespace talaria::bench {

struct LayerShape {
  const char* name;   // "8b"
  const char* model;  // whose layer it is
  uint32_t width, feed_forward, heads, kv_heads;
};
const std::vector<LayerShape>& LayerShapes();
// Columns of the layer's seven matrices together, and their weights.
uint64_t Columns(const LayerShape& shape);
uint64_t Weights(const LayerShape& shape);

// Of the file beside the layer: embedding and output head, so that llama.cpp takes it for a model.
inline constexpr uint32_t kLayerVocabulary = 320;

// Of `type` ("q8_0", "q4_k") are all matrices. Weights are normally distributed, quantised by ggml;
// what ggml quantised are 131,072 weights per matrix, from whose blocks every row is drawn at
// random, so that 70B shapes are written in seconds. Fixed seed. kInvalidArgument, kIo.
Status WriteLayerModel(const LayerShape& shape, const std::string& type, const std::string& path);

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_LAYER_MODEL_H_
