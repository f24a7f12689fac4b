// The byte streams that a store consists of and that a CVM fetches from a cloud.
#ifndef TALARIA_MODEL_STREAM_H_
#define TALARIA_MODEL_STREAM_H_

#include <cstdint>

namespace talaria::model {

enum class StreamKind : uint8_t {
  kManifest = 0,  // manifest.json
  kSkeleton = 1,  // the bytes of skeleton.gguf outside its holes, in order
  kScales = 2,    // one matrix: float [o]
  kWeights = 3,   // one matrix: int8 [o][d]
  kHints = 4,     // one matrix: the ModuleMatrix of o columns (ring/layout.h)
};

// `matrix` counts through all groups of the manifest in order; 0 for the first two kinds.
struct StreamId {
  StreamKind kind = StreamKind::kManifest;
  uint32_t matrix = 0;
  bool operator==(const StreamId&) const = default;
};

}  // namespace talaria::model

#endif  // TALARIA_MODEL_STREAM_H_
