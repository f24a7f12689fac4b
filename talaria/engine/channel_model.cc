// The encoding of ChannelModel (channel.h).
#include <set>
#include <utility>

#include "talaria/engine/channel.h"

namespace talaria::engine {
namespace {

// The same limits as the manifest's (model/manifest.h), which this library does not link.
constexpr uint32_t kMaxInputs = 65536;
constexpr uint32_t kMaxOutputs = 1 << 22;
constexpr uint32_t kMaxMatrices = 1 << 16;
constexpr size_t kMaxNameBytes = 63;  // GGML_MAX_NAME - 1
constexpr uint8_t kMaxRole = 1;

Status Bad(const char* what) {
  return Status(Code::kCorrupt, std::string("engine channel model: ") + what);
}

}  // namespace

std::vector<uint8_t> Encode(const ChannelModel& model) {
  std::vector<uint8_t> out;
  ByteWriter writer(out);
  writer.U32(static_cast<uint32_t>(model.groups.size()));
  for (const ChannelGroup& group : model.groups) {
    writer.U32(group.d);
    writer.U32(static_cast<uint32_t>(group.members.size()));
    for (const ChannelMember& member : group.members) {
      writer.U8(member.role);
      writer.U32(member.o);
      writer.U8(static_cast<uint8_t>(member.name.size()));
      writer.Raw(AsBytes(member.name));
    }
  }
  return out;
}

Result<ChannelModel> DecodeChannelModel(Bytes data) {
  constexpr size_t kMinMemberBytes = 1 + 4 + 1 + 1;
  constexpr size_t kMinGroupBytes = 4 + 4 + kMinMemberBytes;
  ByteReader reader(data);
  const uint32_t groups = reader.U32();
  if (groups == 0 || groups > kMaxMatrices || groups > reader.remaining() / kMinGroupBytes)
    return Bad("number of groups");
  ChannelModel model;
  model.groups.resize(groups);
  std::set<std::pair<std::string, uint8_t>> seen;
  for (ChannelGroup& group : model.groups) {
    group.d = reader.U32();
    const uint32_t members = reader.U32();
    if (!reader.ok() || group.d == 0 || group.d > kMaxInputs) return Bad("number of inputs");
    if (members == 0 || members > kMaxMatrices || members > reader.remaining() / kMinMemberBytes)
      return Bad("number of members");
    group.members.resize(members);
    for (ChannelMember& member : group.members) {
      member.role = reader.U8();
      member.o = reader.U32();
      const Bytes name = reader.Raw(reader.U8());
      if (!reader.ok() || name.empty() || name.size() > kMaxNameBytes) return Bad("name");
      if (member.role > kMaxRole || member.o == 0 || member.o > kMaxOutputs)
        return Bad("role or number of outputs");
      for (const uint8_t c : name) {
        if (c < 0x21 || c > 0x7e) return Bad("name");
      }
      member.name.assign(name.begin(), name.end());
      if (!seen.emplace(member.name, member.role).second) return Bad("a matrix appears twice");
    }
  }
  if (!reader.AtEnd()) return Bad("length");
  if (seen.size() > kMaxMatrices) return Bad("number of matrices");
  return model;
}

}  // namespace talaria::engine
