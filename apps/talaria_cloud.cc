// talaria-cloud: the provider's program. Prepares a model once (provision), looks at what was
// prepared (inspect, verify) and at what could serve it (devices), and serves masked products to
// CVMs (serve).
#include <CLI/CLI.hpp>
#include <cstdio>
#include <thread>

#include "apps/cloud_commands.h"
#include "apps/cloud_settings.h"
#include "talaria/base/cpu.h"
#include "talaria/base/log.h"

namespace talaria {
namespace {

#ifdef TALARIA_SIMULATED_TEE
constexpr bool kSimulatedTee = true;
constexpr const char* kVersion =
    "talaria-cloud " TALARIA_VERSION " (built with the simulated TEE: for development only)";
#else
constexpr bool kSimulatedTee = false;
constexpr const char* kVersion = "talaria-cloud " TALARIA_VERSION;
#endif
constexpr const char* kInsecure = "insecure-simulated-tee";
constexpr const char* kPlaintext = "insecure-plaintext";
constexpr const char* kDevices =
    "cpu; cuda: the first GPU; cuda:1: another; cuda:0,1 or cuda:all: several, each with a share "
    "of every matrix; auto: all GPUs that can be used, else the processor";
constexpr const char* kExitCodes =
    "Exit codes: 0 done; 1 internal or system error; 2 wrong usage or settings, or a file is not "
    "there; 3 the input was refused;\n"
    "4 not enough disk, memory or another limit; 5 unavailable; 130 stopped by a signal.";

struct Arguments {
  std::string config, store, device = "auto";
  bool json = false, check_config = false;
  ServeSecurity security;
  cloud::ProvisionOptions provision;
  cloud::ServerOptions serve;
};

int Threads() { return static_cast<int>(std::max(1u, std::thread::hardware_concurrency())); }

void AddProvision(CLI::App& program, Arguments& args) {
  CLI::App* command = program.add_subcommand(
      "provision", "Prepare MODEL.gguf: write weights, hints and skeleton to the folder STORE");
  cloud::ProvisionOptions& options = args.provision;
  options.threads = Threads();
  options.llama_backend_dir = TALARIA_LLAMA_DIR "/bin";
  command->add_option("model", options.gguf, "The model, a GGUF file in one part")->required();
  command->add_option("store", options.store, "The folder to write; it must not exist yet")
      ->required();
  command
      ->add_option("--keep-local", options.keep_local,
                   "Keep matrices whose name fits this regular expression in the CVM; repeatable")
      ->envname("TALARIA_KEEP_LOCAL")
      ->type_name("REGEX")
      ->allow_extra_args(false);
  command
      ->add_option("--min-dimension", options.min_dimension,
                   "Keep matrices with a smaller side than this in the CVM")
      ->envname("TALARIA_MIN_DIMENSION")
      ->check(CLI::Range(1, 65536))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--threads", options.threads, "Threads to work with")
      ->envname("TALARIA_THREADS")
      ->check(CLI::Range(1, 1024))
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--device", args.device,
                   std::string("Where the products of the hints are computed: ") + kDevices)
      ->envname("TALARIA_DEVICE")
      ->type_name("DEVICE")
      ->capture_default_str();
  command
      ->add_option("--llama-backend-dir", options.llama_backend_dir,
                   "Folder with llama.cpp's libggml-cpu.so, which reads the model's graph")
      ->envname("TALARIA_LLAMA_BACKEND_DIR")
      ->type_name("DIR")
      ->capture_default_str();
  command->add_flag("--dry-run", options.dry_run,
                    "Only show what would be offloaded, and the memory and disk it takes");
  command->add_flag("--json", args.json, "Print the summary as JSON");
  command->add_flag("--check-config", args.check_config, "Print the settings in effect and stop");
  command->footer(
      "Examples:\n  talaria-cloud provision SmolLM2-135M.gguf smollm2.store\n"
      "  talaria-cloud provision --dry-run --keep-local '^output\\.weight$' model.gguf "
      "model.store\n\n"
      "The same model, version and options give the same identity on every machine and device.");
}

void AddLookers(CLI::App& program, Arguments& args) {
  CLI::App* inspect =
      program.add_subcommand("inspect", "Show what a store holds, without reading it all");
  CLI::App* verify =
      program.add_subcommand("verify", "Read a whole store and compare every digest");
  for (CLI::App* command : {inspect, verify}) {
    command->add_option("store", args.store, "The store")->required();
    command->add_flag("--json", args.json, "Print JSON");
    command->footer("Example:\n  talaria-cloud " + command->get_name() + " smollm2.store");
  }
}

void AddDevices(CLI::App& program, Arguments& args) {
  CLI::App* command = program.add_subcommand(
      "devices", "Show what --device can take here; with a store, how fast each would serve it");
  args.serve.device.threads = Threads();
  command->add_option("store", args.store,
                      "Measure the products of this store's shapes, with weights made up: some "
                      "seconds a device");
  command->add_option("--threads", args.serve.device.threads, "Threads of the processor's products")
      ->envname("TALARIA_THREADS")
      ->check(CLI::Range(1, 1024))
      ->type_name("N")
      ->capture_default_str();
  command->add_flag("--json", args.json, "Print JSON");
  command->footer(
      "Times are from the host's memory to the host's, all products of a pass over the model: of "
      "one token\n(1 row), of 16 streams (16), of a prompt (256). Network and CVM come on top.\n"
      "Examples:\n  talaria-cloud devices\n  talaria-cloud devices smollm2.store");
}

void AddKey(CLI::App& program, Arguments& args) {
  CLI::App* command = program.add_subcommand(
      "key", "Show what CVMs pin of this provider's key; makes the key if there is none");
  command->add_option("file", args.store, "The private key, a PEM file of mode 0600")->required();
  command->add_flag("--json", args.json, "Print JSON");
  command->footer("Example:\n  talaria-cloud key provider.pem    # a line for [cloud] of cvm.toml");
}

void AddServe(CLI::App& program, Arguments& args) {
  CLI::App* command = program.add_subcommand("serve", "Serve a store to CVMs");
  cloud::ServerOptions& options = args.serve;
  options.device.threads = Threads();
  command->add_option("store", options.store, "The store")->envname("TALARIA_STORE");
  command->add_option("--listen", options.listen, "Where to listen: unix:PATH or HOST:PORT")
      ->envname("TALARIA_LISTEN")
      ->type_name("ADDRESS");
  command
      ->add_option("--device", args.device, std::string("Where products are computed: ") + kDevices)
      ->envname("TALARIA_DEVICE")
      ->type_name("DEVICE")
      ->capture_default_str();
  command
      ->add_option("--batch-window-us", options.batch_window_us,
                   "How long a product may wait for rows of other active CVMs; 0: takes only what "
                   "came while the device was busy")
      ->envname("TALARIA_BATCH_WINDOW_US")
      ->check(CLI::Range(0, 100'000))
      ->type_name("US")
      ->capture_default_str();
  command
      ->add_option("--threads", options.device.threads,
                   "Threads of the processor's products, together")
      ->envname("TALARIA_THREADS")
      ->check(CLI::Range(1, 1024))
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--max-connections", options.max_connections,
                   "Refuse connections above this number")
      ->envname("TALARIA_MAX_CONNECTIONS")
      ->check(CLI::Range(1, 65536))
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--max-connections-per-cvm", options.max_connections_per_cvm,
                   "Refuse connections of a CVM above this number; it needs one or two")
      ->envname("TALARIA_MAX_CONNECTIONS_PER_CVM")
      ->check(CLI::Range(1, 65536))
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--idle-timeout-ms", options.idle_timeout_ms,
                   "Close a connection that asks nothing for so long; 0: never")
      ->envname("TALARIA_IDLE_TIMEOUT_MS")
      ->check(CLI::Range(0, 86'400'000))
      ->type_name("MS")
      ->capture_default_str();
  command
      ->add_option("--frame-timeout-ms", options.frame_timeout_ms,
                   "Close a connection that stops inside a message for so long")
      ->envname("TALARIA_FRAME_TIMEOUT_MS")
      ->check(CLI::Range(1, 3'600'000))
      ->type_name("MS")
      ->capture_default_str();
  command
      ->add_option("--key", args.security.key,
                   "This provider's private key, which CVMs pin (talaria-cloud key makes one)")
      ->envname("TALARIA_KEY")
      ->type_name("FILE");
  command
      ->add_option("--policy", args.security.policy,
                   "Whose CVMs get weights and products (talaria policy writes one)")
      ->envname("TALARIA_POLICY")
      ->type_name("FILE");
  command
      ->add_option("--collateral", args.security.collateral,
                   "Folder with revocation lists and TCB levels, which the policy may require")
      ->envname("TALARIA_COLLATERAL")
      ->type_name("DIR");
  command->add_flag(std::string("--") + kInsecure, args.security.simulated_tee,
                    "Take evidence of the simulated TEE, on local addresses only. Anybody can "
                    "make that, and read the weights. For development");
  command->add_flag(std::string("--") + kPlaintext, args.security.plaintext,
                    std::string("Neither TLS nor evidence: everybody is answered. Only together "
                                "with --") +
                        kInsecure);
  command->add_flag("--check-config", args.check_config, "Print the settings in effect and stop");
  command->footer(
      "Examples:\n  talaria-cloud serve smollm2.store --listen 0.0.0.0:7000 --key provider.pem "
      "--policy cvms.toml --collateral collateral\n"
      "  talaria-cloud --config cloud.toml serve");
}

Status CheckServe(const Arguments& args) {
  if (args.serve.store.empty())
    return Status(Code::kInvalidArgument,
                  "which store? Give STORE, TALARIA_STORE or `store` in the settings file");
  if (args.serve.listen.empty()) {
    return Status(Code::kInvalidArgument,
                  "where to listen? Give --listen unix:PATH or --listen HOST:PORT");
  }
  TALARIA_RETURN_IF_ERROR(gemm::DeviceSpec::Parse(args.device).status());
  if (args.check_config) return OkStatus();
  const ServeSecurity& security = args.security;
  if (security.simulated_tee && !kSimulatedTee)
    return Status(Code::kUnsupported, "this program was built without the simulated TEE");
  if (security.plaintext && !security.simulated_tee) {
    return Status(Code::kInvalidArgument,
                  std::string("--") + kPlaintext + " is for development: it needs --" + kInsecure);
  }
  if (!security.plaintext && (security.key.empty() || security.policy.empty())) {
    return Status(Code::kInvalidArgument,
                  "whose CVMs are served? Give --key FILE (talaria-cloud key FILE makes one) and "
                  "--policy FILE (doc/attestation.md)");
  }
  if (security.plaintext && !(security.key + security.policy + security.collateral).empty()) {
    return Status(Code::kInvalidArgument,
                  std::string("--") + kPlaintext + " goes with no key, policy or collateral");
  }
  return OkStatus();
}

Status SetDevice(const std::string& text, gemm::DeviceSpec& out) {
  TALARIA_ASSIGN_OR_RETURN(const gemm::DeviceSpec device, gemm::DeviceSpec::Parse(text));
  out.kind = device.kind;
  out.gpus = device.gpus;
  out.isa = DetectIsa();
  return OkStatus();
}

Status Run(CLI::App& program, Arguments& args) {
  CLI::App& command = *program.get_subcommands().at(0);
  const std::string& name = command.get_name();
  if (!args.config.empty())
    TALARIA_RETURN_IF_ERROR(
        ApplySettingsFile(args.config, program, command, {kInsecure, kPlaintext}));
  if (name == "serve") TALARIA_RETURN_IF_ERROR(CheckServe(args));
  if (args.check_config) {
    std::printf("%s", EffectiveSettings(command).c_str());
    return OkStatus();
  }
  if (name == "provision") {
    TALARIA_RETURN_IF_ERROR(SetDevice(args.device, args.provision.device));
    return RunProvision(args.provision, args.json);
  }
  if (name == "inspect") return RunInspect(args.store, args.json);
  if (name == "verify") return RunVerify(args.store, args.json);
  if (name == "devices") return RunDevices(args.store, args.serve.device.threads, args.json);
  if (name == "key") return RunKey(args.store, args.json);
  TALARIA_RETURN_IF_ERROR(SetDevice(args.device, args.serve.device));
  return RunServe(args.serve, args.security);
}

int Main(int argc, char** argv) {
  SetLog("talaria-cloud", LogLevel::kInfo);
  Arguments args;
  CLI::App program(
      "The untrusted half of Talaria: multiplies masked activations by a model's weights.",
      "talaria-cloud");
  program.require_subcommand(1);
  program.set_version_flag("--version", kVersion, "Print the version and stop");
  program
      .add_option("--config", args.config,
                  "Settings, a TOML file with one table per command; flags and TALARIA_* variables "
                  "go first")
      ->envname("TALARIA_CONFIG")
      ->type_name("FILE");
  program.footer(kExitCodes);
  AddProvision(program, args);
  AddLookers(program, args);
  AddDevices(program, args);
  AddKey(program, args);
  AddServe(program, args);
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    // Help and version are "errors" with code 0.
    return program.exit(e) == 0 ? 0 : ExitCode(Code::kInvalidArgument);
  }
  const Status status = Run(program, args);
  if (!status.ok()) LogError(status.ToString());
  return ExitCode(status.code());
}

}  // namespace
}  // namespace talaria

int main(int argc, char** argv) { return talaria::Main(argc, argv); }
