// How much memory this machine has left.
#ifndef TALARIA_BASE_MEMORY_H_
#define TALARIA_BASE_MEMORY_H_

#include <cstdint>

namespace talaria {

// Bytes that the machine can give without swapping; no limit when it does not say.
uint64_t AvailableMemory();

}  // namespace talaria

#endif  // TALARIA_BASE_MEMORY_H_
