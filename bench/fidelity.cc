#include <nlohmann/json.hpp>
#include <regex>

#include "bench/commands.h"
#include "bench/laboratory.h"
#include "bench/llama_bench.h"

namespace talaria::bench {
namespace {

// llama-perplexity prints "[1]10.1817,[2]14.4132,..." on its standard output: the perplexity of the
// first n chunks. The last is the result; its "Final estimate" says the same on standard error,
// where it can get lost.
Result<double> ParsePerplexity(const std::string& output, int chunks) {
  const std::regex pattern("\\[" + std::to_string(chunks) + "\\]([0-9]+\\.[0-9]+)");
  std::smatch match;
  if (!std::regex_search(output, match, pattern))
    return Status(Code::kInternal,
                  "llama-perplexity printed no result for chunk " + std::to_string(chunks));
  return std::stod(match[1]);
}

}  // namespace

Status Fidelity(const FidelityOptions& options) {
  const Setting& s = options.setting;
  TALARIA_RETURN_IF_ERROR(ProvisionIfAbsent(s));
  const std::vector<std::string> common = {"-f",  options.text, "-c",
                                           "512", "--chunks",   std::to_string(options.chunks)};
  std::fprintf(stderr, "Perplexity of plain llama.cpp (%d chunks of 512)\n", options.chunks);
  std::vector<std::string> plain = {s.llama + "/plain/bin/llama-perplexity", "-m", s.model, "-t",
                                    "2"};
  plain.insert(plain.end(), common.begin(), common.end());
  const std::string plain_log = s.work + "/perplexity-plain.log";
  TALARIA_ASSIGN_OR_RETURN(const Finished finished, RunProcess(plain, plain_log));
  TALARIA_ASSIGN_OR_RETURN(const double plain_ppl,
                           ParsePerplexity(finished.output, options.chunks));

  std::fprintf(stderr, "Perplexity of Talaria\n");
  TALARIA_ASSIGN_OR_RETURN(const auto lab, Laboratory::Start(s));
  std::vector<std::string> masked = {"llama-perplexity", "-t", "1"};
  masked.insert(masked.end(), common.begin(), common.end());
  TALARIA_ASSIGN_OR_RETURN(const MaskedRun run, lab->Run(masked));
  TALARIA_ASSIGN_OR_RETURN(const double masked_ppl, ParsePerplexity(run.output, options.chunks));

  const double ratio = masked_ppl / plain_ppl;
  std::printf("%-12s %10s\n", "", "perplexity");
  std::printf("%-12s %10.4f\n", "llama.cpp", plain_ppl);
  std::printf("%-12s %10.4f\n", "Talaria", masked_ppl);
  std::printf("ratio %.5f over %d chunks of 512 tokens\n", ratio, options.chunks);
  return WriteJson({{"perplexity_plain", plain_ppl},
                    {"perplexity_talaria", masked_ppl},
                    {"perplexity_ratio", ratio},
                    {"chunks", options.chunks}},
                   options.json);
}

}  // namespace talaria::bench
