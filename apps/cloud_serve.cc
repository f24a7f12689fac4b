#include <signal.h>

#include <unistd.h>

#include <chrono>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "apps/cloud_commands.h"
#include "talaria/attest/policy_file.h"
#include "talaria/base/bytes.h"
#include "talaria/base/log.h"
#ifdef TALARIA_SIMULATED_TEE
#include "talaria/attest/simulated/simulated_attester.h"
#endif

namespace talaria {
namespace {

Result<std::shared_ptr<cloud::Gate>> MakeGate(const ServeSecurity& security) {
  TALARIA_ASSIGN_OR_RETURN(wire::TlsKey key, wire::TlsKey::FromPemFile(security.key));
  TALARIA_ASSIGN_OR_RETURN(attest::Policy policy, attest::LoadPolicy(security.policy));
  attest::VerifierOptions verifier{.policy = std::move(policy), .collateral = {}, .simulated = {}};
  if (!security.collateral.empty()) {
    TALARIA_ASSIGN_OR_RETURN(verifier.collateral, attest::LoadCollateral(security.collateral));
  }
#ifdef TALARIA_SIMULATED_TEE
  if (security.simulated_tee)
    verifier.simulated = attest::SimulatedTrust{attest::SimulatedRoots(), attest::SimulatedCrl()};
#endif
  TALARIA_ASSIGN_OR_RETURN(attest::Verifier judge, attest::Verifier::Create(std::move(verifier)));
  LogInfo("CVMs pin this key: " + ToHex(key.spki_sha256()));
  return std::make_shared<cloud::Gate>(
      cloud::GateOptions{.key = std::move(key),
                         .verifier = std::move(judge),
                         .now = [] { return static_cast<attest::UnixTime>(std::time(nullptr)); },
                         .steady_now = [] { return std::chrono::steady_clock::now(); }});
}

}  // namespace

Status RunKey(const std::string& path, bool json) {
  if (access(path.c_str(), F_OK) != 0) {
    TALARIA_ASSIGN_OR_RETURN(const wire::TlsKey key, wire::TlsKey::Generate());
    TALARIA_RETURN_IF_ERROR(key.ToPemFile(path));
    LogInfo("made a new key: " + path);
  }
  TALARIA_ASSIGN_OR_RETURN(const wire::TlsKey key, wire::TlsKey::FromPemFile(path));
  const std::string pin = ToHex(key.spki_sha256());
  if (json) {
    std::printf("%s\n", nlohmann::json{{"provider_key", pin}}.dump().c_str());
  } else {
    std::printf("provider_key = \"%s\"\n", pin.c_str());
  }
  return OkStatus();
}

Status RunServe(cloud::ServerOptions options, const ServeSecurity& security) {
  options.insecure_plaintext = security.plaintext;
  options.local_only = security.simulated_tee;
  if (!security.plaintext) {
    TALARIA_ASSIGN_OR_RETURN(options.gate, MakeGate(security));
  }
  if (security.simulated_tee) {
    LogWarning(
        "INSECURE: --insecure-simulated-tee is set: evidence of the simulated TEE counts, and "
        "anybody can make that. Whoever reaches " +
        options.listen + " can take the weights.");
  }
  // Signals are taken by one thread, so that Stop() runs outside of a handler. Blocked before any
  // thread is started.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGUSR1);  // ends the waiting thread when Run() ends by itself
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  TALARIA_ASSIGN_OR_RETURN(const std::unique_ptr<cloud::Server> server,
                           cloud::Server::Create(options));
  std::thread waiter([&] {
    int signal = 0;
    sigwait(&signals, &signal);
    if (signal != SIGUSR1) LogInfo("stopping");
    server->Stop();
  });
  LogInfo("serving " + options.store + " at " + server->address());
  const Status status = server->Run();
  pthread_kill(waiter.native_handle(), SIGUSR1);
  waiter.join();
  return status;
}

}  // namespace talaria
