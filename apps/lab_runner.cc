// talaria-lab-runner: evaluates text or tokens with libllama, inside talaria-cvm-lab run, and
// writes which tokens each llama_decode had: the ground truth of attacks (doc/recording.md). Never
// installed.
#include <ggml-backend.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "talaria/base/digest.h"
#include "talaria/base/log.h"
#include "talaria/engine/testing/model_runner.h"
#include "talaria/lab/row_files.h"

namespace talaria {
namespace {

using engine::testing::ModelRunner;

// Of a position, in batches that flash attention evaluates query by query (it tiles from 64 on, and
// sums in another order), so that a candidate's states are those of a decode step bit for bit.
constexpr size_t kProposals = 252, kProposalsPerBatch = 63;

struct Arguments {
  std::string model, evaluations, prompt, prompts, tokens, candidates;
  std::vector<std::string> texts;
  bool vocabulary = false, first_layer = false;
  uint32_t context = 512, limit = 0, generate = 0, answers = 0, sequences = 64;
  uint32_t window = 512;  // tokens that a prompt and its answer may have
  int threads = 1;  // a second one spins at barriers around each of 121 products, and costs more
                    // than it gives
};

Result<std::string> ReadText(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return Status(Code::kNotFound, path + " could not be read");
  return text.str();
}

class Run {
 public:
  Run(const Arguments& args, ModelRunner& runner, lab::File evaluations)
      : args_(args), runner_(runner), file_(std::move(evaluations)) {}

  Status Do() {
    if (args_.vocabulary || !args_.tokens.empty()) return SingleTokens();
    if (!args_.candidates.empty()) return Candidates();
    for (const std::string& path : args_.texts) {
      TALARIA_RETURN_IF_ERROR(Text(path));
      ++text_;
    }
    if (!args_.prompts.empty()) return Prompts();
    return args_.prompt.empty() ? OkStatus() : Generate(args_.prompt);
  }
  uint64_t evaluations() const { return evaluations_; }
  uint64_t tokens() const { return tokens_; }
  // How fast answers came, and the digest of all logits that they were chosen by: equal for equal
  // bits.
  void PrintAnswers() {
    std::printf("answers: %llu tokens in %.3f s, %.1f tokens/s\nlogits: SHA-256 %s\n",
                static_cast<unsigned long long>(answered_), answering_seconds_,
                static_cast<double>(answered_) / answering_seconds_,
                ToHex(logits_.Finish()).c_str());
  }

 private:
  Status Text(const std::string& path) {
    TALARIA_ASSIGN_OR_RETURN(const std::string text, ReadText(path));
    std::vector<int32_t> tokens = runner_.Tokenize(text);
    if (tokens.empty()) return Status(Code::kInvalidArgument, path + " has no token");
    if (args_.limit > 0) tokens.resize(std::min<size_t>(tokens.size(), args_.limit));
    for (size_t i = 0; i < tokens.size(); i += args_.context) {
      const size_t n = std::min<size_t>(args_.context, tokens.size() - i);
      const std::span<const int32_t> chunk = std::span(tokens).subspan(i, n);
      TALARIA_RETURN_IF_ERROR(runner_.Run(chunk, false).status());
      TALARIA_RETURN_IF_ERROR(Write({chunk.begin(), chunk.end()}, 0));
    }
    return OkStatus();
  }

  Status Prompts() {
    TALARIA_ASSIGN_OR_RETURN(const std::string text, ReadText(args_.prompts));
    std::stringstream lines(text);
    uint32_t done = 0;
    for (std::string line; std::getline(lines, line);) {
      if (line.empty()) continue;
      if (args_.answers > 0 && done == args_.answers) break;
      for (size_t at = 0; (at = line.find("\\n", at)) != std::string::npos; ++at)
        line.replace(at, 2, "\n");
      TALARIA_RETURN_IF_ERROR(Generate(line));
      ++done;
    }
    return done > 0 ? OkStatus() : Status(Code::kInvalidArgument, args_.prompts + " has no prompt");
  }

  // The answer ends where the model ends it.
  Status Generate(const std::string& text) {
    const std::vector<int32_t> prompt = runner_.Tokenize(text);
    if (prompt.empty()) return Status(Code::kInvalidArgument, "the prompt has no token");
    if (prompt.size() + args_.generate > args_.window)
      return Status(Code::kInvalidArgument, "--context is too small for prompt and answer");
    TALARIA_ASSIGN_OR_RETURN(ModelRunner::Output out, runner_.Run(prompt, false));
    TALARIA_RETURN_IF_ERROR(Write(prompt, 0));
    auto position = static_cast<int32_t>(prompt.size());
    const auto start = std::chrono::steady_clock::now();
    for (uint32_t i = 0; i < args_.generate; ++i) {
      logits_.Update(Bytes(reinterpret_cast<const uint8_t*>(out.logits.data()),
                           out.logits.size() * sizeof(float)));
      const auto best = std::max_element(out.logits.begin(), out.logits.end());
      const auto token = static_cast<int32_t>(best - out.logits.begin());
      if (runner_.EndsAnswer(token)) break;
      TALARIA_ASSIGN_OR_RETURN(out, runner_.Continue(token));
      TALARIA_RETURN_IF_ERROR(Write({token}, position++));
      ++answered_;
    }
    answering_seconds_ +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return OkStatus();
  }

  // Along the token sequences of another run. What the model itself proposes at a position is
  // evaluated there, in sequences 1 and up; then the token that stood there, in sequence 0.
  Status Candidates() {
    TALARIA_ASSIGN_OR_RETURN(const std::string text, ReadText(args_.candidates));
    const std::vector<int32_t> separator = runner_.Tokenize("<|endoftext|>");
    std::stringstream lines(text);
    ModelRunner::Output out;
    uint32_t done = 0;
    for (std::string line; std::getline(lines, line);) {
      const nlohmann::json evaluation = nlohmann::json::parse(line, nullptr, false);
      if (evaluation.is_discarded() || !evaluation.contains("tokens"))
        return Status(Code::kInvalidArgument, args_.candidates + ": not a recording's evaluations");
      const auto tokens = evaluation["tokens"].get<std::vector<int32_t>>();
      const auto positions = evaluation["positions"].get<std::vector<int32_t>>();
      for (size_t i = 0; i < tokens.size(); ++i) {
        if (args_.limit > 0 && done++ == args_.limit) return OkStatus();
        if (positions[i] == 0) {  // nothing stands before it: what begins a document
          TALARIA_ASSIGN_OR_RETURN(out, runner_.Run(separator, false));
          TALARIA_RETURN_IF_ERROR(Write(separator, 0));
        }
        const std::vector<int32_t> proposals = Proposals(out.logits);
        if (positions[i] == 0) runner_.Forget();
        for (size_t at = 0; at < proposals.size(); at += kProposalsPerBatch) {
          const std::span<const int32_t> some =
              std::span(proposals).subspan(at, std::min(kProposalsPerBatch, proposals.size() - at));
          TALARIA_RETURN_IF_ERROR(runner_.TryNext(some));
          std::vector<int32_t> sequences(some.size());
          std::iota(sequences.begin(), sequences.end(), 1);
          TALARIA_RETURN_IF_ERROR(Write({some.begin(), some.end()},
                                        std::vector<int32_t>(some.size(), positions[i]),
                                        sequences));
        }
        TALARIA_ASSIGN_OR_RETURN(out, runner_.Continue(tokens[i]));
        TALARIA_RETURN_IF_ERROR(Write({tokens[i]}, positions[i]));
      }
    }
    return OkStatus();
  }

  static std::vector<int32_t> Proposals(const std::vector<float>& logits) {
    std::vector<int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    const size_t n = std::min(kProposals, order.size());
    std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(n), order.end(),
                      [&](int32_t a, int32_t b) {
                        return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
                      });
    order.resize(n);
    return order;
  }

  // Each in a sequence of its own, at position 0.
  Status SingleTokens() {
    std::vector<int32_t> tokens(args_.vocabulary ? runner_.vocabulary() : 0);
    std::iota(tokens.begin(), tokens.end(), 0);
    if (!args_.vocabulary) {
      TALARIA_ASSIGN_OR_RETURN(const std::string text, ReadText(args_.tokens));
      std::stringstream words(text);
      for (int32_t token = 0; words >> token;) {
        if (token < 0 || token >= static_cast<int32_t>(runner_.vocabulary()))
          return Status(Code::kInvalidArgument,
                        args_.tokens + ": there is no token " + std::to_string(token));
        tokens.push_back(token);
      }
      if (!words.eof() || tokens.empty())
        return Status(Code::kInvalidArgument, args_.tokens + ": not a list of token numbers");
    }
    if (args_.limit > 0) tokens.resize(std::min<size_t>(tokens.size(), args_.limit));
    for (size_t i = 0; i < tokens.size(); i += args_.sequences) {
      std::vector<std::vector<int32_t>> sequences;
      for (size_t j = i; j < std::min<size_t>(tokens.size(), i + args_.sequences); ++j)
        sequences.push_back({tokens[j]});
      TALARIA_RETURN_IF_ERROR(runner_.RunSequences(sequences).status());
      std::vector<int32_t> positions(sequences.size(), 0), numbers(sequences.size());
      std::iota(numbers.begin(), numbers.end(), 0);
      const auto first = tokens.begin() + static_cast<ptrdiff_t>(i);
      TALARIA_RETURN_IF_ERROR(
          Write({first, first + static_cast<ptrdiff_t>(sequences.size())}, positions, numbers));
    }
    return OkStatus();
  }

  Status Write(const std::vector<int32_t>& tokens, int32_t first_position) {
    std::vector<int32_t> positions(tokens.size());
    std::iota(positions.begin(), positions.end(), first_position);
    return Write(tokens, positions, std::vector<int32_t>(tokens.size(), 0));
  }
  // After the evaluation succeeded: a failed one is nobody's truth, and ends the run.
  Status Write(const std::vector<int32_t>& tokens, const std::vector<int32_t>& positions,
               const std::vector<int32_t>& sequences) {
    tokens_ += tokens.size();
    const nlohmann::json line = {{"evaluation", evaluations_++},
                                 {"text", text_},
                                 {"tokens", tokens},
                                 {"positions", positions},
                                 {"sequences", sequences}};
    return file_ == nullptr ? OkStatus() : lab::Append(file_, AsBytes(line.dump() + "\n"));
  }

  const Arguments& args_;
  ModelRunner& runner_;
  const lab::File file_;
  Sha256 logits_;
  uint64_t answered_ = 0;
  double answering_seconds_ = 0;
  uint64_t evaluations_ = 0, tokens_ = 0;
  uint64_t text_ = 0;  // of --text, in order; --prompts come after them
};

Status Start(Arguments& args) {
  // Inside talaria-cvm-lab the plug-in is named by the environment, as for every llama.cpp program;
  // its channel is inherited.
  if (const char* plugin = std::getenv("GGML_BACKEND_PATH");
      plugin != nullptr && ggml_backend_load(plugin) == nullptr)
    return Status(Code::kUnavailable, std::string("cannot load ") + plugin);
  engine::testing::ModelRunnerOptions options;
  options.model_path = args.model;
  // In a bundle (scripts/test-gpu) llama.cpp's backend is beside this program.
  std::error_code error;
  const std::filesystem::path own =
      std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  options.llama_dir = std::filesystem::exists(own / "libggml-cpu.so", error)
                          ? own.parent_path().string()
                          : TALARIA_LLAMA_DIR;
  const bool single = args.vocabulary || !args.tokens.empty();
  options.sequences = single ? args.sequences : 1;
  args.window = std::max(args.context, args.window);
  options.context = single ? std::max(args.context, args.sequences) : args.window;
  if (!args.candidates.empty()) {
    options.sequences = kProposalsPerBatch + 1;
    options.context = args.context + kProposalsPerBatch;
  }
  options.micro_batch = options.context;
  options.threads = args.threads;
  options.first_layer = args.first_layer;
  TALARIA_ASSIGN_OR_RETURN(const std::unique_ptr<ModelRunner> runner, ModelRunner::Create(options));
  lab::File evaluations;
  if (!args.evaluations.empty()) {
    TALARIA_ASSIGN_OR_RETURN(evaluations, lab::CreateRecordingFile(args.evaluations));
  }
  Run run(args, *runner, std::move(evaluations));
  TALARIA_RETURN_IF_ERROR(run.Do());
  std::printf("%llu evaluations of %llu tokens\n",
              static_cast<unsigned long long>(run.evaluations()),
              static_cast<unsigned long long>(run.tokens()));
  if (args.generate > 0) run.PrintAnswers();
  return OkStatus();
}

int Main(int argc, char** argv) {
  SetLog("talaria-lab-runner", LogLevel::kInfo);
  Arguments args;
  CLI::App program(
      "Evaluates text or tokens and writes which, for talaria-cvm-lab run --record. Greedy.",
      "talaria-lab-runner");
  program.add_option("--model", args.model, "The model (talaria-cvm-lab adds it)")
      ->required()
      ->type_name("GGUF");
  program.add_option("--evaluations", args.evaluations,
                     "Write a line of JSON per llama_decode (talaria-cvm-lab adds it)");
  CLI::Option* text = program.add_option(
      "--text", args.texts,
      "A text file, in contexts of --context tokens, each fresh and in one batch; "
      "may be given again");
  text->allow_extra_args(false)->type_name("FILE");
  CLI::Option* prompts = program.add_option("--prompts", args.prompts,
                                            "A file of prompts, one a line (\\n in it is a new "
                                            "line), each followed by --generate tokens; "
                                            "after the texts");
  CLI::Option* prompt =
      program.add_option("--prompt", args.prompt, "A prompt in one batch, then --generate tokens")
          ->excludes(text)
          ->excludes(prompts);
  CLI::Option* list =
      program.add_option("--token-list", args.tokens,
                         "A file of token numbers, each in a sequence of its own, at position 0");
  CLI::Option* vocabulary =
      program.add_flag("--vocabulary", args.vocabulary, "Every token there is, likewise");
  CLI::Option* candidates =
      program
          .add_option("--candidates", args.candidates,
                      "The evaluations.jsonl of another run: at each position the 252 tokens that "
                      "the model finds most likely, each after what came before")
          ->type_name("FILE");
  for (CLI::Option* single : {list, vocabulary, candidates})
    single->excludes(text)->excludes(prompts)->excludes(prompt);
  list->excludes(vocabulary);
  program
      .add_flag("--first-layer", args.first_layer,
                "End each evaluation at the first layer's attention: of --groups only the first "
                "is complete, in a thirtieth of the time")
      ->excludes(prompts)
      ->excludes(prompt)
      ->excludes(candidates);
  candidates->excludes(list)->excludes(vocabulary);
  program
      .add_option("--tokens", args.limit, "At most N tokens of each text or of the list; 0: all")
      ->type_name("N");
  program
      .add_option("--generate", args.generate,
                  "At most N tokens of an answer, one llama_decode each")
      ->type_name("N");
  program.add_option("--answers", args.answers, "Answer the first N of --prompts; 0: all")
      ->type_name("N");
  program.add_option("--context", args.context, "Tokens of a piece of a text")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  program.add_option("--sequences", args.sequences, "Single tokens per llama_decode")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  program.add_option("--threads", args.threads, "Threads of what stays in the CVM")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  program.set_version_flag("--version", "talaria-lab-runner " TALARIA_VERSION,
                           "Print the version and stop");
  program.footer(
      "Example:\n  talaria-cvm-lab run --cloud unix:/tmp/cloud.sock --record /tmp/recording "
      "-- talaria-lab-runner --prompt 'The capital of France is' --generate 32");
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return program.exit(e) == 0 ? 0 : ExitCode(Code::kInvalidArgument);
  }
  if (args.texts.empty() && args.prompts.empty() && args.prompt.empty() && args.tokens.empty() &&
      args.candidates.empty() && !args.vocabulary) {
    LogError(
        "nothing to evaluate: --text, --prompts, --prompt, --token-list, --candidates or "
        "--vocabulary");
    return ExitCode(Code::kInvalidArgument);
  }
  const Status status = Start(args);
  if (!status.ok()) LogError(status.ToString());
  return ExitCode(status.code());
}

}  // namespace
}  // namespace talaria

int main(int argc, char** argv) { return talaria::Main(argc, argv); }
