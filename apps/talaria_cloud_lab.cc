// talaria-cloud-lab: talaria-cloud serve with an operator who keeps what passes. For attacks on
// recordings of one's own; never installed.
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "apps/cloud_commands.h"
#include "talaria/base/cpu.h"
#include "talaria/base/log.h"
#include "talaria/cloud/lab/recorder.h"

namespace talaria {
namespace {

struct Arguments {
  cloud::ServerOptions serve;
  cloud::lab::RecorderOptions record;
  std::string m = "1/2";
};

void AddServe(CLI::App& program, Arguments& args) {
  CLI::App* command = program.add_subcommand("serve", "Serve a store in plaintext and record");
  command->add_option("store", args.serve.store, "The store")->required();
  command->add_option("--listen", args.serve.listen, "unix:PATH or a loopback HOST:PORT")
      ->required()
      ->type_name("ADDRESS");
  command
      ->add_option("--record", args.record.folder,
                   "Write to DIR/cloud every masked row, its matrix group and its time")
      ->required()
      ->type_name("DIR");
  command
      ->add_option("--groups", args.record.groups,
                   "Keep these groups of matrices only; default: all, which is megabytes a token")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("0,1,...");
  command
      ->add_option("--scheme", args.record.scheme,
                   "The --scheme that talaria-cvm-lab is run with; noted in the recording")
      ->required()
      ->check(CLI::IsMember({"lattice", "none", "published", "lattice-no-error", "lattice-reused"}))
      ->type_name("NAME");
  command->add_option("--m", args.m, "Rows of M_pub of `published`, as talaria-cvm-lab has them")
      ->type_name("1/2|N|d-1")
      ->capture_default_str();
  command->add_option("--threads", args.serve.device.threads, "Threads of the products, together")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->footer(
      "Example, in two terminals:\n"
      "  talaria-cloud-lab serve smollm2.store --listen unix:/tmp/cloud.sock --scheme lattice "
      "--record /tmp/recording --groups 0\n"
      "  talaria-cvm-lab run --cloud unix:/tmp/cloud.sock --scheme lattice --record "
      "/tmp/recording --groups 0 -- talaria-lab-runner --text wiki.txt --tokens 2048\n"
      "Stop it with Ctrl-C; the files are complete when it has ended. Their format is in "
      "doc/recording.md.");
}

Status Run(Arguments& args) {
  TALARIA_ASSIGN_OR_RETURN(args.record.m, lab::PublicRows::Parse(args.m));
  args.record.store = args.serve.store;
  TALARIA_ASSIGN_OR_RETURN(const std::shared_ptr<cloud::lab::Recorder> recorder,
                           cloud::lab::Recorder::Create(args.record));
  args.serve.observer = recorder;
  args.serve.device.isa = DetectIsa();
  TALARIA_RETURN_IF_ERROR(RunServe(
      args.serve,
      {.key = {}, .policy = {}, .collateral = {}, .simulated_tee = true, .plaintext = true}));
  return recorder->status();
}

int Main(int argc, char** argv) {
  SetLog("talaria-cloud-lab", LogLevel::kInfo);
  Arguments args;
  CLI::App program("A cloud that records what it sees. For experiments with one's own prompts.",
                   "talaria-cloud-lab");
  program.require_subcommand(1);
  program.set_version_flag("--version", "talaria-cloud-lab " TALARIA_VERSION,
                           "Print the version and stop");
  program.footer("Exit codes: as of talaria-cloud.");
  AddServe(program, args);
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return program.exit(e) == 0 ? 0 : ExitCode(Code::kInvalidArgument);
  }
  const Status status = Run(args);
  if (!status.ok()) LogError(status.ToString());
  return ExitCode(status.code());
}

}  // namespace
}  // namespace talaria

int main(int argc, char** argv) { return talaria::Main(argc, argv); }
