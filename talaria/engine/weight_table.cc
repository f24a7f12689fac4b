#include "talaria/engine/weight_table.h"

namespace talaria::engine {
namespace {

constexpr std::string_view kTokenEmbedding = "token_embd.weight";
constexpr uint8_t kLinear = 0, kTiedHead = 1;  // model::Role

}  // namespace

WeightTable::WeightTable(const ChannelModel& model) {
  for (uint32_t g = 0; g < model.groups.size(); ++g) {
    const ChannelGroup& group = model.groups[g];
    for (uint32_t m = 0; m < group.members.size(); ++m) {
      const ChannelMember& member = group.members[m];
      weights_[{member.name, member.role}] = WeightRef{g, m, group.d, member.o, false};
    }
  }
}

WeightRef* WeightTable::Find(std::string_view name, int64_t d, int64_t o) {
  const uint8_t role = name == kTokenEmbedding ? kTiedHead : kLinear;
  const auto it = weights_.find(std::pair<std::string, uint8_t>(std::string(name), role));
  if (it == weights_.end() || it->second.d != d || it->second.o != o) return nullptr;
  return &it->second;
}

bool WeightTable::Land(WeightRef& weight) {
  if (weight.landed) return false;
  weight.landed = true;
  ++landed_;
  return true;
}

void WeightTable::Unland(WeightRef& weight) {
  if (!weight.landed) return;
  weight.landed = false;
  --landed_;
}

}  // namespace talaria::engine
