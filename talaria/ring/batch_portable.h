// The oracle of RowGenerator: plain C++, one column at a time, by the definition.
#ifndef TALARIA_RING_BATCH_PORTABLE_H_
#define TALARIA_RING_BATCH_PORTABLE_H_

#include "talaria/ring/batch.h"

namespace talaria::ring::internal {

// As RowGenerator::Generate, but leaves columns past `columns` alone. `scratch` is overwritten.
void GeneratePortable(const uint8_t* matrix, size_t columns, size_t error_stride,
                      std::span<const NttSecret> secrets, std::span<const BatchOutput> outputs,
                      Polynomial& scratch);

}  // namespace talaria::ring::internal

#endif  // TALARIA_RING_BATCH_PORTABLE_H_
