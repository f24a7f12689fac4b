// talaria-cvm: the trusted half. Fetches and checks a model, masks every product, and serves
// llama-server's OpenAI-compatible API. Its configuration is one TOML file whose digest is
// attested: environment variables are ignored.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "apps/cvm_common.h"
#include "talaria/base/cpu.h"
#include "talaria/base/log.h"
#include "talaria/cvm/serve.h"

namespace talaria {
namespace {

#ifdef TALARIA_SIMULATED_TEE
constexpr const char* kVersion =
    "talaria-cvm " TALARIA_VERSION " (built with the simulated TEE: for development only)";
#else
constexpr const char* kVersion = "talaria-cvm " TALARIA_VERSION;
#endif
constexpr const char* kExitCodes =
    "Exit codes: 0 done; 1 internal or system error; 2 wrong usage or configuration, or a file is "
    "not there; 3 refused;\n"
    "4 not enough memory or another limit; 5 the cloud or llama-server was lost; 6 the session "
    "ended: the cloud broke the\n"
    "protocol or a check failed; 130 stopped by a signal. Nothing is restarted: whoever starts "
    "this program decides.";

struct Arguments {
  std::string config;
  bool check_config = false, insecure = false;
};

Status CheckConfig(const cvm::Config& config, bool simulated_tee) {
  TALARIA_RETURN_IF_ERROR(
      cvm::FindEngineProgram(config.llama_server, "llama-server").ok()
          ? OkStatus()
          : cvm::FindEngineProgram(config.llama_server, "llama-server").status());
  TALARIA_ASSIGN_OR_RETURN(const std::string plugin, cvm::FindPlugin(config.plugin));
  std::printf("configuration        %s\n", ToHex(config.digest).c_str());
  const Result<cvm::ServePlan> plan = cvm::PlanServe(config, simulated_tee);
  if (!plan.ok() && plan.status().code() == Code::kUnavailable) {
    std::printf(
        "The cloud at %s does not answer, so the memory that its model needs is not known.\n",
        config.cloud_endpoint.c_str());
    return OkStatus();
  }
  if (!plan.ok()) return plan.status();
  std::printf("%s", plan->text.c_str());
  return plan->fits;
}

// For people on a terminal, for programs one line of JSON.
void SayReady(const std::string& address, const model::Manifest& manifest, bool plaintext) {
  // Never http for the TLS front: a stock client would send its prompt in clear before the alert.
  const std::string url = address.starts_with("unix:") ? address
                          : plaintext                  ? "http://" + address
                                                       : "https://" + address;
  if (isatty(STDOUT_FILENO)) {
    std::printf("Ready: %s at %s (OpenAI API). Ctrl-C stops it.\n", manifest.model_name.c_str(),
                url.c_str());
  } else {
    std::printf(
        "%s\n",
        nlohmann::json{{"event", "ready"}, {"address", address}, {"model", manifest.model_name}}
            .dump()
            .c_str());
  }
  std::fflush(stdout);
  LogInfo("ready at " + address);
}

Status Serve(const Arguments& args, const cvm::Config& config) {
  if (args.insecure) WarnOfSimulatedTee();
  SignalWaiter::Block();
  // Before threads and keys: what starts llama-server never holds any.
  TALARIA_ASSIGN_OR_RETURN(std::unique_ptr<cvm::Launcher> launcher, cvm::Launcher::Create());
  const cvm::Platform platform{.simulated_tee = args.insecure, .isa = DetectIsa()};
  TALARIA_RETURN_IF_ERROR(cvm::HardenProcess(platform));
  auto progress = std::make_shared<StepProgress>();
  cvm::ServeOptions options{.config = config, .platform = platform, .on_ready = {}};
  options.on_ready = [plaintext = config.server_plaintext](const std::string& address,
                                                           const model::Manifest& manifest) {
    SayReady(address, manifest, plaintext);
  };
  options.on_progress = [progress](std::string_view step, uint64_t done, uint64_t total) {
    (*progress)(step, done, total);
  };
  TALARIA_ASSIGN_OR_RETURN(const std::unique_ptr<cvm::Server> server,
                           cvm::Server::Create(std::move(options), std::move(launcher)));
  const SignalWaiter waiter([&] { server->Stop(); });
  return server->Run();
}

int Main(int argc, char** argv) {
  SetLog("talaria-cvm", LogLevel::kInfo);
  Arguments args;
  CLI::App program(
      "The trusted half of Talaria: runs in a confidential VM and sends the cloud masked "
      "activations only.",
      "talaria-cvm");
  program.require_subcommand(1);
  program.set_version_flag("--version", kVersion, "Print the version and stop");
  program.footer(kExitCodes);
  CLI::App* serve =
      program.add_subcommand("serve", "Fetch and check the model, then serve it over HTTP");
  serve
      ->add_option("--config", args.config, "The configuration, a TOML file (doc/cvm.example.toml)")
      ->required()
      ->type_name("FILE");
  serve->add_flag(
      "--check-config", args.check_config,
      "Check the configuration, show the memory that the cloud's model needs, and stop");
  serve->add_flag(kInsecureFlag, args.insecure,
                  "Run without a TEE, on local addresses only, with everything that it does not "
                  "protect. For development");
  serve->footer(
      "Example:\n  talaria-cvm serve --config cvm.toml --insecure-simulated-tee\n\nGET /healthz "
      "says that the process lives, GET /readyz that requests are let through.\n\n" +
      std::string(kExitCodes));
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    // Help and version are "errors" with code 0.
    return program.exit(e) == 0 ? 0 : ExitCode(Code::kInvalidArgument);
  }
  Status status = CheckSimulatedTee(args.insecure);
  if (status.ok()) {
    const Result<cvm::Config> config = cvm::LoadConfig(args.config, args.insecure);
    status = !config.ok()        ? config.status()
             : args.check_config ? CheckConfig(*config, args.insecure)
                                 : Serve(args, *config);
  }
  if (status.code() == Code::kCancelled) {
    LogInfo("stopped by a signal");
  } else if (!status.ok()) {
    LogError(status.ToString());
  }
  return ExitCode(status.code());
}

}  // namespace
}  // namespace talaria

int main(int argc, char** argv) {
  clearenv();  // libraries read variables, too (OPENSSL_CONF loads code)
  return talaria::Main(argc, argv);
}
