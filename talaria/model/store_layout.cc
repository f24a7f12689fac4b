#include "talaria/model/store_layout.h"

#include "talaria/model/gguf_header.h"
#include "talaria/ring/layout.h"

namespace talaria::model {
namespace {

constexpr uint32_t kGgufVersion = 3;
constexpr uint64_t kAlignment = 32;
constexpr uint32_t kGgufU32 = 4, kGgufString = 8;

void PutString(ByteWriter& out, std::string_view text) {
  out.U64(text.size());
  out.Raw(AsBytes(text));
}

}  // namespace

StoreLayout LayoutOf(const Manifest& manifest) {
  StoreLayout layout;
  std::vector<GgufTensor> tensors;
  for (const MatrixRef& ref : AllMatrices(manifest)) {
    const uint64_t d = ref.group->d, o = ref.matrix->o;
    GgufTensor tensor;
    tensor.name = ref.matrix->name;
    tensor.dimensions = 2;
    tensor.shape[0] = d;
    tensor.shape[1] = o;
    tensor.type = kGgufTypeI8;
    tensors.push_back(std::move(tensor));
    layout.scales.push_back(layout.scales_bytes);
    layout.scales_bytes += o * sizeof(float);
    layout.hints.push_back(layout.hints_bytes);
    layout.hints_bytes += ring::ModuleMatrixBytes(o);
  }
  std::vector<uint8_t> keys;
  ByteWriter out(keys);
  PutString(out, "general.architecture");
  out.U32(kGgufString);
  PutString(out, "talaria");
  PutString(out, "talaria.format_version");
  out.U32(kGgufU32);
  out.U32(manifest.format_version);
  layout.weights_header = EncodeGgufHeader(kGgufVersion, 2, keys, kAlignment, tensors);
  layout.weights_bytes = layout.weights_header.size();
  for (const GgufTensor& tensor : tensors) {
    layout.weights.push_back(layout.weights_header.size() + tensor.offset);
    layout.weights_bytes = ring::RoundUp(layout.weights.back() + tensor.bytes, kAlignment);
  }

  uint64_t position = 0;
  const auto add_data = [&](uint64_t end) {
    if (end > position)
      layout.skeleton.push_back({position, layout.skeleton_data_bytes, end - position});
    layout.skeleton_data_bytes += end - position;
  };
  for (const Hole& hole : manifest.holes) {
    add_data(hole.offset);
    position = hole.offset + hole.bytes;
  }
  add_data(manifest.skeleton_bytes);
  return layout;
}

}  // namespace talaria::model
