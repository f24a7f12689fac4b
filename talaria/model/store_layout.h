// Where everything of a store lies in its files: a pure function of the manifest (doc/store.md), so
// nothing in the files themselves has to be parsed.
#ifndef TALARIA_MODEL_STORE_LAYOUT_H_
#define TALARIA_MODEL_STORE_LAYOUT_H_

#include <cstdint>
#include <vector>

#include "talaria/model/manifest.h"

namespace talaria::model {

inline constexpr const char* kManifestFile = "manifest.json";
inline constexpr const char* kSkeletonFile = "skeleton.gguf";
inline constexpr const char* kWeightsFile = "weights.gguf";
inline constexpr const char* kScalesFile = "scales.bin";
inline constexpr const char* kHintsFile = "hints.bin";

// A run of skeleton bytes outside the holes.
struct Extent {
  uint64_t file_offset = 0;
  uint64_t stream_offset = 0;  // the data bytes before it
  uint64_t bytes = 0;
};

struct StoreLayout {
  std::vector<uint8_t> weights_header;           // what weights.gguf starts with
  std::vector<uint64_t> weights, scales, hints;  // offset of each matrix in its file
  uint64_t weights_bytes = 0, scales_bytes = 0, hints_bytes = 0;  // sizes of the files
  std::vector<Extent> skeleton;                                   // sorted, no empty ones
  uint64_t skeleton_data_bytes = 0;                               // outside the holes
};

// `manifest` validates; its digests are not used.
StoreLayout LayoutOf(const Manifest& manifest);

}  // namespace talaria::model

#endif  // TALARIA_MODEL_STORE_LAYOUT_H_
