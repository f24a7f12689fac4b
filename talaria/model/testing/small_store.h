// A small store for tests: random weights, real digests, and real hints from the scalar definition
// A_d * W mod q.
#ifndef TALARIA_MODEL_TESTING_SMALL_STORE_H_
#define TALARIA_MODEL_TESTING_SMALL_STORE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "talaria/base/result.h"
#include "talaria/model/manifest.h"

namespace talaria::model::testing {

struct SmallMatrix {
  std::string name;
  uint32_t o = 0;
  Role role = Role::kLinear;
};
struct SmallGroup {
  uint32_t d = 0;
  std::vector<SmallMatrix> matrices;
};

// Two groups, four matrices, odd sizes: {q, k} with d = 48 and {down} with d = 80, and a tied head
// with d = 48.
std::vector<SmallGroup> DefaultSmallGroups();

// Writes a store to the new folder `directory`; returns its manifest. The skeleton is not a model:
// some bytes, two holes. The same seed gives the same bytes. Takes about 30 ns per weight and 2,048
// rows.
Result<Manifest> WriteSmallStore(const std::string& directory, uint64_t seed,
                                 const std::vector<SmallGroup>& groups = DefaultSmallGroups());

}  // namespace talaria::model::testing

#endif  // TALARIA_MODEL_TESTING_SMALL_STORE_H_
