// What a benchmark knows of a provisioned model by its manifest.
#ifndef TALARIA_BENCH_STORE_FACTS_H_
#define TALARIA_BENCH_STORE_FACTS_H_

#include <cstdint>
#include <string>

#include "talaria/base/result.h"
#include "talaria/model/manifest.h"

namespace talaria::bench {

// kIo, kCorrupt, kUnsupported.
Result<model::Manifest> ReadManifest(const std::string& store);

// Values that a decoded token has masked (inputs of every group) or checked and unmasked (outputs
// of every matrix), without the padding on the wire.
uint64_t ElementsPerToken(const model::Manifest& manifest);

// Nanoseconds per such value. `seconds` of masking, checking and unmasking in `calls` calls of one
// row each, `groups` of which are a token. kInternal: not whole tokens, or several rows in a call.
Result<double> OnlineNs(const model::Manifest& manifest, double seconds, double calls, double rows);

// Bytes that CVM and cloud need together: hints, public matrices, pools, the cloud's weights, and
// 1 GiB for programs and llama.cpp's own buffers.
uint64_t NeededMemory(const model::Manifest& manifest, int pool_batches);
// kResourceExhausted, with both numbers.
Status CheckMemory(uint64_t needed, uint64_t available);

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_STORE_FACTS_H_
