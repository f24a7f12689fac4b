// Which tensors of llama.cpp's model are matrices of ours, and which of them are in a buffer of
// ours now. Knows nothing of ggml. Not thread-safe; the plug-in's lock covers it.
#ifndef TALARIA_ENGINE_WEIGHT_TABLE_H_
#define TALARIA_ENGINE_WEIGHT_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "talaria/engine/channel.h"

namespace talaria::engine {

struct WeightRef {
  uint32_t group = 0, member = 0;
  uint32_t d = 0, o = 0;
  bool landed = false;
};

class WeightTable {
 public:
  explicit WeightTable(const ChannelModel& model);
  WeightTable(const WeightTable&) = delete;  // tensors keep pointers to its entries
  WeightTable& operator=(const WeightTable&) = delete;

  // The matrix that a tensor of this name and shape [d, o] is when it is multiplied by, or null.
  // llama.cpp gives a tied output head a second tensor with the name of the token embedding; only
  // that one is ever multiplied by, so the name decides the role.
  WeightRef* Find(std::string_view name, int64_t d, int64_t o);

  // A matrix gets memory in a buffer of ours. False when it has some already: a second model in the
  // process.
  bool Land(WeightRef& weight);
  void Unland(WeightRef& weight);
  bool AllLanded() const { return landed_ == weights_.size(); }
  size_t size() const { return weights_.size(); }
  size_t landed() const { return landed_; }

 private:
  std::map<std::pair<std::string, uint8_t>, WeightRef> weights_;
  size_t landed_ = 0;
};

}  // namespace talaria::engine

#endif  // TALARIA_ENGINE_WEIGHT_TABLE_H_
