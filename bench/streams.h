// Parallel streams: requests to llama-server over its own Unix socket, several at a time, the same
// to a plain one and to one on the masked model.
#ifndef TALARIA_BENCH_STREAMS_H_
#define TALARIA_BENCH_STREAMS_H_

#include <string>

#include "bench/pairs.h"

namespace talaria::bench {

// Each stream asks `requests` times, one after the other. What counts are the tokens of one kind:
// generated ones with kDecode (the prompt is then one token), the prompts' with kPrompt (of which
// each gives one token).
struct StreamWork {
  enum class Kind { kDecode, kPrompt } kind;
  int streams, requests, tokens;
};
// Together at least twice the rows that the pools hold.
StreamWork SustainedStreams(StreamWork::Kind kind, int streams, int pool_batches,
                            int prompt_tokens);

// From the first request to the last answer, all streams together. Loading and one request before
// are in no time and in no CPU. kUnavailable, kInternal (another number of tokens).
Result<Speed> MeasurePlainStreams(const Setting& setting, const StreamWork& work, int threads);
// The same. In the time is, too, what it takes from the last answer until the pools are full.
Status MeasureMaskedStreams(const Setting& setting, Laboratory& lab, const StreamWork& work,
                            Sample& sample);
// Resident memory of the CVM's two processes, MiB, while llama-server still runs after this work.
Result<double> MeasureMaskedMemory(const Setting& setting, Laboratory& lab, const StreamWork& work);

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_STREAMS_H_
