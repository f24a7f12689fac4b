// manifest.json: what a provisioned model consists of. The SHA-256 of its exact bytes is the model
// identity that clients pin. The text is canonical: Encode(Decode(text)) == text, so duplicate or
// unknown keys, other spacing or other number forms are refused. Format: doc/store.md.
#ifndef TALARIA_MODEL_MANIFEST_H_
#define TALARIA_MODEL_MANIFEST_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "talaria/base/digest.h"
#include "talaria/base/result.h"

namespace talaria::model {

inline constexpr uint32_t kFormatVersion = 1;
inline constexpr size_t kMaxManifestBytes = size_t{64} << 20;
inline constexpr uint32_t kMaxInputs = 65536;  // exactness of the product (gemm/product.h)
inline constexpr uint32_t kMaxOutputs = 1 << 22;
inline constexpr size_t kMaxMatrices = 1 << 16;
inline constexpr size_t kMaxNameBytes = 255;
inline constexpr uint64_t kMaxSkeletonBytes = uint64_t{1} << 48;
inline constexpr std::string_view kTiedHeadName = "token_embd.weight";

// A tensor may be offloaded in one of two roles; the key of a matrix is (name, role).
enum class Role : uint8_t {
  kLinear = 0,    // "linear": only ever multiplied by; a hole in the skeleton
  kTiedHead = 1,  // "tied_head": token_embd.weight as output head; it stays whole in the skeleton
                  // for the embedding look-up
};

// W: d inputs, o outputs, as int8 [o][d] and float scales [o].
struct Matrix {
  std::string name;
  Role role = Role::kLinear;
  uint32_t o = 0;
  Digest weights{};  // SHA-256 of int8 [o][d]
  Digest scales{};   // SHA-256 of float [o], little-endian
  Digest hints{};    // SHA-256 of the ModuleMatrix of o columns (ring/layout.h)
};

// Matrices that take the same input: masked once, sent once, one round trip.
struct Group {
  uint32_t d = 0;
  std::vector<Matrix> matrices;  // at least one
};

// Half-open byte range of the skeleton that reads as zeros.
struct Hole {
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

struct Manifest {
  uint32_t format_version = kFormatVersion;
  std::string model_name;  // general.name of the source, at most 256 bytes of printable ASCII
  std::string tool_version;
  Digest source{};              // SHA-256 of the source GGUF
  uint32_t profile = 1;         // mask profile id (ring/profile.h)
  uint64_t skeleton_bytes = 0;  // logical size, holes included
  Digest skeleton{};            // SHA-256 of the bytes outside the holes, in order
  std::vector<Hole> holes;      // sorted, disjoint, not empty ranges, inside the file
  std::vector<Group> groups;    // in the order of their first use in the graph
};

// What DecodeManifest also demands. Names are 1..255 bytes of printable ASCII and unique: a matrix
// is either a hole of the skeleton or the tied head that stays in it, so no name occurs in two
// roles. Only token_embd.weight may be a tied head. kInvalidArgument names the field; kUnsupported
// for another format version or profile.
Status ValidateManifest(const Manifest& manifest);
// The one text of a manifest. The result of a manifest that does not validate is not a manifest.
std::string EncodeManifest(const Manifest& manifest);
// Bounded and canonical: reads the text in one pass without recursion, validates. kCorrupt for
// anything else; kUnsupported for another format version or profile. Pure.
Result<Manifest> DecodeManifest(std::string_view text);
Digest ModelIdentity(std::string_view manifest_text);

// SHA-256 of the canonical binary encoding of (format version, profile id, N, k, q, eta; sorted by
// (name, role): name, role, d, o, weight digest): what seeds A_d. No hint digest, no time, no free
// text. Layout: doc/store.md.
Digest CoreDigest(const Manifest& manifest);

// All matrices in the order of the manifest, which is also the order of the store's files and of
// StreamId::matrix. The pointers are into `manifest`.
struct MatrixRef {
  const Group* group;
  const Matrix* matrix;
  uint32_t group_index;
  uint32_t member;  // of the group
};
std::vector<MatrixRef> AllMatrices(const Manifest& manifest);
std::string_view RoleName(Role role);

// The widths that a group occupies on the wire and in the pools: every member starts at a multiple
// of 32 columns.
uint32_t PaddedOutputs(uint32_t o);                        // to a multiple of 32
uint32_t GroupOutputs(const Group& group);                 // sum of PaddedOutputs
uint32_t ColumnOffset(const Group& group, size_t member);  // of a member inside its group

}  // namespace talaria::model

#endif  // TALARIA_MODEL_MANIFEST_H_
