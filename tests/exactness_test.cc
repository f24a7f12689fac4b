// Masked and unmasked runs of the real model are the same bits: raw float32 logits through
// libllama, at every position. usage: exactness_test STORE BIN_DIR PLUGIN [PROMPT_TOKENS...];
// llama.cpp is found in $TALARIA_LLAMA_DIR.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "talaria/cvm/engine_host.h"
#include "talaria/engine/testing/model_runner.h"
#include "tests/masked_system.h"

namespace talaria::tests {
namespace {

using engine::testing::ModelRunner;
using Output = ModelRunner::Output;

constexpr size_t kGenerated = 64;

int g_passed = 0, g_failed = 0;
void Report(bool ok, const std::string& what) {
  std::printf("%s %s\n", ok ? "ok    " : "FAILED", what.c_str());
  std::fflush(stdout);
  ++(ok ? g_passed : g_failed);
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && !a.empty() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

int32_t Greedy(const std::vector<float>& logits, uint32_t vocabulary) {
  const float* last = logits.data() + (logits.size() - vocabulary);
  int32_t best = 0;
  for (uint32_t t = 1; t < vocabulary; ++t) {
    if (last[t] > last[best]) best = static_cast<int32_t>(t);
  }
  return best;
}

// Prompt, then greedy tokens: all logits, in order.
Result<std::vector<std::vector<float>>> Answer(ModelRunner& runner,
                                               const std::vector<int32_t>& prompt,
                                               std::vector<int32_t>* tokens) {
  std::vector<std::vector<float>> all;
  TALARIA_ASSIGN_OR_RETURN(Output out, runner.Run(prompt, true));
  for (size_t i = 0; i < kGenerated; ++i) {
    tokens->push_back(Greedy(out.logits, runner.vocabulary()));
    all.push_back(std::move(out.logits));
    TALARIA_ASSIGN_OR_RETURN(out, runner.Continue(tokens->back()));
  }
  all.push_back(std::move(out.logits));
  return all;
}

Status CompareAnswers(ModelRunner& runner, MaskedSystem& system,
                      const std::vector<int32_t>& prompt) {
  std::vector<int32_t> masked_tokens, plain_tokens;
  runner.SetHandler(system.Masked());
  TALARIA_ASSIGN_OR_RETURN(const auto masked, Answer(runner, prompt, &masked_tokens));
  runner.SetHandler(system.Unmasked());
  TALARIA_ASSIGN_OR_RETURN(const auto plain, Answer(runner, prompt, &plain_tokens));
  bool same = masked.size() == plain.size() && masked_tokens == plain_tokens;
  size_t logits = 0;
  for (size_t i = 0; same && i < masked.size(); ++i) {
    same = SameBits(masked[i], plain[i]);
    logits += masked[i].size();
  }
  Report(same, "prompt of " + std::to_string(prompt.size()) + " tokens and " +
                   std::to_string(kGenerated) + " generated: " + std::to_string(logits) +
                   " logits bit-identical");
  return OkStatus();
}

Status CompareBatches(ModelRunner& runner, MaskedSystem& system, const std::vector<int32_t>& text) {
  std::vector<std::vector<int32_t>> sequences;
  for (size_t s = 0; s < 4; ++s)
    sequences.emplace_back(text.begin() + static_cast<long>(s * 40),
                           text.begin() + static_cast<long>(s * 40 + 37));
  runner.SetHandler(system.Masked());
  TALARIA_ASSIGN_OR_RETURN(const Output masked, runner.RunSequences(sequences));
  runner.SetHandler(system.Unmasked());
  TALARIA_ASSIGN_OR_RETURN(const Output plain, runner.RunSequences(sequences));
  Report(SameBits(masked.logits, plain.logits),
         "four sequences of 37 tokens in one batch: " + std::to_string(masked.logits.size()) +
             " logits bit-identical");
  return OkStatus();
}

Status Main(const std::vector<std::string>& args) {
  const char* llama = std::getenv("TALARIA_LLAMA_DIR");
  const char* testdata = std::getenv("TALARIA_TESTDATA");
  if (args.size() < 4 || llama == nullptr || testdata == nullptr) {
    return Status(Code::kInvalidArgument,
                  "usage: exactness_test STORE BIN_DIR PLUGIN [PROMPT_TOKENS...], with "
                  "TALARIA_LLAMA_DIR and TALARIA_TESTDATA set");
  }
  std::vector<size_t> lengths;
  for (size_t i = 4; i < args.size(); ++i) lengths.push_back(std::stoul(args[i]));
  char folder[] = "/tmp/talaria-exactness.XXXXXX";
  if (mkdtemp(folder) == nullptr) return Status(Code::kIo, "no folder in /tmp");
  TALARIA_ASSIGN_OR_RETURN(const auto system, MaskedSystem::Start(args[2], args[1], folder, 1));

  engine::testing::ModelRunnerOptions options;
  options.model_path = "/proc/self/fd/" + std::to_string(system->model().skeleton.get());
  options.llama_dir = llama;
  options.plugin = args[3];
  options.channel = cvm::DescribeModel(system->model().manifest);
  options.handler = system->Masked();
  options.context = 1024;
  options.sequences = 4;
  TALARIA_ASSIGN_OR_RETURN(const auto runner, ModelRunner::Create(options));
  std::ifstream file(std::string(testdata) + "/wikitext2-test.txt");
  std::string text(16384, '\0');
  file.read(text.data(), static_cast<long>(text.size()));
  const std::vector<int32_t> tokens = runner->Tokenize(text);
  for (const size_t length : lengths) {
    if (tokens.size() < length) return Status(Code::kInternal, "the text is too short");
    TALARIA_RETURN_IF_ERROR(CompareAnswers(
        *runner, *system, {tokens.begin(), tokens.begin() + static_cast<long>(length)}));
  }
  TALARIA_RETURN_IF_ERROR(CompareBatches(*runner, *system, tokens));

  // The test sees a difference: another activation scale would be one, and so is one other input
  // token.
  runner->SetHandler(system->Masked());
  std::vector<int32_t> other(tokens.begin(), tokens.begin() + 8);
  TALARIA_ASSIGN_OR_RETURN(const Output first, runner->Run(other, true));
  other[7] += 1;
  TALARIA_ASSIGN_OR_RETURN(const Output second, runner->Run(other, true));
  Report(!SameBits(first.logits, second.logits), "control: another token gives other logits");
  const cvm::MaskStats stats = system->masks().stats();
  Report(stats.rows_spent > 0 && stats.rows_drawn == stats.rows_spent + stats.rows_burnt,
         "rows drawn " + std::to_string(stats.rows_drawn) + " = spent " +
             std::to_string(stats.rows_spent) + " + burnt " + std::to_string(stats.rows_burnt));
  std::filesystem::remove_all(folder);
  return OkStatus();
}

}  // namespace
}  // namespace talaria::tests

int main(int argc, char** argv) {
  talaria::engine::testing::ModelRunner::ReserveDescriptors();
  const talaria::Status status = talaria::tests::Main({argv, argv + argc});
  if (!status.ok()) {
    std::printf("FAILED %s\n", status.ToString().c_str());
    ++talaria::tests::g_failed;
  }
  std::printf("%d passed, %d failed\n", talaria::tests::g_passed, talaria::tests::g_failed);
  return talaria::tests::g_failed == 0 && talaria::tests::g_passed > 0 ? 0 : 1;
}
