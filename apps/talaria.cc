// talaria: the user's program. Verifies a CVM before anything is sent to it, and then speaks to it:
// as a local port for any OpenAI client (proxy) or on the terminal (chat). And what is prepared for
// that: policies, collateral, keys and tokens.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "apps/client_commands.h"
#include "apps/cloud_settings.h"
#include "talaria/base/log.h"

namespace talaria {
namespace {

#ifdef TALARIA_SIMULATED_TEE
constexpr const char* kVersion =
    "talaria " TALARIA_VERSION " (built with the simulated TEE: for development only)";
#else
constexpr const char* kVersion = "talaria " TALARIA_VERSION;
#endif
constexpr const char* kInsecure = "insecure-simulated-tee";
constexpr const char* kExitCodes =
    "Exit codes: 0 done, or trusted; 1 internal or system error; 2 wrong usage, settings or "
    "policy, "
    "or a file is not there;\n"
    "3 the input was refused; 4 not enough memory, disk or another limit; 5 the CVM is not "
    "available; 7 not trusted; 130 stopped by a signal.";

struct Arguments {
  std::string config;
  bool json = false, check_config = false;
  std::string save_claim, path;
  int wait_s = 60;
  PeerArguments peer;
  client::ProxyOptions proxy;
  client::ChatOptions chat;
  ReceiptArguments receipt;
  PolicyInitArguments policy;
  CollateralFetchArguments collateral;
  ReleaseArguments release;
  TenantIssueArguments issue;
  TenantRevokeArguments revoke;
};

void AddTrust(CLI::App& command, PeerArguments& peer) {
  command.add_option("--policy", peer.policy, "Whom to believe: a policy file")
      ->envname("TALARIA_POLICY")
      ->type_name("FILE");
  command
      .add_option("--collateral", peer.collateral,
                  "Folder with what AMD and Intel publish about their processors")
      ->envname("TALARIA_COLLATERAL")
      ->type_name("DIR");
  command.add_flag(std::string("--") + kInsecure, peer.insecure_simulated_tee,
                   "Believe a simulated TEE, if the policy has a section for it. It protects "
                   "nothing. For development");
}

void AddPeer(CLI::App& command, PeerArguments& peer) {
  command.add_option("url", peer.url, "The CVM: https://HOST:PORT or unix:PATH")
      ->envname("TALARIA_URL");
  AddTrust(command, peer);
  command
      .add_option("--client-key", peer.client_key,
                  "Key of this client's TLS, for tokens that are bound to it; otherwise a new one")
      ->envname("TALARIA_CLIENT_KEY")
      ->type_name("FILE");
  command.add_flag_callback(
      "--check-config", [] {}, "Print the settings in effect and stop");
}

void AddToken(CLI::App& command, Arguments& args) {
  command
      .add_option("--token-file", args.peer.token_file,
                  "File with the user's token, which the tenant issued")
      ->envname("TALARIA_TOKEN_FILE")
      ->type_name("FILE");
  command
      .add_option("--max-age", args.peer.max_age_s,
                  "Attest again after so many seconds, if that is sooner than the policy says; 0: "
                  "as it says")
      ->envname("TALARIA_MAX_AGE")
      ->check(CLI::Range(0, 86'400))
      ->type_name("S")
      ->capture_default_str();
}

void AddReceipts(CLI::App& command, Arguments& args) {
  command
      .add_option(
          "--receipts", args.peer.receipts,
          "Keep every answer with its request and the CVM's verified receipt in a new folder "
          "in this one. What has no receipt is no answer")
      ->envname("TALARIA_RECEIPTS")
      ->type_name("DIR");
}

void AddVerify(CLI::App& program, Arguments& args) {
  CLI::App* command = program.add_subcommand(
      "verify", "Say whether a CVM is to be believed, and why; nothing else is sent to it");
  AddPeer(*command, args.peer);
  command->add_flag("--json", args.json, "Print JSON");
  command
      ->add_option("--save-claim", args.save_claim,
                   "Write what the CVM has sent (context and evidence) to this new file")
      ->type_name("FILE");
  command->footer(
      "Examples:\n  talaria verify https://cvm.example:8443 --policy cvm.toml --collateral "
      "collateral/\n  talaria verify unix:/run/talaria/front.sock --policy dev.toml "
      "--insecure-simulated-tee --json");
}

void AddProxy(CLI::App& program, Arguments& args) {
  CLI::App* command = program.add_subcommand(
      "proxy",
      "Listen on this machine for OpenAI clients, and pass their requests to the CVM "
      "while it is believed");
  AddPeer(*command, args.peer);
  AddToken(*command, args);
  AddReceipts(*command, args);
  command->add_option("--listen", args.proxy.listen, "127.0.0.1:PORT or unix:PATH, of this machine")
      ->envname("TALARIA_LISTEN")
      ->type_name("ADDRESS");
  command
      ->add_option("--wait", args.wait_s,
                   "Seconds that a request waits for the CVM to be believed, before it gets 503")
      ->envname("TALARIA_WAIT")
      ->check(CLI::Range(0, 3600))
      ->type_name("S")
      ->capture_default_str();
  command
      ->add_option("--max-connections", args.proxy.max_connections,
                   "Refuse local connections above this number")
      ->envname("TALARIA_MAX_CONNECTIONS")
      ->check(CLI::Range(1, 1024))
      ->type_name("N")
      ->capture_default_str();
  command->footer(
      "Answers carry Talaria-Verdict, Talaria-Model and Talaria-Evidence; GET /talaria/status has "
      "the whole verdict.\nExamples:\n"
      "  talaria proxy https://cvm.example:8443 --policy cvm.toml --collateral collateral/ "
      "--token-file token --listen 127.0.0.1:8080\n"
      "  OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=unused your-program\n"
      "  talaria proxy ... --receipts receipts    # then: talaria receipt verify receipts/NAME, "
      "where NAME is the answer's header Talaria-Receipt");
}

void AddChat(CLI::App& program, Arguments& args) {
  CLI::App* command = program.add_subcommand("chat", "Talk to the model on the terminal");
  AddPeer(*command, args.peer);
  AddToken(*command, args);
  AddReceipts(*command, args);
  command->add_option("--system", args.chat.system, "The first message of the conversation")
      ->type_name("TEXT");
  command->add_option("--max-tokens", args.chat.max_tokens, "Of an answer; 0: no bound of ours")
      ->check(CLI::Range(0, 1'000'000))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--temperature", args.chat.temperature, "Of the sampling; the server's own")
      ->check(CLI::Range(0.0, 10.0))
      ->type_name("T");
  command->footer(
      "Ctrl-C stops an answer, Ctrl-D ends; /clear forgets the conversation, /verdict shows the "
      "verdict again.\nExample:\n  talaria chat https://cvm.example:8443 --policy cvm.toml "
      "--collateral collateral/ --token-file token");
}

void AddReceipt(CLI::App& program, Arguments& args) {
  CLI::App* group = program.add_subcommand(
      "receipt", "Prove to others what a CVM answered: get a receipt, verify one");
  group->require_subcommand(1);
  CLI::App* get = group->add_subcommand(
      "get", "Send one request to the CVM, and keep request, answer, salt and receipt in a folder");
  AddPeer(*get, args.peer);
  AddToken(*get, args);
  get->add_option("--request", args.receipt.request, "File with the body of the request, JSON")
      ->required()
      ->type_name("FILE");
  get->add_option("--path", args.receipt.path, "The route that it goes to")
      ->type_name("PATH")
      ->capture_default_str();
  get->add_option("--out", args.receipt.folder, "Folder for the copy, a new one")
      ->required()
      ->type_name("DIR");
  get->footer(
      "The folder gets the files request, response, salt and receipt. Whoever has all four can "
      "verify the receipt;\nwhoever has the receipt alone learns neither request nor answer: keep "
      "the salt to yourself until you want to prove something.\nExample:\n  talaria receipt get "
      "https://cvm.example:8443 --policy cvm.toml --collateral collateral/ --token-file token "
      "--request request.json --out proof");
  CLI::App* verify = group->add_subcommand(
      "verify",
      "Say whether a CVM that the policy accepts gave this answer to this request; "
      "nothing is connected");
  verify->add_option("folder", args.path, "As `talaria receipt get` wrote it")
      ->required()
      ->type_name("DIR");
  AddTrust(*verify, args.peer);
  verify->add_flag("--json", args.json, "Print JSON");
  verify->footer(
      "Evidence and revocation are judged as of now; the time in a receipt is by the CVM's "
      "clock.\nExample:\n  talaria receipt verify proof --policy cvm.toml --collateral "
      "collateral/");
}

void AddPolicy(CLI::App& program, Arguments& args) {
  CLI::App* group = program.add_subcommand("policy", "Make, check and explain policy files");
  group->require_subcommand(1);
  CLI::App* init = group->add_subcommand("init", "Write a draft of a policy");
  PolicyInitArguments& p = args.policy;
  CLI::Option* from =
      init->add_option("--from-evidence", p.from_evidence,
                       "A CVM, or a file that `talaria verify --save-claim` wrote. What it says is "
                       "marked as unconfirmed")
          ->type_name("URL|FILE");
  init->add_option("--type", p.type, "sev-snp, tdx or simulated")
      ->type_name("TYPE")
      ->excludes(from);
  CLI::Option* measurement =
      init->add_option("--measurement", p.measurement, "Of the image: MEASUREMENT or MRTD")
          ->type_name("HEX")
          ->excludes(from);
  CLI::Option* release =
      init->add_option("--release", p.release,
                       "A release file: measurements are those that its builder has signed, "
                       "whatever the evidence says")
          ->type_name("FILE")
          ->excludes(measurement);
  init->add_option("--builder-key", p.builder_key, "The builder's public key")
      ->type_name("FILE")
      ->needs(release);
  init->add_option("--model", p.model, "The model's identity, as `talaria-cloud inspect` says")
      ->type_name("HEX")
      ->excludes(from);
  init->add_option("--configuration", p.configuration, "SHA-256 of the CVM's configuration file")
      ->type_name("HEX")
      ->excludes(from);
  init->add_option("--tenant-key", p.tenant_key, "As `talaria tenant init` says")
      ->type_name("HEX")
      ->excludes(from);
  init->add_option("--client-key", p.client_key, "Key of this client's TLS")->type_name("FILE");
  init->add_option("--out", p.out, "The file to write, a new one; otherwise standard output")
      ->type_name("FILE");
  init->footer(
      "Examples:\n  talaria policy init --from-evidence https://cvm.example:8443 --out cvm.toml\n"
      "  talaria policy init --type simulated --measurement $(talaria image measure "
      "bin/talaria-cvm) --model HEX --configuration HEX --tenant-key HEX\n"
      "  talaria policy init --type sev-snp --release release.toml --builder-key builder.pub "
      "--model HEX --configuration HEX --tenant-key HEX");
  for (const auto& [name, about] : {std::pair{"check", "Say whether a policy file is good"},
                                    std::pair{"explain", "Say in English what a policy accepts"}}) {
    CLI::App* command = group->add_subcommand(name, about);
    command->add_option("file", args.path, "The policy")->required()->type_name("FILE");
  }
}

void AddTools(CLI::App& program, Arguments& args) {
  CLI::App* image = program.add_subcommand("image", "Images of CVMs");
  image->require_subcommand(1);
  CLI::App* measure = image->add_subcommand(
      "measure",
      "SHA-384 of a file: what the simulated TEE reports. SEV-SNP and TDX images have "
      "tools of their own");
  measure->add_option("file", args.path, "The file, for example bin/talaria-cvm")->required();
  CLI::App* key = program.add_subcommand("key", "Keys of this client's TLS");
  key->require_subcommand(1);
  CLI::App* key_init = key->add_subcommand(
      "init", "Make a key for --client-key; print its public half, for the tenant");
  key_init->add_option("file", args.path, "The file to write, a new one")->required();
}

void AddTenant(CLI::App& program, Arguments& args) {
  CLI::App* group = program.add_subcommand("tenant", "Who may use the tenant's CVMs");
  group->require_subcommand(1);
  CLI::App* init = group->add_subcommand("init", "Make the tenant's key; print its public half");
  init->add_option("file", args.path, "The file to write, a new one")->required();
  CLI::App* issue = group->add_subcommand("issue", "Print a token for a user");
  TenantIssueArguments& i = args.issue;
  issue->add_option("--key", i.key, "The tenant's key")->required()->type_name("FILE");
  issue->add_option("--user", i.user, "The user's name: limits count by it")
      ->required()
      ->type_name("NAME");
  issue->add_option("--days", i.days, "How long the token is good")
      ->check(CLI::Range(1, 3650))
      ->type_name("N")
      ->capture_default_str();
  issue->add_option("--requests-per-minute", i.requests_per_minute)->capture_default_str();
  CLI::Option* tokens = issue->add_option("--tokens-per-day", i.tokens_per_day, "Of answers")
                            ->check(CLI::Range(uint64_t{0}, uint64_t{0xfffffffe}))
                            ->capture_default_str();
  issue->add_flag("--unlimited-tokens", i.unlimited_tokens)->excludes(tokens);
  issue->add_option("--concurrent-requests", i.concurrent_requests)->capture_default_str();
  issue
      ->add_option("--client-public-key", i.client_public_key,
                   "Only the client with this key may use it, as `talaria key init` printed it; "
                   "otherwise whoever holds the token")
      ->type_name("FILE");
  issue->footer(
      "Example:\n  talaria tenant issue --key tenant.pem --user alice --days 90 > alice.token");
  CLI::App* revoke = group->add_subcommand(
      "revoke", "Add tokens to the list of revoked ones, with a version higher by one");
  revoke->add_option("--key", args.revoke.key, "The tenant's key")->required()->type_name("FILE");
  revoke->add_option("--list", args.revoke.list, "The list; made if it is not there")
      ->required()
      ->type_name("FILE");
  revoke->add_option("ids", args.revoke.ids, "Ids of tokens, as `issue` said them")->required();
  revoke->footer("Example:\n  talaria tenant revoke --key tenant.pem --list revoked.json ID");
}

Status CheckPeer(const PeerArguments& peer) {
  if (peer.url.empty()) {
    return Status(Code::kInvalidArgument,
                  "which CVM? Give its URL, TALARIA_URL or `url` in the settings file");
  }
  if (peer.policy.empty())
    return Status(Code::kInvalidArgument, "whom to believe? Give --policy FILE");
  return OkStatus();
}

Status RunPeerCommand(CLI::App& program, CLI::App& command, Arguments& args) {
  const std::string& name = command.get_name();
  if (!args.config.empty()) {
    TALARIA_RETURN_IF_ERROR(ApplySettingsFile(args.config, program, command, {kInsecure}));
  }
  TALARIA_RETURN_IF_ERROR(CheckPeer(args.peer));
  if (name == "proxy" && args.proxy.listen.empty()) {
    return Status(Code::kInvalidArgument,
                  "where to listen? Give --listen 127.0.0.1:PORT or --listen unix:PATH");
  }
  if (command.count("--check-config") > 0) {
    std::printf("%s", EffectiveSettings(command).c_str());
    return OkStatus();
  }
  if (name == "verify") return RunVerify(args.peer, args.json, args.save_claim);
  if (name == "chat") return RunChat(args.peer, args.chat);
  args.proxy.wait_ms = args.wait_s * 1000;
  return RunProxy(args.peer, args.proxy);
}

Status RunReceipt(const CLI::App& command, const Arguments& args) {
  if (command.get_name() == "verify") {
    if (args.peer.policy.empty())
      return Status(Code::kInvalidArgument, "whom to believe? Give --policy FILE");
    return RunReceiptVerify(args.peer, args.path, args.json);
  }
  TALARIA_RETURN_IF_ERROR(CheckPeer(args.peer));
  if (command.count("--check-config") > 0) {
    std::printf("%s", EffectiveSettings(command).c_str());
    return OkStatus();
  }
  return RunReceiptGet(args.peer, args.receipt);
}

Status Run(CLI::App& program, Arguments& args) {
  CLI::App& command = *program.get_subcommands().at(0);
  const std::string& name = command.get_name();
  if (name == "verify" || name == "proxy" || name == "chat")
    return RunPeerCommand(program, command, args);
  if (name == "receipt") return RunReceipt(*command.get_subcommands().at(0), args);
  const std::string verb = command.get_subcommands().at(0)->get_name();
  if (name == "image") return RunImageMeasure(args.path);
  if (name == "collateral") {
    return verb == "show" ? RunCollateralShow(args.collateral.folder)
                          : RunCollateralFetch(args.collateral);
  }
  if (name == "release") {
    if (verb == "keygen") return RunReleaseKeygen(args.release.file);
    return verb == "sign" ? RunReleaseSign(args.release) : RunReleaseVerify(args.release);
  }
  if (name == "key") return RunKeyInit(args.path);
  if (name == "policy") {
    if (verb == "check") return RunPolicyCheck(args.path);
    if (verb == "explain") return RunPolicyExplain(args.path);
    return RunPolicyInit(args.policy);
  }
  if (verb == "init") return RunTenantInit(args.path);
  return verb == "issue" ? RunTenantIssue(args.issue) : RunTenantRevoke(args.revoke);
}

int Main(int argc, char** argv) {
  SetLog("talaria", LogLevel::kInfo);
  Arguments args;
  CLI::App program(
      "The user's half of Talaria: verifies a confidential VM before anything is sent to it.",
      "talaria");
  program.require_subcommand(1);
  program.set_version_flag("--version", kVersion, "Print the version and stop");
  program
      .add_option("--config", args.config,
                  "Settings of verify, proxy and chat, a TOML file with one table per command; "
                  "flags and TALARIA_* variables go first")
      ->envname("TALARIA_CONFIG")
      ->type_name("FILE");
  program.footer(kExitCodes);
  AddVerify(program, args);
  AddProxy(program, args);
  AddChat(program, args);
  AddReceipt(program, args);
  AddPolicy(program, args);
  AddCollateral(program, args.collateral);
  AddRelease(program, args.release);
  AddTools(program, args);
  AddTenant(program, args);
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
