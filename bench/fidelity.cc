#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>

#include "bench/commands.h"

namespace talaria::bench {
namespace {

// llama-perplexity ends with "Final estimate: PPL = 21.6321 +/- 0.81432".
Result<std::pair<double, double>> ParsePerplexity(const std::string& text) {
  static const std::regex pattern(R"(Final estimate: PPL = ([0-9.]+) \+/- ([0-9.]+))");
  std::smatch match;
  if (!std::regex_search(text, match, pattern))
    return Status(Code::kInternal, "llama-perplexity printed no final estimate");
  return std::pair(std::stod(match[1]), std::stod(match[2]));
}

std::string ReadText(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
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
  TALARIA_ASSIGN_OR_RETURN(const auto plain_ppl,
                           ParsePerplexity(finished.output + ReadText(plain_log)));

  std::fprintf(stderr, "Perplexity of Talaria\n");
  TALARIA_ASSIGN_OR_RETURN(const auto lab, Laboratory::Start(s));
  std::vector<std::string> masked = {"llama-perplexity", "-t", "1"};
  masked.insert(masked.end(), common.begin(), common.end());
  TALARIA_ASSIGN_OR_RETURN(const MaskedRun run, lab->Run(masked));
  TALARIA_ASSIGN_OR_RETURN(const auto masked_ppl, ParsePerplexity(run.output));

  const double ratio = masked_ppl.first / plain_ppl.first;
  std::printf("%-12s %10s %10s\n", "", "perplexity", "+/-");
  std::printf("%-12s %10.4f %10.4f\n", "llama.cpp", plain_ppl.first, plain_ppl.second);
  std::printf("%-12s %10.4f %10.4f\n", "Talaria", masked_ppl.first, masked_ppl.second);
  std::printf("ratio %.5f over %d chunks of 512 tokens\n", ratio, options.chunks);
  if (!options.json.empty()) {
    std::ofstream(options.json) << nlohmann::json{{"perplexity_plain", plain_ppl.first},
                                                  {"perplexity_talaria", masked_ppl.first},
                                                  {"perplexity_ratio", ratio},
                                                  {"chunks", options.chunks}}
                                       .dump(2)
                                << "\n";
  }
  return OkStatus();
}

}  // namespace talaria::bench
