// talaria-model-check: runs a provisioned model masked, through a talaria-cloud process, inside
// libllama in this process, and checks every product of an offloaded matrix that the evaluation
// callback reports (model_check_products.h has the definitions):
//   a. its bits are those of the exact integer product of the store's weights;
//   b. it is within the bound derived from the two quantisations of the float product of the
//   source's weights, on the same input; c. every matrix of the manifest was multiplied by, and
//   each evaluation asked the cloud once per group.
// With --mutations it then shows, on the inputs that it recorded, that a zeroed, a rescaled and a
// swapped matrix would each have broken a (a wrong product) and b (a wrong store), for every
// matrix. Exit code 1 when anything of this does not hold.
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <set>

#include "talaria/base/log.h"
#include "talaria/cvm/engine_host.h"
#include "talaria/engine/testing/model_runner.h"
#include "tests/model_check_matrices.h"
#include "tests/model_check_products.h"
#include "tests/model_check_session.h"

namespace talaria::tests {
namespace {

using engine::testing::ModelRunner;
using engine::testing::ModelRunnerOptions;
using engine::testing::ProductView;
using Json = nlohmann::ordered_json;

constexpr uint64_t kSeed = 20260301;

struct Arguments {
  std::string source, store, cloud, plugin = TALARIA_PLUGIN, llama_dir = TALARIA_LLAMA_DIR;
  uint32_t tokens = 12;
  bool mutations = false, json = false;
};

// What was found of one matrix.
struct Findings {
  ProductVerdict verdict;
  std::set<uint32_t> rows;  // of its products
  std::vector<ProductView> products;
};

struct Report {
  uint64_t products = 0, evaluations = 0, calls = 0, mutations = 0;
  ProductVerdict all;
  std::optional<double> plain_perplexity, masked_perplexity;
  std::vector<std::string> faults;
  void Expect(bool holds, const std::string& fault) {
    if (!holds) faults.push_back(fault);
  }
};

std::vector<int32_t> RandomTokens(uint32_t count, uint32_t vocabulary, uint64_t stream) {
  std::mt19937_64 random(kSeed + stream);
  std::vector<int32_t> tokens;
  for (uint32_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<int32_t>(random() % vocabulary));
  return tokens;
}

// For information only: of a model with random weights it says nothing.
double Perplexity(const ModelRunner::Output& out, std::span<const int32_t> tokens) {
  const size_t width = out.logits.size() / out.outputs;
  double sum = 0;
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    const float* logits = out.logits.data() + i * width;
    double total = 0;
    for (size_t t = 0; t < width; ++t) total += std::exp(double{logits[t]});
    sum += std::log(total) - double{logits[tokens[i + 1]]};
  }
  return std::exp(sum / static_cast<double>(tokens.size() - 1));
}

ModelRunnerOptions RunnerOptions(const Arguments& args) {
  ModelRunnerOptions options;
  options.llama_dir = args.llama_dir;
  options.flash_attention = false;  // not every architecture has it
  options.context = 256;
  options.sequences = 2;
  return options;
}

// Before the plug-in is loaded: it would refuse the whole model's matrices.
Result<double> PlainPerplexity(const Arguments& args) {
  ModelRunnerOptions options = RunnerOptions(args);
  options.model_path = args.source;
  TALARIA_ASSIGN_OR_RETURN(const auto runner, ModelRunner::Create(options));
  const std::vector<int32_t> tokens = RandomTokens(args.tokens, runner->vocabulary(), 0);
  TALARIA_ASSIGN_OR_RETURN(const ModelRunner::Output out, runner->Run(tokens, true));
  return Perplexity(out, tokens);
}

class ModelCheck {
 public:
  ModelCheck(const Arguments& args, const CheckedModel& model) : args_(args), model_(model) {}

  Status Evaluate(CheckSession& session) {
    ModelRunnerOptions options = RunnerOptions(args_);
    options.model_path = session.SkeletonPath();
    options.plugin = args_.plugin;
    options.channel = cvm::DescribeModel(session.model().manifest);
    options.handler = [&session](const engine::CallView& call) { return session.Multiply(call); };
    TALARIA_ASSIGN_OR_RETURN(const auto runner, ModelRunner::Create(std::move(options)));
    runner->SetProductCallback([this](const ProductView& product) { OnProduct(product); });

    // All rows with logits; only the last, so that the last layer drops rows; one row; and two
    // sequences, whose recurrent layers have inputs of three dimensions.
    const uint32_t vocabulary = runner->vocabulary(), half = (args_.tokens + 1) / 2;
    const std::vector<int32_t> tokens = RandomTokens(args_.tokens, vocabulary, 0);
    TALARIA_ASSIGN_OR_RETURN(const ModelRunner::Output out, runner->Run(tokens, true));
    report_.masked_perplexity = Perplexity(out, tokens);
    TALARIA_RETURN_IF_ERROR(runner->Run(RandomTokens(half, vocabulary, 1), false).status());
    TALARIA_RETURN_IF_ERROR(runner->Continue(RandomTokens(1, vocabulary, 2)[0]).status());
    const std::vector<std::vector<int32_t>> sequences = {RandomTokens(half, vocabulary, 3),
                                                         RandomTokens(half, vocabulary, 4)};
    TALARIA_RETURN_IF_ERROR(runner->RunSequences(sequences).status());
    report_.evaluations = 4;
    report_.calls = session.session().stats().calls;
    report_.Expect(runner->events() == std::vector{engine::ChildEvent::kAllMatricesLanded},
                   "not every matrix landed in the plug-in");
    return OkStatus();
  }

  void Judge(const CheckSession& session) {
    for (const CheckedMatrix& matrix : model_.matrices) {
      const Findings& found = findings_[matrix.name];
      report_.all.Add(found.verdict);
      report_.products += found.products.size();
      report_.Expect(!found.products.empty(), matrix.name + ": never multiplied by");
      report_.Expect(found.rows.contains(1) && *found.rows.rbegin() > 1,
                     matrix.name + ": not with one row and with several");
      if (found.products.empty()) continue;
      report_.Expect(found.verdict.exact(), matrix.name + ": " +
                                                std::to_string(found.verdict.inexact) + " of " +
                                                std::to_string(found.verdict.values) +
                                                " values are not the exact product");
      report_.Expect(found.verdict.within_bound(),
                     matrix.name + ": " + std::to_string(found.verdict.out_of_bound) + " of " +
                         std::to_string(found.verdict.values) + " values are out of bound");
    }
    for (size_t g = 0; g < model_.certificates.size(); ++g) {
      const cvm::Certificate &ours = model_.certificates[g],
                             &its = session.model().groups[g].certificate;
      report_.Expect(ours.delta_log2 == its.delta_log2 && ours.bound == its.bound,
                     "group " + std::to_string(g) + ": another certificate at set-up");
    }
    const uint64_t expected = report_.evaluations * model_.certificates.size();
    report_.Expect(report_.calls == expected,
                   std::to_string(report_.calls) + " calls instead of " + std::to_string(expected));
    report_.Expect(!session.session().poisoned(), "the session ended");
  }

  // Every mutation must be rejected by both comparisons, on what the checks above accepted.
  void Mutate() {
    for (size_t i = 0; i < model_.matrices.size(); ++i) {
      const CheckedMatrix& matrix = model_.matrices[i];
      const cvm::Certificate& certificate = model_.certificates[matrix.group];
      for (const Mutation& mutation : MutationsOf(model_, i)) {
        ProductVerdict verdict;
        for (const ProductView& product : findings_[matrix.name].products) {
          const std::vector<float> output = ExactProduct(
              certificate, mutation.weights, mutation.scales, product.rows, product.input);
          verdict.Add(CheckProduct(matrix, certificate, product.rows, product.input, output));
        }
        ++report_.mutations;
        report_.Expect(verdict.inexact > 0, matrix.name + " " + mutation.what +
                                                ": its product passes for the exact one");
        report_.Expect(verdict.out_of_bound > 0,
                       matrix.name + " " + mutation.what + ": its product is within the bound");
      }
    }
  }

  Report& report() { return report_; }

 private:
  void OnProduct(const ProductView& product) {
    const CheckedMatrix* const matrix = model_.Find(product.weight);
    if (matrix == nullptr || product.rows == 0) return;
    Findings& found = findings_[product.weight];
    if (product.d != matrix->d || product.o != matrix->o) {
      report_.faults.push_back(product.weight + ": multiplied with another shape");
      return;
    }
    found.verdict.Add(CheckProduct(*matrix, model_.certificates[matrix->group], product.rows,
                                   product.input, product.output));
    found.rows.insert(product.rows);
    found.products.push_back(product);
  }

  const Arguments& args_;
  const CheckedModel& model_;
  std::map<std::string, Findings> findings_;
  Report report_;
};

void Print(const Arguments& args, const CheckedModel& model, const Report& report) {
  std::map<std::string, uint32_t> types;
  for (const CheckedMatrix& matrix : model.matrices) ++types[matrix.source_type];
  const double plain = report.plain_perplexity.value_or(0),
               masked = report.masked_perplexity.value_or(0);
  if (args.json) {
    const Json json = {{"architecture", model.architecture},
                       {"matrices", model.matrices.size()},
                       {"groups", model.certificates.size()},
                       {"source_types", types},
                       {"evaluations", report.evaluations},
                       {"calls", report.calls},
                       {"products", report.products},
                       {"values", report.all.values},
                       {"inexact", report.all.inexact},
                       {"out_of_bound", report.all.out_of_bound},
                       {"worst_of_bound", report.all.worst},
                       {"mutations", report.mutations},
                       {"perplexity_plain", plain},
                       {"perplexity_masked", masked},
                       {"faults", report.faults},
                       {"ok", report.faults.empty()}};
    std::printf("%s\n", json.dump(2).c_str());
    return;
  }
  std::printf(
      "%s: %zu matrices in %zu groups; %llu products, %llu values: %llu not exact, %llu out of "
      "bound, the worst at %.3f of it; "
      "%llu mutations; perplexity %.2f masked, %.2f plain\n",
      model.architecture.c_str(), model.matrices.size(), model.certificates.size(),
      static_cast<unsigned long long>(report.products),
      static_cast<unsigned long long>(report.all.values),
      static_cast<unsigned long long>(report.all.inexact),
      static_cast<unsigned long long>(report.all.out_of_bound), report.all.worst,
      static_cast<unsigned long long>(report.mutations), masked, plain);
  for (const std::string& fault : report.faults) std::printf("FAILED: %s\n", fault.c_str());
  std::printf("%s\n", report.faults.empty() ? "ok" : "failed");
}

Result<int> Run(const Arguments& args) {
  TALARIA_ASSIGN_OR_RETURN(const model::Store store, model::Store::Open(args.store));
  TALARIA_ASSIGN_OR_RETURN(const CheckedModel model, ReadCheckedModel(store, args.source));
  ModelCheck check(args, model);
  TALARIA_ASSIGN_OR_RETURN(check.report().plain_perplexity, PlainPerplexity(args));
  TALARIA_ASSIGN_OR_RETURN(const auto session, CheckSession::Create(args.cloud, store.identity()));
  TALARIA_RETURN_IF_ERROR(check.Evaluate(*session));
  check.Judge(*session);
  if (args.mutations) check.Mutate();
  Print(args, model, check.report());
  return check.report().faults.empty() ? 0 : 1;
}

int Main(int argc, char** argv) {
  ModelRunner::ReserveDescriptors();
  Arguments args;
  CLI::App app("Checks every product of a provisioned model against its definition");
  app.add_option("source", args.source, "The GGUF file that was provisioned")->required();
  app.add_option("store", args.store, "What it was provisioned to")->required();
  app.add_option("--cloud", args.cloud,
                 "Where talaria-cloud serves the store: unix:PATH or HOST:PORT")
      ->required();
  app.add_option("--plugin", args.plugin, "libggml-talaria.so")->capture_default_str();
  app.add_option("--llama-dir", args.llama_dir, "llama.cpp as scripts/setup built it")
      ->capture_default_str();
  app.add_option("--tokens", args.tokens, "Random tokens of the longest evaluation")
      ->check(CLI::Range(3, 128))
      ->capture_default_str();
  app.add_flag("--mutations", args.mutations, "Also show that every wrong matrix is found");
  app.add_flag("--json", args.json, "Print one JSON object");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : ExitCode(Code::kInvalidArgument);
  }
  const Result<int> exit_code = Run(args);
  if (exit_code.ok()) return *exit_code;
  LogError(exit_code.status().ToString());
  return ExitCode(exit_code.status().code());
}

}  // namespace
}  // namespace talaria::tests

int main(int argc, char** argv) { return talaria::tests::Main(argc, argv); }
