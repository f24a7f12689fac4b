// llama-bench as the benchmark runs and reads it, the machine that a result is of, and its file.
#ifndef TALARIA_BENCH_LLAMA_BENCH_H_
#define TALARIA_BENCH_LLAMA_BENCH_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "talaria/base/result.h"

namespace talaria::bench {

// One llama-bench test: tokens and seconds of its timed part.
struct Timed {
  double tokens = 0, seconds = 0;
};

// `head` is the program and what names the model, `test` the arguments of one test.
std::vector<std::string> LlamaBench(std::vector<std::string> head,
                                    const std::vector<std::string>& test, int threads);
// Of one test. kInternal when the output is something else.
Result<Timed> ParseLlamaBench(const std::string& output);

// An object: processor, cores and kernel.
std::string MachineJson();
// A result, indented. Nothing for "". kIo.
Status WriteJson(const nlohmann::json& json, const std::string& path);

}  // namespace talaria::bench

#endif  // TALARIA_BENCH_LLAMA_BENCH_H_
