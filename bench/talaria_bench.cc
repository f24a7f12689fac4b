// talaria-bench: every published number, side by side with plain llama.cpp in one run.
#include <stdlib.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <map>

#include "bench/analysis_commands.h"
#include "bench/commands.h"
#include "bench/goals.h"
#include "talaria/base/log.h"

namespace {

std::string ProgramFolder() {
  char path[4096];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path);
  return n <= 0 ? "."
                : std::filesystem::path(std::string(path, static_cast<size_t>(n)))
                      .parent_path()
                      .string();
}

}  // namespace

int main(int argc, char** argv) {
  using namespace talaria;
  SetLog("talaria-bench", LogLevel::kInfo);
  CLI::App app{"Measures Talaria beside plain llama.cpp on the same model and cores, in one run."};
  app.require_subcommand(1);
  app.set_version_flag("--version", TALARIA_VERSION);
  bench::Setting setting;
  setting.bin = ProgramFolder();
  setting.llama = TALARIA_LLAMA_DIR;
  setting.model = TALARIA_DEFAULT_MODEL;
  std::string work;
  bench::EndToEndOptions end_to_end;
  bench::LayerOptions layer;
  bench::FidelityOptions fidelity;
  bench::SchemesOptions schemes;
  bench::ConnectionsOptions connections;
  bench::GoalsOptions goals;
  fidelity.text = TALARIA_DEFAULT_TEXT;
  const auto common = [&](CLI::App* command, std::string& json, bool own_model = false) {
    if (!own_model) {
      command->add_option("--model", setting.model, "GGUF file")
          ->check(CLI::ExistingFile)
          ->capture_default_str();
      command->add_option(
          "--store", setting.store,
          "Provisioned store; default: one made in the work folder and removed with it");
    }
    command->add_option("--json", json, "Write the results there");
    command->add_option("--cloud-threads", setting.cloud_threads, "Threads of the cloud's products")
        ->check(CLI::Range(1, 256))
        ->capture_default_str();
    command->add_option("--work", work,
                        "Folder for logs and sockets; default: a fresh one, removed at the end");
  };
  const auto pools = [&](CLI::App* command) {
    command
        ->add_option("--pool-batches", setting.pool_batches, "Mask batches of 256 rows per group")
        ->check(CLI::Range(1, 64))
        ->capture_default_str();
  };
  const auto channel = [&](CLI::App* command) {
    using Channel = bench::Setting::Channel;
    command
        ->add_option("--channel", setting.channel,
                     "Between CVM and cloud: a Unix socket, or TCP on loopback; in both attested "
                     "TLS 1.3, as talaria-cvm has it. There is no shared-memory channel")
        ->transform(CLI::CheckedTransformer(
            std::map<std::string, Channel>{{"unix", Channel::kUnix}, {"tcp", Channel::kTcp}}))
        ->type_name("unix|tcp")
        ->default_str("unix");
    command->add_flag("--plaintext", setting.plaintext,
                      "For analysis: neither TLS nor evidence, which no product does; table and "
                      "JSON say so");
  };
  auto* e = app.add_subcommand(
      "end-to-end",
      "Speed, CPU, memory and traffic: pairs of plain llama.cpp and Talaria, alternating");
  common(e, end_to_end.json);
  pools(e);
  channel(e);
  e->add_option("--pairs", end_to_end.pairs, "Interleaved pairs")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  e->add_option("--prompt", end_to_end.prompt, "Tokens per prompt")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  e->add_option("--streams", end_to_end.streams,
                "Parallel streams of two further rows, with llama-server; 0: without them")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  e->footer(
      "doc/performance.md says what each row is.\nExample:\n  talaria-bench end-to-end --pairs 7 "
      "--json end-to-end.json");
  auto* l = app.add_subcommand(
      "layer",
      "The same pairs for one layer of a large model's shapes, random weights, beside llama.cpp "
      "with Q8_0 and Q4_K");
  common(l, layer.json, true);
  pools(l);
  channel(l);
  l->add_option("--shape", layer.shape, "Whose layer: Llama 3.2 1B, 3.1 8B or 3.1 70B")
      ->check(CLI::IsMember({"1b", "8b", "70b"}))
      ->capture_default_str();
  l->add_option("--pairs", layer.pairs, "Interleaved pairs")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  l->add_option("--prompt", layer.prompt, "Tokens per prompt")
      ->check(CLI::Range(1, 8192))
      ->capture_default_str();
  l->footer(
      "With --work DIR the two GGUF files and the store stay there for the next "
      "run.\nExample:\n  talaria-bench layer --shape 8b --work /var/tmp/layer --json layer.json");
  auto* g = app.add_subcommand(
      "goals", "Every performance goal: what was measured, the goal, and whether it is reached");
  common(g, goals.json);
  pools(g);
  auto* goal_pairs = g->add_option("--pairs", goals.pairs,
                                   "Interleaved pairs, and runs of every other row; --quick: 1")
                         ->check(CLI::Range(1, 1000))
                         ->capture_default_str();
  g->add_flag("--quick", goals.quick, "One pair, short kernel runs, no layer of 70B shapes");
  g->add_option("--only", goals.only,
                "These rows; a first part names all of its rows: decode, layer-8b")
      ->type_name("ROW")
      ->delimiter(',');
  g->add_option("--without", goals.without, "All rows but these")->type_name("ROW")->delimiter(',');
  g->footer(bench::kGoalsFooter);
  auto* f = app.add_subcommand("fidelity",
                               "Perplexity of plain llama.cpp and of Talaria on the same text");
  common(f, fidelity.json);
  pools(f);
  channel(f);
  f->add_option("--text", fidelity.text, "Text file")
      ->check(CLI::ExistingFile)
      ->capture_default_str();
  f->add_option("--chunks", fidelity.chunks, "Chunks of 512 tokens")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  auto* c = app.add_subcommand(
      "schemes",
      "The mask of this project, the published one (broken) and none: speed, CPU, hints, traffic");
  common(c, schemes.json);
  pools(c);
  channel(c);
  c->add_option("--m", setting.m,
                "Rows of M_pub of the published mask: a share of the width, N, d-1")
      ->type_name("1/2|N|d-1")
      ->capture_default_str();
  c->add_option("--runs", schemes.runs, "Runs of each workload")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  c->footer("Example:\n  talaria-bench schemes --json schemes.json");
  auto* n = app.add_subcommand(
      "connections",
      "Many connections to one cloud beside one: throughput, latency, every answer compared");
  common(n, connections.json);
  n->add_option("--device", connections.device,
                "Of talaria-cloud serve: auto, cpu, cuda, cuda:1, cuda:0,1, ...")
      ->capture_default_str();
  n->add_option("--connections", connections.connections, "How many are many")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  n->add_option("--cvms", connections.cvms,
                "Real CVMs among them, which answer prompts: for a store of a small model")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  n->add_option("--rows", connections.rows, "Rows of each call that is replayed")
      ->check(CLI::Range(1, 512))
      ->capture_default_str();
  n->add_option("--seconds", connections.seconds, "How long each part takes")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  n->add_option("--batch-window-us", connections.batch_window_us, "Of talaria-cloud serve")
      ->check(CLI::Range(0, 100'000))
      ->capture_default_str();
  n->add_flag("--misbehave", connections.misbehave,
              "A last part beside clients that never read, flood, and send garbage");
  n->footer(
      "First a real CVM is recorded, so there has to be memory for one (talaria-cvm "
      "--check-config); its masked rows are\nreplayed. The right answers are the reference "
      "product's.\n"
      "Example:\n  talaria-bench connections --store smollm2.store --json connections.json");
#ifdef TALARIA_SIMULATED_TEE
  bench::AttestOptions attest;
  auto* a = app.add_subcommand(
      "attest",
      "What attestation costs: the handshake beside TLS alone, requests through talaria proxy "
      "beside direct ones");
  common(a, attest.json);
  a->add_option("--rounds", attest.rounds, "Interleaved rounds")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  a->footer(
      "Runs talaria-cloud, talaria-cvm (simulated TEE, TCP on loopback) and talaria proxy. A real "
      "TEE's own\ntime for a report comes on top of the handshake.\nExample:\n  talaria-bench "
      "attest --json attest.json");
#endif
  bench::AnalysisCommands analysis(app, setting);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : ExitCode(Code::kInvalidArgument);
  }
  if (analysis.parsed()) return analysis.Run();

  const bool temporary = work.empty();
  if (temporary) {
    char name[] = "/tmp/talaria-bench.XXXXXX";
    if (mkdtemp(name) == nullptr) {
      LogError("cannot make a work folder in /tmp");
      return 1;
    }
    work = name;
  }
  std::filesystem::create_directories(work);
  setting.work = work;
  if (setting.store.empty()) setting.store = work + "/store";
  end_to_end.setting = layer.setting = fidelity.setting = schemes.setting = connections.setting =
      goals.setting = setting;
  Status status;
  int exit_code = 0;
  if (e->parsed()) status = bench::EndToEnd(end_to_end);
  if (l->parsed()) status = bench::Layer(layer);
  if (g->parsed()) {
    if (goals.quick && goal_pairs->empty()) goals.pairs = 1;
    const Result<int> judged = bench::MeasureGoals(goals);
    status = judged.status();
    if (judged.ok()) exit_code = *judged;
  }
  if (f->parsed()) status = bench::Fidelity(fidelity);
  if (c->parsed()) status = bench::Schemes(schemes);
  if (n->parsed() && connections.cvms >= connections.connections) {
    status = Status(Code::kInvalidArgument, "--cvms must be less than --connections");
  } else if (n->parsed()) {
    status = bench::Connections(connections);
  }
#ifdef TALARIA_SIMULATED_TEE
  attest.setting = setting;
  if (a->parsed()) status = bench::Attest(attest);
#endif
  if (!status.ok()) {
    LogError(status.ToString());
    if (temporary && std::filesystem::is_empty(work)) {
      std::filesystem::remove(work);
    } else {
      std::fprintf(stderr, "Logs are kept in %s\n", work.c_str());
    }
    return ExitCode(status.code());
  }
  if (temporary && exit_code != bench::kFailedExit) {
    std::filesystem::remove_all(work);
  } else if (temporary) {
    std::fprintf(stderr, "Logs are kept in %s\n", work.c_str());
  }
  return exit_code;
}
