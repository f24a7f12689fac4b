// The seeds of the corpora, from the encoders themselves, so that they cannot go stale.
#ifndef TALARIA_FUZZ_SEEDS_H_
#define TALARIA_FUZZ_SEEDS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace talaria::fuzz {

// "target/name" -> bytes. A name that begins with "valid" is accepted, one with "bad" is not.
std::map<std::string, std::vector<uint8_t>> Seeds();

}  // namespace talaria::fuzz

#endif  // TALARIA_FUZZ_SEEDS_H_
