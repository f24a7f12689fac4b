#include "apps/client_commands.h"

#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>

#include <cstdio>
#include <ctime>
#include <thread>
#include <utility>

#include "talaria/attest/policy_file.h"
#include "talaria/base/file.h"
#include "talaria/base/log.h"
#include "talaria/client/verdict_text.h"
#ifdef TALARIA_SIMULATED_TEE
#include "talaria/attest/simulated/simulated_attester.h"
#endif

namespace talaria {
namespace {

constexpr int kVerifyTimeoutMs = 120'000;
constexpr size_t kMaxTokenFileBytes = 4096;

Status Simulated(attest::VerifierOptions& options) {
#ifdef TALARIA_SIMULATED_TEE
  options.simulated = attest::SimulatedTrust{attest::SimulatedRoots(), attest::SimulatedCrl()};
  LogWarning("--insecure-simulated-tee: evidence that anybody can make is accepted");
  return OkStatus();
#else
  (void)options;
  return Status(Code::kUnsupported, "this program was built without the simulated TEE");
#endif
}

void Print(const std::string& text) { std::fputs(text.c_str(), stdout); }

}  // namespace

Result<attest::Verifier> MakeVerifier(const PeerArguments& arguments) {
  TALARIA_ASSIGN_OR_RETURN(attest::Policy policy, attest::LoadPolicy(arguments.policy));
  attest::VerifierOptions trust{.policy = std::move(policy), .collateral = {}, .simulated = {}};
  if (!arguments.collateral.empty()) {
    TALARIA_ASSIGN_OR_RETURN(trust.collateral, attest::LoadCollateral(arguments.collateral));
  }
  if (arguments.insecure_simulated_tee) TALARIA_RETURN_IF_ERROR(Simulated(trust));
  return attest::Verifier::Create(std::move(trust));
}

Result<std::unique_ptr<client::AttestedPeer>> MakePeer(const PeerArguments& arguments) {
  client::PeerOptions options;
  TALARIA_ASSIGN_OR_RETURN(options.server.endpoint, client::ParseServer(arguments.url));
  options.max_age_s = arguments.max_age_s;
  options.attest_every_connection = !arguments.receipts.empty();
  options.now = [] { return static_cast<attest::UnixTime>(std::time(nullptr)); };

  TALARIA_ASSIGN_OR_RETURN(attest::Verifier verifier, MakeVerifier(arguments));
  TALARIA_ASSIGN_OR_RETURN(wire::TlsKey key, arguments.client_key.empty()
                                                 ? wire::TlsKey::Generate()
                                                 : wire::TlsKey::FromPemFile(arguments.client_key));
  return std::make_unique<client::AttestedPeer>(std::move(options), std::move(verifier),
                                                std::move(key));
}

Result<std::string> ReadToken(const std::string& path) {
  if (path.empty()) return std::string();
  struct stat info {};
  if (stat(path.c_str(), &info) == 0 && (info.st_mode & 077) != 0)
    LogWarning(path + ": others than its owner can use the token in it (chmod 600)");
  TALARIA_ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes, ReadFile(path, kMaxTokenFileBytes));
  std::string token(bytes.begin(), bytes.end());
  while (token.ends_with('\n') || token.ends_with('\r')) token.pop_back();
  if (token.empty()) return Status(Code::kInvalidArgument, path + ": there is no token in it");
  return token;
}

Status RunVerify(const PeerArguments& arguments, bool json, const std::string& save_claim) {
  TALARIA_ASSIGN_OR_RETURN(const auto peer, MakePeer(arguments));
  const auto connection = peer->Connect(client::After(kVerifyTimeoutMs));
  if (!connection.ok()) {
    if (json) {
      Print(client::RefusalJson(connection.status(), arguments.url) + "\n");
    } else {
      Print(client::RefusalText(connection.status(), arguments.url));
    }
    return connection.status();
  }
  const client::Attested& attested = *(*connection)->attested();
  if (json) {
    Print(client::VerdictJson(attested, arguments.url) + "\n");
  } else {
    Print(client::VerdictText(attested, arguments.url));
  }
  if (client::IsDevelopment(attested)) LogWarning(client::kDevelopmentWarning);
  if (!save_claim.empty()) {
    TALARIA_ASSIGN_OR_RETURN(const Fd file, CreateFile(save_claim));
    TALARIA_RETURN_IF_ERROR(WriteAt(file, 0, attest::Encode(attested.claim)));
  }
  return OkStatus();
}

Status RunProxy(const PeerArguments& arguments, client::ProxyOptions options) {
  // Signals are taken by one thread, so that Stop() runs outside of a handler. Blocked before any
  // thread is started.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGUSR1);  // ends the waiting thread when the work ends by itself
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a file at its limit is an error of its write

  TALARIA_ASSIGN_OR_RETURN(const auto peer, MakePeer(arguments));
  options.server = arguments.url;
  options.receipts = arguments.receipts;
  TALARIA_ASSIGN_OR_RETURN(options.token, ReadToken(arguments.token_file));
  TALARIA_ASSIGN_OR_RETURN(const auto proxy, client::Proxy::Create(std::move(options), *peer));
  std::thread waiter([&] {
    int signal = 0;
    sigwait(&signals, &signal);
    if (signal != SIGUSR1) LogInfo("stopping");
    proxy->Stop();
  });
  // A CVM that is there and is not the user's is told at once; one that is not there is waited for.
  Status status = peer->Verify(client::After(kVerifyTimeoutMs));
  if (status.code() != Code::kUntrusted) {
    LogInfo("listening at " + proxy->address() + " for " + arguments.url);
    status = proxy->Run();
  }
  pthread_kill(waiter.native_handle(), SIGUSR1);
  waiter.join();
  return status;
}

}  // namespace talaria
