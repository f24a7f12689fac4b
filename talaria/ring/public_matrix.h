// A_d: the uniform public matrix of each input width d, derived by everyone from the core of the
// manifest (doc/masking.md).
#ifndef TALARIA_RING_PUBLIC_MATRIX_H_
#define TALARIA_RING_PUBLIC_MATRIX_H_

#include <cstdint>
#include <functional>

#include "talaria/base/bytes.h"
#include "talaria/base/digest.h"
#include "talaria/ring/layout.h"

namespace talaria::ring {

// SHA-256("talaria/A/v1" || u32 profile id || core digest || u32 d), integers little-endian.
Digest PublicMatrixKey(uint32_t profile_id, const Digest& core_digest, uint32_t d);

// Fills `out` (ModuleMatrixBytes(columns), first column first_column) with the columns
// [first_column, first_column + columns) of A_d. first_column and columns are multiples of 8 except
// at the right edge, where padding columns are zero. Column j's stream is AES-256-CTR with IV = j
// || 0; six-byte words, a word >= q is skipped; element i takes the next 256.
void ExpandPublicMatrix(const Digest& key, uint32_t first_column, uint32_t columns,
                        MutableBytes out);

// The same sampler with its byte source as a parameter: `next` fills a buffer with the next bytes
// of one column's stream. Writes the 2,048 accepted words in order. For tests that force runs of
// skipped words.
void SampleColumn(const std::function<void(MutableBytes)>& next,
                  std::span<uint64_t, kSecretSize> out);

}  // namespace talaria::ring

#endif  // TALARIA_RING_PUBLIC_MATRIX_H_
