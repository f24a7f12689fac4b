// Parameter sets of the mask (doc/masking.md). A profile is chosen by its id, never by numbers from
// a file or a peer.
#ifndef TALARIA_RING_PROFILE_H_
#define TALARIA_RING_PROFILE_H_

#include <cstdint>

#include "talaria/base/result.h"

namespace talaria::ring {

struct Profile {
  uint32_t id;
  int degree;  // N: the ring is Z_q[X] / (X^N + 1); also the rows of one batch
  int rank;    // k
  int eta;     // the error is centred binomial with this parameter
  bool implemented;
};

// The whole table: 1 = (256, 8), 2 = (64, 32), 3 = (256, 9). Version 1 implements profile 1.
inline constexpr Profile kProfiles[] = {
    {1, 256, 8, 21, true}, {2, 64, 32, 21, false}, {3, 256, 9, 21, false}};
// kUnsupported for an id that is unknown or not implemented.
inline Result<Profile> FindProfile(uint32_t id) {
  for (const Profile& p : kProfiles) {
    if (p.id == id && p.implemented) return p;
  }
  return Status(Code::kUnsupported, "mask profile " + std::to_string(id) + " is not implemented");
}

// Profile 1, as the kernels see it.
inline constexpr int kDegree = 256;
inline constexpr int kRank = 8;
inline constexpr int kEta = 21;
inline constexpr int kSecretSize = kDegree * kRank;  // LWE dimension, 2048

}  // namespace talaria::ring

#endif  // TALARIA_RING_PROFILE_H_
