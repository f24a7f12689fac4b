// talaria-cvm-lab: runs any llama.cpp program on a masked model, in the ways that a product must
// not have: unmasked, both ways at once, or with a tap on the wire. Needs the simulated TEE by its
// nature; never installed.
#include <CLI/CLI.hpp>
#include <string>

#include "apps/cvm_common.h"
#include "apps/cvm_lab_run.h"
#include "talaria/base/digest.h"
#include "talaria/base/log.h"

namespace talaria {
namespace {

void AddCommon(CLI::App* command, LabArguments& args) {
  cvm::Config& config = args.config;
  command
      ->add_option("--cloud", config.cloud_endpoint,
                   "Where talaria-cloud listens: unix:PATH or a loopback HOST:PORT")
      ->required()
      ->type_name("ADDRESS");
  command
      ->add_option("--provider-key", config.provider_key,
                   "Attested TLS to the cloud with this key (talaria-cloud key FILE prints it), as "
                   "talaria-cvm has it; needs --identity. Without: plaintext")
      ->type_name("HEX");
  command->add_option("--identity", args.identity, "The model's identity, 64 hexadecimal digits")
      ->type_name("HEX")
      ->capture_default_str();
  command
      ->add_option("--scheme", args.scheme,
                   "lattice: as talaria-cvm does; none: unmasked, the same integers; both: each "
                   "product both ways, compared bit for bit; published: ReMO, which is broken; "
                   "lattice-no-error and lattice-reused: broken on purpose, to test attacks with")
      ->check(CLI::IsMember(
          {"lattice", "none", "both", "published", "lattice-no-error", "lattice-reused"}))
      ->capture_default_str();
  command
      ->add_option("--m", args.m, "Rows of M_pub of `published`: a share of the width, N, or d-1")
      ->type_name("1/2|N|d-1")
      ->capture_default_str();
  command
      ->add_option("--pool-bytes", config.pool_bytes,
                   "Memory for mask rows; 0: two batches of every group")
      ->type_name("N");
  command->add_option("--pool-batches", args.pool_batches, "The same in batches of every group")
      ->excludes("--pool-bytes")
      ->type_name("N");
  command->add_option("--fill-threads", config.fill_threads, "Threads that make masks")
      ->check(CLI::Range(1, 256))
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--check-vectors", config.check_vectors, "Secret vectors of the integrity check")
      ->check(CLI::Range(1, 2))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--plugin", args.plugin, "The plug-in; default: beside this program")
      ->type_name("FILE");
  command->add_flag("--no-sandbox", args.no_sandbox,
                    "Run the program without seccomp filter and network namespace, for debuggers");
}

void AddRun(CLI::App& program, LabArguments& args) {
  CLI::App* run = program.add_subcommand("run", "Run a llama.cpp program on the cloud's model");
  AddCommon(run, args);
  run->add_option("--show-masked", args.show_masked,
                  "Show how the rows of the first N calls look to the cloud")
      ->type_name("N");
  CLI::Option* record =
      run->add_option("--record", args.record,
                      "Write to DIR/truth the plain rows, and, with talaria-lab-runner, the tokens "
                      "of each evaluation; talaria-cloud-lab serve --record DIR writes the rest")
          ->type_name("DIR")
          ->excludes("--show-masked");
  run->add_option("--groups", args.groups, "Record these groups of matrices only; default: all")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("0,1,...")
      ->needs(record);
  run->add_option("--stats", args.stats, "Write bytes, calls, rows and seconds as JSON")
      ->type_name("FILE");
  run->add_option("command", args.command,
                  "After --: a program of the pinned llama.cpp, or a path, and its arguments; -m "
                  "and what reads the model are added")
      ->required();
  run->footer(
      "Example:\n  talaria-cvm-lab run --cloud unix:/run/cloud.sock --scheme both -- "
      "llama-perplexity -f wiki.txt -c 512 --chunks 2\n"
      "  talaria-cvm-lab run --cloud unix:/run/cloud.sock --record /tmp/recording --groups 0 -- "
      "talaria-lab-runner --text wiki.txt --tokens 2048\n"
      "Recordings are described in doc/recording.md.");
}

void AddBatch(CLI::App& program, LabArguments& args) {
  CLI::App* batch = program.add_subcommand(
      "batch",
      "One set-up, many programs: commands are lines of JSON on standard input (talaria-bench)");
  AddCommon(batch, args);
  batch->callback([&args] { args.batch = true; });
  batch->footer(
      "Example line:\n  {\"arguments\": [\"llama-bench\", \"-p\", \"512\", \"-n\", \"0\"], "
      "\"output\": \"/tmp/out\"}");
}

void WarnOfScheme(const std::string& scheme) {
  if (scheme == "published") {
    LogWarning(
        "BROKEN: the published mask falls to a cloud that projects on the null space of M_pub: the "
        "mask vanishes, and a table of the vocabulary gives the tokens. For research only.");
  } else if (scheme == "lattice-no-error") {
    LogWarning(
        "BROKEN: a lattice mask without its error falls to linear algebra mod q. For tests of "
        "attacks only.");
  } else if (scheme == "lattice-reused") {
    LogWarning(
        "BROKEN: masks that serve again fall to the difference of two rows. For tests of attacks "
        "only.");
  } else if (scheme == "none") {
    LogWarning("UNMASKED: the cloud sees the activations themselves.");
  }
}

int Main(int argc, char** argv) {
  SetLog("talaria-cvm-lab", LogLevel::kInfo);
  LabArguments args;
  CLI::App program(
      "Talaria's laboratory: llama.cpp programs on a masked model. For measurements and tests, "
      "never for users.",
      "talaria-cvm-lab");
  program.require_subcommand(1);
  program.set_version_flag("--version", "talaria-cvm-lab " TALARIA_VERSION,
                           "Print the version and stop");
  program.footer("Exit code: the program's own, or as of talaria-cvm.");
  AddRun(program, args);
  AddBatch(program, args);
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return program.exit(e) == 0 ? 0 : ExitCode(Code::kInvalidArgument);
  }
  if (!args.record.empty() && args.scheme == "both") {
    LogError("--record goes with one scheme, not with both: a recording has one connection");
    return ExitCode(Code::kInvalidArgument);
  }
  Digest digest;
  if (args.identity != "any" && !FromHex(args.identity, digest)) {
    LogError("--identity must be 64 lower-case hexadecimal digits or any");
    return ExitCode(Code::kInvalidArgument);
  }
  args.config.server_plaintext = true;
  args.config.cloud_plaintext = args.config.provider_key.empty();
  if (!args.config.cloud_plaintext) {
    if (args.identity == "any" || !FromHex(args.config.provider_key, digest)) {
      LogError("--provider-key must be 64 lower-case hexadecimal digits and needs --identity");
      return ExitCode(Code::kInvalidArgument);
    }
    args.config.identity = args.identity;
    args.config.tenant_key = std::string(64, '0');  // a laboratory has no users
  }
  if (const Status status = CheckSimulatedTee(true); !status.ok()) {
    LogError(status.ToString());
    return ExitCode(status.code());
  }
  LogWarning("INSECURE: a laboratory program; nothing that it runs is private.");
  WarnOfScheme(args.scheme);
  const Result<int> exit_code = RunLab(args);
  if (exit_code.ok()) return *exit_code;
  LogError(exit_code.status().ToString());
  return ExitCode(exit_code.status().code());
}

}  // namespace
}  // namespace talaria

int main(int argc, char** argv) { return talaria::Main(argc, argv); }
